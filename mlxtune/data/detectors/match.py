"""What a detector finds: where in a text, of which kind, and as much of it as may be shown.

Also how detectors weigh what stands around a number: digits alone do not say whether they are a telephone's or an
order's, the word before them often does.
"""

import re
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

BEFORE, AFTER = 48, 24
"""Characters around a number that are looked at for words."""
LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class Match:
    """Private data at ``start`` to ``end`` of a text.

    ``value`` is the same for all ways to write the same thing; it is for comparing, and is never shown or logged.
    """

    kind: str
    """``email``, ``phone``, ``card``, ``iban``, ``national_id``, ``ip``, ``secret`` or ``term``."""
    what: str
    """The kind, more exactly, for a person."""
    start: int
    end: int
    value: str = field(repr=False)
    mask: str
    """As much of it as helps to find it again."""


Detector = Callable[[str, str], Iterator[Match]]
"""Finds private data in a text; its second argument is the key that the text stands under, which is context too."""


def words(*stems: str) -> re.Pattern[str]:
    """A pattern for words that begin with one of the ``stems``; a stem that ends in ``$`` is a whole word."""
    parts = "|".join(f"{stem[:-1]}\\b" if stem.endswith("$") else stem for stem in stems)
    return re.compile(rf"(?<![^\W_])(?:{parts})", re.IGNORECASE)


OTHER_NUMBERS = words(
    *("order", "invoice", "receipt", "ticket", "tracking", "parcel", "shipment", "ref$", "refs$"),
    *("reference", "sku", "item", "part$", "model$", "serial", "isbn", "issn", "ean$", "upc$", "gtin"),
    *("barcode", "imei", "doi$", "version", "build$", "release", "firmware", "commit", "hash", "sha$"),
    *("sha-?\\d", "md5", "checksum", "revision", "pages?$", "case$", "price$", "total", "costs?$"),
    *("timestamp", "epoch", "mask", "licen[cs]e", "amount", "sum$", "quantity", "population", "article"),
    *("catalog", "batch", "lot$", "rechnung", "bestell", "artikel", "auftrag", "facture", "commande"),
    *("pedido", "factura", "ordine", "fattura"),
)
"""What a number may be that is no private one."""


def nearness(pattern: re.Pattern[str], text: str, start: int, end: int, key: str) -> int:
    """How many characters lie between a number at ``start`` to ``end`` and the nearest word of ``pattern``.

    A word after the number counts as one that stands twice as far before it.
    """
    before = text[max(0, start - BEFORE) : start]
    if start < BEFORE:
        before = f"{key}: {before}"
    near = [len(before) - match.end() for match in pattern.finditer(before)][-1:]
    line_end = text.find("\n", end, end + AFTER)  # what a line says after it is said of this number, not the next line
    after = pattern.search(text, end, end + AFTER if line_end < 0 else line_end)
    if after is not None:
        near.append(2 * (after.start() - end))
    return min(near, default=BEFORE + AFTER)


def is_called(pattern: re.Pattern[str], text: str, start: int, end: int, key: str) -> bool | None:
    """Whether words near a number say that it is what ``pattern`` names; None where none says anything."""
    if start >= BEFORE and not LETTER.search(text, start - BEFORE, end + AFTER):
        return None  # in a table of numbers, where the words below would be looked for at every place
    named = nearness(pattern, text, start, end, key)
    other = nearness(OTHER_NUMBERS, text, start, end, key)
    return None if named == other == BEFORE + AFTER else named < other


def last_digits(value: str) -> str:
    """The mask of a number."""
    return f"…{value[-2:]}"


def without_overlaps(matches: Iterable[Match]) -> list[Match]:
    """In the order of the text; of two that overlap the one that came first."""
    taken: list[Match] = []
    for match in matches:
        place = bisect(taken, match.start, key=lambda other: other.start)
        is_free = (place == 0 or taken[place - 1].end <= match.start) and (
            place == len(taken) or match.end <= taken[place].start
        )
        if is_free:
            taken.insert(place, match)
    return taken
