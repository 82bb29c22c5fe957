"""Relative paths of a recipe become absolute, seen from the folder in which they were written."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlxtune.recipe.choices import CHAT_TEMPLATES, is_template_file
from mlxtune.recipe.data_files import REMOTE
from mlxtune.recipe.document import Key
from mlxtune.recipe.keys import all_keys, path_keys

SOURCE: Key = ("model", "source")
NAMES: dict[Key, Sequence[str]] = {("data", "chat_template"): CHAT_TEMPLATES}
"""What may stand in the place of a path."""
TEMPLATE: Key = ("data", "template")
REPLAY: Key = ("data", "replay", "file")
DATA: tuple[Key, ...] = (("data", "train"), ("data", "valid"), ("data", "test"), REPLAY)
"""Files, folders and places on the hub, one or several."""
FOLDERS: tuple[Key, ...] = (("model", "adapter"),)
"""The paths that are no files."""


def with_absolute_paths(values: Any, base: Path, *, below: Key = ()) -> Any:
    """``values``, a recipe's, with the paths at or below the key ``below`` made absolute from ``base``.

    What is no text stays as it is, for the schema to refuse.
    """
    for key in path_keys():
        if key[: len(below)] == below:
            names = NAMES.get(key, ())
            values = _changed(values, key, lambda path, names=names: path if path in names else _absolute(path, base))
    for key in (TEMPLATE, *all_keys(TEMPLATE)):
        if key[: len(below)] == below:
            values = _changed(values, key, lambda text: _absolute(text, base) if is_template_file(text) else text)
    for key in DATA:
        if key[: len(below)] == below[: len(key)]:
            values = _changed(values, key, lambda places: _files(places, base), kind=object)
    if SOURCE[: len(below)] == below:
        values = _changed(values, SOURCE, lambda source: _absolute(source, base) if is_local(source, base) else source)
    return values


def is_local(source: str, base: Path) -> bool:
    """Whether a model source is a path: it looks like one, or one is there; a bare name has to be a model's folder."""
    if source.startswith(("/", "./", "../", "~")) or source in (".", "..") or source.lower().endswith(".gguf"):
        return True
    return (base / source).exists() if "/" in source else (base / source / "config.json").is_file()


def _absolute(path: str, base: Path) -> str:
    # Lexically, not with resolve(): a link to the data keeps its own name, the one that the user knows.
    return os.path.abspath(base / os.path.expanduser(path))  # noqa: PTH100, PTH111 - pathlib's raises for ~nobody


def _files(place: Any, base: Path) -> Any:
    """The places of a split, one or several, with the paths among them absolute; done twice, it changes nothing."""
    if isinstance(place, list):
        return [_files(one, base) for one in place]
    if isinstance(place, dict):
        return {**place, "path": _files(place["path"], base)} if isinstance(place.get("path"), str) else place
    return _absolute(place, base) if isinstance(place, str) and not place.startswith(REMOTE) else place


def _changed(values: Any, key: Key, change: Callable[[Any], Any], kind: type = str) -> Any:
    """``values`` with what stands at ``key``, if it is text (or of another ``kind``), changed."""
    if not key:
        return change(values) if isinstance(values, kind) else values
    if not isinstance(values, dict) or key[0] not in values:
        return values
    return {**values, key[0]: _changed(values[key[0]], key[1:], change, kind)}
