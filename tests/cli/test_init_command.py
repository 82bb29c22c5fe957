"""``mlxtune init``."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import tiny_model_folder

from mlxtune.cli import init, main


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """All five answers, as options."""
    model = tiny_model_folder(tmp_path / "model", layers=2, hidden=32, heads=2, kv_heads=1)
    rows = [
        {"text": f"the {word} is here", "label": word[0]} for word in ("ant", "bee", "asp", "bug", "auk", "bat") * 4
    ]
    lines = [json.dumps({**row, "text": f"{row['text']} {number * 7919}"}) for number, row in enumerate(rows)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return [
        "--task",
        "classify",
        "--data",
        f"{tmp_path}/rows.jsonl",
        "--model",
        str(model),
        "--minutes",
        "2",
        "--memory",
        "0",
    ]


def run(*arguments: str | Path, typed: str | None = None):
    return CliRunner().invoke(main, ["--device", "cpu", "init", *map(str, arguments)], input=typed)


def test_options_answer_every_question(tmp_path: Path, given: list[str]):
    result = run(tmp_path / "mine", *given, "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert Path(told["recipe"]).is_file()
    assert told["plan"]["fits"] is True
    assert "label" in told["form"]


def test_without_a_terminal_the_missing_options_are_named(tmp_path: Path, given: list[str]):
    result = run(tmp_path / "mine", *given[:2])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--data, --model, --minutes, --memory are not given" in result.stderr
    assert not (tmp_path / "mine").exists()


def test_a_person_is_asked_what_is_not_given(tmp_path: Path, given: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(init, "at_a_terminal", lambda: True)
    result = run(tmp_path / "mine", *given[2:6], typed="classify\n2\n\n")
    assert result.exit_code == 0, result.stderr
    assert "What is the model to do?" in result.stderr
    assert f"wrote {tmp_path / 'mine/recipe.yaml'}" in result.stdout


def test_a_folder_that_is_taken_is_refused_before_anything_is_asked(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "--force" in result.stderr
