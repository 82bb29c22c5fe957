"""Is the answer JSON, and of the kind that the reference is?

One JSON value has to stand alone: text around it, a code fence, NaN or a key given twice make it invalid, since a
program that reads the answers would stumble over each. What the value says is for json_fields.
"""

from typing import Any

from mlxtune.json_text import name_of_type, parse_json

PRIMARY = "json_valid"


def score(output: str, reference: str, *, where: object = None) -> dict[str, float]:  # noqa: ARG001 - every scorer has it
    """Score one text.

    Returns: ``json_valid``: 1 if it is one JSON value (RFC 8259). ``same_kind``: 1 if it is one of the reference's kind
        (an object, a list, a string ...); left out where the reference is no JSON itself.
    """
    found, expected = _kind(output), _kind(reference)
    scores = {"json_valid": float(found is not None)}
    return scores if expected is None else scores | {"same_kind": float(found == expected)}


def _kind(text: str) -> str | None:
    try:
        value: Any = parse_json(text.strip())
    except ValueError:
        return None
    return name_of_type(value)
