"""What stands in the cells of tables of scores: a figure with its interval, a difference, a verdict."""

from collections.abc import Mapping
from typing import Any

from mlxtune.iteration.report import wording
from mlxtune.page import Html, join, tag

NONE = "\N{EN DASH}"
"""What is not known, or does not compare."""
SIGNS = {"better": "\N{BLACK UP-POINTING TRIANGLE}", "worse": "\N{BLACK DOWN-POINTING TRIANGLE}"}
"""Before a verdict, for those who see no colour."""


def with_bounds(metric: str, interval: Mapping[str, Any]) -> Html:
    """A figure, and its interval in small print below it."""
    return join([tag("b", wording.figure(metric, interval["mean"])), tag("small", wording.bounds(metric, interval))])


def told_difference(metric: str, found: Mapping[str, Any]) -> Html:
    """A difference, likewise."""
    return join([tag("b", wording.difference(metric, found["mean"])), tag("small", wording.bounds(metric, found))])


def verdict_word(said: str) -> Html:
    """A verdict, in the page's colour for it."""
    sign = SIGNS.get(said)
    if sign is None:
        return tag("span", said, class_="verdict")
    return tag("span", f"{sign} {said}", class_=f"verdict {said}")
