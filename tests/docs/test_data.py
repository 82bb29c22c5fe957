"""The commands of docs/data.md print what the page says, on the files that the page has."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlxtune.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w*\n(.*?)```", PAGE, re.DOTALL))
TRANSCRIPTS = re.findall(r"```console\n\$ mlxtune ([^\n]*)\n(.*?)```", PAGE, re.DOTALL)
FINDS_PROBLEMS = "data validate broken.jsonl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One place for the whole page: each command goes on from what those before it wrote."""
    folder = tmp_path_factory.mktemp("page")
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_page_shows_every_step():
    verbs = [shlex.split(command)[1] for command, _ in TRANSCRIPTS]
    assert verbs == ["split", "validate", "validate", "inspect", "stats"]


@pytest.mark.parametrize(("command", "shown"), TRANSCRIPTS, ids=[command for command, _ in TRANSCRIPTS])
def test_a_command_prints_what_the_page_shows(folder, monkeypatch, command, shown):
    monkeypatch.chdir(folder)
    if command.startswith("data split"):
        command += " --force"
    result = CliRunner().invoke(main, [*shlex.split(command), "--device", "cpu"])
    assert result.exit_code == (3 if command == FINDS_PROBLEMS else 0), result.output
    printed = result.stdout.replace(f"{folder}/", "")
    assert [line.rstrip() for line in printed.rstrip().split("\n")] == shown.rstrip().split("\n")
