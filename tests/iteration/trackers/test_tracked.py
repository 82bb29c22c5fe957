"""Trackers of a run: what they are told, by whom they are read back, and that none ends a training."""

import json
import re
from datetime import UTC, datetime

import pytest

from mlxtune.errors import RecipeError
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.trackers import tracked as module
from mlxtune.iteration.trackers.scalars import scalars_of, seconds_of
from mlxtune.iteration.trackers.tracked import check_trackers, tracked
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.schema import Recipe
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.metrics import append_metrics, read_metrics

STEP = {"step": 3, "loss": 2.5, "learning_rate": 0.1, "tokens": 7, "seconds": 2.0}


def recipe(*trackers: str) -> Recipe:
    content = {"name": "tiny", "model": {"source": "base"}, "data": {"train": "rows.jsonl"}}
    return Recipe.model_validate(content | {"report_to": list(trackers)})


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path)
    content = {"name": "tiny", "device": {}, "inputs": {}, "versions": {}, "started": "2026-01-02T03:04:05+00:00"}
    folder.manifest.write_text(json.dumps(content))
    return folder


class Notebook:
    """A tracker that writes down what it is told, and fails from a step on."""

    def __init__(self, fails_at: int | None = None):
        self.told, self.closed, self.fails_at = [], False, fails_at

    def add(self, step, values, *, at):
        if step == self.fails_at:
            raise OSError("the line is dead\nand more")
        self.told.append((step, dict(values), at))

    def close(self):
        self.closed = True


def test_a_tracker_is_told_numbers_and_no_words_or_places():
    assert scalars_of(STEP) == {
        "train/loss": 2.5,
        "train/learning_rate": 0.1,
        "train/tokens": 7.0,
        "train/seconds": 2.0,
    }
    assert scalars_of({"step": 3, "valid_loss": 1.5, "valid_seconds": 0.5}) == {"valid/loss": 1.5, "valid/seconds": 0.5}
    look = {"step": 3, "valid_loss": 1.5, "valid_seconds": 0.5, "samples_seconds": 0.25}
    assert scalars_of(look)["valid/samples_seconds"] == 0.25
    assert seconds_of(look) == 0.75, "of the run's clock"
    assert scalars_of({"step": 3, "skipped": "loss", "rows": ["secret.jsonl:1"], "seconds": 1.0}) == {
        "train/skipped": 1.0,
        "train/seconds": 1.0,
    }
    assert scalars_of({"step": 3, "out_of_memory": True, "part_positions": 64}) == {"train/part_positions": 64.0}


def test_the_lines_of_earlier_attempts_come_first_and_each_once_on_the_runs_own_clock(run):
    append_metrics(run.metrics, STEP)
    append_metrics(run.metrics, {"step": 3, "valid_loss": 1.0, "valid_seconds": 4.0})
    notebook, seen = Notebook(), []
    with tracked(run, recipe("wandb"), Watch(measured=seen.append), open_tracker=lambda *_: notebook) as watch:
        watch.measured({**STEP, "step": 4})
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert [(step, at - started) for step, _, at in notebook.told] == [(3, 2.0), (3, 6.0), (4, 8.0)]
    assert [line["step"] for line in seen] == [4]
    assert notebook.closed


def test_a_tracker_that_fails_is_named_once_and_told_no_more_while_the_others_go_on(run):
    notebooks, warnings = {"wandb": Notebook(fails_at=2), "tensorboard": Notebook()}, []
    watch = Watch(warned=warnings.append)
    with tracked(run, recipe(*notebooks), watch, open_tracker=lambda name, *_: notebooks[name]) as told:
        for step in (1, 2, 3):
            told.measured({**STEP, "step": step})
    assert [step for step, *_ in notebooks["wandb"].told] == [1]
    assert [step for step, *_ in notebooks["tensorboard"].told] == [1, 2, 3]
    assert len(warnings) == 1
    assert warnings[0].startswith("wandb failed and is told no more (OSError: the line is dead); the run goes on")


def test_a_tracker_that_cannot_be_opened_or_closed_ends_nothing(run):
    class Stuck(Notebook):
        def close(self):
            raise RuntimeError("cannot finish")

    def opened(name, *_):
        if name == "wandb":
            raise PermissionError("not here")
        return Stuck()

    warnings = []
    watch = Watch(warned=warnings.append)
    with tracked(run, recipe("wandb", "tensorboard"), watch, open_tracker=opened) as told:
        told.measured(STEP)
    assert [warning.split(" failed")[0] for warning in warnings] == ["wandb", "tensorboard"]


def test_an_error_of_the_owners_own_callback_is_the_owners_to_see(run):
    def own(_line):
        raise KeyError("mine")

    watch = Watch(measured=own)
    opened = lambda *_: Notebook()  # noqa: E731
    with pytest.raises(KeyError), tracked(run, recipe("wandb"), watch, open_tracker=opened) as told:
        told.measured(STEP)


def test_without_trackers_nothing_is_wrapped(run):
    watch = Watch()
    with tracked(run, recipe(), watch) as told:
        assert told is watch


def test_a_package_that_is_missing_is_named_with_its_extra_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(RecipeError, match="report_to has wandb, whose package is not installed") as caught:
        check_trackers(["wandb"])
    assert "pip install 'mlxtune[wandb]'" in caught.value.remedy


@pytest.mark.parametrize("trackers", ["[tensorboard]"])
def test_tensorboards_own_reader_finds_each_step_once_also_of_a_run_that_was_resumed(tmp_path, trackers):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'mlxtune[tensorboard]'"
    )
    from tiny import tiny_recipe

    stops = iter([False, False, False, True])
    path = tiny_recipe(tmp_path)
    overrides = [f"report_to={trackers}", "training.max_steps=6", "checkpoint.every_steps=2"]
    warned = []
    watch = Watch(should_stop=lambda: next(stops, True), warned=warned.append)
    first = run_recipe(path, overrides, device="cpu", run_dir=tmp_path / "run", score=False, watch=watch)
    assert first.interrupted
    result = resume_run(tmp_path / "run", device="cpu", score=False)
    assert not warned
    files = list((tmp_path / "run" / "tensorboard").iterdir())
    assert [bool(re.fullmatch(r"events\.out\.tfevents\.\d+\.mlxtune\.2", file.name)) for file in files] == [True]
    found = accumulator.EventAccumulator(str(files[0].parent)).Reload()
    lines = read_metrics(RunFolder(result.run_dir).metrics)
    steps = [line for line in lines if "loss" in line]
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_s"):
        scalars = found.Scalars(f"train/{name}")
        assert [one.step for one in scalars] == [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
        assert [one.value for one in scalars] == pytest.approx([line[name] for line in steps], rel=1e-6)
    validations = [line for line in lines if "valid_loss" in line]
    assert [one.step for one in found.Scalars("valid/loss")] == [line["step"] for line in validations]
    times = [one.wall_time for one in found.Scalars("train/loss")]
    assert times == sorted(times)
