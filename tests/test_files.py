"""A file or folder is there whole, or not at all; what was there before is lost to nothing but a success."""

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxtune.errors import DeviceError, OutputExistsError, UsageError
from mlxtune.files import (
    check_disk_space,
    check_not_inside,
    clear_parts,
    naming,
    new_folder,
    sha256_of,
    write_bytes,
    write_json,
    write_text,
    write_together,
)


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(path: Path, *, force: bool = False, meanwhile: Callable[[], object] = list) -> None:
    """Make a new folder with one file, and let something happen before its block ends."""
    with new_folder(path, force=force) as part:
        (part / "new").write_text("x")
        meanwhile()


def interrupt() -> None:
    raise Interrupted


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "old").write_text("x")


def make_file(path: Path) -> None:
    path.write_text("old")


def make_link(path: Path) -> None:
    make_folder(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def test_text_is_written_as_utf8_and_replaces_what_was_there(tmp_path):
    write_text(tmp_path / "a.txt", "old, and longer than the new")
    write_text(tmp_path / "a.txt", "größer")
    assert (tmp_path / "a.txt").read_bytes() == "größer".encode()
    assert names_in(tmp_path) == ["a.txt"]


def test_json_that_other_readers_do_not_know_is_refused_and_the_old_file_stays(tmp_path):
    write_json(tmp_path / "a.json", {"loss": 1.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n  "loss": 1.5\n}\n'
    assert names_in(tmp_path) == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "a", "no bytes")  # pyright: ignore[reportArgumentType]
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names_in(tmp_path) == ["a"]


def test_files_that_belong_together_are_all_written_or_none(tmp_path):
    old = {tmp_path / name: b"old" for name in "abc"}
    write_together(old)
    with pytest.raises(TypeError):
        write_together({**dict.fromkeys(old, b"new"), tmp_path / "b": "no bytes"})  # pyright: ignore[reportArgumentType]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == old
    write_together(dict.fromkeys(old, b"new"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(old, b"new")


def test_sha256_is_the_one_of_the_standard(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "large").write_bytes(b"a" * 3_000_000)
    assert sha256_of(tmp_path / "large") == hashlib.sha256(b"a" * 3_000_000).hexdigest()


def test_a_new_folder_has_its_name_only_after_the_block_and_is_its_owners_alone(tmp_path):
    with new_folder(tmp_path / "runs" / "out") as part:
        (part / "deep").mkdir()
        (part / "deep" / "file").write_text("x")
        assert not (tmp_path / "runs" / "out").exists()
    assert (tmp_path / "runs" / "out" / "deep" / "file").read_text() == "x"
    assert stat.S_IMODE((tmp_path / "runs" / "out").stat().st_mode) == 0o700
    assert names_in(tmp_path / "runs") == ["out"]


def test_a_block_that_fails_leaves_no_folder(tmp_path):
    with pytest.raises(Interrupted):
        fill(tmp_path / "out", meanwhile=interrupt)
    assert names_in(tmp_path) == []


def test_a_folder_that_is_there_is_refused_before_the_block_runs(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(OutputExistsError, match="exists") as caught:
        fill(tmp_path / "out", meanwhile=interrupt)
    assert caught.value.where == str(tmp_path / "out")
    assert names_in(tmp_path / "out") == ["precious"]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert names_in(tmp_path / "out") == ["new"]


def test_what_appeared_while_the_block_ran_is_not_overwritten_without_force(tmp_path):
    with pytest.raises(OutputExistsError):
        fill(tmp_path / "out", meanwhile=lambda: make_folder(tmp_path / "out"))
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["old"]


@pytest.mark.parametrize("make", [make_folder, make_file, make_link])
def test_force_replaces_what_is_there_when_the_block_has_ended_well(tmp_path, make):
    make(tmp_path / "out")
    others = set(names_in(tmp_path)) - {"out"}
    with pytest.raises(Interrupted):
        fill(tmp_path / "out", force=True, meanwhile=interrupt)
    assert (tmp_path / "out").is_file() or names_in(tmp_path / "out") == ["old"]
    fill(tmp_path / "out", force=True)
    assert names_in(tmp_path / "out") == ["new"]
    assert set(names_in(tmp_path)) == {"out"} | others
    assert all(names_in(tmp_path / other) == ["old"] for other in others)


def test_when_the_new_folder_cannot_take_its_place_the_old_one_is_put_back(tmp_path, monkeypatch):
    make_folder(tmp_path / "out")
    rename = Path.rename

    def full_disk(self: Path, target: Path) -> Path:
        if target == tmp_path / "out" and "old" not in names_in(self):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(OSError, match="No space"):
        fill(tmp_path / "out", force=True)
    assert names_in(tmp_path) == ["out"]
    assert names_in(tmp_path / "out") == ["old"]


@pytest.mark.parametrize("place", [".", "..", "~", "/"])
def test_force_never_replaces_the_folder_that_one_works_or_lives_in(tmp_path, monkeypatch, place):
    (tmp_path / "home" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(OutputExistsError, match="not replaced"):
        fill(Path(place).expanduser(), force=True)
    assert names_in(tmp_path / "home") == ["work"]


def test_an_error_that_names_no_file_is_given_the_place(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, naming(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()
    assert caught.value.filename == str(tmp_path / "missing")


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path):
    for name in (".a.json.0123abcd", ".b.0123abcd.old", ".hidden", ".c.0123", "d.0123abcd"):
        (tmp_path / name).touch()
    make_folder(tmp_path / ".out.0123abcd")
    clear_parts(tmp_path)
    assert names_in(tmp_path) == [".c.0123", ".hidden", "d.0123abcd"]


def test_a_result_that_would_not_fit_is_refused_with_what_is_needed_and_what_is_free(tmp_path):
    asked = []

    def free_bytes(path):
        asked.append(path)
        return 2_000_000_000

    check_disk_space(tmp_path / "new" / "out", 2_000_000_000, free_bytes=free_bytes)
    with pytest.raises(DeviceError, match=r"2\.50 GB are needed, and 2\.00 GB are free on this disk") as caught:
        check_disk_space(tmp_path / "new" / "out", 2_500_000_000, free_bytes=free_bytes)

    assert asked == [tmp_path, tmp_path]
    assert (caught.value.where, caught.value.remedy) == (str(tmp_path), "make room, or write to another disk")


def test_what_the_system_says_is_free_is_believed(tmp_path):
    check_disk_space(tmp_path, 1)
    with pytest.raises(DeviceError):
        check_disk_space(tmp_path, 1 << 80)


@pytest.mark.parametrize("place", ["out", "out/source", "out/a/../source", "link/source"])
def test_what_is_read_is_not_replaced(tmp_path, place):
    make_folder(tmp_path / "out")
    (tmp_path / "out" / "source").touch()
    (tmp_path / "out" / "a").mkdir()
    (tmp_path / "link").symlink_to("out")

    with pytest.raises(UsageError, match="the base is there, and is not replaced") as caught:
        check_not_inside(tmp_path / "out", {"rows": None, "base": tmp_path / place})

    assert caught.value.where == str(tmp_path / "out")


@pytest.mark.parametrize("place", ["outside", "out-2/source", ".", "out/gone"])
def test_what_lies_elsewhere_is_left_alone(tmp_path, place):
    make_folder(tmp_path / "out")
    (tmp_path / "outside").touch()
    make_folder(tmp_path / "out-2")
    (tmp_path / "out-2" / "source").touch()
    check_not_inside(tmp_path / "out", {"base": tmp_path / place})
