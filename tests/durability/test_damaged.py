"""A checkpoint that the disk has damaged: the run goes on from the one before it, says so, and ends the same."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from durability.runs import child as run_child
from durability.runs import contents, finish

from mlxtune.cli import main
from mlxtune.errors import RunError
from mlxtune.iteration.run import resume_run
from mlxtune.iteration.watch import Watch
from mlxtune.training.checkpoint import checkpoints

FILES = ("adapter.safetensors", "optimizer.safetensors", "trainer_state.json", "window.safetensors", "SHA256SUMS")


def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.fixture(scope="module")
def stopped(recipe, tmp_path_factory):
    """A run that was stopped within its fifth step, with checkpoints after 3 and 4."""
    run_dir = tmp_path_factory.mktemp("stopped") / "work" / "run"
    assert run_child(recipe, run_dir, SIGINT="6 lines: batch #2").code == 130
    return run_dir


@pytest.fixture
def run_dir(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


@pytest.mark.parametrize(
    ("damage", "file"), [*((flip, file) for file in FILES), (cut, "optimizer.safetensors"), (Path.unlink, "SHA256SUMS")]
)
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(recipe, undisturbed, run_dir, damage, file):
    damaged = run_dir / "checkpoints" / "step_000004"
    damage(damaged / file)
    warned, resumed = [], []
    finish(recipe, run_dir, Watch(warned=warned.append, started=lambda _, ready: resumed.append(ready.state.step)))
    assert warned == [f"{damaged} is damaged; going on from the checkpoint before it"]
    assert resumed == [3]
    assert "step_000004 is damaged; going on from the one before it" in (run_dir / "logs/attempt_2.log").read_text()
    assert contents(run_dir) == contents(undisturbed[0])


def test_the_warning_is_on_standard_error(recipe, run_dir):
    flip(run_dir / "checkpoints/step_000004/adapter.safetensors")
    result = CliRunner().invoke(main, ["train", "--resume", str(run_dir), "--no-score", "--json", "--device", "cpu"])
    assert result.exit_code == 0
    assert f"{run_dir / 'checkpoints/step_000004'} is damaged" in result.stderr
    assert result.stdout.count("\n") == 1


def test_where_every_checkpoint_is_damaged_nothing_is_touched(recipe, run_dir):
    for path in checkpoints(run_dir / "checkpoints"):
        flip(path / "optimizer.safetensors")
    metrics = (run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match="every checkpoint is damaged") as caught:
        resume_run(run_dir, device="cpu")
    assert (caught.value.where, caught.value.exit_code) == (str(run_dir / "checkpoints"), 1)
    assert caught.value.remedy
    assert (run_dir / "metrics.jsonl").read_bytes() == metrics
    assert [path.name for path in checkpoints(run_dir / "checkpoints")] == ["step_000003", "step_000004"]
