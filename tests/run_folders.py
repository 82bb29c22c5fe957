"""Run folders as the disk has them, made without training: for those who list, compare and remove them."""

import json
from pathlib import Path
from typing import Any

MANIFEST: dict[str, Any] = {
    "name": "mine",
    "started": "2026-11-24T10:15:00+00:00",
    "argv": ["mlxtune", "train"],
    "versions": {"mlxtune": "0.1.0", "mlx": "0.32.4", "mlx-lm": "0.32.2"},
    "git_commit": None,
    "device": {"kind": "cpu", "precision": "float32", "reason": "asked for"},
    "inputs": {"model": {"source": "tiny-model", "sha256": "a" * 64, "revision": None}, "data": {"train": "b" * 64}},
}
RECIPE: dict[str, Any] = {
    "name": "mine",
    "seed": 7,
    "method": {"type": "lora", "rank": 8},
    "data": {"train": [{"path": "/data/train.jsonl", "weight": 1.0}], "valid": None, "test": None},
    "training": {"learning_rate": 2e-4, "batch_size": 8, "epochs": 3},
}
FINISHED: dict[str, Any] = {
    "ended_by": "epochs",
    "steps": 30,
    "train_loss": 0.5,
    "valid_loss": 0.75,
    "seconds": 60.0,
    "tokens": 3000,
    "target_tokens": 900,
    "peak_memory_bytes": 1_000_000,
    "trainable_parameters": 4096,
}


def interval(mean: float, count: int = 100) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "count": count, "confidence": 0.95}


def scores(base: float = 0.25, tuned: float = 0.75, metric: str = "sort.exact", verdict: str = "better") -> dict:
    """scores.json with one metric."""
    difference = {"mean": tuned - base, "low": 0.1, "high": 0.9, "p_value": 0.001, "count": 100, "verdict": verdict}
    return {
        "split": "test",
        "rows": 100,
        "confidence": 0.95,
        "headline": metric,
        "tasks": [],
        "base": {metric: interval(base)},
        "tuned": {metric: interval(tuned)},
        "differences": {metric: difference | {"test": "paired bootstrap", "confidence": 0.95}},
        "cost": {"base": {}, "tuned": {}},
        "against": [],
        "basis": {"data_sha256": "c" * 64},
    }


def make_run(path: Path, *, steps: int = 30, finished: bool = True, **manifest: Any) -> Path:
    """A run folder of so many steps whose loss falls evenly, finished or stopped.

    Args:
        manifest: what run.json has instead.
    """
    path.mkdir(parents=True)
    (path / "checkpoints" / "step_000030").mkdir(parents=True)
    (path / "checkpoints" / "step_000030" / "adapter.safetensors").write_bytes(bytes(1000))
    (path / "checkpoints" / "latest.json").write_text('{"step": 30, "folder": "step_000030"}')
    (path / "logs").mkdir()
    content = {**MANIFEST, **({"finished": FINISHED} if finished else {}), **manifest}
    (path / "run.json").write_text(json.dumps(content))
    (path / "recipe.resolved.json").write_text(json.dumps(RECIPE))
    (path / "recipe.yaml").write_text("name: mine\n")
    lines = [{"step": step, "loss": 2 - step / steps, "seconds": 1.0} for step in range(1, steps + 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        (path / "adapter").mkdir()
        (path / "adapter" / "adapters.safetensors").write_bytes(bytes(500))
    return path


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
