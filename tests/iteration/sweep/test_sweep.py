"""A whole sweep: what is tried, what is kept, who is chosen by what, and how often the test rows are read."""

import json
import shutil
import stat
from itertools import count

import pytest
from iteration.sweep.sweeps import SETTINGS, TRIALS, same, scored, told
from tiny import tiny_recipe, tiny_row

from mlxtune.cache import cache_folder
from mlxtune.errors import DataError, OutputExistsError, RecipeError, RunError, TrainingError, UsageError
from mlxtune.iteration.run import run_recipe
from mlxtune.iteration.sweep import sweep as module
from mlxtune.iteration.sweep.clock import start_clock
from mlxtune.iteration.sweep.folder import SweepFolder
from mlxtune.iteration.sweep.sweep import SweepWatch, resume_sweep, run_sweep
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.control import ask
from mlxtune.runs.folder import RunFolder


def run_of(result, number):
    return RunFolder(result.sweep.run_of(number))


# --- what it comes to


def test_the_recipe_as_it_was_is_not_the_winner_here_so_that_the_following_says_something(undisturbed):
    assert undisturbed.winner.number > 0


def test_the_winner_is_the_complete_trial_with_the_lowest_validation_loss(undisturbed):
    complete = {trial.number: trial.valid_loss for trial in undisturbed.trials if trial.state == "complete"}
    assert len(undisturbed.trials) == TRIALS
    assert undisturbed.finished
    assert undisturbed.winner.number == min(complete, key=complete.__getitem__)
    manifest = run_of(undisturbed, undisturbed.winner.number).read_manifest()
    assert manifest["finished"]["valid_loss"] == undisturbed.winner.valid_loss


def test_the_first_trial_is_the_recipe_as_it_was(undisturbed):
    assert undisturbed.trials[0].point == {"method.rank": 2, "training.learning_rate": 2e-3, "method.dropout": 0.1}


def test_trials_that_fall_behind_are_ended_before_their_last_step(undisturbed):
    cut = [trial for trial in undisturbed.trials if trial.state == "pruned"]
    assert cut
    for trial in cut:
        assert trial.facts["steps"] < 6
        assert max(trial.curve) in (33, 66)
        assert "where others were better" in trial.facts["why"]
        assert not run_of(undisturbed, trial.number).adapter.exists()


def test_only_the_winners_test_rows_are_scored(undisturbed):
    assert scored(undisturbed.sweep.path) == [f"{undisturbed.winner.number:04d}"]
    assert undisturbed.scores["split"] == "test"
    assert {"base", "tuned"} <= undisturbed.scores.keys()


def test_the_winners_card_and_report_say_of_how_many_trials_it_is_the_best(undisturbed):
    run = run_of(undisturbed, undisturbed.winner.number)
    assert f"the best of {TRIALS} trials" in run.readme.read_text()
    assert f"the best of {TRIALS} trials" in run.report.read_text()
    assert "scored for this run alone" in run.readme.read_text()


def test_the_winners_recipe_is_one_that_train_takes_and_comes_to_the_same(undisturbed, tmp_path):
    again = run_recipe(undisturbed.sweep.winner, device="cpu", run_dir=tmp_path / "run", score=False)
    assert again.valid_loss == undisturbed.winner.valid_loss
    recipe = load_recipe(undisturbed.sweep.winner).recipe
    assert recipe.method.rank == undisturbed.winner.point["method.rank"]
    assert recipe.checkpoint.keep == 2  # the owner's, not that of a trial


def test_the_checkpoints_of_losers_are_gone_and_their_figures_are_not(undisturbed):
    for trial in undisturbed.trials:
        run = run_of(undisturbed, trial.number)
        kept = [path.name for path in run.checkpoints.iterdir()]
        assert bool(kept) == (trial.number == undisturbed.winner.number)
        assert run.metrics.stat().st_size


def test_a_trial_that_is_at_work_keeps_its_newest_checkpoint_and_the_best(undisturbed):
    run = run_of(undisturbed, undisturbed.winner.number)
    assert load_recipe(run.resolved).recipe.checkpoint.keep == 1
    assert len(list(run.checkpoints.glob("step_*"))) <= 2


def test_the_folder_tells_a_stranger_what_was_tried(undisturbed):
    sweep, winner = undisturbed.sweep, undisturbed.winner
    readme, page = sweep.readme.read_text(), sweep.page.read_text()
    for text in (readme, page):
        assert f"trial {winner.number} has the lowest validation loss, {winner.valid_loss:.4f}" in text
        assert "the winner" in text
    assert readme.count("\n| ") == TRIALS + 2
    assert page.count("<circle") == TRIALS
    told_by = json.loads(sweep.result.read_text())
    assert told_by["winner"]["number"] == winner.number
    assert [trial["state"] for trial in told_by["trials"]] == [trial.state for trial in undisturbed.trials]


