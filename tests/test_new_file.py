"""A large file has its name only when it is whole; what has that name already is lost to nothing but a success."""

import pytest

from mlxtune.errors import OutputExistsError
from mlxtune.files import new_file


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(path, text, *, force=False, meanwhile=list):
    """Make a new file, and let something happen before its block ends."""
    with new_file(path, force=force) as part:
        part.write_text(text)
        meanwhile()


def interrupt():
    raise KeyboardInterrupt


def test_a_new_file_has_its_name_only_after_the_block(tmp_path):
    with new_file(tmp_path / "deep" / "x") as part:
        part.write_text("whole")
        assert names_in(tmp_path / "deep") == [part.name]
    assert names_in(tmp_path / "deep") == ["x"]
    assert (tmp_path / "deep" / "x").read_text() == "whole"


def test_a_block_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "x").write_text("old")

    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "x", "half", force=True, meanwhile=interrupt)

    assert names_in(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_what_is_there_or_appears_meanwhile_is_replaced_by_force_alone(tmp_path):
    with pytest.raises(OutputExistsError, match="the output exists already"):
        fill(tmp_path / "x", "new", meanwhile=lambda: (tmp_path / "x").write_text("another's"))
    assert (tmp_path / "x").read_text() == "another's"

    with pytest.raises(OutputExistsError), new_file(tmp_path / "x"):
        pytest.fail("the block ran")
    fill(tmp_path / "x", "new", force=True)
    assert (tmp_path / "x").read_text() == "new"


def test_a_folder_is_no_place_for_a_file(tmp_path):
    with pytest.raises(OutputExistsError, match="this is a folder"), new_file(tmp_path, force=True):
        pytest.fail("the block ran")


def test_an_error_of_the_system_says_where(tmp_path):
    with pytest.raises(OSError, match="full") as caught, new_file(tmp_path / "x"):
        raise OSError(28, "full")
    assert caught.value.filename.startswith(str(tmp_path))
