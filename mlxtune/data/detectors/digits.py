"""Runs of digits in a text, in one piece or spaced, dotted and dashed: the candidates for numbers that mean somebody.

A run may have a neighbour glued on ("202-555-0143 24" or a card and its check digits), so what is looked at are its
windows: whole groups of digits, longer ones first, that begin and end at a space or a bracket.
"""

import re
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

GAP = r"[ .\-/()\u00a0\u2007\u2009\u202f\u2010-\u2013]"
RUN = re.compile(
    r"(?!(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d))"  # an IP address is none
    r"(?<![\w#])(?<!\d[.,:/])(?<!\w[-.])"
    rf"(?:\+|00|\()?\d(?:{GAP}{{0,3}}\d){{6,39}}"
    r"(?:(?=x\d)|(?!\w|[.,-]\d))"
)
"""7 to 40 digits, in pieces or not; an extension (``x12``) may follow."""
GROUP = re.compile(r"\d+")
MOST_GROUPS = 20


@dataclass(frozen=True, slots=True)
class Digits:
    """A window of a run: where it is, its digits, and how they are grouped."""

    start: int
    end: int
    groups: tuple[str, ...]
    has_plus: bool = False

    @property
    def value(self) -> str:
        return "".join(self.groups)

    @property
    def is_spelled(self) -> bool:
        """Whether every digit stands alone, as people write them for people, and against programs."""
        return len(self.groups) > 1 and all(len(group) == 1 for group in self.groups)


def runs(text: str) -> Iterator[re.Match[str]]:
    return RUN.finditer(text)


def windows(text: str, run: re.Match[str], shortest: int, longest: int) -> Iterator[Digits]:
    """The windows of a run with ``shortest`` to ``longest`` digits: from the left, at each place longer ones first."""
    groups = list(GROUP.finditer(text, run.start(), run.end()))
    gaps = [text[one.end() : other.start()] for one, other in pairwise(groups)]
    # Digits that stand alone are a number only all together; a part of them is a part of a table.
    alone = [len(one[0]) == len(other[0]) == 1 for one, other in pairwise(groups)]
    inside = (gap not in (".", "-") and not single for gap, single in zip(gaps, alone, strict=True))
    may_split = [True, *inside, True]
    before_group = [0, *accumulate(len(group[0]) for group in groups)]
    for first in range(len(groups)):
        if not may_split[first]:
            continue
        most = bisect(before_group, before_group[first] + longest) - 1
        for last in range(min(most, first + MOST_GROUPS), first, -1):
            if before_group[last] - before_group[first] < shortest:
                break
            if not may_split[last]:
                continue
            part = groups[first:last]
            start = part[0].start()
            before = text[run.start() : start] if first == 0 else text[start - 1 : start]
            lead = len(before) if before in ("+", "(") else 0
            yield Digits(start - lead, part[-1].end(), tuple(group[0] for group in part), has_plus=before == "+")
