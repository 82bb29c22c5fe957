"""Whether the answers are classes, and how many rows each has.

Rows that were text and label are; so are rows of any form whose answers are short and come again and again. Knows
answers as text. Counting ends, and there are no classes, as soon as there are too many different answers, so that
memory is bounded whatever the file holds.
"""

from collections import Counter
from dataclasses import dataclass

from mlxtune.data.example import Example

MOST_CLASSES = 1000
LONGEST = 80
"""Characters of an answer that may be a class."""
LEAST_ROWS = 2
"""For each class, on average: answers that hardly repeat are no classes."""


@dataclass(frozen=True, slots=True)
class Classes:
    """The answers and how many rows have each, the most frequent first; equal counts in the order of the answers."""

    counts: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        return sum(count for _, count in self.counts)

    @property
    def most_share(self) -> float:
        """Of the rows, those of the most frequent class: what always answering it would score."""
        return self.counts[0][1] / self.rows


class ClassCounter:
    """Counts answers until they turn out to be no classes."""

    def __init__(self) -> None:
        self._counts: Counter[str] | None = Counter()

    def add(self, example: Example) -> None:
        """One row; a row without an answer of its own ends the count."""
        if self._counts is None:
            return
        answer = answer_of(example)
        if answer is None or len(answer) > LONGEST:
            self._counts = None
            return
        self._counts[answer] += 1
        if len(self._counts) > MOST_CLASSES:
            self._counts = None

    def classes(self) -> Classes | None:
        """The classes, at least two; None where the answers are none."""
        counts = self._counts
        if not counts or len(counts) < 2 or counts.total() < LEAST_ROWS * len(counts):  # noqa: PLR2004 - one is no choice
            return None
        return Classes(tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))


def answer_of(example: Example) -> str | None:
    """The last answer of a row, without white space at its ends; None of text, of pairs and of calls of tools."""
    if example.kind not in ("chat", "prompt_completion") or not example.messages:
        return None
    last = example.messages[-1]
    return None if last.tool_calls else last.content.strip() or None
