"""What a function of the owner's says of the answer, where no other scorer knows the task.

It runs with the owner's rights, and only where they have given leave (`evaluation/own_code.py`). What it raises is an
error of the row, never a score of 0: a mistake in a measure must not look like a bad model.
"""

import math
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlxtune.errors import DataError, UsageError
from mlxtune.evaluation.own_code import find_function

PRIMARY = "score"


def reads(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that `score` gets as ``row``."""
    return tuple(settings["columns"] or ())


def score(
    output: str,
    reference: str,
    *,
    function: str,
    columns: Sequence[str] | None = None,
    row: Mapping[str, Any] | None = None,
    where: object = None,
) -> dict[str, float]:
    """Score one text.

    Args:
        function: ``module.function``, called with output and reference.
        columns: those of ``row`` that it gets besides, as ``row={column: value}``.

    Returns: ``score``, from 0 to 1, and what else the function gives by name.
    Raises: UsageError, if it may not run, is not there or takes other arguments; DataError, if it raises, or gives
        anything else.
    """
    call = find_function(function)
    given = {} if not columns else {"row": {name: (row or {}).get(name) for name in columns}}
    try:
        found = call(output, reference, **given)
    except Exception as error:  # the owner's code may raise anything
        if (
            error.__traceback__ is not None and error.__traceback__.tb_next is None
        ):  # it did not get as far as that code
            asked = f"{function}(output, reference{', row=...' if given else ''})"
            raise UsageError(
                f"the function cannot be called as {asked}",
                remedy="give it these arguments, or correct the task's columns",
            ) from error
        raise DataError(
            f"{function} raised {type(error).__name__} ({_place_of(error)})",
            where=where,
            remedy="correct the function; --debug shows where it went wrong",
        ) from error
    scores = found if isinstance(found, Mapping) else {PRIMARY: found}
    if PRIMARY not in scores or not all(isinstance(name, str) and _is_score(value) for name, value in scores.items()):
        raise DataError(
            f"{function} gave no score",
            where=where,
            remedy=f"return a number from 0 to 1, or a dict of such numbers by name, one of them {PRIMARY!r}",
        )
    return {name: float(value) for name, value in scores.items()}


def _is_score(value: Any) -> bool:
    try:
        return math.isfinite(value) and 0 <= value <= 1
    except TypeError:
        return False


def _place_of(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"
