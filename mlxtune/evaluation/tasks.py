"""A task: a prompt from each held-out row, the greedy answer, and a scorer that compares it with the row's own.

Knows examples and scorers; nothing of which model is asked. Base and tuned get the same prompts, limits and sampling.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx import nn

from mlxtune.data.example import Example
from mlxtune.data.faults import Fault, refuse
from mlxtune.data.render import Renderer
from mlxtune.errors import DataError
from mlxtune.evaluation.measured import Measured, rates
from mlxtune.evaluation.scorers import SCORERS
from mlxtune.inference.generate import generate
from mlxtune.progress import Progress, silent

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper


@dataclass(frozen=True)
class Task:
    """What to ask and how to judge it, in plain values; the recipe's task has the same names."""

    name: str
    scorer: str
    max_tokens: int
    answer_after: str | None
    fields: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TaskResult:
    """Each metric, of the rows that have it, and what was wanted and said."""

    metrics: Mapping[str, Measured]
    samples: Sequence[Mapping[str, Any]]


def check_task(tokenizer: "TokenizerWrapper", examples: Iterable[Example], task: Task, *, path: Path) -> None:
    """Find out without a network whether the task can be asked of every row.

    Args:
        path: the rows' file, for the error.

    Raises: DataError, for all rows at once of which it cannot be asked (a text row without ``answer_after`` in it, a
        reference that the scorer cannot read).
    """
    renderer = Renderer(tokenizer)
    faults, remedy = [], ""
    for example in examples:
        try:
            _, reference = renderer.prompt(example, task.answer_after)
            SCORERS[task.scorer]("", reference, fields=task.fields, where=example.where)
        except DataError as error:
            faults.append(Fault(example.where, f"task {task.name}: {error.message}"))
            remedy = remedy or error.remedy or ""
    refuse(faults, path=path, remedy=remedy)


def run_task(
    network: nn.Module,
    tokenizer: "TokenizerWrapper",
    examples: Sequence[Example],
    task: Task,
    *,
    progress: Progress = silent,
) -> TaskResult:
    """Ask the network for every row's answer and score it.

    Raises: DataError, for the first row of which `check_task` would tell.
    """
    renderer = Renderer(tokenizer)
    asked = [renderer.prompt(example, task.answer_after) for example in examples]
    score = SCORERS[task.scorer]
    prompts = [prompt for prompt, _ in asked]
    answers = generate(network, tokenizer, prompts, max_tokens=task.max_tokens, progress=progress)
    rows, samples = [], []
    for example, (_, reference), answer in zip(examples, asked, answers, strict=True):
        values = score(answer.text, reference, fields=task.fields, where=example.where)
        rows.append(values)
        samples.append(
            {
                "task": task.name,
                "where": example.where,
                "reference": reference,
                "output": answer.text,
                "finish_reason": answer.finish_reason,
                "scores": values,
            }
        )
    names = dict.fromkeys(name for row in rows for name in row)
    metrics = {name: rates({i: row[name] for i, row in enumerate(rows) if name in row}) for name in names}
    return TaskResult(metrics, samples)