def test_the_folder_is_its_owners_alone(undisturbed):
    assert stat.S_IMODE(undisturbed.sweep.path.stat().st_mode) == 0o700


# --- the same again


def test_a_finished_sweep_is_left_as_it_is(undisturbed, tmp_path):
    copy = shutil.copytree(undisturbed.sweep.path, tmp_path / "sweep")
    begun = []
    again = resume_sweep(copy, device="cpu", watch=SweepWatch(begun=begun.append))
    assert not begun
    assert same(again, undisturbed)


@pytest.mark.slow
def test_a_sweep_that_is_told_to_stop_goes_on_where_it_was(undisturbed, recipe, tmp_path):
    lines = []

    def watch_until(count):
        return SweepWatch(trial=Watch(measured=lines.append, should_stop=lambda: len(lines) >= count))

    sweep_dir = tmp_path / "sweep"
    result = run_sweep(recipe, SETTINGS, trials=3, sweep_dir=sweep_dir, device="cpu", watch=watch_until(5))
    for lines_until_stop in (11, 10**6):
        assert result.interrupted
        assert result.winner is None
        assert not scored(sweep_dir)
        result = resume_sweep(sweep_dir, device="cpu", watch=watch_until(lines_until_stop))
    assert told(result.trials) == told(undisturbed.trials)[:3]


def test_a_trial_that_is_stopped_through_its_folder_ends_the_sweep_which_then_goes_on(undisturbed, recipe, tmp_path):
    sweep_dir = tmp_path / "sweep"
    trial = RunFolder(SweepFolder(sweep_dir).run_of(0))
    asking = SweepWatch(trial=Watch(measured=lambda _line: ask(trial, "stop")))
    result = run_sweep(recipe, SETTINGS, trials=1, sweep_dir=sweep_dir, device="cpu", watch=asking)
    assert result.interrupted
    assert [one.state for one in result.trials] == ["running"]
    result = resume_sweep(sweep_dir, device="cpu")
    assert not result.interrupted
    assert told(result.trials) == told(undisturbed.trials)[:1]


@pytest.mark.slow
def test_more_trials_than_were_asked_for_at_first_are_those_that_would_have_come(undisturbed, recipe, tmp_path):
    first = run_sweep(recipe, SETTINGS, trials=1, sweep_dir=tmp_path / "sweep", device="cpu")
    best = next(trial for trial in undisturbed.trials if (trial.valid_loss or 9.0) < first.winner.valid_loss)
    more = resume_sweep(tmp_path / "sweep", trials=best.number + 1, device="cpu")
    assert told(more.trials) == told(undisturbed.trials)[: best.number + 1]
    assert more.winner.number == best.number
    run = run_of(more, best.number)
    assert run.read_manifest()["sweep"]["test_reads"] == 2
    assert "scored for 2 runs of this sweep" in run.readme.read_text()
    assert "sweep" not in run_of(more, 0).read_manifest()


# --- time


@pytest.mark.slow
def test_hours_end_a_sweep_in_the_middle_of_a_trial_and_more_hours_go_on(undisturbed, recipe, tmp_path, monkeypatch):
    ticks = count()
    monkeypatch.setattr(module, "start_clock", lambda folder: start_clock(folder, lambda: float(next(ticks))))
    first = run_sweep(recipe, SETTINGS, trials=3, hours=40 / 3600, sweep_dir=tmp_path / "sweep", device="cpu")
    assert not first.finished
    assert not first.interrupted
    assert any(trial.state == "running" for trial in first.trials)
    spent = first.seconds
    at_once = resume_sweep(tmp_path / "sweep", device="cpu")
    assert told(at_once.trials) == told(first.trials)  # the hours are spent, and a new process has none of its own
    assert at_once.seconds >= spent
    last = resume_sweep(tmp_path / "sweep", hours=10, device="cpu")
    assert told(last.trials) == told(undisturbed.trials)[:3]
    assert last.finished


# --- what is shared


