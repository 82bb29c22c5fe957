"""Scorers turn an answer and its reference into named numbers from 0 (wrong) to 1 (right).

A scorer is one module, named as the recipe names it (``evaluation.tasks[].scorer``); a test matches the names both
ways. It sees one row and knows nothing of models, batches or averages. It has:

- ``PRIMARY``, the metric that stands for it where one number is wanted: a headline, a reward.
- ``score(output, reference, *, where=None, **settings)``, a pure function of one row. ``settings`` are the keys of the
  recipe's section and have their defaults there; ``where`` is the row's place, for errors alone. A metric that means
  nothing for a row is left out of it, never counted as 0. DataError says that a reference, whatever the answer, cannot
  be scored: so an empty answer tries a row out before training.
- where the figure of many rows is not the mean of theirs, ``adds(output, reference, **settings)``: what a row adds to
  the sums that the figure is made of, which is ``FIGURES[PRIMARY]`` (BLEU, chrF).
- where a row brings more than its reference, ``columns(settings)``: the columns that ``score`` gets as ``row``.
"""

from collections.abc import Mapping
from types import MappingProxyType, ModuleType

from mlxtune.evaluation.scorers import (
    bleu,
    choice,
    chrf,
    contains,
    exact_match,
    json_fields,
    json_valid,
    numeric,
    python,
    regex,
    rouge_l,
    sql,
)

SCORERS: Mapping[str, ModuleType] = MappingProxyType(
    {
        module.__name__.rpartition(".")[2]: module
        for module in (
            bleu,
            choice,
            chrf,
            contains,
            exact_match,
            json_fields,
            json_valid,
            numeric,
            python,
            regex,
            rouge_l,
            sql,
        )
    }
)
