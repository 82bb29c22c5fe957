"""RECIPE_OR_FILE on a command line: a recipe, or rows for which one is made that has nothing but defaults."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxtune.recipe.schema import Recipe

ROWS, RECIPES = (".jsonl", ".ndjson"), (".yaml", ".yml")
"""Endings that say what a file is."""


def recipe_of(what: str, overrides: Sequence[str] = ()) -> "Recipe":
    """The recipe that was named; of a file of rows, one that trains the default model on them.

    Raises: RecipeError, as `load_recipe` does, and for data files of a recipe that are not there.
    """
    from pydantic import ValidationError

    from mlxtune.models.catalogue import CATALOGUE
    from mlxtune.recipe.document import Document, Key, Place
    from mlxtune.recipe.faults import error_of, faults_of
    from mlxtune.recipe.load import load_recipe
    from mlxtune.recipe.overrides import apply_overrides
    from mlxtune.recipe.schema import Recipe

    path = Path(what).expanduser().absolute()
    if not holds_rows(path):
        loaded = load_recipe(what, overrides)
        loaded.check_files()
        return loaded.recipe
    values = {"name": "rows", "model": {"source": CATALOGUE[0].name}, "data": {"train": str(path)}}
    document = apply_overrides(Document(values, {(): Place(str(path))}), overrides)
    try:
        return Recipe.model_validate(document.values)
    except ValidationError as error:
        faults, places = faults_of(error), document.places

    def place_of(key: Key) -> Place:  # of the nearest key above that is set; the whole, (), always is
        return next(places[key[:end]] for end in range(len(key), -1, -1) if key[:end] in places)

    raise error_of(faults, place_of, what)


def holds_rows(path: Path) -> bool:
    """Whether a file has rows and is no recipe: by the ending of its name, else by its first line."""
    if path.suffix.lower() in (*ROWS, *RECIPES) or not path.is_file():
        return path.suffix.lower() in ROWS
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return first.lstrip().startswith(b"[")  # a list, which the reader of rows knows to explain
    return not (isinstance(value, dict) and "model" in value)
