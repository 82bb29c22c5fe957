"""A recipe that says ``offline: true`` puts the network off for whatever is done by it, and for nothing else."""

import json

import pytest
from click.testing import CliRunner
from tiny import tiny_recipe

from mlxtune.cli import main
from mlxtune.errors import RunError
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.network import is_offline


@pytest.fixture(autouse=True)
def online(monkeypatch):
    monkeypatch.delenv("MLXTUNE_OFFLINE", raising=False)


@pytest.mark.parametrize(
    "command",
    ["train", "plan", "data inspect", "data stats", "data validate", "data scan", "evaluate org/nowhere --recipe"],
)
def test_every_command_that_takes_a_recipe_obeys_it(tmp_path, command):
    recipe = tiny_recipe(tmp_path)
    recipe.write_text(recipe.read_text().replace("./model", "org/nowhere") + "offline: true\n")
    (verb, *rest) = command.split()
    if command == "data scan":  # which opens no model
        recipe.write_text(recipe.read_text().replace("train: train.jsonl", "train: hf://datasets/org/rows"))

    result = CliRunner().invoke(main, [verb, *rest, str(recipe), "--device", "cpu"])

    assert "and the network is off" in result.output
    assert not is_offline()


def test_a_run_trains_and_is_resumed_with_the_network_off_and_its_recipe_says_so(tmp_path):
    seen = []
    watch = Watch(started=lambda *_: seen.append(is_offline()))
    overrides = ["offline=true", "training.max_steps=2"]
    run = run_recipe(tiny_recipe(tmp_path), overrides, device="cpu", run_dir=tmp_path / "run", watch=watch).run_dir
    assert json.loads((run / "recipe.resolved.json").read_text())["offline"] is True
    (run / "scores.json").unlink()

    resume_run(run, device="cpu", watch=watch)

    assert seen == [True, True]
    assert not is_offline()


def test_what_goes_wrong_with_the_network_off_puts_it_on_again(tmp_path):
    with pytest.raises(RunError):
        resume_run(tmp_path)
    with pytest.raises(ValueError, match="stop here"):
        run_recipe(
            tiny_recipe(tmp_path), ["offline=true"], device="cpu", run_dir=tmp_path / "run", watch=Watch(started=stop)
        )
    assert not is_offline()


def stop(*_):
    assert is_offline()
    raise ValueError("stop here")
