"""Scorers turn an answer and its reference into named numbers from 0 (wrong) to 1 (right).

A scorer is one module here, named as the recipe names it (``evaluation.tasks[].scorer``); a test matches the names both
ways. It sees one row and knows nothing of models, batches or averages. It has:

- ``PRIMARY``, the metric that stands for it where one number is wanted: a headline, a reward.
- ``score(output, reference, *, where=None, **settings)``, a pure function of one row. ``settings`` are the keys of the
  recipe's section and have their defaults there; ``where`` is the row's place, for errors alone. A metric that means
  nothing for a row is left out of it, never counted as 0. DataError says that a reference, whatever the answer, cannot
  be scored: so an empty answer tries a row out before training.
- where the figure of many rows is not the mean of theirs, ``adds(output, reference, **settings)``: what a row adds to
  the sums that the figure is made of, which is ``FIGURES[PRIMARY]`` (BLEU, chrF).
- where a row brings more than its reference, ``reads(settings)``: the columns that ``score`` gets as ``row``.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType, ModuleType

SCORERS: Mapping[str, ModuleType] = MappingProxyType(
    {module.name: import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)}
)
"""All modules of this folder, by name."""
