"""RECIPE_OR_FILE on a command line: a recipe, or rows for which one is made that has nothing but defaults.

Rows are a file, a folder without a recipe in it, or a data set of the hub.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlxtune.cli.offline import obey_offline

if TYPE_CHECKING:
    from mlxtune.recipe.schema import Recipe

RECIPES = (".yaml", ".yml")
EITHER = ".json"
"""The ending of what may be a recipe or rows."""
LONGEST = 1 << 20
"""Bytes of a line; no recipe has a longer one, and a list of rows may be one line, larger than memory."""


def recipe_of(what: str, overrides: Sequence[str] = (), *, split: str | None = None) -> "Recipe":
    """The recipe that was named; of rows, one that trains the default model on them.

    Args:
        split: the only one that is read, if it is only one: the files of others need not be there.

    Raises: RecipeError, as `load_recipe` does, and for data files of a recipe that are not there; DataError, for rows
        that are not there.
    """
    from pydantic import ValidationError

    from mlxtune.models.catalogue import CATALOGUE
    from mlxtune.recipe.document import Document, Key, Place
    from mlxtune.recipe.faults import error_of, faults_of
    from mlxtune.recipe.load import load_recipe
    from mlxtune.recipe.overrides import apply_overrides
    from mlxtune.recipe.schema import Recipe

    place = place_of_rows(what)
    if place is None:
        loaded = load_recipe(what, overrides)
        obey_offline(loaded.recipe)
        loaded.check_files() if split is None else loaded.check_files([split])
        return loaded.recipe
    _refuse_missing(place)
    values = {"name": "rows", "model": {"source": CATALOGUE[0].name}, "data": {"train": place}}
    document = apply_overrides(Document(values, {(): Place(place)}), overrides)
    try:
        recipe = Recipe.model_validate(document.values)
    except ValidationError as error:
        faults, places = faults_of(error), document.places
    else:
        obey_offline(recipe)
        return recipe

    def place_of(key: Key) -> Place:  # of the nearest key above that is set; the whole, (), always is
        return next(places[key[:end]] for end in range(len(key), -1, -1) if key[:end] in places)

    raise error_of(faults, place_of, what)


def place_of_rows(what: str) -> str | None:
    """Where the rows are, absolute, if it is rows that were named; None, if it is a recipe."""
    from mlxtune.recipe.catalogue import packaged_recipes
    from mlxtune.recipe.data_files import REMOTE

    if what.startswith(REMOTE):
        return what
    path = Path(what).expanduser().absolute()
    if path.is_dir():
        is_recipe = any((path / f"recipe{ending}").exists() for ending in RECIPES)
        return None if is_recipe or what in [recipe.name for recipe in packaged_recipes()] else str(path)
    return str(path) if holds_rows(path) else None


def _refuse_missing(place: str) -> None:
    """Raises: DataError, for a file of this disk that cannot be read, before anything is read or fetched."""
    from mlxtune.data.reading.locations import is_remote
    from mlxtune.errors import DataError

    path = Path(place)
    if is_remote(place) or os.access(path, os.R_OK):
        return
    message = "it may not be read" if path.exists() else "there is no such file"
    raise DataError(message, where=path, remedy="name a file of rows that you can read")


def holds_rows(path: Path) -> bool:
    """Whether a file has rows and is no recipe: by the ending of its name, else by its first line."""
    from mlxtune.data.reading.kinds import find_kind

    ending = path.suffix.lower()
    if ending in RECIPES or not path.is_file():
        return ending != EITHER and find_kind(path) is not None
    if ending != EITHER and find_kind(path) is not None:
        return True
    with path.open("rb") as file:
        first = next((line for line in iter(lambda: file.readline(LONGEST), b"") if line.strip()), b"")
    if len(first) == LONGEST:
        return True
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return first.lstrip().startswith(b"[")  # a list, which the reader of rows knows to explain
    return not (isinstance(value, dict) and "model" in value)
