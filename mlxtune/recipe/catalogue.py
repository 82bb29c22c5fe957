"""The recipes that come with mlxtune: finding one by name or file, and copying one to start from.

Each is a folder with ``recipe.yaml``, its data, a README.md, and ``needs.json``: the memory that ``mlxtune plan``
foretold when the recipe was made. Measured once and kept, so that listing opens no model; the price is that a change
of the code that takes more memory leaves it behind. Where a recipe has several files, those of later stages are
``recipe-2.yaml`` and so on, and those for other machines ``recipe-NAME.yaml``. One may read the data of another recipe,
as ``../OTHER/data/FILE``; a copy brings them along. The folders lie inside an installed package, or at the top of a
checkout.
"""

import difflib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.errors import RecipeError
from mlxtune.files import new_folder, write_json, write_text
from mlxtune.recipe.schema import json_schema

RECIPE_FILE = "recipe.yaml"
OTHER_FILES = "recipe-*.yaml"
STAGE = re.compile(r"recipe(-\d+)?\.yaml")
NEEDS_FILE = "needs.json"
SCHEMA_FILE = "recipe.schema.json"


@dataclass(frozen=True)
class PackagedRecipe:
    """A recipe that comes with mlxtune."""

    name: str
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / RECIPE_FILE

    @property
    def paths(self) -> list[Path]:
        """All recipe files of the folder, ``recipe.yaml`` first."""
        return [self.path, *sorted(self.folder.glob(OTHER_FILES))]

    def needs(self) -> dict[str, int]:
        """Bytes of memory at the peak that each of the recipe's files takes, as foretold when it was made."""
        return self._needs()["peak_memory_bytes"]

    @property
    def memory_bytes(self) -> int:
        """What it takes at the peak to go through all stages, or through the file for the smallest machine."""
        needs = self.needs()
        stages = [name for name in needs if STAGE.fullmatch(name)]
        machines = [needs[name] for name in needs if name not in stages]
        return min([max(needs[name] for name in stages), *machines])

    @property
    def wants_gpu(self) -> bool:
        """Whether the needs are those of an Apple GPU: on a CPU 4-bit weights become float32, eight times as large."""
        return self._needs().get("wants_gpu", False)

    def _needs(self) -> dict[str, Any]:
        return json.loads((self.folder / NEEDS_FILE).read_text(encoding="utf-8"))

    @property
    def description(self) -> str:
        """The comment with which the file begins, on one line."""
        lines = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").strip())
        return " ".join(lines)


def packaged_folder() -> Path:
    """Where the packaged recipes are: in the installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "packaged_recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def packaged_recipes() -> list[PackagedRecipe]:
    """All recipes that come with mlxtune, by name."""
    return [
        PackagedRecipe(file.parent.name, file.parent) for file in sorted(packaged_folder().glob(f"*/{RECIPE_FILE}"))
    ]


def packaged_recipe(name: str) -> PackagedRecipe:
    """The packaged recipe of that name.

    Raises: RecipeError, with the nearest name, if there is none.
    """
    known = {recipe.name: recipe for recipe in packaged_recipes()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"packaged recipes: {', '.join(known) or 'none'}"
    raise RecipeError("there is no such recipe", where=name, remedy=remedy)


def find_recipe(path_or_name: str | Path) -> Path:
    """The file of a recipe: a file, or the name of a packaged recipe; a file of that name goes first.

    Raises: RecipeError, if there is neither.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    if path.is_dir() and path_or_name not in {recipe.name for recipe in packaged_recipes()}:
        inside = path / RECIPE_FILE
        remedy = f"give the file: {inside}" if inside.is_file() else "give the recipe's file"
        raise RecipeError("a recipe is a file, and this is a folder", where=path, remedy=remedy)
    return packaged_recipe(str(path_or_name)).path


def copy_recipe(name: str, folder: Path, *, force: bool = False) -> Path:
    """Copy a packaged recipe with its data to a new folder, and the JSON Schema beside it, which editors then use.

    Data that it reads from another recipe's folder are copied too, and its files name the copy.

    Returns: the copy's recipe file.
    Raises: RecipeError, if there is no such recipe; OutputExistsError, if ``folder`` is there and not ``force``.
    """
    recipe = packaged_recipe(name)
    with new_folder(folder, force=force) as part:
        shutil.copytree(recipe.folder, part, dirs_exist_ok=True, copy_function=shutil.copyfile)
        write_json(part / SCHEMA_FILE, json_schema())
        first_line = f"# yaml-language-server: $schema=./{SCHEMA_FILE}\n"
        for path in recipe.paths:
            write_text(part / path.name, first_line + _with_own_data(path.read_text(encoding="utf-8"), part))
    return folder / RECIPE_FILE


def _with_own_data(text: str, folder: Path) -> str:
    """A recipe's text that reads no other recipe's data; those that it read are copied to ``folder``."""
    for other in packaged_recipes():
        theirs = f"../{other.name}/data/"
        if theirs in text:
            shutil.copytree(other.folder / "data", folder / "data", dirs_exist_ok=True, copy_function=shutil.copyfile)
            text = text.replace(theirs, "data/")
    return text
