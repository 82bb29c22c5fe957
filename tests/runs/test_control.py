"""What is wished of a run through its folder: only of a process that trains there, and none outlives it."""

import os

import pytest
from run_folders import make_run

from mlxtune.errors import RunError
from mlxtune.runs.control import (
    ask,
    forget_wishes,
    note_end_of_pause,
    note_pause,
    pause_of,
    wish_of,
)
from mlxtune.runs.folder import RunFolder, lock
from mlxtune.runs.listing import read_entry


@pytest.fixture
def run(tmp_path):
    """A run that this process is at work in."""
    run = RunFolder(make_run(tmp_path / "run", finished=False))
    with lock(run):
        yield run


def test_the_last_wish_holds(run):
    assert wish_of(run) is None
    ask(run, "pause")
    assert wish_of(run) == "pause"
    ask(run, "stop")
    assert wish_of(run) == "stop"
    ask(run, None)
    assert wish_of(run) is None
    ask(run, None)


def test_a_wish_is_there_whole_and_the_owner_s_alone(run):
    ask(run, "pause")
    assert run.control.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in run.path.iterdir() if path.name.startswith(".")} == {".lock"}


@pytest.mark.parametrize("wish", ["pause", "stop", None])
def test_nothing_can_be_wished_where_nobody_works(tmp_path, wish):
    run = RunFolder(make_run(tmp_path / "run", finished=False))
    with pytest.raises(RunError, match="no process works in this run") as refused:
        ask(run, wish)
    assert "--resume" in refused.value.remedy
    assert not run.control.exists()


def test_scoring_is_not_asked_to_pause(tmp_path):
    run = RunFolder(make_run(tmp_path / "run", finished=True))
    with lock(run), pytest.raises(RunError, match="the training is over"):
        ask(run, "pause")
    assert not run.control.exists()


@pytest.mark.parametrize(
    "content", [b"", b'{"wish": "pa', b"[]", b'{"wish": "delete"}', b'{"wish": ["stop"]}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_wish_is_none(run, content):
    run.control.write_bytes(content)
    assert wish_of(run) is None


def test_a_place_that_is_no_file_is_no_wish_and_is_not_waited_at(run):
    os.mkfifo(run.control)
    assert wish_of(run) is None


def test_a_pause_is_told_while_it_lasts(run):
    assert pause_of(run) is None
    note_pause(run, 7)
    assert pause_of(run).step == 7
    assert read_entry(run.path).state == "paused"
    note_end_of_pause(run)
    assert pause_of(run) is None
    assert read_entry(run.path).state == "training"


def test_a_pause_whose_process_was_killed_is_a_run_that_was_stopped(tmp_path):
    run = RunFolder(make_run(tmp_path / "run", finished=False))
    note_pause(run, 7)
    assert read_entry(run.path).state == "stopped"


@pytest.mark.parametrize(
    "content", [b"{}", b'{"step": "7", "since": "x"}', b'{"step": 7}', b"7", b'{"step": 7, "since']
)
def test_a_damaged_pause_is_none(run, content):
    run.paused.write_bytes(content)
    assert pause_of(run) is None


def test_nothing_is_left_of_an_earlier_process(run):
    ask(run, "stop")
    note_pause(run, 7)
    forget_wishes(run)
    assert (wish_of(run), pause_of(run)) == (None, None)
    forget_wishes(run)
