"""Where the cache is, and whom it lets in."""

import os
import stat
from pathlib import Path

import pytest

from mlxtune.cache import cache_folder, entries, forget, make_room
from mlxtune.errors import DeviceError


def test_the_cache_is_where_the_variable_says_and_its_owners_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLXTUNE_CACHE", "some/place")
    assert cache_folder("models", "one") == tmp_path / "some" / "place" / "models" / "one"
    assert stat.S_IMODE((tmp_path / "some" / "place").stat().st_mode) == 0o700


def test_else_it_is_where_the_platform_keeps_caches(tmp_path, monkeypatch):
    monkeypatch.delenv("MLXTUNE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    for system, xdg, place in (
        ("darwin", None, "Library/Caches/mlxtune"),
        ("linux", None, ".cache/mlxtune"),
        ("linux", str(tmp_path / "xdg"), "xdg/mlxtune"),
    ):
        monkeypatch.setattr("sys.platform", system)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if xdg:
            monkeypatch.setenv("XDG_CACHE_HOME", xdg)
        assert cache_folder() == tmp_path / place


def test_a_cache_that_cannot_be_made_is_an_error_with_a_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(DeviceError, match="Not a directory") as caught:
        cache_folder()
    assert "MLXTUNE_CACHE" in (caught.value.remedy or "")
    assert Path(caught.value.where or "").is_relative_to(tmp_path / "file")


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """Three kinds; of ``states`` three entries, the first the oldest though it sorts last."""
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path))
    for age, (kind, name, size) in enumerate(
        [("states", "c", 30), ("states", "a", 20), ("states", "b", 10), ("models", "m", 100), ("scores", "s.json", 5)]
    ):
        path = cache_folder(kind) / name
        if kind == "scores":
            path.write_bytes(bytes(size))
        else:
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "file").write_bytes(bytes(size))
        os.utime(path, (1000 + age, 1000 + age))
    return tmp_path


def named(found):
    return [(entry.kind, entry.path.name, entry.size_bytes) for entry in found]


def test_entries_have_their_kind_and_size_and_the_oldest_comes_first(filled):
    states = [("states", "c", 30), ("states", "a", 20), ("states", "b", 10)]
    assert named(entries()) == [*states, ("models", "m", 100), ("scores", "s.json", 5)]
    assert named(entries("states")) == states
    assert entries("nothing") == []


def test_what_is_forgotten_is_gone_and_nothing_else(filled):
    for entry in entries("scores") + entries("models"):
        forget(entry)
    assert named(entries()) == [("states", "c", 30), ("states", "a", 20), ("states", "b", 10)]


@pytest.mark.parametrize(("limit", "left"), [(60, "cab"), (59, "ab"), (30, "ab"), (29, "b"), (0, "b")])
def test_the_oldest_make_room_and_the_newest_stays(filled, limit, left):
    make_room("states", limit)
    assert "".join(entry.path.name for entry in entries("states")) == left
    assert len(entries("models")) == 1


def test_a_link_is_forgotten_and_not_followed(filled, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "kept").write_text("")
    (filled / "states" / "link").symlink_to(elsewhere)
    for entry in entries("states"):
        forget(entry)
    assert (elsewhere / "kept").exists()
    assert list((filled / "states").iterdir()) == []
