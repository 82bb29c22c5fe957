"""Is the answer a JSON object, and which of its fields are right?

The object must stand alone: text around it, a code fence, NaN or a key given twice make it invalid, since a program
that reads the answers would stumble over each. Values are compared as JSON knows them: true is not 1 and "3" is not 3,
but 1 and 1.0 are one number (RFC 8259, section 6), and the order of keys means nothing.
"""

from collections.abc import Sequence
from typing import Any

from mlxtune.errors import DataError
from mlxtune.json_text import name_of_type, parse_json

PRIMARY = "all_fields"


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
    value = parse_json(text.strip())
    if not isinstance(value, dict):
        raise ValueError(f"it is {name_of_type(value)}")  # noqa: TRY004 - a reading error like the others
    return value


def _has_value(answer: dict[str, Any] | None, name: str, expected: Any) -> bool:
    return answer is not None and name in answer and _same_value(answer[name], expected)


def _same_value(left: Any, right: Any) -> bool:
    """Compare two parsed JSON values, type included; with a list of what is left, so that no nesting is too deep."""
    waiting = [(left, right)]
    while waiting:
        a, b = waiting.pop()
        if name_of_type(a) != name_of_type(b):
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
