"""The labels of a recipe's choice tasks, where it names none: the different answers of its own training rows.

Never those of held-out rows: which classes there are would be told to a model that is to be tested. Answers are taken
as they are but for white space at their ends, in the order of the alphabet, so that the order of rows means nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from mlxtune.data.example import Example
from mlxtune.data.faults import LISTED, Fault, refuse
from mlxtune.data.source import Source, stream_of
from mlxtune.errors import DataError
from mlxtune.evaluation.choosing import own_answer
from mlxtune.recipe.schema import EvaluationSettings, Recipe
from mlxtune.recipe.tasks import ChoiceTask

MOST = 1000
"""Different answers; more are no classes."""
SHOWN = 20
"""Characters of an answer that an error shows."""


def settle_labels(recipe: Recipe, train: Source) -> Recipe:
    """The recipe with the labels of every choice task filled in.

    Args:
        train: the training rows; replay, if any, counts for nothing.

    Raises: DataError, if a task names labels and training rows have other answers, all of those at once; or if it names
        none, and the rows have fewer than two different answers, or more than `MOST`.
    """
    tasks = recipe.evaluation.tasks
    if not any(isinstance(task, ChoiceTask) for task in tasks):
        return recipe
    settled = tuple(_settled(task, train) if isinstance(task, ChoiceTask) else task for task in tasks)
    return recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"tasks": settled})})


def leaves_labels_to_rows(recipe: Recipe) -> bool:
    """Whether a choice task names no labels."""
    return any(isinstance(task, ChoiceTask) and task.labels is None for task in recipe.evaluation.tasks)


def with_labels_of(evaluation: EvaluationSettings, settled: EvaluationSettings) -> EvaluationSettings:
    """What an owner wrote, with the labels that ``settled`` has where they left them to the rows."""
    labels = {task.name: task.labels for task in settled.tasks if isinstance(task, ChoiceTask)}
    tasks = tuple(
        task.model_copy(update={"labels": labels[task.name]})
        if isinstance(task, ChoiceTask) and task.labels is None and task.name in labels
        else task
        for task in evaluation.tasks
    )
    return evaluation.model_copy(update={"tasks": tasks})


def _settled(task: ChoiceTask, train: Source) -> ChoiceTask:
    if task.labels is not None:
        _refuse_others(task, task.labels, train)
        return task
    labels: set[str] = set()
    for _, answer in _answers(task, train):
        labels.add(answer)
        if len(labels) > MOST:
            raise _no_classes(task, train.path, f"more than {MOST} different answers")
    if len(labels) < 2:  # noqa: PLR2004 - a choice
        raise _no_classes(task, train.path, f"{len(labels) or 'no'} answer to choose from")
    return task.model_copy(update={"labels": tuple(sorted(labels))})


def _refuse_others(task: ChoiceTask, labels: tuple[str, ...], train: Source) -> None:
    names = {label.strip() for label in labels}
    faults, count = [], 0
    for where, answer in _answers(task, train):
        if answer not in names:
            count += 1
            if count <= LISTED:
                told = answer if len(answer) <= SHOWN else answer[:SHOWN] + "..."
                faults.append(Fault(where, f"task {task.name}: the answer {told!r} is none of its {len(names)} labels"))
    remedy = "correct the rows, or name every answer in the task's labels; null takes them from the rows"
    refuse(faults, path=train.path, remedy=remedy, count=count)


def _answers(task: ChoiceTask, train: Source) -> Iterator[tuple[str, str]]:
    """Where each training row is, and its answer."""
    for file in stream_of(train.own).files:
        for example in file.open():
            if isinstance(example, Example) and (answer := own_answer(example, task.answer_after)):
                yield example.where, answer


def _no_classes(task: ChoiceTask, path: Path, found: str) -> DataError:
    return DataError(
        f"task {task.name} is a choice, and the training rows have {found}",
        where=path,
        remedy="name the task's labels, or choose another scorer",
    )
