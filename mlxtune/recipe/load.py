"""A recipe's file and overrides into a Recipe.

Relative paths in the file are relative to its folder; those in overrides to the current folder, where they were typed.
Knows the order of the steps: text, overrides, absolute paths, checks.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlxtune.recipe.catalogue import find_recipe
from mlxtune.recipe.choices import in_words
from mlxtune.recipe.data_files import REMOTE, FileSettings
from mlxtune.recipe.document import Document, Key, Place, read_document
from mlxtune.recipe.faults import Fault, error_of, faults_of
from mlxtune.recipe.keys import dotted, path_keys
from mlxtune.recipe.overrides import apply_overrides
from mlxtune.recipe.paths import FOLDERS, NAMES, REPLAY, with_absolute_paths
from mlxtune.recipe.schema import Recipe

SPLITS = ("train", "valid", "test")
REMEDY = "relative paths start at the recipe's folder"


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, and where it came from."""

    recipe: Recipe
    """With every default filled in and every path absolute."""
    path: Path
    """Its file, absolute."""
    text: str
    """What the file says, before any override."""
    places: dict[Key, Place] = field(repr=False, compare=False)

    def place_of(self, key: Key) -> Place:
        """Where ``key`` is set, in the file or an override; for a default, where the nearest key above it is set."""
        return _place_of(self.places, key)

    def check_files(self, splits: Sequence[str] = SPLITS) -> None:
        """Args: splits: whose data files are to be there.

        Raises: RecipeError, naming all files that are not there and where the recipe names them.
        """
        faults = []
        for key in path_keys():
            path = _path_at(self.recipe, key)
            is_folder = key in FOLDERS
            # a packaged chat template is a name
            if isinstance(path, Path) and not (path.is_dir() if is_folder else path.is_file()):
                what = f"is a {'file' if is_folder else 'folder'}" if path.exists() else "is not there"
                remedy = REMEDY
                if key in NAMES:
                    remedy += f"; {in_words(NAMES[key])} come with mlxtune"
                faults.append(Fault(key, f"{dotted(key)} {what}: {path}", remedy))
        for split in splits:
            faults += _missing_files(("data", split), getattr(self.recipe.data, split) or ())
        if "train" in splits and (replay := self.recipe.data.replay) is not None:
            faults += _missing_files(REPLAY, [FileSettings(path=replay.file)])
        if faults:
            raise error_of(faults, self.place_of, str(self.path))


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read, complete and check a recipe.

    Args:
        path_or_name: a file (YAML 1.2, of which JSON is a part), or the name of a packaged recipe.
        overrides: ``training.epochs=1`` and the like; the values are YAML.

    Raises: RecipeError, telling all mistakes at once, each with its key and its place.
    """
    path = find_recipe(path_or_name)
    text, document = read_document(path)
    in_file = Document(with_absolute_paths(document.values, path.parent.resolve()), document.places)
    document = apply_overrides(in_file, overrides)
    try:
        recipe = Recipe.model_validate(document.values)
    except ValidationError as error:
        faults = faults_of(error)
    else:
        return LoadedRecipe(recipe, path.absolute(), text, document.places)
    raise error_of(faults, lambda key: _place_of(document.places, key), str(path))


def _place_of(places: Mapping[Key, Place], key: Key) -> Place:
    return next(places[key[:end]] for end in range(len(key), -1, -1) if key[:end] in places)


def _missing_files(key: Key, files: Sequence[FileSettings]) -> Iterator[Fault]:
    for number, file in enumerate(files):
        path = Path(file.path)
        if file.path.startswith(REMOTE) or path.is_file() or path.is_dir():
            continue
        what = "is neither a file nor a folder" if os.path.lexists(path) else "is not there"
        place = (*key, number) if len(files) > 1 else key
        yield Fault(place, f"{dotted(place)} {what}: {path}", REMEDY)


def _path_at(recipe: Recipe, key: Key) -> Path | None:
    value: Any = recipe
    for part in key:
        value = getattr(value, str(part))
    return value
