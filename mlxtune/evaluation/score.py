"""All that is measured of one network on one set of held-out rows, row by row, so that any figure can be made of it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlxtune.data.example import Example
from mlxtune.data.pairs import SIDES
from mlxtune.data.render import Rendered
from mlxtune.evaluation.calibration import Calibration, calibration_of
from mlxtune.evaluation.cost import Cost
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.evaluation.measured import Measured, ratio
from mlxtune.evaluation.preferred import preferred
from mlxtune.evaluation.statistics import Interval
from mlxtune.evaluation.tasks import Task, run_task
from mlxtune.inference.likelihood import make_reader
from mlxtune.models.load import Model
from mlxtune.progress import Progress, silent

BOOTSTRAP_SEED = 0
"""The same for all models, so that all are resampled alike."""


@dataclass(frozen=True)
class Scores:
    """Metric by metric what each row adds, each task's samples, and how far the model's confidence can be believed.

    ``details`` has what a task tells besides, under its name; ``cost`` is known where whoever scored has measured it.
    """

    measured: Mapping[str, Measured]
    samples: Sequence[Mapping[str, Any]]
    calibration: Calibration
    details: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)

    @property
    def metrics(self) -> dict[str, Interval]:
        """Each metric's figure with its interval."""
        return {name: measured.interval(seed=BOOTSTRAP_SEED) for name, measured in self.measured.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "measured": {name: measured.to_json() for name, measured in self.measured.items()},
            "samples": list(self.samples),
            "calibration": self.calibration.to_json(),
            "details": dict(self.details),
            "cost": self.cost.to_json(),
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Scores":
        """What `to_json` gave. Raises: KeyError or ValueError, for anything else."""
        measured = {name: Measured.from_json(one) for name, one in content["measured"].items()}
        calibration, cost = Calibration.from_json(content["calibration"]), Cost.from_json(content["cost"])
        return Scores(measured, content["samples"], calibration, content["details"], cost)


def score_model(
    model: Model,
    rendered: Sequence[Rendered],
    examples: Sequence[Example],
    tasks: Sequence[Task],
    *,
    row_of: Sequence[int] | np.ndarray | None = None,
    pairs: bool = False,
    progress: Progress = silent,
) -> Scores:
    """Read all rows for loss, bits per byte and token accuracy, then ask each task.

    Args:
        rendered, examples: the same rows, as token ids and as turns; their numbers are those of ``examples``. Without
            ``rendered`` the tasks alone are asked.
        row_of: where ``rendered`` has rows in several parts: the example that each is a part of (`Dataset.once`).
        pairs: ``rendered`` has two rows of each example, its better answer and the other.

    Returns: ``loss``, ``bits_per_byte``, ``token_accuracy`` (of pairs: of the better answers), and ``TASK.METRIC`` for
        each metric of each task. Of pairs ``preferred`` too, how often the better answer is the likelier one, and
        ``preferred_a_token``, the same of the likelihood of a token on average, and
        ``preference_margin``, by how many nats.
    """
    measured: dict[str, Measured] = {}
    calibration = calibration_of(np.zeros(0), np.zeros(0, bool))
    if len(rendered):
        reader = make_reader(model.network)
        heldout = read_heldout(reader, model.tokenizer, rendered, row_of=row_of, progress=progress)
        if pairs:
            heldout, worse = heldout.take(slice(0, None, SIDES)), heldout.take(slice(1, None, SIDES))
            measured = preferred(heldout, worse)
        rows = np.arange(len(heldout.loss_sum))
        measured |= {
            "loss": ratio(rows, heldout.loss_sum, heldout.target_count),
            "bits_per_byte": ratio(rows, heldout.loss_sum / math.log(2), heldout.byte_count),
            "token_accuracy": ratio(rows, heldout.hit_count, heldout.target_count),
        }
        calibration = heldout.calibration
    samples: list[Mapping[str, Any]] = []
    details: dict[str, Any] = {}
    for task in tasks:
        result = run_task(model.network, model.tokenizer, examples, task, progress=progress)
        measured |= {f"{task.name}.{name}": one for name, one in result.metrics.items()}
        details |= {task.name: result.details} if result.details else {}
        samples += [
            {**sample, "prompt": prompt_text(example, task.answer_after)}
            for sample, example in zip(result.samples, examples, strict=True)
        ]
    return Scores(measured, samples, calibration, details)


def prompt_text(example: Example, answer_after: str | None) -> str:
    """What a row asks, in words: its last user's turn, or of a text what stands before the answer."""
    if example.kind == "text":
        before, found, _ = example.text.partition(answer_after) if answer_after else (example.text, "", "")
        return before + found
    return next((turn.content for turn in reversed(example.messages[:-1]) if turn.role == "user"), "")
