"""Is the answer a JSON object, and which of its fields are right?

The object must stand alone: text around it, a code fence, NaN or a key given twice make it invalid, since a program
that reads the answers would stumble over each. Values are compared as JSON knows them: true is not 1 and "3" is not 3,
but 1 and 1.0 are one number (RFC 8259, section 6), and the order of keys means nothing.
"""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from mlxtune.errors import DataError


def score(
    output: str, reference: str, *, fields: Sequence[str] | None = None, where: object = None
) -> dict[str, float]:
    """Score one generated text against a reference object.

    Args:
        fields: which of the reference's fields to score; None: all of them.
        where: the reference's place, ``file:line``, for the error alone.

    Returns:
        ``valid_json``: 1 if the output is one JSON object.
        ``field:NAME`` for each field: 1 if the output is valid and has the field with the reference's value.
        ``fields``: the mean over these; left out, as no number would be true, when there are none (reference ``{}``).
        ``all_fields``: 1 if the output is valid, each field is right, and no key stands there that the reference lacks.
    Raises: DataError, if the reference is not a JSON object or lacks one of ``fields``.
    """
    expected = _read_reference(reference, where)
    names = tuple(expected) if fields is None else tuple(fields)
    if missing := [name for name in names if name not in expected]:
        raise DataError(
            f"the reference answer lacks {', '.join(map(repr, missing))}; it has {', '.join(map(repr, expected))}",
            where=where,
            remedy="correct the task's fields, or the row",
        )
    try:
        answer = _parse_object(output)
    except ValueError:
        answer = None
    right = {name: _has_value(answer, name, expected[name]) for name in names}
    scores = {"valid_json": float(answer is not None)} | {f"field:{name}": float(right[name]) for name in names}
    if names:
        scores["fields"] = sum(right.values()) / len(names)
    complete = answer is not None and answer.keys() <= expected.keys() and all(right.values())
    return scores | {"all_fields": float(complete)}


def _read_reference(text: str, where: object) -> dict[str, Any]:
    try:
        return _parse_object(text)
    except ValueError as error:
        raise DataError(
            f"the reference answer is not a JSON object: {error}",
            where=where,
            remedy="make the row's answer one JSON object, or choose the scorer exact_match",
        ) from error


def _parse_object(text: str) -> dict[str, Any]:
    """Read the one JSON object that ``text`` must be; ValueError, with the reason, where it is not."""
    try:
        value = json.loads(text.strip(), parse_constant=_refuse_constant, object_pairs_hook=_object_without_repeats)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {_KINDS[type(value)]}")  # noqa: TRY004 - a reading error like the others
    return value


_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} is given twice")
    return found


def _has_value(answer: dict[str, Any] | None, name: str, expected: Any) -> bool:
    return answer is not None and name in answer and _same_value(answer[name], expected)


def _same_value(left: Any, right: Any) -> bool:
    """Compare two parsed JSON values, type included; with a list of what is left, so that no nesting is too deep."""
    waiting = [(left, right)]
    while waiting:
        a, b = waiting.pop()
        if _KINDS[type(a)] != _KINDS[type(b)]:
            return False
        if isinstance(a, dict):
            if a.keys() != b.keys():
                return False
            waiting += [(a[key], b[key]) for key in a]
        elif isinstance(a, list):
            if len(a) != len(b):
                return False
            waiting += zip(a, b, strict=True)
        elif a != b:
            return False
    return True
