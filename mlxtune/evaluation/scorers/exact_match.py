"""Is the answer the reference, character for character?

Two metrics, because one question hides two: ``exact_match`` forgives only outer white space; ``exact_match_normalized``
also forgives case and the amount of white space, as WikiSQL's queries are compared. Neither knows what the text means:
an equivalent answer in other words is wrong, which is the price of a measure that nobody can argue with.
"""

PRIMARY = "exact_match"


def score(output: str, reference: str, *, where: object = None) -> dict[str, float]:  # noqa: ARG001 - every scorer has it
    """Score one text against its reference: ``exact_match`` and ``exact_match_normalized``, each 0 or 1."""
    return {
        "exact_match": float(output.strip() == reference.strip()),
        "exact_match_normalized": float(normalized(output) == normalized(reference)),
    }


def normalized(text: str) -> str:
    """``text`` without case, each stretch of white space one space."""
    return " ".join(text.split()).casefold()
