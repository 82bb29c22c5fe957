"""One turn of the wheel: what a run leaves behind, how it goes on, and that a mistake leaves nothing."""

import errno
import gzip
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_flatten
from run_steps import adapter_bytes, stopping_after, train, without_timings
from safetensors.numpy import load_file
from tiny import tiny_recipe, tiny_row

from mlxtune.errors import (
    AdapterError,
    DataError,
    ModelError,
    NetworkError,
    OutputExistsError,
    RecipeError,
    RunError,
    UsageError,
)
from mlxtune.iteration.run import resume_run
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.folder import lock, open_run
from mlxtune.runs.metrics import read_metrics


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"}


# --- what a run leaves behind


def test_a_scored_run_explains_itself(tiny_run):
    assert {path.name for path in tiny_run.iterdir() if path.name != ".lock"} == {
        "README.md",
        "adapter",
        "checkpoints",
        "data.json",
        "findings.json",
        "logs",
        "metrics.jsonl",
        "recipe.resolved.json",
        "recipe.yaml",
        "report.html",
        "row_scores.json.gz",
        "run.json",
        "samples.jsonl",
        "scores.json",
    }
    assert {path.name for path in (tiny_run / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapters.safetensors",
        "mlxtune.json",
    }
    assert {path.name for path in (tiny_run / "checkpoints").iterdir()} == {
        "latest.json",
        "step_000004",
        "step_000006",
    }
    assert stat.S_IMODE(tiny_run.stat().st_mode) == 0o700
    assert (tiny_run / "recipe.yaml").read_bytes() == (tiny_run.parent / "recipe.yaml").read_bytes()


def test_each_step_and_each_validation_is_a_line(tiny_run):
    lines = read_metrics(tiny_run / "metrics.jsonl")
    assert [(line["step"], "valid_loss" in line) for line in lines] == [
        *((1, False), (2, False), (2, True), (3, False), (4, False), (4, True), (5, False), (6, False), (6, True))
    ]
    assert lines[0].keys() == {
        *("step", "loss", "learning_rate", "grad_norm", "tokens", "target_tokens", "seconds", "tokens_per_s"),
        "peak_memory_bytes",
    }
    assert lines[2].keys() == {"step", "valid_loss", "valid_seconds"}


def test_the_manifest_has_device_inputs_versions_and_the_end(tiny_run):
    manifest = json.loads((tiny_run / "run.json").read_text())
    assert manifest["device"]["kind"] == "cpu"
    assert manifest["device"]["reason"].startswith("asked for")
    assert manifest["inputs"].keys() == {
        *("recipe.resolved.json", "model", "data", "chat_template", "train_on", "precision")
    }
    steps = [line for line in read_metrics(tiny_run / "metrics.jsonl") if "loss" in line]
    finished = manifest["finished"]
    assert (finished["steps"], finished["ended_by"]) == (6, "epochs")
    assert finished["train_loss"] == steps[-1]["loss"]
    assert finished["tokens"] == sum(line["tokens"] for line in steps)
    assert finished["target_tokens"] == sum(line["target_tokens"] for line in steps)
    assert finished["seconds"] == pytest.approx(sum(line["seconds"] for line in steps))


def test_the_log_tells_what_the_attempt_did(tiny_run):
    told = [line.split(" ", 1)[1] for line in (tiny_run / "logs" / "attempt_1.log").read_text().splitlines()]
    assert told[0].startswith("python 3.")
    assert told[1].startswith("device: cpu, cpu-float32: asked for")
    assert told[2].startswith(f"model: {tiny_run.parent / 'model'}, sha256 ")
    assert told[3].startswith("train: 12 rows read, 12 kept, 0 dropped, 0 cut; ")
    assert "plan: 6 steps; starting after step 0" in told
    assert sum(line.startswith("step ") for line in told) == 9
    assert "saved step_000004" in told
    assert told[-1] == "scored base and tuned model on 6 test rows"


def test_no_text_of_the_rows_is_in_manifest_metrics_logs_or_card(tiny_run):
    for path in [*tiny_run.glob("*.*"), *(tiny_run / "logs").iterdir(), *(tiny_run / "checkpoints").rglob("*.json")]:
        if path.is_file() and path.name not in ("samples.jsonl", "data.json", "report.html"):
            text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
            assert not [word for word in ("Secretly", "Whisper", "said\\", '"said"') if word in text], path


@pytest.fixture
def unlearning(tmp_path):
    """A recipe whose validation rows, in letters that the training rows lack, get worse with every step."""
    recipe = tiny_recipe(tmp_path)
    rows = [tiny_row(f"x {number}") for number in range(4)]
    for row in rows:
        row["messages"][-1]["content"] = "ÿþýü" * 4
    (tmp_path / "valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_recipe(recipe, ["evaluation.every_steps=1", "training.lr_schedule=constant"])


def test_the_adapter_is_the_best_by_validation(unlearning, tmp_path):
    result = train(unlearning, tmp_path / "run")
    valid = {
        line["step"]: line["valid_loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if len(line) == 3
    }
    best = min(valid, key=valid.__getitem__)
    assert best < 6  # else this proves nothing
    assert result.valid_loss == valid[best]
    config = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert config["mlxtune"]["step"] == best
    written = load_file(tmp_path / "run/adapter/adapters.safetensors")
    checkpoint = load_file(tmp_path / f"run/checkpoints/step_{best:06d}/adapter.safetensors")
    assert written.keys() == checkpoint.keys()
    assert all(np.array_equal(written[name], checkpoint[name]) for name in written)


def test_a_run_that_stops_early_keeps_the_newest_and_the_best_and_is_finished(unlearning, tmp_path):
    settings = ["evaluation={every_steps: 1, early_stopping_patience: 2}", "checkpoint={every_steps: 1, keep: 1}"]
    settings += ["training.lr_schedule=constant", "training.epochs=9"]
    recipe = load_recipe(unlearning.path, settings)
    result = train(recipe, tmp_path / "run")
    valid = [line["valid_loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if "valid_loss" in line]
    best = 1 + valid.index(min(valid))
    assert (result.ended_by, result.steps, result.interrupted) == ("early_stopping", best + 2, False)
    assert result.valid_loss == min(valid)
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {
        "latest.json",
        f"step_{best:06d}",
        f"step_{best + 2:06d}",
    }
    config = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert config["mlxtune"]["step"] == best
    assert resume_run(tmp_path / "run", device="cpu", score=False).ended_by == "early_stopping"


def test_a_best_checkpoint_that_was_damaged_is_no_adapter(unlearning, tmp_path):
    best = tmp_path / "run/checkpoints/step_000001/adapter.safetensors"
    with pytest.raises(RunError, match="best validation is damaged") as caught:
        train(unlearning, tmp_path / "run", watch=Watch(trained=lambda: best.write_bytes(b"")))
    assert caught.value.where == str(best)
    assert not (tmp_path / "run/adapter").exists()


def test_the_trained_network_is_let_go_before_the_tuned_one_is_opened_to_be_scored(tmp_path):
    networks, left = [], []

    def progress(what, done, total):
        if what.startswith("score tuned"):
            left.append(len(tree_flatten(networks[0].parameters())))

    watch = Watch(progress=progress, started=lambda _, ready: networks.append(ready.state.network))
    result = train(tiny_recipe(tmp_path), tmp_path / "run", "training.max_steps=1", watch=watch, score=True)
    assert result.scores is not None
    assert set(left) == {0}


def test_without_a_test_split_a_run_ends_with_its_training(tmp_path):
    result = train(tiny_recipe(tmp_path), tmp_path / "run", "data.test=null", "training.max_steps=1", score=True)
    assert result.scores is None
    assert not result.interrupted
    assert "Not scored yet." in (tmp_path / "run/README.md").read_text()


# --- going on


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe = tiny_recipe(folder)
    train(recipe, folder / "run")
    return recipe, folder / "run"


def test_a_run_that_was_stopped_and_resumed_is_the_undisturbed_run_to_the_last_bit(undisturbed, tmp_path):
    recipe, whole = undisturbed
    watch, seen = stopping_after(3)
    result = train(recipe, tmp_path / "run", watch=watch)
    assert (result.interrupted, result.ended_by, result.steps) == (True, "stopped", 3)
    assert seen.trained
    assert not (tmp_path / "run/adapter").exists()

    went_on, seen = stopping_after(99)
    result = resume_run(tmp_path / "run", device="cpu", score=False, watch=went_on)

    assert (result.interrupted, result.steps) == (False, 6)
    assert [line["step"] for line in seen.lines if "loss" in line] == [4, 5, 6]
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(whole)
    assert without_timings(tmp_path / "run") == without_timings(whole)
    assert (tmp_path / "run/logs/attempt_2.log").exists()


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_at_step_0(undisturbed, tmp_path):
    recipe, whole = undisturbed

    def killed(line):
        if line["step"] == 3:
            raise ZeroDivisionError

    slow = ["checkpoint.every_steps=1000", "evaluation.every_steps=1000"]
    with pytest.raises(ZeroDivisionError):
        train(recipe, tmp_path / "run", *slow, watch=Watch(measured=killed))
    assert [line["step"] for line in read_metrics(tmp_path / "run/metrics.jsonl")] == [1, 2, 3]
    seen = []
    resume_run(tmp_path / "run", device="cpu", score=False, watch=Watch(measured=seen.append))
    assert [line["step"] for line in seen if "loss" in line] == [1, 2, 3, 4, 5, 6]
    losses = [[line["loss"] for line in without_timings(run) if "loss" in line] for run in (whole, tmp_path / "run")]
    assert losses[0] == losses[1]


def test_a_run_that_was_stopped_before_its_first_step_can_go_on(undisturbed, tmp_path):
    recipe, whole = undisturbed
    result = train(recipe, tmp_path / "run", watch=Watch(should_stop=lambda: True))
    assert (result.interrupted, result.steps, result.train_loss) == (True, 0, None)
    resume_run(tmp_path / "run", device="cpu", score=False)
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(whole)


def test_a_finished_run_is_left_as_it_is_even_where_model_and_data_are_gone(own_run):
    (own_run.parent / "train.jsonl").unlink()
    (own_run.parent / "model/config.json").unlink()
    before = contents(own_run)
    started = []
    result = resume_run(own_run, score=False, watch=Watch(started=lambda *what: started.append(what)))
    assert (result.steps, result.interrupted, result.run_dir) == (2, False, own_run)
    assert started == []
    assert contents(own_run) == before


def test_a_finished_run_says_so_where_nobody_may_write(own_run, monkeypatch):
    """tests/durability/test_disk.py has the same with a disk that is read-only."""
    resume_run(own_run, device="cpu")  # scores it
    before, real = contents(own_run), Path.open

    def refusing(self, mode="r", *arguments, **settings):
        if mode not in ("r", "rb"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return real(self, mode, *arguments, **settings)

    monkeypatch.setattr(Path, "open", refusing)
    assert resume_run(own_run, score=False).steps == 2
    assert resume_run(own_run).scores == json.loads((own_run / "scores.json").read_text())
    (own_run / "scores.json").unlink()
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        resume_run(own_run)
    monkeypatch.undo()
    assert contents(own_run).keys() == before.keys() - {own_run / "scores.json"}


def test_a_run_that_is_trained_but_not_scored_is_scored(own_run):
    before = adapter_bytes(own_run)
    result = resume_run(own_run, device="cpu")
    assert result.scores == json.loads((own_run / "scores.json").read_text())
    assert adapter_bytes(own_run) == before
    assert resume_run(own_run).scores == result.scores


def test_a_wish_to_stop_that_comes_with_the_last_step_leaves_the_scoring_for_later(tmp_path):
    asked = []
    watch = Watch(trained=lambda: asked.append(1), should_stop=lambda: bool(asked))
    result = train(tiny_recipe(tmp_path), tmp_path / "run", "training.max_steps=1", watch=watch, score=True)
    assert (result.interrupted, result.ended_by, result.scores) == (True, "max_steps", None)
    assert (tmp_path / "run/adapter").is_dir()
    assert not (tmp_path / "run/scores.json").exists()


def stopped_run(folder):
    recipe = tiny_recipe(folder)
    train(recipe, folder / "run", watch=stopping_after(1)[0])
    return recipe, folder / "run"


def test_another_recipe_is_refused_with_all_differences(tmp_path):
    recipe, run_dir = stopped_run(tmp_path)
    before = contents(run_dir)
    with pytest.raises(RunError) as caught:
        resume_run(run_dir, load_recipe(recipe, ["training.epochs=3", "seed=8"]), device="cpu")
    assert caught.value.message.endswith(": seed was 7, is 8; training.epochs was 2, is 3")
    assert contents(run_dir) == before
    assert resume_run(run_dir, load_recipe(recipe), device="cpu", score=False).steps == 6


def test_other_data_another_model_and_template_and_an_edited_recipe_are_refused_all_at_once(tmp_path):
    _, run_dir = stopped_run(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps(tiny_row("one more")) + "\n")
    tokenizer = tmp_path / "model/tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace("You are small.", "You are big."))
    resolved = run_dir / "recipe.resolved.json"
    resolved.write_text(resolved.read_text().replace('"completions"', '"everything"'))
    before = contents(run_dir)
    with pytest.raises(RunError) as caught:
        resume_run(run_dir, device="cpu")
    for key in ("chat_template", "data.train", "model.sha256", "recipe.resolved.json"):
        assert f"{key} was sha256 " in caught.value.message
    assert "train_on was completions, is everything" in caught.value.message
    assert contents(run_dir) == before


def test_a_run_that_another_process_works_in_is_not_resumed(own_run):
    with lock(open_run(own_run)), pytest.raises(RunError, match="another process is working in this run"):
        resume_run(own_run, device="cpu")


# --- mistakes leave nothing


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        (["method.target_modules=[nope]"], AdapterError, "recipe.yaml:5:1: target module 'nope'"),
        (["method.layers={top: 9}"], AdapterError, "the top 9 blocks; the network has 2"),
        (["data.train=absent.jsonl"], RecipeError, "data.train is not there"),
        (["data.test=bad.jsonl"], DataError, "bad.jsonl:1: messages[0]: the key 'content' is missing"),
        (["data.max_seq_length=20"], DataError, "12 problems"),
        (["model.source=org/name"], NetworkError, "the model org/name is not on this machine"),
        (["model.source=./nowhere"], ModelError, "no such file or folder"),
        (["trainin.epochs=1"], RecipeError, "trainin is not a key of a recipe"),
        (["training.epochs=two"], RecipeError, "must be a whole number"),
    ],
)
def test_a_mistake_is_told_before_there_is_a_run_folder(undisturbed, tmp_path, monkeypatch, overrides, error, told):
    recipe, _ = undisturbed
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "assistant"}]}\n')
    with pytest.raises(error) as caught:
        train(recipe, tmp_path / "new" / "run", *overrides)
    assert told in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_a_taken_folder_is_told_before_a_model_is_looked_for(undisturbed, tmp_path):
    recipe, _ = undisturbed
    (tmp_path / "mine").touch()
    with pytest.raises(OutputExistsError):
        train(recipe, tmp_path, "model.source=./nowhere")


def test_overrides_of_a_loaded_recipe_are_refused_since_earlier_ones_would_be_lost(undisturbed, tmp_path):
    recipe, _ = undisturbed
    with pytest.raises(UsageError, match="takes no more overrides"):
        train(load_recipe(recipe), tmp_path / "run", "seed=1")


# --- the blocks below the lowest adapter


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A recipe whose adapter leaves the first block alone, for two epochs."""
    folder = tmp_path_factory.mktemp("half")
    recipe = tiny_recipe(folder)
    runs = {}
    for setting in ("on", "off"):
        run_dir = folder / setting
        train(recipe, run_dir, "method.layers={top: 1}", f"training.cache_frozen_prefix={setting}")
        runs[setting] = read_metrics(run_dir / "metrics.jsonl")
    return recipe, runs


def test_losses_with_the_frozen_blocks_read_once_are_those_without(half):
    _, runs = half
    assert len(runs["on"]) == len(runs["off"]) > 6
    for on, off in zip(runs["on"], runs["off"], strict=True):
        for name in {"loss", "valid_loss"} & on.keys():
            assert on[name] == pytest.approx(off[name], rel=1e-6)


@pytest.mark.parametrize(("setting", "steps", "read"), [("auto", 4, 1), ("auto", 3, 0), ("on", 3, 1), ("off", 6, 0)])
def test_they_are_read_where_rows_are_met_again(half, tmp_path, setting, steps, read):
    recipe, _ = half
    told = set()
    watch = Watch(progress=lambda what, _done, _total: told.add(what))
    overrides = ["method.layers={top: 1}", f"training.cache_frozen_prefix={setting}", f"training.max_steps={steps}"]
    train(recipe, tmp_path / "run", *overrides, "evaluation.every_steps=9", watch=watch)
    assert ("read the frozen blocks: rows" in told) == (read > 0)
