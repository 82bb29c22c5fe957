"""`mlxtune cache`: what is kept to save work, and clearing it."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import mlxtune
from mlxtune.cache import KINDS, cache_folder, entries
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


def test_list_says_what_a_kind_is_and_whether_it_holds_private_data(cache):
    (cache / "of_old").mkdir()
    (cache / "of_old" / "x").touch()
    found = json.loads(run("cache", "list", "--json").stdout)
    private = {entry["kind"]: entry["private"] for entry in found["entries"]}
    assert private == {"scores": True, "models": False, "of_old": True}  # what is not known might hold anything
    shown = run("cache", "list").stdout
    for kind in ("scores", "models"):
        assert KINDS[kind].what in shown


def test_private_data_is_forgotten_and_models_stay(cache):
    (cache / "of_old").mkdir()
    (cache / "of_old" / "x").touch()
    assert json.loads(run("cache", "clear", "--private", "--json").stdout)["entries"] == 2
    assert [entry.kind for entry in entries()] == ["models"]


def test_a_kind_and_private_together_are_refused(cache):
    result = run("cache", "clear", "models", "--private")
    assert result.exit_code == 2
    assert len(entries()) == 2


def test_every_kind_that_is_kept_is_known_here(cache):
    used = set()
    for path in Path(mlxtune.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "cache_folder(" in text and path.name != "cache.py":
            used |= set(re.findall(r'cache_folder\("(\w+)"', text))
            for name in re.findall(r"cache_folder\(([A-Z]+)", text):
                used |= set(re.findall(rf'^{name}\b.*? = "(\w+)"', text, re.MULTILINE))
    assert used == KINDS.keys()


def test_a_kind_that_does_not_exist_is_refused_and_nothing_is_removed(cache):
    assert run("cache", "clear", "everything").exit_code == 2
    assert (cache / "scores" / "one.json").exists()
