"""What a stranger's JSON schema may cost: bounds that llguidance does not have, and a way to each part for an error.

llguidance bounds its own work while it runs, but not all of it: it follows references by recursion until the stack
ends, and builds for ``multipleOf`` a machine of as many states as the number has units. Nothing is ever fetched: a
reference has to point into the schema. The price is that some schemas that would be followed are refused. Knows nothing
of tokens.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from math import isfinite
from typing import Any
from urllib.parse import unquote

from mlxtune.errors import UsageError

MOST_CHARACTERS = 64 << 10
"""As JSON text. A long schema takes a second to build: time grows with the square of an object's keys."""
MOST_NESTED = 100
"""Levels of objects and lists in each other; llguidance reads JSON of 128."""
MOST_LEVELS = 1000
"""The same along references: each target's levels and `REFERENCE` more, added up. Stacks of 8 MiB end at 2500."""
REFERENCE = 3
MOST_KEYS = 400
"""Of one object. Each that may be left out can come next, and llguidance follows 2000 things that can come next."""
MOST_UNITS = 10_000
"""A number of 10,000 units takes 0.1 s, many of them a minute."""
MOST_PATTERNS = 50
"""They are held against each other, and 300 take 8 s."""
CHARACTERS, PATTERNS, UNITS = "characters", "patterns", "units in multipleOf, such as 25 in 0.25,"
COSTS = (
    (CHARACTERS, MOST_CHARACTERS, "shorten it"),
    (UNITS, MOST_UNITS, "use rounder numbers, or minimum and maximum"),
    (PATTERNS, MOST_PATTERNS, "use fewer; enum and maxLength are none"),
)
"""What is added up, where several schemas are followed at once too."""
OUTSIDE = ("$schema", "$id")
"""What a schema says of itself as a whole; below the top they would change what references mean."""
UNFOLLOWED = (*OUTSIDE, "$dynamicRef", "$recursiveRef")

Part = tuple[str, Any]
"""A place, as a JSON pointer after ``#``, and what stands there."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that costs too much to follow, or refers to what is not in it.

    Raises: UsageError, naming the part.
    """
    check_schemas([schema])


def check_schemas(schemas: Sequence[Mapping[str, Any]]) -> None:
    """Refuse schemas of which one could not be followed, or which together cost too much.

    Raises: UsageError, naming the part.
    """
    costs = [_costs(schema) for schema in schemas]
    for told, most, remedy in COSTS:
        found = sum(cost[told] for cost in costs)
        if found > most:
            which = "the schema has" if len(schemas) == 1 else "the schemas have"
            raise UsageError(f"{which} too many {told} to follow: {found:,} of {most:,}", remedy=remedy)


def _costs(schema: Mapping[str, Any]) -> dict[str, int]:
    """What one schema has of each of `COSTS`. Raises: UsageError, for one that cannot be followed."""
    parts = list(_parts(schema))
    try:
        length = len(json.dumps(schema))
    except (TypeError, ValueError) as error:
        raise UsageError(f"the schema is not JSON: {error}", remedy="give a JSON object") from error
    if length > MOST_CHARACTERS:  # before anything that takes longer the longer it is
        return {CHARACTERS: length, UNITS: 0, PATTERNS: 0}
    objects = [(place, part) for place, part in parts if isinstance(part, Mapping)]
    targets: dict[str, int] = {}
    for place, part in objects:
        _check_part(schema, place, part, targets)
    levels = _depth(schema) + sum(depth + REFERENCE for depth in targets.values())
    if levels > MOST_LEVELS:
        raise UsageError(
            f"the schema's parts refer to each other through {levels:,} levels; at most {MOST_LEVELS:,} are followed",
            remedy="use fewer or flatter definitions",
        )
    return {
        CHARACTERS: length,
        UNITS: sum(_units(part) for _, part in objects),
        PATTERNS: sum(_patterns(part) for _, part in objects),
    }


def places_of(schema: Mapping[str, Any], key: str) -> list[str]:
    """Where objects of the schema have ``key``."""
    return [place for place, part in _parts(schema) if isinstance(part, Mapping) and key in part]


def _check_part(schema: Any, place: str, part: Mapping[str, Any], targets: dict[str, int]) -> None:
    """Refuse what is wrong with one object; note how deep the target of its reference is."""
    reference = part.get("$ref")
    if isinstance(reference, str) and reference not in targets:
        targets[reference] = _depth(_target(schema, reference, place))
    for key in UNFOLLOWED:
        if isinstance(part.get(key), str) and (place != "#" or key not in OUTSIDE):
            raise UsageError(f"{key} at {place} is not followed", remedy='refer by {"$ref": "#/..."}')
    keys = part.get("properties")
    if isinstance(keys, Mapping) and len(keys) > MOST_KEYS:
        raise UsageError(
            f"the object at {place} has {len(keys)} properties; at most {MOST_KEYS} are followed",
            remedy="split it into several objects",
        )


def _target(schema: Any, reference: str, place: str) -> Any:
    """What a reference points at. Raises: UsageError, if that is not in the schema."""
    refused = UsageError(
        f"$ref at {place} is {reference!r:.80}, which is not in the schema; nothing is fetched",
        remedy='define it in the schema, and refer by {"$ref": "#/$defs/NAME"}',
    )
    if reference != "#" and not reference.startswith("#/"):
        raise refused
    found = schema
    for name in reference.split("/")[1:]:
        key = unquote(name).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key in map(str, range(len(found))):
            found = found[int(key)]
        else:
            raise refused
    return found


def _units(part: Mapping[str, Any]) -> int:
    """What ``multipleOf`` says without its point: 25 for 0.25, 1000 for 1000; 0 without one."""
    step = part.get("multipleOf")
    if not isinstance(step, int | float) or isinstance(step, bool) or not isfinite(step):
        return 0
    _, digits, exponent = Decimal(str(step)).as_tuple()
    return int("".join(map(str, digits))) * 10 ** max(int(exponent), 0)


def _patterns(part: Mapping[str, Any]) -> int:
    """How many regular expressions an object has."""
    keyed = part.get("patternProperties")
    return isinstance(part.get("pattern"), str) + (len(keyed) if isinstance(keyed, Mapping) else 0)


def _parts(schema: Any) -> Iterator[Part]:
    """Every object and list of the schema and its place. Raises: UsageError, where they are nested too deeply."""
    waiting: list[tuple[str, Any, int]] = [("#", schema, 1)]
    while waiting:
        place, part, level = waiting.pop()
        if level > MOST_NESTED:
            raise UsageError(
                f"the schema is nested deeper than {MOST_NESTED} levels",
                remedy="use $defs and references in place of parts within parts",
            )
        yield place, part
        inner = part.items() if isinstance(part, Mapping) else enumerate(part)
        for key, value in reversed(list(inner)):
            if isinstance(value, Mapping | list):
                name = str(key).replace("~", "~0").replace("/", "~1")
                waiting.append((f"{place}/{name}", value, level + 1))


def _depth(value: Any) -> int:
    """Levels of objects and lists, of a value whose nesting is bounded."""
    if not isinstance(value, Mapping | list):
        return 0
    inner = value.values() if isinstance(value, Mapping) else value
    return 1 + max(map(_depth, inner), default=0)
