"""What docs/privacy.md says is so: its commands run, and a run's files hold of the rows what the page says."""

import gzip
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import tiny_tokenizer

from mlxtune.cache import KINDS, cache_folder, entries
from mlxtune.cli import main
from mlxtune.data.dataset import load_rendered
from mlxtune.data.store.token_store import open_store
from mlxtune.offline import HUB_SILENT, OBEYED, PROXIES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")
COMMANDS = [
    re.split(r"\s{2,}", line.strip())[0]
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
FOUND = 3


@pytest.fixture
def place(tiny_run, tmp_path, monkeypatch):
    """A working folder, and a cache, in which everything that the page names is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLXTUNE_OFFLINE", raising=False)
    for kind in KINDS:
        (cache_folder(kind) / "one").touch()
    shutil.copytree(tiny_run.parent, "my-recipe", ignore=shutil.ignore_patterns("run"))
    (tmp_path / "mine.jsonl").write_text(json.dumps({"text": "write to ann@example.org"}) + "\n")
    return tmp_path


def test_the_page_has_commands_for_each_of_its_subjects():
    assert {" ".join(shlex.split(command)[1:3]) for command in COMMANDS} >= {"cache list", "cache clear", "data scan"}
    assert len(COMMANDS) == 9


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(place, command):
    program, *arguments = shlex.split(command)
    assert program == "mlxtune"
    extra = ["training.max_steps=1", "data.test=null"] if arguments[0] == "train" else []
    result = CliRunner().invoke(main, [*arguments, *extra, "--device", "cpu"])
    assert result.exit_code in ((0, FOUND) if arguments[0] == "data" else (0,)), result.output
    kept = {entry.kind for entry in entries()}
    if arguments[:2] == ["cache", "clear"]:
        gone = {"--private": {name for name, kind in KINDS.items() if kind.is_private}, "tokens": {"tokens"}}
        assert KINDS.keys() - kept == gone.get(arguments[-1], KINDS.keys())


def test_every_kind_of_the_cache_is_told():
    for kind, about in KINDS.items():
        (row,) = [line for line in PAGE.splitlines() if line.startswith("| mlxtune's cache") and f"`{kind}`" in line]
        assert row.split("|")[3].strip().startswith("yes" if about.is_private else "no")


def test_the_variables_that_the_page_names_are_set():
    named = set(re.findall(r"`(\w+)`", PAGE.partition("child processes obey**:")[2].partition("- ")[0]))
    assert named <= OBEYED.keys()
    rest = {*PROXIES, "no_proxy", "NO_PROXY", *HUB_SILENT, "DO_NOT_TRACK", "AWS_EC2_METADATA_DISABLED"}
    assert OBEYED.keys() - named <= rest


def test_the_rows_words_are_in_the_files_of_a_run_that_the_page_names_and_in_no_other(tiny_run):
    """In tiny's rows users whisper, the system message is `Secretly.`, answers have a field ``said``."""

    def holding(words: bytes) -> set[str]:
        files = [path for path in tiny_run.rglob("*") if path.is_file()]
        contents = {
            path: gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in files
        }
        return {str(path.relative_to(tiny_run)) for path, content in contents.items() if words in content}

    assert holding(b"Whisper") == {"samples.jsonl", "data.json", "report.html"}  # what test rows and shown rows ask
    assert holding(b"Secretly.") == {"adapter/mlxtune.json", "data.json", "report.html"}
    assert holding(b"test 1") == {"samples.jsonl", "report.html"}  # what they ask, and the right answers
    assert holding(b"train 0") == {"data.json", "report.html"}  # the first training row
    assert holding(b"train 3") == holding(b"valid 1") == set()
    assert holding(b"said") == {
        *("samples.jsonl", "scores.json", "row_scores.json.gz", "README.md"),
        *("data.json", "report.html"),
    }
    written = {path.relative_to(tiny_run).parts[0] for path in tiny_run.rglob("*") if path.is_file()}
    for name in written - {".lock"}:  # which holds a process's number
        assert f"`{name}" in PAGE


def test_ids_in_the_cache_turn_back_into_text(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    rows = [{"prompt": f"ask {number}", "completion": "my secret"} for number in range(100)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = tiny_tokenizer(tmp_path)
    load_rendered(tmp_path / "rows.jsonl", tokenizer, max_seq_length=200, tokenizer_folder=tmp_path)
    (entry,) = entries("tokens")
    assert entry.is_private
    store = open_store(entry.path)
    assert store is not None
    assert "my secret" in tokenizer.decode(store.read(0, "rows.jsonl:1").token_ids.tolist())
