"""What is installed is whole: the packaged recipes with their data come along, and the command finds them."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
RECIPES = CHECKOUT / "recipes"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", folder, wheel], check=True)
    return folder


def test_every_file_of_a_recipe_is_in_the_wheel(wheel):
    files = [file for file in RECIPES.rglob("*") if file.is_file()]
    assert {"recipe.yaml", "README.md", "train.jsonl", "valid.jsonl", "test.jsonl"} <= {file.name for file in files}
    with zipfile.ZipFile(wheel) as archive:
        for file in files:
            packed = archive.read(f"mlxtune/packaged_recipes/{file.relative_to(RECIPES).as_posix()}")
            assert packed == file.read_bytes(), file


def test_an_installed_command_lists_the_recipes_of_its_own_installation(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [installed / "bin" / "mlxtune", "recipes", "list", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    (path,) = [Path(one["path"]) for one in json.loads(done.stdout)["recipes"] if one["name"] == "support-triage"]
    assert path.is_relative_to(installed)
    assert (path.parent / "data" / "train.jsonl").is_file()
