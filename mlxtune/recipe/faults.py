"""What is wrong with a recipe, in its own words: the dotted key, its place, and the nearest key or value that is right.

Turns what pydantic found into sentences, all of them at once. Knows what keys there are; nothing of files.
"""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mlxtune.errors import RecipeError
from mlxtune.recipe.document import Key, Place
from mlxtune.recipe.keys import all_keys, dotted, keys_at

LONGEST_SHOWN = 60
SEE = "see `mlxtune recipes schema`"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    key: Key
    message: str
    remedy: str | None = None


def nearest_key(key: Key) -> str | None:
    """The dotted key that was probably meant by an unknown one: a like name beside it, or the same name elsewhere."""
    *parent, name = key
    if near := difflib.get_close_matches(str(name), keys_at(tuple(parent)), n=1):
        return dotted((*parent, near[0]))
    elsewhere = [other for other in all_keys() if other[-1] == name]
    return dotted(elsewhere[0]) if len(elsewhere) == 1 else None


def faults_of(error: ValidationError) -> list[Fault]:
    """All that pydantic found, each thing once: what only follows from another fault is left out."""
    details = error.errors(include_url=False)
    faults = [_fault(detail) for detail in details if detail["type"] != "default_factory_not_called"]
    keys = {fault.key[:end] for fault in faults for end in range(len(fault.key))}
    return [fault for fault in faults if fault.key not in keys]


def _fault(detail: ErrorDetails) -> Fault:
    if detail["loc"][-1:] == ("[key]",):  # pydantic's word for the name itself, of a mapping whose names are free
        key = _key_of(detail["loc"][:-2])
        return Fault(key, f"{dotted(key)}: a name in it {_own_words(detail)}, not {_shown(detail['input'])}")
    return SENTENCES.get(detail["type"], _wrong_value)(_key_of(detail["loc"]), detail)


def _contradiction(key: Key, detail: ErrorDetails) -> Fault:
    return Fault((*key, *detail.get("ctx", {})["key"].split(".")), detail["msg"])


def _unknown_key(key: Key, detail: ErrorDetails) -> Fault:
    valid = keys_at(key[:-1])
    if key[-1] in valid:
        return Fault(key, f"{dotted(key)} is not a key of {detail['loc'][-2]}", "leave it out")
    near = nearest_key(key)
    remedy = f"did you mean {near}?" if near else f"keys: {', '.join(valid)}"
    return Fault(key, f"{dotted(key)} is not a key of a recipe", remedy)


def _missing(key: Key, detail: ErrorDetails) -> Fault:
    if detail["type"] == "union_tag_not_found":
        key = (*key, detail.get("ctx", {})["discriminator"].strip("'"))
    return Fault(key, f"{dotted(key)} is missing")


def _wrong_choice(key: Key, detail: ErrorDetails) -> Fault:
    value, context = detail["input"], detail.get("ctx", {})
    if detail["type"] == "union_tag_invalid":
        told = context["discriminator"].strip("'")
        # a section whose type may be left out is told apart by a function
        key, value = (*key, "type" if told.endswith("()") else told), context["tag"]
    choices = str(context.get("expected") or context["expected_tags"])
    words = [choice.strip("' ") for choice in choices.replace(" or ", ", ").split(", ")]
    near = difflib.get_close_matches(value.lower(), words, n=1) if isinstance(value, str) else []
    said = ("one of " if len(words) > 1 else "") + ", ".join(words)
    return Fault(
        key, f"{dotted(key)} must be {said}, not {_shown(value)}", f"did you mean {near[0]}?" if near else None
    )


def _no_section(key: Key, detail: ErrorDetails) -> Fault:
    value = detail["input"]
    if isinstance(key[-1], str) and key[-1] not in keys_at(key[:-1]):  # the type that a section without one is of
        key = key[:-1]
    remedy = "give it keys, or leave it out" if value is None else None
    if isinstance(value, str) and "type" in keys_at(key):
        remedy = f"write it as {dotted(key)}: {{type: {_shown(value)}}}"
    return Fault(key, f"{dotted(key)} must be a mapping of keys to values, not {_shown(value)}", remedy)


def _wrong_value(key: Key, detail: ErrorDetails) -> Fault:
    value = detail["input"]
    quoted = detail["type"] == "string_type" and isinstance(value, bool | int | float)
    remedy = f'put it in quotes: "{_shown(value)}"' if quoted else None
    return Fault(key, f"{dotted(key)} {_own_words(detail)}, not {_shown(value)}", remedy)


def _own_words(detail: ErrorDetails) -> str:
    """What a value must be."""
    said = detail["msg"].replace("Input should be", "must be").replace("String should have", "must have")
    return RULES.get(detail["type"], said)


SENTENCES: dict[str, Callable[[Key, ErrorDetails], Fault]] = {
    "contradiction": _contradiction,
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_not_found": _missing,
    "union_tag_invalid": _wrong_choice,
    "literal_error": _wrong_choice,
    "model_type": _no_section,
    "model_attributes_type": _no_section,
}
"""What to say of each of pydantic's error types; of others, that the value is wrong."""

RULES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "path_type": "must be a path",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "string_pattern_mismatch": "must start with a letter or digit and go on with these, dots, dashes and underscores",
}
"""pydantic's error types in plain words; others say ``Input should be ...`` themselves."""


def _shown(value: Any) -> str:
    """A value as a recipe writes it, shortened."""
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def _key_of(location: tuple[str | int, ...]) -> Key:
    """pydantic's location without the names of union members, which it puts between the keys."""
    key: Key = ()
    for index, part in enumerate(location):
        is_last = index == len(location) - 1
        if isinstance(part, int) or is_last or part in keys_at(key):
            key = (*key, part)
    return key


def error_of(faults: list[Fault], place_of: Callable[[Key], Place], source: str) -> RecipeError:
    """One error that tells of all faults, in the order of the file; ``place_of`` says where a key stands."""
    if len(faults) == 1:
        fault = faults[0]
        return RecipeError(fault.message, where=place_of(fault.key), remedy=fault.remedy or SEE)
    told = sorted(((place_of(fault.key), fault) for fault in faults), key=lambda told: (told[0].line, told[0].column))
    lines = [f"{place}: {fault.message}" + (f" ({fault.remedy})" if fault.remedy else "") for place, fault in told]
    return RecipeError("\n  ".join([f"{len(faults)} mistakes in the recipe:", *lines]), where=source, remedy=SEE)
