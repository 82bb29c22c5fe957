"""Is the number in the answer the one in the reference, within a tolerance?

For results that are reasoned out, such as GSM8K's, whose last line is ``#### 42``. Numbers are compared exactly, as
decimal text and not as binary fractions: 0.31 is 0.01 off 0.30, and not a little more. Units and percent signs are not
looked at. Without a pattern the last number counts, wherever it stands, so an answer that goes on talking about
others is wrong; with one, the first match.
"""

import re
from fractions import Fraction

from mlxtune.errors import DataError
from mlxtune.evaluation.patterns import first_match

PRIMARY = "numeric"

LONGEST = 400
"""Digits of a number, and of what an exponent makes of it; what has more is no number here."""
CURRENCIES = "$€£¥"
MINUS = "\N{MINUS SIGN}"
PLAIN = str.maketrans({MINUS: "-"} | dict.fromkeys(CURRENCIES))
"""What Python reads numbers without: a minus sign that is no hyphen, and a currency between a sign and its number."""


def _number(mark: str, between: str) -> re.Pattern[str]:
    """A number whose decimals come after ``mark``, with ``between`` its thousands or nothing. It is no part of a word,
    and no part of what has marks in other places, such as a date or a version: half of one would be another number.
    """
    mark, between = re.escape(mark), re.escape(between)
    sign = rf"(?:(?<![\w).,])[-+{MINUS}][{CURRENCIES}]?)?"
    whole = rf"(?:\d{{1,3}}(?:{between}\d{{3}})+(?!\d)|\d+)"
    digits = rf"(?:{whole}(?:{mark}\d+)?|{mark}\d+)(?:[eE][-+]?\d+)?"
    return re.compile(rf"(?<!\d[.,])(?<![^\W_]){sign}{digits}(?![.,]?\d)")


NUMBER = {".": _number(".", ","), ",": _number(",", ".")}


def score(
    output: str,
    reference: str,
    *,
    pattern: str | None = None,
    tolerance: float,
    relative_tolerance: float,
    decimal_mark: str,
    where: object = None,
) -> dict[str, float]:
    """Score one text.

    Args:
        pattern: says where the number stands: in the first group of its first match, or in all of it.
        tolerance, relative_tolerance: right is what is off by no more than the larger of the first and the second's
            share of the reference.
        decimal_mark: ``.`` or ``,``; the other one may stand between thousands.

    Returns: ``numeric``, 0 or 1, and ``has_number``, whether a number was found at all.
    Raises: DataError, if there is no number in the reference.
    """
    expected = find_number(reference, pattern, decimal_mark)
    if expected is None:
        told = "the reference has no number" if pattern is None else "the reference has no number where pattern says"
        raise DataError(told, where=where, remedy="correct the row, or the task's pattern or decimal_mark")
    found = find_number(output, pattern, decimal_mark)
    allowed = max(_exactly(tolerance), _exactly(relative_tolerance) * abs(expected))
    right = found is not None and abs(found - expected) <= allowed
    return {"numeric": float(right), "has_number": float(found is not None)}


def find_number(text: str, pattern: str | None, decimal_mark: str) -> Fraction | None:
    """The number in ``text`` that counts: the last, or the last of what ``pattern`` takes; None if there is none."""
    taken = text if pattern is None else first_match(pattern, text)
    if taken is None:
        return None
    found = NUMBER[decimal_mark].findall(taken)
    return _value(found[-1], decimal_mark) if found else None


def _value(text: str, decimal_mark: str) -> Fraction | None:
    between = "," if decimal_mark == "." else "."
    plain = text.translate(PLAIN).replace(between, "").replace(decimal_mark, ".")
    mantissa, _, exponent = plain.lower().partition("e")
    if len(mantissa) > LONGEST or len(exponent) > len(str(LONGEST)) + 1 or abs(int(exponent or 0)) > LONGEST:
        return None
    return Fraction(plain)


def _exactly(number: float) -> Fraction:
    """The number that is written so, and not the binary fraction next to it."""
    return Fraction(repr(number))
