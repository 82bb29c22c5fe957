"""A folder of runs is listed whatever lies in it: what is broken is told with its reason, and hides no other."""

import fcntl
import os

import pytest
from run_folders import FINISHED, MANIFEST, make_run, scores, write

from mlxtune.errors import RunError, UsageError
from mlxtune.runs.folder import RunFolder, lock
from mlxtune.runs.listing import list_runs, read_entry


def names(found):
    return [run.path.name for run in found]


def test_runs_come_with_what_their_files_say_the_newest_first(tmp_path):
    make_run(tmp_path / "old", started="2026-11-20T10:00:00+00:00")
    scored = make_run(tmp_path / "new", started="2026-11-24T10:00:00+00:00")
    write(scored / "scores.json", scores())
    write(scored / "findings.json", [{"severity": "problem"}, {"severity": "hint"}, {"severity": "problem"}])
    listing = list_runs(tmp_path)
    assert names(listing.runs) == ["new", "old"]
    new, old = listing.runs
    assert (new.state, old.state) == ("scored", "trained")
    assert (new.steps, new.train_loss, new.valid_loss, new.seconds) == (30, 0.5, 0.75, 60.0)
    assert (new.name, new.model, new.problems) == ("mine", "tiny-model", 2)
    assert new.losses[0] > new.losses[-1]
    assert new.headline is not None
    assert (new.headline.metric, new.headline.base, new.headline.tuned) == ("sort.exact", 0.25, 0.75)
    assert new.headline.verdict == "better"
    assert listing.broken == ()


def test_a_run_that_was_stopped_tells_how_far_it_came(tmp_path):
    make_run(tmp_path / "run", steps=12, finished=False)
    (run,) = list_runs(tmp_path).runs
    assert (run.state, run.steps, run.process) == ("stopped", 12, None)


@pytest.mark.parametrize(("finished", "state"), [(False, "training"), (True, "scoring")])
def test_a_run_that_a_process_works_in_says_so_and_keeps_its_lock(tmp_path, finished, state):
    path = make_run(tmp_path / "run", finished=finished)
    with lock(RunFolder(path)):
        (run,) = list_runs(tmp_path).runs
        assert (run.state, run.process) == (state, os.getpid())
        with (path / ".lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list_runs(tmp_path).runs[0].process is None


def test_a_lock_that_a_dead_process_left_is_none(tmp_path):
    path = make_run(tmp_path / "run", finished=False)
    for left in ("4194305", "0", "-1", "many words", "9" * 30, ""):  # more than Linux has processes
        (path / ".lock").write_text(left)
        assert list_runs(tmp_path).runs[0].state == "stopped"
    (path / ".lock").unlink()
    os.mkfifo(path / ".lock")
    assert list_runs(tmp_path).runs[0].state == "stopped"


def test_what_is_broken_is_named_with_its_reason_and_hides_no_other(tmp_path):
    make_run(tmp_path / "whole")
    (make_run(tmp_path / "cut") / "run.json").write_text('{"name": "mi')
    (make_run(tmp_path / "empty") / "run.json").write_bytes(b"")
    (make_run(tmp_path / "listed") / "run.json").write_text("[]")
    (make_run(tmp_path / "deep") / "run.json").write_text("[" * 100_000)
    (make_run(tmp_path / "not-utf8") / "run.json").write_bytes(b'{"name": "\xff"}')
    (make_run(tmp_path / "bare") / "recipe.resolved.json").unlink()
    write(make_run(tmp_path / "older") / "run.json", {"name": "mine", "device": {}, "versions": {}})
    make_run(tmp_path / ".half.0123abcd")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    listing = list_runs(tmp_path)
    assert names(listing.runs) == ["whole"]
    assert {one.path.name: one.why for one in listing.broken} == {
        ".half.0123abcd": "half made by a process that was killed",
        "bare": "lacks recipe.resolved.json",
        "cut": "cannot be read: run.json is not JSON: Unterminated string starting at at column 10",
        "deep": "cannot be read: run.json is not JSON that can be read: nested too deeply",
        "empty": "cannot be read: run.json is not JSON: Expecting value at column 1",
        "gone": "a link to nothing",
        "listed": "cannot be read: run.json holds no JSON object",
        "not-utf8": "cannot be read: run.json is not UTF-8: byte 0xff at position 11",
        "older": "cannot be read: run.json lacks inputs",
    }


def test_a_folder_of_something_else_and_files_are_passed_over(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("more rows")
    (tmp_path / "file").write_text("run.json")
    listing = list_runs(tmp_path)
    assert (listing.runs, listing.broken) == ((), ())


def test_a_run_of_an_older_form_is_listed_with_what_it_has(tmp_path):
    path = make_run(tmp_path / "run")
    write(path / "run.json", MANIFEST | {"finished": {"steps": "30", "train_loss": 10**400, "valid_loss": None}})
    old = scores(metric="bits_per_byte")
    del old["headline"], old["differences"]
    write(path / "scores.json", old)
    (run,) = list_runs(tmp_path).runs
    assert (run.steps, run.train_loss, run.valid_loss) == (None, None, None)
    assert run.headline is not None
    assert (run.headline.metric, run.headline.verdict) == ("bits_per_byte", None)
    assert run.note == "scored by an earlier version"


def test_damaged_scores_do_not_hide_a_run(tmp_path):
    path = make_run(tmp_path / "run")
    (path / "scores.json").write_text("{")
    (path / "findings.json").write_text("[1]")
    (run,) = list_runs(tmp_path).runs
    assert (run.state, run.headline, run.problems) == ("trained", None, 0)
    assert run.note is not None
    assert run.note.startswith("scores.json cannot be read: ")


def test_a_pipe_in_place_of_a_file_is_not_waited_at(tmp_path):
    os.mkfifo(make_run(tmp_path / "run") / "findings.json")
    assert list_runs(tmp_path).runs[0].problems == 0


def test_a_run_in_place_of_its_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="one run, not a folder of runs"):
        list_runs(make_run(tmp_path / "run"))
    with pytest.raises(RunError, match="there is no such folder"):
        list_runs(tmp_path / "nowhere")


def test_one_run_is_read_alone_or_its_fault_is_told(tmp_path):
    assert read_entry(make_run(tmp_path / "run")).steps == FINISHED["steps"]
    (make_run(tmp_path / "cut") / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json is not JSON"):
        read_entry(tmp_path / "cut")
    with pytest.raises(RunError, match="there is no such run"):
        read_entry(tmp_path / "nowhere")
    (tmp_path / "notes").mkdir()
    with pytest.raises(RunError, match="holds no run"):
        read_entry(tmp_path / "notes")


def test_a_manifest_of_many_megabytes_is_not_read(tmp_path):
    path = make_run(tmp_path / "run")
    with (path / "run.json").open("r+b") as file:
        file.truncate(1 << 30)  # sparse: takes no room
    (broken,) = list_runs(tmp_path).broken
    assert "no file that mlxtune wrote" in broken.why
