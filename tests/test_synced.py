"""A folder that is copied to other computers is recognized, by the home that is handed in; others are not.

How iCloud, OneDrive and Google Drive lay out a Mac's home is made here as published, not as seen on one.
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import tiny_recipe

from mlxtune.cli import main
from mlxtune.iteration.run import run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.synced import find_synced, warning_of_synced

ICLOUD = "Library/Mobile Documents/com~apple~CloudDocs"


def folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("synced", "service"),
    [
        (ICLOUD, "iCloud"),
        ("Library/CloudStorage/OneDrive-Personal", "OneDrive"),
        ("Library/CloudStorage/GoogleDrive-me@example.org", "Google Drive"),
        ("Library/CloudStorage/Box-Box", "Box"),
        ("Dropbox (Personal)", "Dropbox"),
        ("OneDrive - A Company", "OneDrive"),
        ("Google Drive", "Google Drive"),
    ],
)
def test_what_lies_where_services_put_their_folders_is_synced_also_before_it_is_made(tmp_path, synced, service):
    folder(tmp_path / synced)
    found = find_synced(tmp_path / synced / "deep" / "runs", home=tmp_path)
    assert found is not None
    assert found.service == service


@pytest.mark.parametrize("name", ["Desktop", "Documents"])
def test_desktop_and_documents_are_synced_where_icloud_has_them(tmp_path, name):
    folder(tmp_path / name)
    assert find_synced(tmp_path / name / "run", home=tmp_path) is None
    (folder(tmp_path / ICLOUD) / name).symlink_to(tmp_path / name)
    found = find_synced(tmp_path / name / "run", home=tmp_path)
    assert found is not None
    assert found.service == "iCloud"


def test_dropbox_says_itself_where_its_folders_are(tmp_path):
    elsewhere = folder(tmp_path / "disk" / "boxes")
    info = {"personal": {"path": str(elsewhere)}, "business": {"path": 3}, "odd": None}
    (folder(tmp_path / "home" / ".dropbox") / "info.json").write_text(json.dumps(info))
    found = find_synced(elsewhere / "run", home=tmp_path / "home")
    assert found is not None
    assert (found.service, found.folder) == ("Dropbox", elsewhere)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"personal": {"path": ""}}', '"text"', "\udcff"])
def test_what_dropbox_wrote_and_nobody_can_read_is_passed_over(tmp_path, content):
    (folder(tmp_path / ".dropbox") / "info.json").write_text(content, errors="surrogateescape")
    assert find_synced(tmp_path / "runs", home=tmp_path) is None


def test_links_are_followed_in_both_ways(tmp_path):
    folder(tmp_path / "Dropbox" / "runs")
    (tmp_path / "work").symlink_to(tmp_path / "Dropbox" / "runs")
    assert find_synced(tmp_path / "work" / "run", home=tmp_path) is not None
    (tmp_path / "Dropbox" / "link").symlink_to(folder(tmp_path / "elsewhere"))  # some services follow links, too
    assert find_synced(tmp_path / "Dropbox" / "link" / "run", home=tmp_path) is not None


@pytest.mark.parametrize("name", ["runs", "Dropbo", "My OneDrive", "Documents/runs", "Library/Caches"])
def test_other_folders_are_not(tmp_path, name):
    for synced in ("Dropbox", "OneDrive", ICLOUD, "Library/CloudStorage/Box-Box"):
        folder(tmp_path / synced)
    folder(tmp_path / name)
    assert find_synced(tmp_path / name, home=tmp_path) is None
    assert find_synced(tmp_path, home=tmp_path) is None


def test_a_file_of_the_name_is_no_folder(tmp_path):
    (tmp_path / "Dropbox").touch()
    assert warning_of_synced(tmp_path / "Dropbox", home=tmp_path) is None


def test_a_run_in_a_synced_folder_draws_a_warning_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    place = folder(tmp_path / "Dropbox")
    warned = []
    recipe = tiny_recipe(tmp_path)
    settings = {"device": "cpu", "score": False, "watch": Watch(warned=warned.append)}
    run = run_recipe(recipe, ["training.max_steps=1"], run_dir=place / "run", **settings)
    (warning,) = warned
    assert str(place) in warning
    assert "Dropbox" in warning
    assert run.run_dir == place / "run"

    warned.clear()
    monkeypatch.chdir(place)
    run_recipe(recipe, ["training.max_steps=1"], **settings)  # below runs/, where one works
    assert len(warned) == 1


def test_rows_that_are_split_or_redacted_into_one_do_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    place = folder(tmp_path / "OneDrive")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"row {number}"}) + "\n" for number in range(20)))
    rows = str(tmp_path / "rows.jsonl")
    split = CliRunner().invoke(main, ["data", "split", rows, "--out", str(place / "split")])
    scan = CliRunner().invoke(main, ["data", "scan", rows, "--redact", str(place / "copy.jsonl")])
    for result in (split, scan):
        assert result.exit_code == 0, result.output
        assert "OneDrive" in result.stderr
