"""The commands of docs/in-and-out.md run, on a tiny model and run in the place of those that it names."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlxtune.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "in-and-out.md").read_text(encoding="utf-8")
COMMANDS = [
    re.split(r"\s{2,}", line.strip())[0]
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
EXTRA = {
    "fuse runs/first fused/small --requantize": ["--bits", "8", "--accept-loss"],  # the tiny base has no bits to keep
    "train": ["training.max_steps=1", "data.valid=null", "data.test=null", "--run-dir", "runs/next"],
    "generate": ["--max-tokens", "2"],
}


@pytest.fixture
def place(tiny_run, tmp_path, monkeypatch):
    """A working folder in which everything that the page names is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_run, "runs/first")
    shutil.copytree(tiny_run / "adapter", "their-adapter")
    shutil.copytree(tiny_run.parent / "model", "smollm2-135m-instruct")
    shutil.copytree(tiny_run.parent, "my-recipe", ignore=shutil.ignore_patterns("run"))
    shutil.copyfile(tiny_run.parent / "valid.jsonl", "mine.jsonl")
    return tmp_path


def test_the_page_has_commands_in_and_out():
    assert {shlex.split(command)[1] for command in COMMANDS} == {"generate", "fuse", "train", "export"}
    assert len(COMMANDS) == 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(place, command):
    program, *arguments = shlex.split(command)
    assert program == "mlxtune"
    extra = EXTRA.get(arguments[0], []) or EXTRA.get(" ".join(arguments), [])
    result = CliRunner().invoke(main, [*arguments, *extra, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert result.stdout
