"""All that is measured of one network on one set of held-out rows, each figure with its interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlxtune.data.example import Example
from mlxtune.data.render import Rendered
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.evaluation.statistics import Interval, bootstrap_rate_interval, bootstrap_ratio_interval
from mlxtune.evaluation.tasks import Task, run_task
from mlxtune.inference.likelihood import make_reader
from mlxtune.models.load import Model
from mlxtune.progress import Progress, silent


@dataclass(frozen=True)
class Scores:
    """Metric by metric, and each task's samples."""

    metrics: Mapping[str, Interval]
    samples: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return {
            "metrics": {name: asdict(interval) for name, interval in self.metrics.items()},
            "samples": list(self.samples),
        }

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Scores":
        metrics = {name: Interval(**interval) for name, interval in content["metrics"].items()}
        return Scores(metrics, content["samples"])


def score_model(
    model: Model,
    rendered: Sequence[Rendered],
    examples: Sequence[Example],
    tasks: Sequence[Task],
    *,
    seed: int,
    progress: Progress = silent,
) -> Scores:
    """Read all rows for loss, bits per byte and token accuracy, then ask each task.

    Args:
        rendered, examples: the same rows, as token ids and as turns.
        seed: of the bootstrap; the same for both models, so that both are resampled alike.

    Returns: ``loss``, ``bits_per_byte``, ``token_accuracy``, and ``TASK.METRIC`` for each metric of each task.
    """
    reader = make_reader(model.network)
    heldout = read_heldout(reader, model.tokenizer, rendered, progress=progress)
    metrics = {
        "loss": bootstrap_ratio_interval(heldout.loss_sum, heldout.target_count, seed=seed),
        "bits_per_byte": bootstrap_ratio_interval(heldout.loss_sum / math.log(2), heldout.byte_count, seed=seed),
        "token_accuracy": bootstrap_ratio_interval(heldout.hit_count, heldout.target_count, seed=seed),
    }
    samples: list[Mapping[str, Any]] = []
    for task in tasks:
        result = run_task(model.network, model.tokenizer, examples, task, progress=progress)
        for name, values in result.metrics.items():
            metrics[f"{task.name}.{name}"] = bootstrap_rate_interval(values, seed=seed)
        samples += result.samples
    return Scores(metrics, samples)
