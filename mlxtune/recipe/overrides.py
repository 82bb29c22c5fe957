"""``KEY=VALUE`` on the command line: values being YAML, put over what the file says.

A value replaces what stood at its key, a mapping or list too. Whether the keys and values are right is for the
schema to say.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlxtune.errors import RecipeError
from mlxtune.recipe.document import Document, Key, Place, parse
from mlxtune.recipe.keys import dotted, keys_at
from mlxtune.recipe.paths import with_absolute_paths


def split_override(override: str) -> tuple[Key, Any]:
    """Key and value of ``training.epochs=1``; a number in the key is a position in a list.

    Raises: RecipeError, if there is no ``=`` or no key, or the value is not YAML.
    """
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError("not of the form KEY=VALUE", where=f"override {override}", remedy="as in training.epochs=1")
    key: Key = tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)
    return key, parse(text, f"override {override}").values


def apply_override(document: Document, key: Key, value: Any, place: Place) -> Document:
    """The document with ``value`` at ``key``; sections on the way that are not there are made.

    Raises: RecipeError, if the way leads through a value that can have no keys, or to a position that a list does not
        have.
    """
    places = {other: told for other, told in document.places.items() if other[: len(key)] != key}
    for end in range(1, len(key)):
        places.setdefault(key[:end], place)
    places[key] = place
    return Document(_replaced(document.values, key, 0, value, place), places)


def _replaced(values: Any, key: Key, done: int, value: Any, place: Place) -> Any:
    """``values``, which stand at the first ``done`` parts of ``key``, with ``value`` put at the whole of it."""
    if done == len(key):
        return value
    part = key[done]
    if isinstance(values, list):
        if not isinstance(part, int) or part >= len(values):
            raise RecipeError(
                f"{dotted(key[:done])} is a list of {len(values)}; {part} is no position in it", where=place
            )
        return [*values[:part], _replaced(values[part], key, done + 1, value, place), *values[part + 1 :]]
    if not isinstance(values, dict):
        # `layers: all` gives way to `layers: {top: 3}`, but the text of a name has no keys; at a key that nobody knows
        # there is nothing yet, and the schema says which one is near.
        if values is not None and not keys_at(key[:done]):
            raise RecipeError(f"{dotted(key[:done])} has no keys of its own", where=place)
        values = {}
    return {**values, str(part): _replaced(values.get(str(part)), key, done + 1, value, place)}


def apply_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """The document with all overrides put over it, in their order; their relative paths start at the current folder."""
    for override in overrides:
        key, value = split_override(override)
        document = apply_override(document, key, value, Place(f"override {override}"))
        document = Document(with_absolute_paths(document.values, Path.cwd(), below=key), document.places)
    return document
