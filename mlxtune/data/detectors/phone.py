"""Telephone numbers: international ones, and national ones of the regions that are asked for.

`phonenumbers` knows which numbers a region has and how it writes them. That alone is too little for ten digits in a
row, which may be anything: they count where a word before them says telephone, where they are grouped as the region
groups them, or where they have its leading zero; and not where a nearer word says order or invoice. A number that
could be one but is given to nobody counts with such a word, such groups, or its country code.

The library is imported without its geography (phonenumberslite), which would be 40 MB for nothing.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from mlxtune.data.detectors.digits import GROUP, Digits, runs, windows
from mlxtune.data.detectors.match import Detector, Match, is_called, last_digits, words

NAMED = words(
    *("phone", "tel$", "tel\\.", "telephone", "call", "cell", "mobile", "mob$", "fax", "whatsapp", "sms$"),
    *("ring$", "dial", "reach", "contact", "hotline", "text me", "text him", "text her", "my number"),
    *("voicemail", "landline", "pager", "telefon", "handy", "anruf", "ruf", "mobil", "téléphone", "portable"),
    *("appel", "joindre", "teléfono", "móvil", "llam", "cellulare", "chiam", "telefoon", "bel$", "bellen"),
    *("nummer$",),
)
DATE = re.compile(r"(?:19|20)\d\d[-./][01]\d[-./][0-3]\d|[0-3]?\d[-./][0-3]?\d[-./](?:19|20)\d\d(?!\d)")
SHORTEST, LONGEST = 8, 15
INTERNATIONAL = 9
"""Digits that a number with its country code has at least."""
MOST_GROUPS = 7
"""``+33 (0)6 12 34 56 78`` has as many."""
ZERO_GROUPS, ZERO_FIRST, ZERO_SHORTEST = 4, 3, 9
"""In one with its leading zero, in one piece or in some: groups at most, digits of the first and of all at least."""
IN_BRACKETS = re.compile(r"\((?:0\d{1,4}|[2-9]\d\d)\)")
"""An area code."""


def phone_detector(regions: Sequence[str]) -> Detector:
    """Finds numbers that are international, or national ones of ``regions``."""

    def find_phones(text: str, key: str) -> Iterator[Match]:
        for run in runs(text):
            found: list[Digits] = []
            # What a region has given out comes first: a number that only could be one may be it and its neighbour.
            for must_be_valid in (True, False):
                for digits in _candidates(text, run, must_be_valid=must_be_valid):
                    if any(digits.start < other.end and other.start < digits.end for other in found):
                        continue
                    called = is_called(NAMED, text, digits.start, digits.end, key)
                    value = _number(digits, text, regions, called=called, must_be_valid=must_be_valid)
                    if value is not None:
                        found.append(digits)
                        yield Match("phone", "telephone number", digits.start, digits.end, value, last_digits(value))

    return find_phones


def _candidates(text: str, run: re.Match[str], *, must_be_valid: bool) -> Iterator[Digits]:
    """The windows of a run that could be a telephone number by their looks."""
    for digits in windows(text, run, SHORTEST, LONGEST):
        is_inside = must_be_valid and run[0].startswith("+") and not digits.has_plus  # valid elsewhere, perhaps
        is_long = len(digits.groups) > MOST_GROUPS and not digits.is_spelled
        if not (is_inside or is_long or DATE.match(text, digits.start)):
            yield digits


def _number(
    digits: Digits, text: str, regions: Sequence[str], *, called: bool | None, must_be_valid: bool
) -> str | None:
    """The number in international form, if that is what it is."""
    import phonenumbers

    check = phonenumbers.is_valid_number if must_be_valid else phonenumbers.is_possible_number
    written = text[digits.start : digits.end]
    if digits.has_plus or digits.value.startswith("00"):
        # "+44 (0)20 ...": the zero is for callers from inside
        groups = [group for group in digits.groups if group != "0"] if "(0)" in written else digits.groups
        number = _parse("+" + "".join(groups).removeprefix("00"), None)
        if number is None or not check(number) or len(digits.value) < INTERNATIONAL:
            return None
        in_parts = len(digits.groups) > 1 or must_be_valid
        return _international(number) if digits.has_plus or called or (called is None and in_parts) else None
    in_brackets = IN_BRACKETS.match(written) is not None
    if called is False and not in_brackets:
        return None
    for region in regions:
        if phonenumbers.ndd_prefix_for_region(region, True) == "0" and not digits.value.startswith("0"):
            continue
        number = _parse(digits.value, region)
        if number is None or not check(number):
            continue
        is_one = called or in_brackets or _is_grouped(digits, number)
        if is_one or (must_be_valid and _is_written_so(digits)):
            return _international(number)
    return None


def _is_written_so(digits: Digits) -> bool:
    """Whether a valid number, of which no word says what it is, looks like one: spelled, or with its leading zero."""
    if digits.is_spelled:
        return True
    in_parts = len(digits.groups[0]) >= ZERO_FIRST and len(digits.groups) <= ZERO_GROUPS
    return digits.value.startswith("0") and in_parts and len(digits.value) >= ZERO_SHORTEST


def _is_grouped(digits: Digits, number: Any) -> bool:
    """Whether the last groups are those in which the number is written nationally, with at most its code before."""
    import phonenumbers

    usual = tuple(GROUP.findall(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)))
    if len(usual) < 2:  # noqa: PLR2004 - in one piece it is not grouped
        return False
    extra = digits.groups[: -len(usual)]
    return digits.groups[-len(usual) :] == usual and (not extra or extra == (str(number.country_code),))


def _parse(written: str, region: str | None) -> Any:
    import phonenumbers

    try:
        return phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None


def _international(number: Any) -> str:
    import phonenumbers

    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def known_regions() -> frozenset[str]:
    """Of telephone numbers: ISO's two letters."""
    import phonenumbers

    return frozenset(phonenumbers.SUPPORTED_REGIONS)


def clean(region: str) -> str:
    """As it is written in ISO 3166."""
    return re.sub(r"\s", "", region).upper()
