"""What models are scored on: held-out rows, how they are read, and what is asked of them.

Knows recipes and files; nothing of networks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlxtune.data.forms.template import hash_of_files
from mlxtune.data.reading.locations import is_remote
from mlxtune.data.source import Source, find_source, hash_of
from mlxtune.errors import DataError, UsageError
from mlxtune.evaluation.tasks import Task
from mlxtune.iteration.labels import leaves_labels_to_rows, settle_labels
from mlxtune.iteration.opening import held_out, kept_columns, source_of, tasks_of
from mlxtune.models.chat_template import chat_template_sha256
from mlxtune.recipe.load import LoadedRecipe
from mlxtune.recipe.schema import DataSettings, EvaluationSettings, Recipe


@dataclass(frozen=True)
class HeldOutRows:
    """What a model is scored on: rows, how they are rendered, and what is asked of them.

    ``recipe`` is the one that names them, if one does: it has training rows too, to show as examples. ``commits`` are
    those that data sets of the hub are read at.
    """

    source: Source
    data: DataSettings
    evaluation: EvaluationSettings
    recipe: Recipe | None = None
    commits: Mapping[str, str] | None = None

    @cached_property
    def tasks(self) -> list[Task]:
        """What is asked of each row."""
        return tasks_of(self.evaluation)

    def basis(self) -> dict[str, Any]:
        """All of it that scores depend on."""
        return {
            "data_sha256": hash_of(self.source),
            "data": self.data.model_dump(mode="json", exclude={"train", "valid", "test", "replay", "chat_template"}),
            "data_template": hash_of_files(self.source.shape.template),
            "chat_template": chat_template_sha256(self.data.chat_template),
            "tasks": [task.basis() for task in self.tasks],
        }


def split_to_score(recipe: Recipe, where: Path) -> str:
    """The recipe's held-out split. Raises: UsageError, if there is none."""
    if (split := held_out(recipe)) is None:
        raise UsageError(
            "the recipe names no held-out data, so there is nothing to score on",
            where=where,
            remedy="add data.test or data.valid to the recipe; `mlxtune data split` makes them from one file",
        )
    return split


def rows_of_recipe(loaded: LoadedRecipe) -> HeldOutRows:
    """The held-out rows of a recipe. Raises: UsageError, DataError."""
    recipe = loaded.recipe
    if leaves_labels_to_rows(recipe):
        recipe = settle_labels(recipe, source_of(recipe.data, "train"))
    source = held_out_source(recipe, split_to_score(recipe, loaded.path))
    return HeldOutRows(source, recipe.data, recipe.evaluation, recipe)


def held_out_source(recipe: Recipe, split: str, commits: Mapping[str, str] | None = None) -> Source:
    """Where a split's rows are. Raises: DataError, if they are not there."""
    places = [file.path for file in getattr(recipe.data, split)]
    return _present(places, lambda: source_of(recipe.data, split, keep=kept_columns(recipe), commits=commits))


def source_of_file(data: str | Path) -> Source:
    """A file of rows that no recipe speaks of. Raises: DataError, if it is not there."""
    return _present([str(data)], lambda: find_source([(str(data), 1.0)], "test"))


def any_rows(longest: int) -> DataSettings:
    """How rows are read that no recipe speaks of; the place of training data is never looked at."""
    return DataSettings.model_validate({"train": "-", "max_seq_length": longest})


def _present(places: Sequence[str], find: Callable[[], Source]) -> Source:
    """What ``find`` finds. Raises: DataError, if any of the ``places`` that it looks at is not there."""
    for place in places:
        if not is_remote(place) and not Path(place).exists():
            remedy = "name rows that are there, or put these back; what was scored before is in a run's scores.json"
            raise DataError("the held-out rows are not there", where=place, remedy=remedy)
    return find()
