"""A task: a prompt from each held-out row, the model's answer, and a scorer that compares it with the row's own.

Knows examples and scorers; nothing of which model is asked. Base and tuned get the same prompts, limits and sampling.
Most scorers judge a text that is written, greedily; `choice` has the model choose among labels, and writes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mlx import nn

from mlxtune.data.example import Example
from mlxtune.data.faults import Fault, refuse
from mlxtune.data.render import Renderer
from mlxtune.data.rendering.answer_spans import thinks
from mlxtune.errors import DataError
from mlxtune.evaluation.choosing import check_choice, choose_labels
from mlxtune.evaluation.classes import confusion, macro_f1
from mlxtune.evaluation.measured import Measured, rates
from mlxtune.evaluation.own_code import code_sha256
from mlxtune.evaluation.scorers import SCORERS
from mlxtune.evaluation.verdict import FEWEST_ROWS
from mlxtune.inference.generate import generate
from mlxtune.progress import Progress, silent

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper


ODD_SHARE = 0.1
"""Of the rows, that may have an answer which is none of the labels: a class so rare that no training row has it, which
every model gets wrong. More are a mistake in the labels or the rows."""
ODD = "no label"
"""The kind of such a row's fault."""
SHOWN = 20
"""Characters of such an answer, in its error."""


@dataclass(frozen=True)
class Task:
    """What to ask and how to judge it, in plain values; the recipe's task has the same names.

    ``max_tokens`` is 0 where no text is written; then ``labels`` are what the model chooses from, else None.
    ``settings`` are the scorer's own.
    """

    name: str
    scorer: str
    max_tokens: int
    answer_after: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row that scoring needs besides its answer (`Example.kept`)."""
        reads = getattr(SCORERS[self.scorer], "reads", None)
        return () if reads is None else reads(self.settings)

    def basis(self) -> dict[str, Any]:
        """All that scores depend on, of the task; JSON values."""
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in self.settings.items()}
        if self.scorer == "python":
            told["code_sha256"] = code_sha256(self.settings["function"])
        return {
            "name": self.name,
            "scorer": self.scorer,
            "max_tokens": self.max_tokens,
            "answer_after": self.answer_after,
            "labels": None if self.labels is None else list(self.labels),
            **told,
        }


@dataclass(frozen=True)
class TaskResult:
    """Each metric of the rows that have it, where these are at least `FEWEST_ROWS` of as many or more; what was wanted
    and said of each row; and what else there is to tell.
    """

    metrics: Mapping[str, Measured]
    samples: Sequence[Mapping[str, Any]]
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""


def score_answer(task: Task, example: Example, output: str, reference: str) -> dict[str, float]:
    """What the task's scorer says of one answer; the metric named by its ``PRIMARY`` is the one for a reward.

    Raises: DataError, if the reference cannot be scored.
    """
    row = {"row": example.kept} if hasattr(SCORERS[task.scorer], "reads") else {}
    return SCORERS[task.scorer].score(output, reference, **task.settings, **row, where=example.where)


def check_task(tokenizer: "TokenizerWrapper", examples: Iterable[Example], task: Task, *, path: Path) -> None:
    """Find out without a network whether the task can be asked of every row.

    Args:
        path: the rows' file, for the error.

    Raises: DataError, for all rows at once of which it cannot be asked (a text row without ``answer_after`` in it, a
        reference that the scorer cannot read, an answer that is no label); UsageError, if the scorer cannot work here
        at all.
    """
    renderer = Renderer(tokenizer)
    rows, faults = 0, []
    for example in examples:
        if rows == 0 and task.labels is not None:
            check_choice(renderer, example, task.labels, task.answer_after)
        rows += 1
        faults += _faults_of(renderer, example, task)
    if sum(fault.kind == ODD for fault in faults) <= ODD_SHARE * rows:
        faults = [fault for fault in faults if fault.kind != ODD]
    refuse(faults, path=path, remedy=next((fault.remedy for fault in faults), ""))


def _faults_of(renderer: Renderer, example: Example, task: Task) -> Iterator[Fault]:
    """What is wrong with one row, if anything is."""
    try:
        _, reference = renderer.prompt(example, task.answer_after)
        for output in dict.fromkeys(("", reference)):
            score_answer(task, example, output, reference)
    except DataError as error:
        yield Fault(example.where, f"task {task.name}: {error.message}", remedy=error.remedy or "")
        return
    if task.labels is None:
        return
    if example.kind != "text" and thinks(example.messages[-1]):
        message = f"task {task.name}: a label is chosen at once, and the row's answer has thoughts"
        yield Fault(example.where, message, remedy="take the thoughts out, or choose the scorer contains")
    elif (answer := reference.strip()) not in {label.strip() for label in task.labels}:
        told = answer if len(answer) <= SHOWN else answer[:SHOWN] + "..."
        message = f"task {task.name}: the answer {told!r} is none of the {len(task.labels)} labels"
        yield Fault(example.where, message, ODD, "correct the rows, or name all labels in the task's labels")


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
    references = [reference for _, reference in asked]
    if task.labels is not None:
        outputs = choose_labels(network, renderer, examples, task.labels, task.answer_after, progress=progress)
        reasons = ["stop"] * len(outputs)
    else:
        prompts = [prompt for prompt, _ in asked]
        answers = generate(network, tokenizer, prompts, max_tokens=task.max_tokens, progress=progress)
        outputs = [answer.text for answer in answers]
        reasons = [answer.finish_reason for answer in answers]
    return _result(task, examples, references, outputs, reasons)


def _result(
    task: Task, examples: Sequence[Example], references: Sequence[str], outputs: Sequence[str], reasons: Sequence[str]
) -> TaskResult:
    """Score what was said."""
    scores = [
        score_answer(task, example, output, reference)
        for example, output, reference in zip(examples, outputs, references, strict=True)
    ]
    samples = [
        {
            "task": task.name,
            "where": example.where,
            "reference": reference,
            "output": output,
            "finish_reason": reason,
            "scores": values,
        }
        for example, reference, output, reason, values in zip(
            examples, references, outputs, reasons, scores, strict=True
        )
    ]
    scorer = SCORERS[task.scorer]
    counts = Counter(name for row in scores for name in row)  # in the order in which they came
    few = FEWEST_ROWS if len(scores) >= FEWEST_ROWS else 1  # a field that one row in a hundred has is no figure
    names = [name for name, count in counts.items() if count >= few or name == scorer.PRIMARY]
    metrics = {name: rates({i: row[name] for i, row in enumerate(scores) if name in row}) for name in names}
    if hasattr(scorer, "adds"):
        sums = [scorer.adds(*pair, **task.settings) for pair in zip(outputs, references, strict=True)]
        metrics[scorer.PRIMARY] = Measured(np.arange(len(sums)), np.array(sums, np.float64), scorer.PRIMARY)
    if task.labels is None:
        return TaskResult(metrics, samples)
    metrics["macro_f1"] = macro_f1(references, outputs, task.labels)
    return TaskResult(metrics, samples, confusion(references, outputs, task.labels))
