"""Only what was shown goes, and only what is surely a run that nobody works in or needs."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from run_folders import MANIFEST, RECIPE, make_run, scores, write

from mlxtune.errors import RunError, UsageError
from mlxtune.runs.folder import RunFolder, lock
from mlxtune.runs.prune import find_prunable, prune

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def aged(path, days):
    """The same run, last worked in so long ago."""
    moment = (NOW - timedelta(days=days)).timestamp()
    for name in ("metrics.jsonl", "run.json", "scores.json"):
        if (path / name).exists():
            os.utime(path / name, (moment, moment))
    return path


def runs_of(folder, *days):
    return [aged(make_run(folder / f"run-{number}"), age) for number, age in enumerate(days)]


def named(found):
    return {one.path.name for one in found}


def test_showing_what_would_go_changes_nothing(tmp_path):
    runs_of(tmp_path, 1, 9)
    before = sorted(path for path in tmp_path.rglob("*"))
    prunable = find_prunable(tmp_path, keep=0, now=NOW)
    assert named(prunable.candidates) == {"run-0", "run-1"}
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_the_runs_worked_in_last_are_kept(tmp_path):
    runs_of(tmp_path, 3, 1, 9, 5)
    assert named(find_prunable(tmp_path, keep=2, now=NOW).candidates) == {"run-2", "run-3"}


def test_both_age_and_place_have_to_hold(tmp_path):
    runs_of(tmp_path, 3, 1, 9, 5)
    assert named(find_prunable(tmp_path, older_than=timedelta(days=4), now=NOW).candidates) == {"run-2", "run-3"}
    both = find_prunable(tmp_path, keep=3, older_than=timedelta(days=4), now=NOW)
    assert named(both.candidates) == {"run-2"}


def test_a_size_is_that_of_all_files(tmp_path):
    (run,) = runs_of(tmp_path, 1)
    (candidate,) = find_prunable(tmp_path, keep=0, now=NOW).candidates
    assert candidate.bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())


def test_what_was_shown_is_taken_away_and_nothing_else(tmp_path):
    runs_of(tmp_path, 1, 9)
    (tmp_path / "notes.txt").write_text("mine")
    prunable = find_prunable(tmp_path, keep=1, now=NOW)
    gone, kept = prune(prunable.candidates, prunable.folder)
    assert (named(gone), kept) == ({"run-1"}, [])
    assert {path.name for path in tmp_path.iterdir()} == {"run-0", "notes.txt"}


def test_something_has_to_say_what_may_go(tmp_path):
    with pytest.raises(UsageError, match="nothing says what may go"):
        find_prunable(tmp_path)


def test_a_run_that_is_training_stays(tmp_path):
    (run,) = runs_of(tmp_path, 9)
    with lock(RunFolder(run)):
        found = find_prunable(tmp_path, keep=0, now=NOW)
        assert found.candidates == ()
        assert [one.why for one in found.kept] == [f"process {os.getpid()} works in it"]


def test_a_run_that_begins_to_train_after_it_was_shown_stays(tmp_path):
    (run,) = runs_of(tmp_path, 9)
    found = find_prunable(tmp_path, keep=0, now=NOW)
    with lock(RunFolder(run)):
        gone, kept = prune(found.candidates, found.folder)
    assert gone == []
    assert "another process is working in this run" in kept[0].why
    assert (run / "run.json").exists()


def test_a_link_to_a_run_elsewhere_is_left_alone_and_so_is_what_it_leads_to(tmp_path):
    elsewhere = make_run(tmp_path / "elsewhere" / "run")
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "link").symlink_to(elsewhere)
    found = find_prunable(folder, keep=0, now=NOW)
    assert found.candidates == ()
    assert named(found.kept) == {"link"}
    assert (elsewhere / "run.json").exists()


def test_a_run_that_became_a_link_after_it_was_shown_is_left_alone(tmp_path):
    elsewhere = make_run(tmp_path / "elsewhere" / "run")
    (run,) = runs_of(tmp_path / "runs", 9)
    found = find_prunable(tmp_path / "runs", keep=0, now=NOW)
    run.rename(tmp_path / "aside")
    run.symlink_to(elsewhere)
    gone, kept = prune(found.candidates, found.folder)
    assert (gone, named(kept)) == ([], {"run-0"})
    assert (elsewhere / "run.json").exists()


def test_links_in_a_run_go_and_what_they_lead_to_stays(tmp_path):
    (run,) = runs_of(tmp_path / "runs", 9)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (run / "checkpoints" / "step_000031").symlink_to(tmp_path / "mine")
    (run / "adapter" / "more").symlink_to(tmp_path / "mine")
    for checkpoints in (True, False):
        found = find_prunable(tmp_path / "runs", keep=0, checkpoints=checkpoints, now=NOW)
        prune(found.candidates, found.folder)
    assert not run.exists()
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_folder_of_checkpoints_that_is_a_link_is_left_alone(tmp_path):
    (run,) = runs_of(tmp_path / "runs", 9)
    (run / "checkpoints").rename(tmp_path / "theirs")
    (run / "checkpoints").symlink_to(tmp_path / "theirs")
    assert find_prunable(tmp_path / "runs", checkpoints=True, now=NOW).candidates == ()


def test_a_lock_that_leads_elsewhere_is_not_written_through(tmp_path):
    (run,) = runs_of(tmp_path / "runs", 9)
    (tmp_path / "precious").write_text("precious")
    (run / ".lock").symlink_to(tmp_path / "precious")
    found = find_prunable(tmp_path / "runs", keep=0, now=NOW)
    gone, kept = prune(found.candidates, found.folder)
    assert (gone, kept[0].why) == ([], "its .lock is no file of its own")
    assert (tmp_path / "precious").read_text() == "precious"


def test_what_lies_in_another_folder_is_not_taken_though_it_is_named(tmp_path):
    (run,) = runs_of(tmp_path / "other", 9)
    found = find_prunable(tmp_path / "other", keep=0, now=NOW)
    (tmp_path / "runs").mkdir()
    gone, kept = prune(found.candidates, tmp_path / "runs")
    assert (gone, kept[0].why) == ([], "is no folder in the folder of runs")
    assert run.exists()


def test_what_is_broken_or_no_run_stays(tmp_path):
    (make_run(tmp_path / "damaged") / "run.json").write_text("{")
    (tmp_path / "notes").mkdir()
    found = find_prunable(tmp_path, keep=0, now=NOW)
    assert (found.candidates, found.kept) == ((), ())


def test_a_run_in_place_of_its_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="one run"):
        find_prunable(make_run(tmp_path / "run"), keep=0)
    with pytest.raises(RunError, match="no such folder"):
        find_prunable(tmp_path / "none", keep=0)


def test_a_run_that_another_one_was_started_from_stays_with_it(tmp_path):
    first, second, third = runs_of(tmp_path, 9, 8, 1)
    for run, start in ((second, first), (third, second / "adapter")):
        inputs = MANIFEST["inputs"] | {"adapter": {"source": str(start), "sha256": "d" * 64}}
        write(run / "run.json", MANIFEST | {"inputs": inputs})
        aged(run, 8 if run == second else 1)
    found = find_prunable(tmp_path, keep=1, now=NOW)
    assert found.candidates == ()
    assert {one.path.name: one.why for one in found.kept} == {
        "run-0": "run-1 was started from it",
        "run-1": "run-2 was started from it",
    }
    assert named(find_prunable(tmp_path, keep=0, now=NOW).candidates) == {"run-0", "run-1", "run-2"}


def test_checkpoints_go_where_training_and_scoring_are_over_and_the_run_stays(tmp_path):
    (run,) = runs_of(tmp_path, 1)
    found = find_prunable(tmp_path, checkpoints=True)
    assert [(one.what, one.bytes) for one in found.candidates] == [("checkpoints", 1000)]
    prune(found.candidates, found.folder)
    assert list((run / "checkpoints").iterdir()) == []
    assert (run / "adapter" / "adapters.safetensors").exists()
    assert find_prunable(tmp_path, checkpoints=True).candidates == ()


def test_checkpoints_that_a_resumed_run_would_need_stay(tmp_path):
    make_run(tmp_path / "stopped", finished=False)
    unscored = make_run(tmp_path / "unscored")
    recipe = RECIPE | {"data": RECIPE["data"] | {"test": [{"path": "/data/test.jsonl"}]}}
    write(unscored / "recipe.resolved.json", recipe)
    found = find_prunable(tmp_path, checkpoints=True)
    assert found.candidates == ()
    assert {one.path.name: one.why for one in found.kept} == {
        "stopped": "it can be resumed from its checkpoints",
        "unscored": f"it is not scored yet: mlxtune evaluate {unscored}",
    }
    write(unscored / "scores.json", scores())
    assert named(find_prunable(tmp_path, checkpoints=True).candidates) == {"unscored"}


def test_a_removal_that_was_cut_short_is_ended_by_the_next(tmp_path):
    runs_of(tmp_path, 1)
    left = make_run(tmp_path / ".run-7.0123abcd.pruned")
    (tmp_path / ".run-8.0123abcd.pruned").symlink_to(tmp_path / "run-0")
    found = find_prunable(tmp_path, keep=1, now=NOW)
    assert [(one.path, one.what) for one in found.candidates] == [(left, "leftover")]
    prune(found.candidates, found.folder)
    assert not left.exists()
    assert (tmp_path / "run-0" / "run.json").exists()
