"""A run with replay: opened, told, hashed, resumed exactly, and refused with another file."""

import json

import pytest
from tiny import tiny_recipe

from mlxtune.errors import RecipeError, RunError
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.metrics import read_metrics


@pytest.fixture
def recipe(tmp_path):
    path = tiny_recipe(tmp_path)
    rows = [{"instruction": f"Say {i}.", "output": f"{i}."} for i in range(20)]
    (tmp_path / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = path.read_text().replace(
        "test: test.jsonl}", "test: test.jsonl, replay: {file: general.jsonl, share: 0.25}}"
    )
    path.write_text(text)
    return path


def adapter_of(run_dir):
    return (run_dir / "adapter" / "adapters.safetensors").read_bytes()


def stopping_after(steps):
    lines = []
    return Watch(measured=lines.append, should_stop=lambda: sum("loss" in line for line in lines) == steps)


def test_an_epoch_has_the_own_rows_and_its_share_of_replay(recipe):
    opened = open_recipe(load_recipe(recipe).recipe, device="cpu")
    report = opened.datasets["train"].report
    assert (report.rows, report.replay_rows) == (16, 4)
    assert [(file.format, file.share) for file in report.files] == [("chat", None), ("alpaca", 0.25)]
    assert opened.datasets["train"].system == "Secretly."
    assert opened.inputs()["data"].keys() == {"train", "valid", "test", "replay"}


def test_a_resumed_run_comes_to_the_adapter_of_one_that_was_never_stopped(recipe, tmp_path):
    whole = run_recipe(recipe, device="cpu", run_dir=tmp_path / "whole", score=False)
    stopped = run_recipe(recipe, device="cpu", run_dir=tmp_path / "part", score=False, watch=stopping_after(3))
    assert stopped.interrupted
    resume_run(tmp_path / "part", device="cpu", score=False)
    assert adapter_of(tmp_path / "part") == adapter_of(tmp_path / "whole")
    assert whole.steps == 8  # two epochs of 16 rows, 4 a step
    losses = [
        [line.get("loss") for line in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("part", "whole")
    ]
    assert losses[0] == losses[1]


def test_replay_that_has_changed_is_named_when_a_run_is_resumed(recipe, tmp_path):
    run_recipe(recipe, device="cpu", run_dir=tmp_path / "run", score=False, watch=stopping_after(2))
    (tmp_path / "general.jsonl").write_text(json.dumps({"instruction": "Other", "output": "rows."}) + "\n")
    with pytest.raises(RunError, match=r"data\.replay was sha256 .*, is sha256 "):
        resume_run(tmp_path / "run", device="cpu")


def test_the_run_tells_of_its_replay(recipe, tmp_path):
    run_recipe(recipe, ["training.max_steps=1"], device="cpu", run_dir=tmp_path / "run", score=False)
    assert "train: 32 rows read, 16 kept (4 of replay), 0 dropped" in (tmp_path / "run/logs/attempt_1.log").read_text()
    assert "general.jsonl" in (tmp_path / "run/README.md").read_text()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.replay.file=gone.jsonl", "data.replay.file is not there"),
        ("data.replay.share=0", "data.replay.share"),
        ("data.replay.share=0.95", "data.replay.share"),
        ("data.replay={share: 0.2}", "data.replay.file is missing"),
        ("data.replay={file: a.jsonl, weight: 2}", "weight"),
    ],
)
def test_replay_that_cannot_be_is_refused_by_its_key(recipe, override, told):
    with pytest.raises(RecipeError, match=told):
        load_recipe(recipe, [override]).check_files()
