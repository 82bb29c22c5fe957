"""All that is measured of one network on one set of held-out rows, row by row, so that any figure can be made of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxtune.data.example import Example
from mlxtune.data.render import Rendered
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.evaluation.measured import Measured, ratio
from mlxtune.evaluation.statistics import Interval
from mlxtune.evaluation.tasks import Task, run_task
from mlxtune.inference.likelihood import make_reader
from mlxtune.models.load import Model
from mlxtune.progress import Progress, silent

BOOTSTRAP_SEED = 0
"""The same for all models, so that all are resampled alike."""


@dataclass(frozen=True)
class Scores:
    """Metric by metric what each row adds, and each task's samples."""

    measured: Mapping[str, Measured]
    samples: Sequence[Mapping[str, Any]]

    @property
    def metrics(self) -> dict[str, Interval]:
        """Each metric's figure with its interval."""
        return {name: measured.interval(seed=BOOTSTRAP_SEED) for name, measured in self.measured.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "measured": {name: measured.to_json() for name, measured in self.measured.items()},
            "samples": list(self.samples),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Scores":
        """What `to_json` gave. Raises: KeyError or ValueError, for anything else."""
        measured = {name: Measured.from_json(one) for name, one in content["measured"].items()}
        return Scores(measured, content["samples"])


def score_model(
    model: Model,
    rendered: Sequence[Rendered],
    examples: Sequence[Example],
    tasks: Sequence[Task],
    *,
    progress: Progress = silent,
) -> Scores:
    """Read all rows for loss, bits per byte and token accuracy, then ask each task.

    Args:
        rendered, examples: the same rows, as token ids and as turns.

    Returns: ``loss``, ``bits_per_byte``, ``token_accuracy``, and ``TASK.METRIC`` for each metric of each task.
    """
    reader = make_reader(model.network)
    heldout = read_heldout(reader, model.tokenizer, rendered, progress=progress)
    rows = np.arange(len(rendered))
    measured = {
        "loss": ratio(rows, heldout.loss_sum, heldout.target_count),
        "bits_per_byte": ratio(rows, heldout.loss_sum / math.log(2), heldout.byte_count),
        "token_accuracy": ratio(rows, heldout.hit_count, heldout.target_count),
    }
    samples: list[Mapping[str, Any]] = []
    for task in tasks:
        result = run_task(model.network, model.tokenizer, examples, task, progress=progress)
        measured |= {f"{task.name}.{name}": one for name, one in result.metrics.items()}
        samples += result.samples
    return Scores(measured, samples)
