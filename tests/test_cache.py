"""Where the cache is, and whom it lets in."""

import stat
from pathlib import Path

import pytest

from mlxtune.cache import cache_folder
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
