"""The commands of docs/evaluation.md train, score and print what the page says, on the files that the page has."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlxtune.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w*\n(.*?)```", PAGE, re.DOTALL))
RUN = re.findall(r"<!-- run -->\n```\nmlxtune ([^\n]*)\n```", PAGE)
TRANSCRIPTS = re.findall(r"```console\n\$ mlxtune ([^\n]*)\n(.*?)```", PAGE, re.DOTALL)
SNIPPET = re.search(r"<!-- python -->\n```python\n(?P<code>.*?)```\n\n```\n(?P<shown>.*?)```", PAGE, re.DOTALL)

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
SPEED_AND_MEMORY = re.compile(r"(MB +)\S+ [MG]B +\S+$")
ROW = 100 / 18
"""Points that one test row counts."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One place for the whole page, with the run that it trains."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in RUN:
            result = CliRunner().invoke(main, [*shlex.split(command), "--device", "cpu"])
            assert result.exit_code == 0, result.output
    return folder


def test_the_page_has_its_files_its_run_and_its_transcripts():
    assert list(FILES) == ["train.csv", "test.csv", "triage.yaml"]
    assert [shlex.split(command)[0] for command in (*RUN, *(command for command, _ in TRANSCRIPTS))] == [
        "train",
        "evaluate",
        "evaluate",
    ]
    assert SNIPPET is not None


@pytest.mark.parametrize(("command", "shown"), TRANSCRIPTS, ids=[command for command, _ in TRANSCRIPTS])
def test_a_command_prints_what_the_page_shows(folder, monkeypatch, command, shown):
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, [*shlex.split(command), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert_alike(result.stdout, shown)


def test_the_parts_are_those_that_the_page_shows(folder):
    done = subprocess.run(
        [sys.executable, "-c", SNIPPET["code"]], cwd=folder, capture_output=True, text=True, check=True
    )
    assert_alike(done.stdout, SNIPPET["shown"])


def assert_alike(printed: str, shown: str) -> None:
    """The same words, and figures as near as another processor's rounding lets them be: a row more or less right."""
    ours, theirs = (
        [SPEED_AND_MEMORY.sub(r"\1", line.rstrip()) for line in text.rstrip().split("\n")] for text in (printed, shown)
    )
    assert [words(line) for line in ours] == [words(line) for line in theirs]
    for one, other in zip(ours, theirs, strict=True):
        near = ROW if "%" in one else 0.05
        figures = [[float(number) for number in NUMBER.findall(line)] for line in (one, other)]
        assert figures[0] == pytest.approx(figures[1], rel=0.05, abs=near), f"{one}\n{other}"


def words(line: str) -> str:
    return re.sub(r"[\s─]+", " ", NUMBER.sub("#", line))
