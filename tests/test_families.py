"""Every family goes the whole way, in the number formats of both devices: converted, trained, fused, asked.

A few here and now, the others with `make test-slow`; those in the anatomy's table at their targets alone, two that are
not in it on full logits.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import families
import mlx.core as mx
import numpy as np
import pytest
from families import FAMILIES, family_folder
from mlx_lm.models.cache import make_prompt_cache
from reference.cross_entropy import cross_entropy
from tiny import tiny_row

from mlxtune.deployment import answer, fuse_run
from mlxtune.device.choose import open_device
from mlxtune.device.precision import CPU_FLOAT32, GPU_BFLOAT16
from mlxtune.iteration import opening
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.run import run_recipe
from mlxtune.models.convert import convert
from mlxtune.models.load import open_model
from mlxtune.recipe.load import load_recipe
from mlxtune.runs.metrics import read_metrics

FAST = ("llama", "mistral", "qwen3", "gemma2", "gemma3_text", "qwen3_moe", "qwen3_5", "lfm2", "gpt_neox")
FULL_LOGITS = ("gpt_neox", "gemma3n")
SHARE_NOTHING = ("gemma3n", "deepseek_v32")  # of a prefix: they read their caches inside
RECIPE = """
name: family
model: {source: ./q4}
data: {train: rows.jsonl, test: rows.jsonl}
method: {rank: 2}
training: {max_steps: 2, batch_size: 4, learning_rate: 1.0e-2}
"""
PROMPTS = ["Whisper 1", "So many words"]

each_family = pytest.mark.parametrize(
    "family", [family if family in FAST else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
)
each_precision = pytest.mark.parametrize("precision", [CPU_FLOAT32, GPU_BFLOAT16], ids=lambda precision: precision.name)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """A function that gives the folder of a family's model as `base`, in 4 bits as `q4`, with a recipe beside it."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            folder = made[family] = tmp_path_factory.mktemp(family)
            family_folder(folder / "base", family)
            convert(str(folder / "base"), folder / "q4", bits=4, group_size=32, device="cpu")
            rows = [tiny_row(str(number)) for number in range(4)]
            (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (folder / "recipe.yaml").write_text(RECIPE)
        return made[family]

    return make


@pytest.fixture
def number_formats(monkeypatch, precision):
    """The CPU with either device's number formats."""
    device = replace(open_device("cpu"), precision=precision)
    for module in (opening, answer, fuse_run):
        monkeypatch.setattr(module, "open_device", lambda _: device)
    own = mx.gather_mm

    def gather_mm(a, b, *rest, **options):  # MLX's CPU backend has it in float32 alone
        return own(a.astype(mx.float32), b.astype(mx.float32), *rest, **options).astype(a.dtype)

    monkeypatch.setattr(mx, "gather_mm", gather_mm)


def logits_of(folder: Path) -> np.ndarray:
    network = open_model(folder, CPU_FLOAT32).network
    return np.array(network(mx.array([[3, 1, 4, 1, 5, 9, 2, 6]])))


@each_family
def test_it_converts_to_floats_and_to_4_bits(folder_of, family, tmp_path):
    folder = folder_of(family)
    original = logits_of(folder / "base")
    floats = convert(str(folder / "base"), tmp_path / "bf16", dtype="bfloat16", device="cpu")
    assert floats["quantization"] is None
    assert np.std(logits_of(tmp_path / "bf16") - original) < 0.1 * np.std(original)
    config = json.loads((folder / "q4" / "config.json").read_text())
    assert (config["quantization"]["bits"], config["quantization"]["group_size"]) == (4, 32)
    difference = np.std(logits_of(folder / "q4") - original) / np.std(original)
    assert 0 < difference < 0.6


@each_precision
@each_family
def test_it_trains_fuses_and_answers(folder_of, family, precision, number_formats, tmp_path):
    recipe = folder_of(family) / "recipe.yaml"
    result = run_recipe(recipe, device="cpu", run_dir=tmp_path / "run", score=False)
    assert (result.steps, result.ended_by) == (2, "max_steps")
    first, second = read_metrics(tmp_path / "run" / "metrics.jsonl")
    close = 1e-4 if precision is CPU_FLOAT32 else 0.05
    assert first["loss"] == pytest.approx(loss_on_full_logits(recipe), rel=close)
    assert first["grad_norm"] > 0
    assert second["loss"] < first["loss"]
    log = (tmp_path / "run" / "logs" / "attempt_1.log").read_text()
    assert f"logits are {'full' if family in FULL_LOGITS else 'at targets only'}" in log
    assert f"prefixes are {'not ' if family in SHARE_NOTHING else ''}shared" in log

    report = fuse_run.fuse_run(tmp_path / "run", tmp_path / "fused", device="cpu", accept_loss=True)
    assert report.update_kept > 0.95
    assert report.fidelity is not None
    assert report.fidelity.mean_kl < (1e-5 if precision is CPU_FLOAT32 else 0.05)
    tuned, fused = (
        answer.generate(answer.open_answerer(tmp_path / name, device="cpu"), PROMPTS, max_tokens=4)
        for name in ("run", "fused")
    )
    assert all(one.completion_tokens for one in tuned if one.finish_reason == "length")
    if precision is CPU_FLOAT32:
        assert [one.text for one in fused] == [one.text for one in tuned]


def loss_on_full_logits(recipe: Path) -> float:
    """The mean cross-entropy of all targets before training, one row at a time, from the logits that it answers by."""
    opened = open_recipe(load_recipe(recipe).recipe, device="cpu")
    network = open_model(opened.folder.path, CPU_FLOAT32).network
    losses = []
    for row in opened.datasets["train"].rows:
        (at,) = np.nonzero(row.is_target)
        logits = np.array(network(mx.array(row.token_ids[None]), cache=make_prompt_cache(network))[0])
        losses.append(cross_entropy(logits[at - 1], row.token_ids[at]))
    return math.fsum(np.concatenate(losses)) / sum(map(len, losses))


def test_the_families_named_here_are_those_that_there_are():
    assert {*FAST, *FULL_LOGITS, *SHARE_NOTHING} <= families.FAMILIES.keys()
