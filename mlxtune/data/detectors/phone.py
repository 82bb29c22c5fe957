"""Telephone numbers: international ones, and national ones of the regions that are asked for.

`phonenumbers` knows which numbers a region has and how it writes them. That alone is too little for ten digits in a
row, which may be anything: they count where a word before them says telephone, where they are grouped as the region
groups them, or where they have its leading zero; and not where a nearer word says order or invoice. A number that
could be one but is given to nobody counts with such a word, such groups, or its country code.

The library is imported without its geography (phonenumberslite), which would be 40 MB for nothing.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlxtune.data.detectors.digits import GROUP, Digits, runs, windows
from mlxtune.data.detectors.match import AFTER, BEFORE, Detector, Match, is_called, last_digits, words

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
    forms = _forms(regions)

    def find_phones(text: str, key: str) -> Iterator[Match]:
        for run in runs(text):
            found: list[Digits] = []
            candidates = list(_candidates(text, run, key, regions, forms))
            # What a region has given out comes first: a number that only could be one may be it and its neighbour.
            for must_be_valid in (True, False):
                for candidate in candidates:
                    digits = candidate.digits
                    if must_be_valid and run[0].startswith("+") and not digits.has_plus:
                        continue  # a part of that number, valid elsewhere perhaps
                    if any(digits.start < other.end and other.start < digits.end for other in found):
                        continue
                    value = candidate.number(must_be_valid=must_be_valid)
                    if value is not None:
                        found.append(digits)
                        yield Match("phone", "telephone number", digits.start, digits.end, value, last_digits(value))

    return find_phones


@dataclass(frozen=True)
class _Candidate:
    """Digits that could be a telephone number by their looks, and what they would be.

    Most overlap with what is found before them and are never parsed. The words around it are looked for last, and
    once: that costs more than all the rest.
    """

    digits: Digits
    text: str
    key: str
    regions: Sequence[str]

    @cached_property
    def numbers(self) -> list[Any]:
        """Of the library, the possible ones: an international one, or those of the regions."""
        import phonenumbers

        parsed = _parse_all(self.digits, self.text[self.digits.start : self.digits.end], self.regions)
        return [number for number in parsed if phonenumbers.is_possible_number(number)]

    @cached_property
    def called(self) -> bool | None:
        return is_called(NAMED, self.text, self.digits.start, self.digits.end, self.key)

    def number(self, *, must_be_valid: bool) -> str | None:
        """The number in international form, if that is what it is."""
        import phonenumbers

        for number in self.numbers:
            if must_be_valid and not phonenumbers.is_valid_number(number):
                continue
            if self._is_one(number, is_valid=must_be_valid):
                return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        return None

    def _is_one(self, number: Any, *, is_valid: bool) -> bool:
        digits, is_international = self.digits, _is_international(self.digits)
        in_brackets = IN_BRACKETS.match(self.text, digits.start, digits.end) is not None
        if digits.has_plus or (in_brackets and not is_international):
            return True
        if self.called is not None:
            return self.called
        if is_international:
            return len(digits.groups) > 1 or is_valid
        return _is_grouped(digits, number) or (is_valid and _is_written_so(digits))


def _candidates(
    text: str, run: re.Match[str], key: str, regions: Sequence[str], forms: re.Pattern[str]
) -> Iterator[_Candidate]:
    """The windows of a run that could be a telephone number.

    Most windows are of tables: what no word names and is not written like one is none.
    """
    around = text[max(0, run.start() - BEFORE) : run.end() + AFTER]
    is_named = NAMED.search(around if run.start() >= BEFORE else f"{key}: {around}") is not None
    for digits in windows(text, run, SHORTEST, LONGEST):
        is_long = len(digits.groups) > MOST_GROUPS and not digits.is_spelled
        if is_long or DATE.match(text, digits.start) or not (is_named or _has_form(digits, text, forms)):
            continue
        yield _Candidate(digits, text, key, regions)


def _has_form(digits: Digits, text: str, forms: re.Pattern[str]) -> bool:
    in_brackets = IN_BRACKETS.match(text, digits.start, digits.end) is not None
    looks_so = in_brackets or _is_international(digits) or _is_written_so(digits)
    return looks_so or forms.fullmatch(" ".join(digits.groups)) is not None


def _is_international(digits: Digits) -> bool:
    return digits.has_plus or digits.value.startswith("00")


def _parse_all(digits: Digits, written: str, regions: Sequence[str]) -> Iterator[Any]:
    """The library's numbers for these digits: one if they begin with a country code, or one of each region."""
    import phonenumbers

    if _is_international(digits):
        # "+44 (0)20 ...": the zero is for callers from inside
        groups = [group for group in digits.groups if group != "0"] if "(0)" in written else digits.groups
        plain = "".join(groups).removeprefix("00")
        if len(digits.value) >= INTERNATIONAL and not plain.startswith("0"):
            yield from _parse(f"+{plain}", None)
        return
    for region in regions:
        if digits.value.startswith("0") or phonenumbers.ndd_prefix_for_region(region, True) != "0":
            yield from _parse(digits.value, region)


def _parse(written: str, region: str | None) -> Iterator[Any]:
    import phonenumbers

    with contextlib.suppress(phonenumbers.NumberParseException):
        yield phonenumbers.parse(written, region)


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


def _forms(regions: Sequence[str]) -> re.Pattern[str]:
    """The groups in which some number of the regions is written, with a space between any two."""
    import phonenumbers

    forms: set[str] = set()
    for region in regions:
        code = phonenumbers.country_code_for_region(region)
        main = phonenumbers.PhoneMetadata.metadata_for_region(phonenumbers.region_code_for_country_code(code))
        forms |= {f"(?:{code} )?{_form(one)}" for one in (main.number_format if main else ())}
    return re.compile("|".join(sorted(forms)))


def _form(one: Any) -> str:
    r"""The library's (\d{2})(\d{4}), written \1-\2 with (0\1) for the first group, is 0\d{2} \d{4}."""
    groups = re.findall(r"\(([^()]*)\)", one.pattern)
    written = re.sub(r"(\\\d)", one.national_prefix_formatting_rule or r"\1", one.format, count=1)
    parts = " ".join(re.findall(r"(?:\\?\d)+", written))
    return re.sub(r"\\(\d)", lambda part: groups[int(part[1]) - 1], parts)


def known_regions() -> frozenset[str]:
    """Of telephone numbers: ISO's two letters."""
    import phonenumbers

    return frozenset(phonenumbers.SUPPORTED_REGIONS)
