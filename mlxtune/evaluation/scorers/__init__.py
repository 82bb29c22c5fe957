"""Scorers turn a generated text and its reference into named numbers from 0 (wrong) to 1 (right).

A scorer is one pure function in one file, named as the recipe names it (``evaluation.tasks[].scorer``); a test matches
the names both ways. It sees one row and knows nothing of models, batches or averages.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from mlxtune.evaluation.scorers import exact_match, json_fields


class Scorer(Protocol):
    """Metrics of one row. A metric that means nothing for a row is left out of it, never counted as 0."""

    def __call__(
        self, output: str, reference: str, *, fields: Sequence[str] | None = None, where: object = None
    ) -> dict[str, float]: ...


SCORERS: Mapping[str, Scorer] = MappingProxyType({"exact_match": exact_match.score, "json_fields": json_fields.score})