def test_rows_are_rendered_once_and_frozen_blocks_read_once_for_all_trials(tmp_path):
    recipe = tiny_recipe(tmp_path)
    rows = [tiny_row(f"shared {number}") for number in range(70)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said, began, at = [], [], [None]

    def progress(what, _done, _total):
        said.append((at[0], what))

    def begun(trial):
        began.append(trial.number)
        at[0] = trial.number

    before = set(cache_folder("frozen_states").iterdir())
    watch = SweepWatch(progress=progress, begun=begun, trial=Watch(progress=progress))
    settings = ["method.rank=1,2,4", "method.layers={top: 1}", "training.max_steps=2"]
    run_sweep(recipe, settings, sweep_dir=tmp_path / "sweep", device="cpu", watch=watch)
    assert began == [0, 1, 2]
    assert {at for at, what in said if what.startswith("render train.jsonl")} == {None}  # before the first trial
    assert {at for at, what in said if what.startswith("read train.jsonl")} == {0, 1, 2}
    assert {at for at, what in said if what.startswith("read the frozen blocks")} == {0}
    assert len(set(cache_folder("frozen_states").iterdir()) - before) == 2  # of train and valid


# --- what goes wrong


def test_settings_that_make_the_numbers_go_wrong_lose_and_the_sweep_goes_on(recipe, tmp_path):
    settings = ["training.learning_rate=1e-2,1e30", "training.optimizer=sgd", "training.max_grad_norm=null"]
    result = run_sweep(recipe, [*settings, "method.dropout=0"], sweep_dir=tmp_path / "sweep", device="cpu")
    states = {trial.point["training.learning_rate"]: trial for trial in result.trials}
    assert result.winner.point["training.learning_rate"] == 1e-2
    assert states[1e30].state == "pruned"
    assert "the validation rows is nan" in states[1e30].facts["why"]


def test_settings_that_do_not_fit_the_network_fail_with_their_reason_and_the_sweep_goes_on(recipe, tmp_path):
    settings = ["method.target_modules=[q_proj],[nothing_here]", "training.max_steps=2"]
    result = run_sweep(recipe, settings, sweep_dir=tmp_path / "sweep", device="cpu")
    (failed,) = [trial for trial in result.trials if trial.state == "failed"]
    assert "nothing_here" in failed.facts["why"]
    assert result.winner.point == {"method.target_modules": ["q_proj"]}


def test_where_no_trial_comes_to_its_end_that_is_an_error_with_the_reason(recipe, tmp_path):
    settings = ["method.target_modules=[nothing_here],[nor_here]"]
    with pytest.raises(TrainingError, match="none of the 2 trials came to its end"):
        run_sweep(recipe, settings, sweep_dir=tmp_path / "sweep", device="cpu")


@pytest.mark.parametrize(
    ("settings", "limits", "error", "message"),
    [
        (["method.rnk=1,2"], {}, RecipeError, "not a key"),
        (["method.rank=1,2", "data.valid=null"], {}, RecipeError, "chooses by the loss on data.valid"),
        (["method.rank=1,2", "data.train=nowhere.jsonl"], {}, RecipeError, "is not there"),
        (["method.rank=2"], {}, UsageError, "no key has several values"),
        (["training.learning_rate=1e-3..1e-2"], {}, UsageError, "nothing says when to end"),
        (["method.rank=1,2"], {"trials": 0}, UsageError, "0 trials are none"),
        (["method.rank=1,2"], {"hours": -1.0}, UsageError, "no limit"),
        (["method.rank=1,2"], {"hours": float("nan")}, UsageError, "no limit"),
        (["method.rank=1,2"], {"shares": [0.5, 1.0]}, UsageError, "tried alone"),
        ([], {"shares": [0.5, 1.0], "trials": 3}, UsageError, "all given"),
        ([], {"shares": [0.5, 1.0], "seeds": 1}, UsageError, "1 seeds are out of range"),
        ([], {"shares": [0.01, 0.02, 1.0]}, UsageError, "of 12 rows these shares are 1, 1, 12 rows"),
    ],
)
def test_what_is_wrong_is_found_before_there_is_a_folder(recipe, tmp_path, settings, limits, error, message):
    with pytest.raises(error, match=message):
        run_sweep(recipe, settings, **limits, sweep_dir=tmp_path / "sweep", device="cpu")
    assert not list(tmp_path.iterdir())


def test_bad_rows_are_found_before_there_is_a_folder(tmp_path):
    recipe = tiny_recipe(tmp_path)
    (tmp_path / "test.jsonl").write_text('{"nothing": 1}\n')
    with pytest.raises(DataError):
        run_sweep(recipe, ["method.rank=1,2"], sweep_dir=tmp_path / "sweep", device="cpu")
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [(None, RecipeError, "is not there"), ({"nothing": 1}, DataError, "fit no known form")],
)
def test_rows_that_only_some_trials_learn_are_looked_at_before_there_is_a_folder(tmp_path, rows, error, message):
    recipe, other = tiny_recipe(tmp_path), tmp_path / "other.jsonl"
    if rows is not None:
        other.write_text(json.dumps(rows) + "\n")
    settings = [f"data.train={tmp_path / 'train.jsonl'},{other}"]
    with pytest.raises(error, match=message):
        run_sweep(recipe, settings, sweep_dir=tmp_path / "sweep", device="cpu")
    assert not (tmp_path / "sweep").exists()


