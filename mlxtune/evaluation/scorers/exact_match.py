"""Is the answer the reference, character for character?

Two metrics, because one question hides two: ``exact_match`` forgives only outer white space; ``exact_match_normalized``
also forgives case and the amount of white space, as WikiSQL's queries are compared. Neither knows what the text means:
an equivalent answer in other words is wrong, which is the price of a measure that nobody can argue with.
"""

from collections.abc import Sequence

from mlxtune.errors import RecipeError


def score(
    output: str, reference: str, *, fields: Sequence[str] | None = None, where: object = None
) -> dict[str, float]:
    """Score one generated text against its reference.

    Args:
        fields: must be None; a text has no fields.
        where: the task or row, for the error alone.

    Returns: ``exact_match`` and ``exact_match_normalized``, each 0 or 1.
    Raises: RecipeError, if ``fields`` are given.
    """
    if fields is not None:
        raise RecipeError(
            "the scorer exact_match compares whole texts and takes no fields",
            where=where,
            remedy="remove the fields, or use the scorer json_fields",
        )
    return {
        "exact_match": float(output.strip() == reference.strip()),
        "exact_match_normalized": float(_normalize(output) == _normalize(reference)),
    }


def _normalize(text: str) -> str:
    return " ".join(text.split()).casefold()
