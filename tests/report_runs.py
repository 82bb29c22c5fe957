"""Run folders made by hand: the files that a report reads, as mlxtune writes them, with any text in every place that
holds a user's. No network is trained, so a report of any state of a run costs milliseconds.
"""

import copy
import hashlib
import json
import math
from pathlib import Path

from mlxtune.runs.folder import RunFolder

WEIGHTS = b"not really an adapter"


def interval(mean, low, high, count=60):
    return {"mean": mean, "low": low, "high": high, "count": count, "confidence": 0.95}


def difference(mean, low, high, *, p=0.0005, verdict="better", count=60, test="McNemar"):
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "p_value": p,
        "test": test,
        "count": count,
        "confidence": 0.95,
        "verdict": verdict,
    }


SCORES = {
    "split": "test",
    "rows": 60,
    "confidence": 0.95,
    "headline": "triage.correct",
    "tasks": [{"name": "triage", "scorer": "json_fields", "primary": "correct"}],
    "base": {
        "loss": interval(2.31, 2.2, 2.42),
        "bits_per_byte": interval(1.1, 1.0, 1.2),
        "triage.correct": interval(0.1, 0.03, 0.18),
    },
    "tuned": {
        "loss": interval(0.41, 0.36, 0.47),
        "bits_per_byte": interval(0.2, 0.17, 0.24),
        "triage.correct": interval(0.8, 0.7, 0.9),
    },
    "differences": {
        "loss": difference(-1.9, -2.0, -1.8, test="paired bootstrap"),
        "bits_per_byte": difference(-0.9, -1.0, -0.8, test="paired bootstrap"),
        "triage.correct": difference(0.7, 0.58, 0.81),
    },
    "cost": {
        "base": {
            "parameters": 134_515_008,
            "disk_bytes": 98_362_432,
            "peak_memory_bytes": 612_000_000,
            "tokens_per_s": 61.5,
        },
        "tuned": {
            "parameters": 135_700_000,
            "disk_bytes": 103_000_000,
            "peak_memory_bytes": 640_000_000,
            "tokens_per_s": None,
        },
    },
    "details": {"base": {}, "tuned": {}},
    "against": [],
    "versions": {},
}

DATA = {
    "splits": {
        "train": {
            "rows_read": 240,
            "rows": 231,
            "tokens": 30_000,
            "target_tokens": 9_000,
            "kind": "chat",
            "files": [
                {
                    "name": "train.jsonl",
                    "format": "chat",
                    "why": "chat: rows have messages",
                    "weight": 1.0,
                    "rows_read": 240,
                    "rows": 231,
                }
            ],
            "lengths": {"min": 60, "p50": 128, "p90": 160, "p99": 190, "max": 200},
            "histogram": [{"start": 0, "end": 100, "rows": 31}, {"start": 100, "end": 200, "rows": 200}],
            "dropped": {"count": 9, "first": [{"where": "train.jsonl:7", "why": "the row has 900 tokens"}]},
            "truncated": {"count": 0, "first": []},
            "labels": {"classes": 2, "rows": 231, "counts": [["yes", 200], ["no", 31]]},
            "duplicates": 4,
            "near_duplicates": 11,
        },
        "test": {
            "rows_read": 60,
            "rows": 60,
            "tokens": 8_000,
            "target_tokens": 2_400,
            "kind": "chat",
            "files": [],
            "lengths": {"min": 60, "p50": 128, "p90": 160, "p99": 190, "max": 200},
            "histogram": [{"start": 0, "end": 100, "rows": 60}],
            "dropped": {"count": 0, "first": []},
            "truncated": {"count": 0, "first": []},
            "labels": None,
            "duplicates": 0,
            "near_duplicates": None,
        },
    },
    "leakage": {"test": {"rows": 60, "same": 0, "asks_same": 0, "near": 0, "first": []}},
    "overlap": None,
    "masks": [
        {
            "split": "train",
            "where": "train.jsonl:1",
            "tokens": 9,
            "target_tokens": 4,
            "spans": [["user\nHello there\nassistant\n", False], ["Good day.", True]],
            "omitted": {"after": 1, "tokens": 3},
        }
    ],
    "privacy": {
        "rows": 300,
        "regions": ["US", "GB"],
        "counts": {"email": 3},
        "by_split": {"train": {"email": 3}, "test": {}},
    },
    "max_seq_length": 512,
    "overflow": "drop",
    "train_on": "completions",
    "not_checked": [],
    "basis": {"data": {}},
}

