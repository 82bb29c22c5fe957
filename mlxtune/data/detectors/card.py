"""Payment cards and IBANs: numbers with a check, so that most others fall out by themselves.

A card's digits pass Luhn's check, as one in ten others do; so its first digits must be those of a network, its length
that network's, and where it is in one piece no nearer word may call it an order or a parcel.
"""

import re
from collections.abc import Iterator

from mlxtune.data.detectors.digits import runs, windows
from mlxtune.data.detectors.match import Match, is_called, last_digits, words

NETWORKS = (
    ("Visa card", re.compile(r"4(?:\d{12}|\d{15}|\d{18})")),
    ("Mastercard", re.compile(r"(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}")),
    ("American Express card", re.compile(r"3[47]\d{13}")),
    ("Discover card", re.compile(r"(?:6011|65\d\d|64[4-9]\d)\d{12}")),
    ("JCB card", re.compile(r"35\d{14}|(?:2131|1800)\d{11}")),
    ("Diners card", re.compile(r"3(?:0[0-5]|[689]\d)\d{11}")),
    ("UnionPay card", re.compile(r"62\d{14}(?:\d{3})?")),
    ("Maestro card", re.compile(r"(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}")),
)
NAMED = words(
    *("card", "visa$", "master", "amex", "american express", "discover$", "credit", "debit", "paid", "pay$"),
    *("payment", "cvv", "cvc", "expir", "exp$", "valid", "charge", "karte", "carte", "tarjeta", "carta"),
    *("kaart", "pan$", "cc$"),
)
SHORTEST, LONGEST = 12, 19
GROUPINGS = {16: (4, 4, 4, 4), 15: (4, 6, 5), 14: (4, 6, 4), 19: (4, 4, 4, 4, 3)}
IBAN_START = re.compile(r"(?<![\w])[A-Z]{2} ?\d{2}(?=[ .\-\u00a0]?[A-Z0-9])", re.IGNORECASE)
IBAN_HEAD = re.compile(r"(?<!\w)[A-Z]{2}\d\d[ .-]?$", re.IGNORECASE)
"""What stands before digits that are a part of an IBAN, sound or not."""
IBAN_NEXT = re.compile(r"[ .\-\u00a0]?([A-Z0-9]+)", re.IGNORECASE)
IBAN_LENGTHS = range(15, 35)


def find_cards(text: str, key: str) -> Iterator[Match]:
    """Payment card numbers in ``text``."""
    from stdnum import luhn

    for run in runs(text):
        end = 0
        for digits in windows(text, run, SHORTEST, LONGEST):
            network = next((name for name, pattern in NETWORKS if pattern.fullmatch(digits.value)), None)
            if digits.start < end or digits.has_plus or network is None or not luhn.is_valid(digits.value):
                continue
            if IBAN_HEAD.search(text, max(0, digits.start - 5), digits.start):
                continue
            usual = tuple(map(len, digits.groups)) == GROUPINGS.get(len(digits.value)) or digits.is_spelled
            called = is_called(NAMED, text, digits.start, digits.end, key)
            if called or usual or (called is None and len(digits.groups) == 1):
                end = digits.end
                yield Match("card", network, digits.start, end, digits.value, last_digits(digits.value))


def find_ibans(text: str, key: str) -> Iterator[Match]:  # noqa: ARG001 - a detector's interface
    """IBANs in ``text``, whatever their groups."""
    end = 0
    for start in IBAN_START.finditer(text):
        if start.start() < end:
            continue
        found = _iban_at(text, start)
        if found is not None:
            value, end = found
            yield Match("iban", "IBAN", start.start(), end, value, f"{value[:2]}…{value[-2:]}")


def _iban_at(text: str, start: re.Match[str]) -> tuple[str, int] | None:
    """The longest IBAN that begins there and ends with a group, and where it ends."""
    from stdnum import iban

    value, place, found = start[0].replace(" ", "").upper(), start.end(), None
    while (group := IBAN_NEXT.match(text, place)) is not None and len(value) + len(group[1]) < IBAN_LENGTHS.stop:
        value, place = value + group[1].upper(), group.end()
        if len(value) in IBAN_LENGTHS and iban.is_valid(value, check_country=False):
            found = value, place
    return found