def test_replay_can_be_tried_against_none(tmp_path):
    recipe, general = tiny_recipe(tmp_path), tmp_path / "general.jsonl"
    general.write_text("".join(json.dumps({"text": f"general {number}"}) + "\n" for number in range(9)))
    settings = [f"data.replay=null,{{file: {general}, share: 0.2}}", "training.max_steps=2"]
    result = run_sweep(recipe, settings, sweep_dir=tmp_path / "sweep", device="cpu")
    assert [trial.state for trial in result.trials] == ["complete", "complete"]


def test_a_folder_that_is_taken_is_left_alone(undisturbed, recipe):
    with pytest.raises(OutputExistsError) as refused:
        run_sweep(recipe, SETTINGS, trials=1, sweep_dir=undisturbed.sweep.path, device="cpu")
    assert f"--resume {undisturbed.sweep.path}" in refused.value.remedy


def test_validation_rows_that_changed_on_the_way_are_refused(tmp_path):
    recipe = tiny_recipe(tmp_path)
    run_sweep(recipe, ["method.rank=1,2,4", "training.max_steps=2"], trials=1, sweep_dir=tmp_path / "s", device="cpu")
    with (tmp_path / "valid.jsonl").open("a") as file:
        file.write(json.dumps(tiny_row("one more")) + "\n")
    with pytest.raises(RunError, match=r"data\.valid was"):
        resume_sweep(tmp_path / "s", trials=3, device="cpu")


def test_a_recipe_without_test_rows_has_a_winner_that_is_not_scored(recipe, tmp_path):
    settings = ["method.rank=1,2", "data.test=null", "training.max_steps=2"]
    result = run_sweep(recipe, settings, sweep_dir=tmp_path / "sweep", device="cpu")
    assert result.winner is not None
    assert result.scores is None
    assert "no test rows" in result.sweep.readme.read_text()


def test_it_is_said_where_no_trial_can_be_ended_early(recipe, tmp_path):
    notes = []
    settings = ["method.rank=1,2", "evaluation.every_steps=50", "training.max_steps=2"]
    result = run_sweep(
        recipe, settings, sweep_dir=tmp_path / "sweep", device="cpu", watch=SweepWatch(noted=notes.append)
    )
    assert [trial.state for trial in result.trials] == ["complete", "complete"]
    assert any("no trial is ended early" in note for note in notes)


# --- the sizes of the data


def test_data_sizes_train_parts_alike_and_answer_with_a_band(tmp_path):
    recipe = tiny_recipe(tmp_path)
    result = run_sweep(recipe, [], shares=[0.5, 1.0], seeds=2, sweep_dir=tmp_path / "sweep", device="cpu")
    assert [trial.state for trial in result.trials] == ["complete"] * 4
    assert {trial.facts["steps"] for trial in result.trials} == {6}
    assert [size.rows for size in result.answer.sizes] == [6, 12]
    assert all(len(size.losses) == 2 for size in result.answer.sizes)
    assert not scored(result.sweep.path)  # nothing is chosen, and the test rows are not read
    page = result.sweep.page.read_text()
    assert 'class="band"' in page
    assert page.count("<circle") == 4
    assert result.answer.sentence in result.sweep.readme.read_text()
    rows = run_of(result, 1).read_manifest()["inputs"]["data"]
    assert rows["valid"] == run_of(result, 0).read_manifest()["inputs"]["data"]["valid"]


def test_replay_is_no_part_of_the_rows_whose_shares_are_tried(tmp_path):
    recipe, general = tiny_recipe(tmp_path), tmp_path / "general.jsonl"
    general.write_text("".join(json.dumps({"text": f"general {number}"}) + "\n" for number in range(9)))
    settings = [f"data.replay={{file: {general}, share: 0.2}}", "training.max_steps=1", "data.test=null"]
    result = run_sweep(recipe, settings, shares=[0.5, 1.0], seeds=2, sweep_dir=tmp_path / "sweep", device="cpu")
    assert [size.rows for size in result.answer.sizes] == [6, 12]
    parts = sorted(result.sweep.parts.rglob("*.jsonl"))
    assert [len(path.read_text().splitlines()) for path in parts] == [6, 6]  # a file a seed
