"""Is a pattern found in the answer, and does it take from it what it takes from the reference?

For answers with a known shape in a text that is free otherwise: ``Category: (\\w+)``. Without a group the pattern alone
is the question, as for a format that every answer must have.
"""

from mlxtune.errors import DataError
from mlxtune.evaluation.patterns import first_match, has_group

PRIMARY = "regex"


def score(output: str, reference: str, *, pattern: str, where: object = None) -> dict[str, float]:
    """Score one text.

    Returns: ``regex``: 1 if the pattern is found and, where it has a group, takes the same from both but for white
        space at the ends; ``matches``: 1 if it is found.
    Raises: DataError, if the pattern has a group and is not found in the reference.
    """
    found = first_match(pattern, output)
    right = found is not None
    if has_group(pattern):
        expected = first_match(pattern, reference)
        if expected is None:
            raise DataError(
                "the task's pattern is not found in the reference", where=where, remedy="correct the row or the pattern"
            )
        right = found is not None and found.strip() == expected.strip()
    return {"regex": float(right), "matches": float(found is not None)}
