"""A sound run's files as evidence, and curves with the noise that batches have, for planting one fault at a time."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from mlxtune.iteration.diagnose.evidence import Evidence

TRAIN: dict[str, Any] = {
    "rows_read": 400,
    "rows": 400,
    "tokens": 80_000,
    "target_tokens": 16_000,
    "kind": "chat",
    "dropped": {"count": 0, "first": []},
    "truncated": {"count": 0, "first": []},
    "labels": {"classes": 3, "rows": 400, "counts": [["a", 180], ["b", 140], ["c", 80]]},
    "duplicates": 4,
    "near_duplicates": 20,
    "system": {"of": 400, "rows": 400, "different": 1},
}
DATA: dict[str, Any] = {
    "splits": {"train": TRAIN, "test": {"rows_read": 100, "rows": 100}},
    "leakage": {"test": {"rows": 100, "same": 0, "asks_same": 0, "near": 0, "first": []}},
    "max_seq_length": 512,
    "overflow": "error",
}
SCORES: dict[str, Any] = {
    "split": "test",
    "base": {"loss": {"mean": 1.5}},
    "tuned": {"loss": {"mean": 0.45}},
    "differences": {"loss": {"mean": -1.05, "verdict": "better"}},
}
MANIFEST: dict[str, Any] = {
    "inputs": {"chat_template": "e" * 64},
    "finished": {"ended_by": "epochs"},
    "update": {"relative_norm": 0.05, "largest": 0.2, "layers": 70},
}
RECIPE: dict[str, Any] = {"training": {"learning_rate": 2e-4}, "data": {"chat_template": None}}


def curve(*points: tuple[int, float], noise: float = 0.1, seed: int = 0) -> list[dict[str, Any]]:
    """A line a step, the losses on straight lines between ``points`` (step, loss), each off by some of itself."""
    steps = np.arange(1, points[-1][0] + 1)
    means = np.interp(steps, [step for step, _ in points], [loss for _, loss in points])
    losses = means * (1 + noise * np.random.default_rng(seed).standard_normal(len(steps)))
    return [
        {"step": int(step), "loss": float(loss), "learning_rate": 2e-4, "grad_norm": 1.0}
        for step, loss in zip(steps, losses, strict=True)
    ]


def looks(*points: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"step": step, "valid_loss": loss, "valid_seconds": 1.0} for step, loss in points]


LEARNS = [*curve((1, 1.5), (60, 0.45), (150, 0.4)), *looks((50, 0.52), (100, 0.47), (150, 0.46))]
"""The loss falls, flattens, and on unseen rows it goes along."""


def evidence(*, metrics: Any = LEARNS, adapter: Path = Path("nowhere"), **planted: Any) -> Evidence:
    """A sound run, but for what is planted in ``data``, ``scores``, ``manifest`` or ``recipe``."""
    sound = {"data": DATA, "scores": SCORES, "manifest": MANIFEST, "recipe": RECIPE}
    files = {name: put_over(deepcopy(content), planted.get(name, {})) for name, content in sound.items()}
    return Evidence(**files, metrics=metrics, adapter=adapter)


def train(**planted: Any) -> dict[str, Any]:
    """data.json with the training rows so."""
    return {"splits": {"train": planted}}


def put_over(content: dict[str, Any], planted: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in planted.items():
        inside = content.get(key)
        content[key] = put_over(inside, value) if isinstance(inside, dict) and isinstance(value, Mapping) else value
    return content
