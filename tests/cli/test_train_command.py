"""`mlxtune train`: what a user sees and gets, by hand, by program, and when the process is told to stop."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file
from tiny import tiny_model_folder, tiny_recipe

from mlxtune.cli import main
from mlxtune.cli.failure import Terminated, report_failure
from mlxtune.cli.output import Output
from mlxtune.cli.train import Screen, asked_to_stop
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.runs.metrics import read_metrics

ENDLESS = ["training.max_steps=1000000", "training.epochs=null", "checkpoint.every_steps=1000000"]
ENDLESS += ["evaluation.every_steps=1000000", "training.lr_schedule=constant"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("recipe"))


# --- by hand


def test_people_see_what_runs_on_what_and_the_table_at_the_end(recipe, tmp_path):
    result = run("train", recipe, "--run-dir", tmp_path / "run")
    assert result.exit_code == 0
    for line in (
        f"run      {tmp_path / 'run'}",
        "device   cpu, cpu-float32: asked for",
        f"model    {recipe.parent / 'model'}",
        "train    12 rows, ",
        "test     6 rows, ",
        ", 6 steps",
        "train: 6/6 steps  loss ",
    ):
        assert line in result.stderr
    assert result.stdout.startswith("6 steps in ")
    assert "before and after, on 6 test rows" in result.stdout
    assert result.stdout.endswith(f"run: {tmp_path / 'run'}\n")


def test_a_new_run_goes_below_runs_and_is_named_after_the_recipe(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("train", recipe, "training.max_steps=1", "--no-score", "--json")
    run_dir = Path(json.loads(result.stdout)["run_dir"])
    assert run_dir.parent == Path("runs")
    assert run_dir.name.startswith("tiny-2")
    assert (run_dir / "adapter").is_dir()


def test_rows_that_are_left_out_are_told_with_their_places(recipe, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"text": "short"}}\n{{"text": "{"long " * 60}"}}\n')
    settings = [f"data.train={rows}", "data.valid=null", "data.test=null", "data.max_seq_length=100"]
    result = run("train", recipe, *settings, "data.overflow=drop", "--run-dir", tmp_path / "run")
    assert result.exit_code == 0
    assert "train    1 rows, 6 tokens, 5 targets, 1 dropped, 0 cut" in result.stderr
    assert f"dropped {rows}:2: the row has 301 tokens" in result.stderr


def test_a_finished_run_says_so_and_shows_its_table_again(tiny_run):
    result = run("train", "--resume", tiny_run)
    assert result.exit_code == 0
    assert result.stderr == f"this run is finished already: {tiny_run}\n"
    assert "before and after, on 6 test rows" in result.stdout


# --- by program


def test_json_is_one_line_with_how_the_run_ended(recipe, tmp_path):
    result = run("train", recipe, "--run-dir", tmp_path / "run", "--json", "--quiet")
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    told = json.loads(result.stdout)
    assert told.keys() == {
        *("run_dir", "ended_by", "steps", "train_loss", "valid_loss", "seconds", "tokens", "target_tokens"),
        *("peak_memory_bytes", "trainable_parameters", "scores", "findings", "interrupted"),
    }
    assert (told["run_dir"], told["steps"], told["interrupted"]) == (str(tmp_path / "run"), 6, False)
    assert told["scores"] == json.loads((tmp_path / "run" / "scores.json").read_text())


def test_no_score_leaves_the_scoring_to_evaluate(recipe, tmp_path):
    told = json.loads(run("train", recipe, "--run-dir", tmp_path / "run", "--no-score", "--json").stdout)
    assert told["scores"] is None
    assert not (tmp_path / "run" / "scores.json").exists()
    again = json.loads(run("train", "--resume", tmp_path / "run", "--no-score", "--json").stdout)
    assert again == told
    assert run("train", recipe, "training.epochs=3", "--resume", tmp_path / "run").exit_code == 1


# --- what is wrong is told in a sentence, with its place and the way out, and leaves nothing behind


def a_model_of_an_unknown_kind(folder):
    config = tiny_model_folder(folder / "model") / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"not_a_model"'))


def a_missing_shard(folder):
    model = tiny_model_folder(folder / "model")
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")


def a_truncated_file(folder):
    weights = tiny_model_folder(folder / "model") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def a_hostile_header(folder):
    weights = tiny_model_folder(folder / "model") / "model.safetensors"
    weights.write_bytes((2**62).to_bytes(8, "little") + b"{}")


def a_truncated_gguf(folder):
    (folder / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\x7f")


@pytest.mark.parametrize(
    ("make", "source", "told"),
    [
        (a_model_of_an_unknown_kind, "model", "no class for the model type not_a_model"),
        (a_missing_shard, "model", "missing model-00002-of-00002.safetensors"),
        (a_truncated_file, "model", "the tensors end at byte"),
        (a_hostile_header, "model", "the header claims 4,611,686,018,427,387,904 bytes"),
        (a_truncated_gguf, "model.gguf", ""),
        (None, "org/name", "org/name is not on this machine"),
    ],
)
def test_a_model_that_cannot_be_used(recipe, tmp_path, make, source, told):
    if make is not None:
        make(tmp_path)
        source = tmp_path / source
    before = names(tmp_path)
    result = run("train", recipe, f"model.source={source}", "--run-dir", tmp_path / "run", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error["type"] == ("NetworkError" if make is None else "ModelError")
    assert told in error["message"]
    assert make is None or Path(error["where"]).is_relative_to(tmp_path) or error["where"] == source
    assert error["remedy"]
    assert (result.stdout, names(tmp_path)) == ("", before)


@pytest.mark.parametrize(
    ("rows", "places"),
    [
        ('{"prompt": "a", "completion": "b"}\nnonsense\n{"prompt": "a"}\n', [2, 3]),
        ('{"prompt": "a", "completion": ""}\n{"prompt": "a", "completion": "b"}\n{"completion": "b"}\n', [1, 3]),
        ('{"prompt": "a", "completion": "b"}\n' + f'{{"prompt": "{"a" * 600}", "completion": "b"}}\n', [2]),
    ],
    ids=["no JSON, no completion", "no answer, no prompt", "too long"],
)
def test_rows_that_cannot_be_used_are_told_all_of_them(recipe, tmp_path, rows, places):
    path = tmp_path / "rows.jsonl"
    path.write_text(rows)
    result = run("train", recipe, f"data.train={path}", "--run-dir", tmp_path / "run")
    assert result.exit_code == 1
    assert [line for line in (1, 2, 3) if f"{path}:{line}" in result.stderr] == places
    assert "  hint: " in result.stderr
    assert (result.stdout, names(tmp_path)) == ("", {"rows.jsonl"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("epochs: 2", "epoch: 2"), "recipe.yaml:6:12\n  hint: did you mean training.epochs?"),
        (("epochs: 2", "epochs: two"), "training.epochs must be a whole number"),
        (("name: tiny", "name: tiny\nmethod: {type: dora}"), "recipe.yaml:"),
    ],
)
def test_a_recipe_with_a_mistake_names_the_line(recipe, tmp_path, change, told):
    (tmp_path / "recipe.yaml").write_text(recipe.read_text().replace(*change))
    result = run("train", tmp_path / "recipe.yaml", "--run-dir", tmp_path / "run")
    assert result.exit_code == 2
    assert told in result.stderr
    assert f"  at: {tmp_path / 'recipe.yaml'}:" in result.stderr
    assert (result.stdout, names(tmp_path)) == ("", {"recipe.yaml"})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name a RECIPE, or a run to --resume"),
        (["--resume", "run", "--run-dir", "other"], "leave out --run-dir"),
        (["training.epochs=1"], "a RECIPE comes before training.epochs=1"),
        (["training.epochs=1", "--resume", "run"], "a RECIPE comes before training.epochs=1"),
        (["supprt-triage"], "did you mean support-triage?"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_is_opened(arguments, told):
    result = run("train", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_an_unknown_key_of_an_override_is_told_with_the_nearest(recipe):
    result = run("train", recipe, "trainin.epochs=1")
    assert result.exit_code == 2
    assert "did you mean training?" in result.stderr


def test_a_taken_run_folder_is_refused_untouched(recipe, tmp_path):
    (tmp_path / "mine").touch()
    result = run("train", recipe, "--run-dir", tmp_path)
    assert result.exit_code == 2
    assert "the run folder exists already" in result.stderr
    assert names(tmp_path) == {"mine"}


# --- when the process is told to stop


@contextlib.contextmanager
def training_child(recipe: Path, run_dir: Path):
    """A process that trains without end, when it has made three steps; killed at the end if it still runs."""
    command = [sys.executable, "-m", "mlxtune", "train", str(recipe), *ENDLESS, "--run-dir", str(run_dir)]
    child = subprocess.Popen(
        [*command, "--json", "--device", "cpu"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while len(read_metrics(run_dir / "metrics.jsonl")) < 3:
            assert child.poll() is None, child.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield child
    finally:
        child.kill()
        child.communicate()


def stopping_after(step: int) -> Watch:
    made = []
    return Watch(measured=lambda line: made.append(line["step"]), should_stop=lambda: made[-1:] == [step])


def checkpoint(run_dir: Path, step: int) -> dict[str, bytes]:
    """Every array of adapter and optimizer; in which order a file has them is no matter."""
    folder = run_dir / "checkpoints" / f"step_{step:06d}"
    return {
        f"{file} {name}": array.tobytes()
        for file in ("adapter", "optimizer")
        for name, array in load_file(folder / f"{file}.safetensors").items()
    }


def undisturbed(recipe: Path, run_dir: Path, step: int) -> dict[str, bytes]:
    run_recipe(recipe, ENDLESS, device="cpu", run_dir=run_dir, watch=stopping_after(step))
    return checkpoint(run_dir, step)


def test_ctrl_c_finishes_the_step_and_saves_and_the_run_goes_on_to_the_last_bit(recipe, tmp_path):
    run_dir = tmp_path / "run"
    with training_child(recipe, run_dir) as child:
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "stopping after this step" in stderr
    assert stdout.count("\n") == 1
    told = json.loads(stdout)
    step = told["steps"]
    assert (told["interrupted"], told["ended_by"]) == (True, "stopped")
    assert json.loads((run_dir / "checkpoints" / "latest.json").read_text())["step"] == step
    assert [line["step"] for line in read_metrics(run_dir / "metrics.jsonl")] == list(range(1, step + 1))

    resume_run(run_dir, device="cpu", watch=stopping_after(step + 2))

    assert checkpoint(run_dir, step + 2) == undisturbed(recipe, tmp_path / "whole", step + 2)


def test_sigterm_stops_as_ctrl_c_does_and_until_then_no_other_process_gets_in(recipe, tmp_path):
    with training_child(recipe, tmp_path / "run") as child:
        second = run("train", "--resume", tmp_path / "run")
        child.send_signal(signal.SIGTERM)
        stdout, _ = child.communicate(timeout=60)
    assert second.exit_code == 1
    assert f"another process is working in this run (process {child.pid})" in second.stderr
    assert child.returncode == 143
    assert json.loads(stdout)["interrupted"]


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(recipe, tmp_path):
    run_dir = tmp_path / "run"
    with training_child(recipe, run_dir) as child:
        child.kill()
    resume_run(run_dir, device="cpu", watch=stopping_after(3))
    assert [line["step"] for line in read_metrics(run_dir / "metrics.jsonl")] == [1, 2, 3]
    assert checkpoint(run_dir, 3) == undisturbed(recipe, tmp_path / "whole", 3)


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGINT, KeyboardInterrupt, 130), (signal.SIGTERM, Terminated, 143)]
)
def test_before_the_first_step_and_after_the_last_a_signal_is_obeyed_at_once(number, error, code, capsys):
    before = signal.getsignal(number)
    with pytest.raises(error) as caught, asked_to_stop(Screen(Output())):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
    abort = click.Abort()
    abort.__cause__ = caught.value  # as click turns it into
    assert report_failure(abort, as_json=True, debug=False) == code
    assert json.loads(capsys.readouterr().err)["error"]["type"] == "Interrupted"


def test_while_steps_are_made_the_first_signal_is_noted_and_the_second_obeyed(capsys):
    screen = Screen(Output())
    screen.training = True
    with asked_to_stop(screen):
        signal.raise_signal(signal.SIGTERM)
        assert screen.signals == [signal.SIGTERM]
        assert "once more to stop at once" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
