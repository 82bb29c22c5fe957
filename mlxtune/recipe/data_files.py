"""The keys that say where the rows of a split are: one place or several, each with a weight.

One place may stand for the list that has nothing else, as text; it is written so again, so that a resolved recipe reads
as its owner wrote it.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from mlxtune.recipe.settings import Settings

REMOTE = "hf://"
"""How a place on the hub begins."""
PLACE = "a file, a folder or hf://datasets/org/name, or a list of these or of {path: ..., weight: ...}"


class FileSettings(Settings):
    """One of the places that the rows of a split are in."""

    path: str = Field(min_length=1)
    """A file (JSON Lines, JSON, CSV, TSV, Parquet, Arrow, text or Markdown, each also .gz or .zst), a folder of such
    files of one kind, or `hf://datasets/org/name[@revision][/path]`."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """How often each of its rows stands in an epoch: 2 is twice, 0.5 is every other row."""


def _as_list(value: Any) -> Any:
    """What a recipe may say in place of a list of sections, as that list."""
    values = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(one, str | Path | dict | FileSettings) for one in values):
        raise PydanticCustomError("expected", "Input should be {what}", {"what": PLACE})
    return tuple({"path": str(one)} if isinstance(one, str | Path) else one for one in values)


def _as_written(files: tuple[FileSettings, ...] | None) -> Any:
    if files is None:
        return None
    told = [file.path if file.weight == 1 else {"path": file.path, "weight": file.weight} for file in files]
    return told[0] if len(told) == 1 else told


Files = Annotated[
    tuple[FileSettings, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=str | FileSettings | list[str | FileSettings]),
    PlainSerializer(_as_written, when_used="json"),
]
"""At least one place; a split that has none is null."""
