"""Detectors find private data in a text: a file each, and here all of them together.

A detector is a function of a text and of the key it stands under; it knows nothing of rows, files or reports. Where two
find the same place the one that is surer of itself counts: what has a check, or a form of its own, before a telephone
number, which is hardly more than digits.
"""

from collections.abc import Sequence

from mlxtune.data.detectors.card import find_cards, find_ibans
from mlxtune.data.detectors.email import find_emails
from mlxtune.data.detectors.ip import find_ips
from mlxtune.data.detectors.match import Detector, Match, without_overlaps
from mlxtune.data.detectors.national_id import id_detector
from mlxtune.data.detectors.phone import known_regions, phone_detector
from mlxtune.data.detectors.secret import find_secrets
from mlxtune.data.detectors.term import term_detector
from mlxtune.errors import UsageError

KINDS = ("email", "phone", "card", "iban", "national_id", "ip", "secret", "term")
REGIONS = ("US", "GB")
"""Whose national numbers are looked for, if nothing else is said; international ones always are."""


def make_detectors(*, regions: Sequence[str] = REGIONS, terms: Sequence[str] = ()) -> list[Detector]:
    """All detectors, the surest first.

    Args:
        regions: ISO's two letters, for telephone and national identity numbers.
        terms: of the owner.

    Raises: UsageError, for a region that there is not, or none. DataError, for a term without a letter or digit.
    """
    remedy = "give ISO 3166 codes of two letters, such as US,GB,DE"
    if not regions:
        raise UsageError("the list of regions is empty", where="--regions", remedy=remedy)
    if unknown := sorted(set(regions) - known_regions()):
        raise UsageError(f"there is no region {unknown[0]!r}", where="--regions", remedy=remedy)
    named = [term_detector(terms)] if terms else []
    numbers = [find_ibans, find_cards, id_detector(regions), find_ips, phone_detector(regions)]
    return [find_secrets, find_emails, *numbers, *named]


def find_private(text: str, key: str, detectors: Sequence[Detector]) -> list[Match]:
    """What ``detectors`` find in ``text``, in its order, no two of them overlapping."""
    return without_overlaps(match for detect in detectors for match in detect(text, key))
