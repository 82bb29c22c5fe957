"""A plan is held against the run that follows it; what cannot be timed in a test is timed in benchmarks/."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import tiny_model_folder, tiny_recipe, tiny_row

from mlxtune.device.memory import MemoryLimit
from mlxtune.errors import DeviceError, TrainingError
from mlxtune.iteration import forecast as module
from mlxtune.iteration.forecast import choose_recomputation, forecast, refuse_too_large, settle_memory
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import EveryBlock
from mlxtune.runs.metrics import read_metrics

PLENTY = MemoryLimit(1 << 40, "plenty")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Six blocks and rows of very different lengths, so that recomputing blocks shows in memory."""
    folder = tmp_path_factory.mktemp("forecast")
    path = tiny_recipe(folder)
    tiny_model_folder(folder / "model", hidden=64, heads=2, kv_heads=1, layers=6)
    rows = [tiny_row(f"row {number} " + "word " * (number * 7 % 24)) for number in range(24)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ready_of(recipe, *overrides):
    return make_ready(open_recipe(load_recipe(recipe, overrides).recipe, device="cpu"))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["training.grad_checkpoint={every: 1}"],
        ["training.grad_checkpoint={every: 2}"],
        ["method.layers={top: 2}"],
        ["training.batch_tokens=600", "training.batch_size=null"],
        ["training.batch_size=1", "training.gradient_accumulation_steps=3"],
        ["training.batch_size=16"],
        ["method.rank=16", "training.optimizer=adafactor", "training.learning_rate=1e-3"],
    ],
    ids=str,
)
def test_the_peak_is_that_of_the_run_within_a_tenth(recipe, tmp_path, overrides):
    overrides = [*overrides, "training.epochs=1", "data.max_seq_length=1024"]
    found = forecast(ready_of(recipe, *overrides), PLENTY)
    result = run_recipe(recipe, overrides, device="cpu", run_dir=tmp_path / "run", score=False)
    peak = max(line["peak_memory_bytes"] for line in read_metrics(result.run_dir / "metrics.jsonl") if "loss" in line)
    assert found.peak_memory_bytes == pytest.approx(peak, rel=0.1)
    assert found.steps == result.steps
    assert found.trainable_parameters == result.trainable_parameters
    assert (found.tokens_an_epoch, found.target_tokens_an_epoch) == (result.tokens, result.target_tokens)


def test_trying_leaves_every_bit_of_the_state(recipe):
    ready = ready_of(recipe, "training.epochs=1")

    def snapshot():
        state = ready.state
        kept = {"network": state.network.parameters(), "optimizer": state.optimizer.state}
        return {name: np.array(array) for name, array in tree_flatten(kept)}, state.counters()

    arrays, counters = snapshot()
    forecast(ready, PLENTY)
    after, counters_after = snapshot()
    assert counters_after == counters
    assert after.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_a_run_that_was_foretold_ends_in_the_same_adapter(recipe, tmp_path):
    overrides = ["training.max_steps=3", "training.epochs=null"]
    plain = run_recipe(
        recipe, [*overrides, "training.grad_checkpoint=off"], device="cpu", run_dir=tmp_path / "a", score=False
    )
    auto = run_recipe(recipe, overrides, device="cpu", run_dir=tmp_path / "b", score=False, auto=True)
    name = "adapter/adapters.safetensors"
    assert (plain.run_dir / name).read_bytes() == (auto.run_dir / name).read_bytes()


def test_no_block_is_recomputed_where_memory_is_plenty(recipe):
    chosen, peak = choose_recomputation(ready_of(recipe), PLENTY)
    assert chosen == "off"
    assert peak <= PLENTY.bytes


def test_as_few_blocks_are_recomputed_as_memory_needs(recipe):
    def peak(setting):
        ready = ready_of(recipe, "training.epochs=1", f"training.grad_checkpoint={setting}")
        return forecast(ready, PLENTY).peak_memory_bytes

    def chosen(limit_bytes):
        return choose_recomputation(ready_of(recipe, "training.epochs=1"), MemoryLimit(int(limit_bytes), "a test's"))

    all_of_them, half, off = peak("{every: 1}"), peak("{every: 2}"), peak("off")
    assert all_of_them < half < off
    assert chosen((all_of_them + half) / 2)[0] == EveryBlock(every=1)
    setting, taken = chosen(1.25 * half)  # a fit is not trusted to the last tenth
    assert setting != "off"
    assert setting.every >= 2
    assert taken <= 1.25 * half
    assert peak(f"{{every: {setting.every}}}") <= 1.25 * half
    assert chosen(1.25 * off)[0] == "off"


