"""`mlxtune sweep`: what a user sees and gets, by hand and by program, and what is refused before any training."""

import json
import signal
import subprocess
import sys

import pytest
from tiny import tiny_recipe

TWO = ("method.rank=1,2", "training.max_steps=2", "training.epochs=null")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("recipe"))


def test_people_see_each_trial_the_table_the_winner_and_its_scores(run, recipe, tmp_path):
    code, out, err = run("sweep", recipe, *TWO, "--sweep-dir", tmp_path / "sweep", "--device", "cpu")
    assert code == 0
    assert f"sweep    {tmp_path / 'sweep'}" in err
    assert "trial    0 (the last is 1): method.rank 2" in err
    assert "the best so far" in err
    for told in ("the winner", "lowest validation loss", "before and after, on 6 test rows", "winner.yaml"):
        assert told in out


def test_a_sweep_that_goes_on_calls_the_best_what_is_better_than_the_trials_before_it_too(run, recipe, tmp_path):
    settings = ("training.learning_rate=1e-2,1e-9", "training.max_steps=2", "data.test=null", "--device", "cpu")
    _, _, first = run("sweep", recipe, *settings, "--trials", 1, "--sweep-dir", tmp_path / "sweep")
    _, _, second = run("sweep", "--resume", tmp_path / "sweep", "--trials", 2, "--device", "cpu")
    assert "the best so far" in first
    assert "trial    1" in second
    assert "valid loss" in second
    assert "the best so far" not in second


def test_json_is_one_line_with_trials_winner_and_scores(run, recipe, tmp_path):
    code, out, err = run("sweep", recipe, *TWO, "--sweep-dir", tmp_path / "s", "--device", "cpu", "--json", "--quiet")
    assert (code, err, out.count("\n")) == (0, "", 1)
    told = json.loads(out)
    assert [trial["state"] for trial in told["trials"]] == ["complete", "complete"]
    losses = {trial["number"]: trial["valid_loss"] for trial in told["trials"]}
    assert told["winner"]["number"] == min(losses, key=losses.__getitem__)
    assert told["scores"]["split"] == "test"
    assert told["finished"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a RECIPE, or a sweep to --resume"),
        (("method.rank=1,2",), "a RECIPE comes before method.rank=1,2"),
        (("RECIPE", "method.rnk=1,2"), "method.rnk is not a key of a recipe"),
        (("RECIPE", "method.rank=1,2", "--seeds", "3"), "--seeds is for --data-sizes"),
        (("RECIPE", "--data-sizes", "10,30"), "no list of percentages"),
        (("RECIPE", "--resume", "sweeps/x"), "--resume goes on with what the sweep began with"),
        (("--resume", "sweeps/x"), "there is no such sweep"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_sentence(run, recipe, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = [str(recipe) if one == "RECIPE" else one for one in arguments]
    code, _, err = run("sweep", *given)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named(run, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = run("sweep", recipe, *TWO)
    assert code == 1
    assert "pip install 'mlxtune[sweep]'" in err


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(run, recipe, tmp_path):
    sweep_dir = tmp_path / "sweep"
    endless = ("training.max_steps=100000", "training.epochs=null", "evaluation.every_steps=100000")
    command = [sys.executable, "-c", "from mlxtune.cli import main; main()", "sweep", str(recipe), "method.rank=1,2"]
    command += [*endless, "checkpoint.every_steps=100000", "--sweep-dir", str(sweep_dir), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("trial 0: "):
                break
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert f"go on with: mlxtune sweep --resume {sweep_dir}" in out
    assert list((sweep_dir / "trials" / "0000" / "checkpoints").glob("step_*"))
    assert not list(sweep_dir.glob("trials/*/scores.json"))
