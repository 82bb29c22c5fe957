"""The keys of a recipe as a tree, read off the schema: what may stand where, and which values are paths."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from mlxtune.recipe.document import Key
from mlxtune.recipe.schema import Recipe
from mlxtune.recipe.settings import Settings

T = TypeVar("T")


def dotted(key: Key) -> str:
    """``evaluation.tasks.0.name``, as it is written in an override."""
    return ".".join(str(part) for part in key)


def sections_at(key: Key) -> list[type[Settings]]:
    """The sections that may stand at ``key``: one, several where ``scorer`` decides, none at a value."""
    found: list[type[Settings]] = [Recipe]
    for part in key:
        if isinstance(part, str):
            fields = [section.model_fields[part] for section in found if part in section.model_fields]
            found = [section for field in fields for section in _parts_of(field.annotation, Settings)]
    return found


def keys_at(key: Key) -> list[str]:
    """The names that may stand below ``key``."""
    return list(dict.fromkeys(name for section in sections_at(key) for name in section.model_fields))


def all_keys(below: Key = ()) -> Iterator[Key]:
    """Every key of a recipe; those in lists without their position."""
    for name in keys_at(below):
        yield (*below, name)
        yield from all_keys((*below, name))


def path_keys() -> list[Key]:
    """The keys whose values are paths of files."""
    return [key for key in all_keys() if any(_parts_of(annotation, Path) for annotation in _annotations_of(key))]


def _annotations_of(key: Key) -> list[Any]:
    """What may stand at a key, as annotations; several where ``scorer`` decides."""
    *parent, name = key
    fields = [section.model_fields.get(str(name)) for section in sections_at(tuple(parent))]
    return [field.annotation for field in fields if field is not None]


def _parts_of(annotation: Any, kind: type[T]) -> list[type[T]]:
    """``kind`` and its subclasses, wherever they stand in an annotation."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, kind) else []
    return [part for argument in get_args(annotation) for part in _parts_of(argument, kind)]
