"""`mlxtune cache`: what is kept to save work, and clearing it."""

import json

import pytest
from click.testing import CliRunner

from mlxtune.cache import cache_folder
from mlxtune.cli import main


def run(*arguments: str):
    return CliRunner().invoke(main, arguments)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path))
    (cache_folder("scores") / "one.json").write_bytes(bytes(1000))
    (cache_folder("models", "tiny") / "config.json").write_bytes(bytes(2000))
    return tmp_path


def test_list_says_what_is_there_and_how_much(cache):
    found = json.loads(run("cache", "list", "--json").stdout)
    assert (found["folder"], found["size_bytes"]) == (str(cache), 3000)
    assert {(entry["kind"], entry["size_bytes"]) for entry in found["entries"]} == {("scores", 1000), ("models", 2000)}
    assert "tiny" in run("cache", "list").stdout


def test_clear_removes_one_kind_or_all(cache):
    assert json.loads(run("cache", "clear", "scores", "--json").stdout) == {"entries": 1, "freed_bytes": 1000}
    assert (cache / "models" / "tiny" / "config.json").exists()
    assert "removed 1 entries" in run("cache", "clear").stdout
    assert not (cache / "models" / "tiny").exists()


def test_a_kind_that_does_not_exist_is_refused_and_nothing_is_removed(cache):
    assert run("cache", "clear", "everything").exit_code == 2
    assert (cache / "scores" / "one.json").exists()