def test_what_auto_chose_is_in_the_resolved_recipe_and_resuming_keeps_it(recipe, tmp_path, monkeypatch):
    off = forecast(ready_of(recipe), PLENTY).peak_memory_bytes
    monkeypatch.setattr(module, "memory_limit", lambda: MemoryLimit(int(0.9 * off), "a test's"))
    steps = []
    watch = Watch(should_stop=lambda: len(steps) >= 2, measured=steps.append)
    run = run_recipe(recipe, device="cpu", run_dir=tmp_path / "run", score=False, watch=watch)
    assert run.interrupted
    resolved = json.loads((tmp_path / "run" / "recipe.resolved.json").read_text())
    assert resolved["training"]["grad_checkpoint"].keys() == {"every"}
    monkeypatch.setattr(module, "memory_limit", lambda: pytest.fail("a resumed run chooses anew"))
    result = resume_run(tmp_path / "run", load_recipe(recipe), device="cpu", score=False)
    assert not result.interrupted


def test_a_run_that_cannot_fit_is_refused_before_anything_is_written(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "memory_limit", lambda: MemoryLimit(1000, "nothing is left"))
    with pytest.raises(TrainingError, match="of memory, and") as error:
        run_recipe(recipe, device="cpu", run_dir=tmp_path / "run", score=False)
    assert "nothing is left" in error.value.message
    assert "method.layers" in error.value.remedy
    assert not (tmp_path / "run").exists()


def test_no_batch_is_tried_that_may_not_fit(recipe, monkeypatch):
    ready = ready_of(recipe, "training.epochs=1")
    tried = []
    original = module.Trial.measure

    def measure(self, rows):
        tried.append(module.training_shape(ready, rows))
        return original(self, rows)

    monkeypatch.setattr(module.Trial, "measure", measure)
    found = forecast(ready, MemoryLimit(1000, "nothing"))
    largest = max(module.work_of(ready).shapes, key=lambda shape: shape.size)
    assert largest not in tried
    assert not found.fits
    with pytest.raises(TrainingError):
        refuse_too_large(found)


def test_memory_that_is_not_there_after_all_ends_the_trying(recipe, monkeypatch):
    ready = ready_of(recipe, "training.epochs=1")
    calls = []
    original = module.Trial.measure

    def measure(self, rows):
        calls.append(rows)
        if len(calls) > 3:
            raise RuntimeError("[malloc] Unable to allocate 123 bytes.")
        return original(self, rows)

    monkeypatch.setattr(module.Trial, "measure", measure)
    found = forecast(ready, PLENTY)
    monkeypatch.undo()
    assert found.peak_memory_bytes >= forecast(ready, PLENTY).peak_memory_bytes


def test_a_longer_row_fits_where_there_is_more_memory(recipe):
    longest = []
    peak = forecast(ready_of(recipe, "training.epochs=1"), PLENTY).peak_memory_bytes
    for factor in (1.2, 2, 4):
        ready = ready_of(recipe, "training.epochs=1")
        longest.append(forecast(ready, MemoryLimit(int(factor * peak), "a test's")).longest_row)
    assert longest == sorted(longest)
    assert longest[0] > 0


def test_minutes_become_steps_by_what_a_step_takes(recipe):
    overrides = ["training.max_minutes=0.5", "training.epochs=null"]
    found = forecast(ready_of(recipe, *overrides), PLENTY)
    assert found.seconds == pytest.approx(30, rel=0.2)
    assert found.steps > found.steps_an_epoch


def test_where_the_system_does_not_tell_its_memory_a_run_goes_on(recipe, monkeypatch):
    def untold():
        raise DeviceError("the system does not tell")

    monkeypatch.setattr(module, "memory_limit", untold)
    ready, found = settle_memory(ready_of(recipe))
    assert found is None
    assert ready.opened.recipe.training.grad_checkpoint == "auto"


def test_a_value_in_the_recipe_is_kept_unless_auto_is_asked_for(recipe, monkeypatch):
    monkeypatch.setattr(module, "memory_limit", lambda: PLENTY)
    ready, found = settle_memory(ready_of(recipe, "training.grad_checkpoint={every: 2}"))
    assert ready.opened.recipe.training.grad_checkpoint == EveryBlock(every=2)
    assert found is None
    ready, found = settle_memory(ready_of(recipe, "training.grad_checkpoint={every: 2}"), auto=True)
    assert ready.opened.recipe.training.grad_checkpoint == "off"
    assert found is not None
    assert found.fits
    mx.clear_cache()