FINDINGS = [
    {
        "kind": "overfitting",
        "severity": "hint",
        "sentence": "the validation loss rose after update 20",
        "evidence": {"best_step": 20, "rise": 0.1234567},
        "key": "training.max_steps",
        "remedy": "stop earlier",
    }
]


def sample(where, base, tuned, *, wanted="yes", prompt="Is it?", scores=(0.0, 1.0)):
    return {
        "task": "triage",
        "where": where,
        "prompt": prompt,
        "reference": wanted,
        "base": base,
        "tuned": tuned,
        "against": {},
        "scores": {"base": {"correct": scores[0]}, "tuned": {"correct": scores[1]}},
    }


SAMPLES = [
    sample("test.jsonl:1", "no", "yes"),
    sample("test.jsonl:2", "yes it is", "yes it was not", wanted="yes it is", scores=(1.0, 0.0)),
    sample("test.jsonl:3", "maybe", "no", scores=(0.0, 0.0)),
    sample("test.jsonl:4", "yes", "yes", scores=(1.0, 1.0)),
]


def step(number, **changes):
    line = {
        "step": number,
        "loss": 0.4 + 2 * math.exp(-number / 8),
        "learning_rate": 2e-4 * number / 30,
        "grad_norm": 1.5,
        "tokens": 500,
        "target_tokens": 120,
        "seconds": 0.5,
        "tokens_per_s": 1000.0,
        "peak_memory_bytes": 800_000_000,
    }
    return line | changes


def metrics(steps=30, every=10):
    lines = []
    for number in range(1, steps + 1):
        lines.append(step(number))
        if number % every == 0:
            lines.append({"step": number, "valid_loss": 1 / number + 0.4, "valid_seconds": 0.2})
    return lines


def scores(**changes):
    return copy.deepcopy(SCORES) | changes


def data(**changes):
    return copy.deepcopy(DATA) | changes


def make_run(
    folder: Path,
    *,
    name="support-triage",
    recipe_text="name: support-triage\n",
    finished=True,
    lines=None,
    scored=SCORES,
    samples=SAMPLES,
    told=DATA,
    findings=FINDINGS,
    held_out="test.jsonl",
    argv=("mlxtune", "train", "support-triage"),
) -> RunFolder:
    """A run in ``folder``; None leaves a file out."""
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True)
    run.recipe.write_text(recipe_text)
    resolved = {
        "name": name,
        "seed": 7,
        "model": {"source": "smollm2-135m-instruct"},
        "method": {"type": "lora", "rank": 8, "alpha": 16.0},
        "data": {"train": ["train.jsonl"], "valid": None, "test": held_out and [held_out]},
        "training": {"max_steps": 30},
    }
    run.resolved.write_text(json.dumps(resolved))
    manifest = {
        "name": name,
        "started": "2026-11-24T10:15:00+00:00",
        "argv": list(argv),
        "versions": {"mlxtune": "0.1.0", "mlx": "0.32.4"},
        "git_commit": None,
        "device": {"kind": "cpu", "precision": "float32", "reason": "there is no Apple GPU"},
        "inputs": {"model": {"source": "smollm2-135m-instruct", "revision": None, "sha256": "ab" * 32}},
    }
    if finished:
        manifest["finished"] = {
            "ended_by": "max_steps",
            "steps": 30,
            "seconds": 15.0,
            "tokens": 15_000,
            "target_tokens": 3_600,
            "peak_memory_bytes": 800_000_000,
            "trainable_parameters": 1_200_000,
        }
        run.adapter.mkdir()
        (run.adapter / "adapters.safetensors").write_bytes(WEIGHTS)
    run.manifest.write_text(json.dumps(manifest))
    lines = metrics() if lines is None else lines
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if scored is not None:
        basis = {"adapter_sha256": hashlib.sha256(WEIGHTS).hexdigest()}
        run.scores.write_text(json.dumps({"basis": basis} | scored))
        run.samples.write_text("".join(json.dumps(one) + "\n" for one in samples))
    for path, content in ((run.data, told), (run.findings, findings)):
        if content is not None:
            path.write_text(json.dumps(content))
    return run
