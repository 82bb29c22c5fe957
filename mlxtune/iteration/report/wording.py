"""Numbers in the words of a report: figures, differences, chances, sizes and times.

Knows units, and which metrics are rates shown in percent; nothing of HTML.
"""

from collections.abc import Mapping
from typing import Any

from mlxtune.evaluation.verdict import OWN_UNITS

MINUS = "\N{MINUS SIGN}"
LONG_SECONDS = 100
"""From here on people say minutes."""
LEAST_P = 0.001
"""Below it a p-value is told as that: its digits would say more than the resampling knows."""


def is_percent(metric: str) -> bool:
    """Whether a metric is a rate, told in percent; the others are in units of their own."""
    return metric not in OWN_UNITS


def percent(value: float, digits: int = 1) -> str:
    """A share of 1: ``43.0 %``."""
    return f"{100 * value:.{digits}f} %"


def figure(metric: str, value: float) -> str:
    """A metric's value: ``43.0 %`` or ``1.204``."""
    return percent(value) if is_percent(metric) else f"{value:.3f}"


def bounds(metric: str, interval: Mapping[str, Any]) -> str:
    """The ends of an interval, or of a difference with signs: ``33.0 to 53.0`` or ``+0.102 to +0.310``."""
    sign = "p_value" in interval
    return f"{_number(metric, interval['low'], sign=sign)} to {_number(metric, interval['high'], sign=sign)}"


def difference(metric: str, value: float) -> str:
    """What a metric rose or fell by: ``+12.5 points`` or ``-0.120``."""
    unit = " points" if is_percent(metric) else ""
    return _number(metric, value, sign=True) + unit


def p_value(value: float) -> str:
    """A chance: ``p = 0.031``, ``p < 0.001``."""
    return f"p < {LEAST_P}" if value < LEAST_P else f"p = {value:.3f}"


def _number(metric: str, value: float, *, sign: bool) -> str:
    number = f"{100 * value:+.1f}" if is_percent(metric) else f"{value:+.3f}"
    number = number.replace("-", MINUS)
    return number if sign else number.removeprefix("+")


def count(number: float, thing: str = "", things: str = "") -> str:
    """How many of something: ``1 row``, ``1,200 rows``."""
    named = thing if number == 1 else things or f"{thing}s"
    return f"{number:,.0f}" + (f" {named}" if thing else "")


def share(part: float, whole: float) -> str:
    """``12 of 60 (20 %)``."""
    return f"{part:,} of {whole:,}" + (f" ({percent(part / whole, 0)})" if whole else "")


def place(where: str) -> str:
    """A row's place without the folders of its file, which are the owner's: ``train.jsonl:7``."""
    return where.rpartition("/")[2]


def size(size_bytes: float) -> str:
    """Bytes in the unit that fits: ``98 MB``, ``1.4 GB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:,.{int(value < 10)}f} {unit}"  # noqa: PLR2004 - two digits say enough
    return f"{size_bytes:,.0f} bytes"


def duration(seconds: float) -> str:
    """``42 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < LONG_SECONDS:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
