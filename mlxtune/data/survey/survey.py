"""What rows say, counted in one pass without a tokenizer: repeats, classes, odd characters, scripts, languages.

Knows examples; keeps of each row 20 bytes, and the words of none but those that it names.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from mlxtune.data.example import Example, Message, content_hash
from mlxtune.data.faults import Fault
from mlxtune.data.likeness.duplicates import RowIndex
from mlxtune.data.likeness.repeats import Fingerprints
from mlxtune.data.survey.classes import ClassCounter, Classes
from mlxtune.data.survey.oddities import Oddity, OddityCounter
from mlxtune.data.survey.scripts import Writing, WritingCounter
from mlxtune.progress import Progress, silent

REPORT_EVERY = 256
"""Rows between two reports of progress."""


@dataclass(frozen=True)
class Survey:
    """Of the rows of a split."""

    fingerprints: Fingerprints
    classes: Classes | None
    oddities: tuple[Oddity, ...]
    writing: Writing


def survey(
    rows: Iterable[Example | Fault],
    index: RowIndex | None = None,
    split: int = 0,
    *,
    replay: Iterable[Example | Fault] = (),
    name: str = "",
    total: int = 0,
    progress: Progress = silent,
) -> Survey:
    """Go through rows once; those that are faults are passed over.

    Args:
        replay: further rows of the split, whose answers are no classes of the task.
        index: takes the rows too, as those of the split that has this number.
        name, total: what the split is called and how many rows it has, for progress.
    """
    fingerprints, classes, oddities, writing = Fingerprints(), ClassCounter(), OddityCounter(), WritingCounter()
    own = ((row, True) for row in rows)
    for number, (row, is_own) in enumerate(chain(own, ((row, False) for row in replay))):
        if number % REPORT_EVERY == 0:
            progress(f"look into {name}: rows", min(number, total), total)
        if isinstance(row, Fault):
            continue
        content = content_hash(row)
        fingerprints.add(row.where, content)
        if index is not None:
            index.add(row, split, content)
        if is_own:
            classes.add(row)
        oddities.add(row.where, text_of(row))
        # An instruction that all rows begin with would hide the language of what differs.
        writing.add(row.where, text_of(row, system=False))
    progress(f"look into {name}: rows", total, total)
    return Survey(fingerprints, classes.classes(), tuple(oddities.found()), writing.finish())


def text_of(example: Example, *, system: bool = True) -> str:
    """All that a row says in words, line after line; the arguments of calls and the schemas of tools are left out.

    Args:
        system: with the system message.
    """
    messages = [*example.messages, *example.rejected]
    return "\n".join([example.text, *(_words(message) for message in messages if system or message.role != "system")])


def _words(message: Message) -> str:
    return f"{message.thinking}\n{message.content}" if message.thinking else message.content
