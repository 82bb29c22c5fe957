"""Whatever mlxtune writes is its owner's alone, under the laxest umask, while it is written as well as after."""

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import tiny_recipe

from mlxtune.cache import KINDS, cache_folder
from mlxtune.cli import main
from mlxtune.files import SHARED, new_file, new_files, new_folder, write_text


@pytest.fixture(autouse=True)
def lax():
    """Everybody may read and write whatever does not say otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def exposed(root: Path) -> set[str]:
    """What is below ``root`` and others could open: no folder on the way, nor the file's own mode, keeps them out."""
    found = set()
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if mode(Path(parent) / name) & 0o077]
        found |= {str((Path(parent) / name).relative_to(root)) for name in files if mode(Path(parent) / name) & 0o077}
    return found


def test_a_file_is_its_owners_alone_from_the_first_byte_on(tmp_path):
    with new_file(tmp_path / "one") as part:
        assert mode(part) == 0o600
        part.write_bytes(b"private")
    with new_files([tmp_path / "two"]) as parts:
        assert mode(parts[tmp_path / "two"]) == 0o600
    with new_folder(tmp_path / "folder") as part:
        assert mode(part) == 0o700
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == {"one": 0o600, "two": 0o600, "folder": 0o700}


def test_a_file_that_was_open_to_others_is_replaced_by_one_that_is_not(tmp_path):
    (tmp_path / "rows").write_text("old")
    with new_file(tmp_path / "rows", force=True) as part:
        part.write_text("new")
    assert mode(tmp_path / "rows") == 0o600


def test_what_other_programs_share_is_as_the_umask_says(tmp_path):
    write_text(tmp_path / "ref", "commit", mode=SHARED)
    assert mode(tmp_path / "ref") == 0o666


def test_the_cache_keeps_others_out_also_below_a_folder_that_was_open(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "open"))
    (tmp_path / "open").mkdir(mode=0o777)
    for kind in KINDS:
        cache_folder(kind, "deep").joinpath("entry").touch()
        assert mode(tmp_path / "open" / kind) == mode(tmp_path / "open" / kind / "deep") == 0o700
    assert exposed(tmp_path) == set()


def test_what_commands_write_is_seen_by_nobody_else(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    recipe = str(tiny_recipe(tmp_path))
    (tmp_path / "mail.jsonl").write_text(json.dumps({"text": "write to ann@example.org"}) + "\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    before = exposed(tmp_path)
    commands = [
        f"train {recipe} training.max_steps=2 --run-dir run",
        "fuse run fused",
        "export gguf run out/run.gguf",
        "export peft run peft",
        "export ollama run ollama",
        "data split train.jsonl --out split",
        "data split train.jsonl --out taken --force",
        "data scan mail.jsonl --redact copy/mail.jsonl",
        f"data inspect {recipe} --html page.html",
    ]

    for command in commands:
        result = CliRunner().invoke(main, [*command.split(), "--device", "cpu"])
        assert result.exit_code in (0, 3), f"{command}\n{result.output}"

    assert exposed(tmp_path) == before
    made = ("run", "fused", "out/run.gguf", "peft", "ollama", "split/train.jsonl", "taken/train.jsonl")
    for name in (*made, "copy/mail.jsonl", "page.html", "cache/scores"):
        assert (tmp_path / name).exists()
    assert mode(tmp_path / "run") == 0o700
