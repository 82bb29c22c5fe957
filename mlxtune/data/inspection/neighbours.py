"""The rows around one row of a stream, and what it shares with those that it goes through the network with.

A file of any size is looked at: the stream is read up to the row and a little further, and a bounded number of rows
and characters is held. The price: the batch of a row in a large file is not the one that training will make, but one
made in the same way of the rows around it, and that is said.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mlxtune.data.batch import reading_batches, shape_of
from mlxtune.data.example import Example
from mlxtune.data.faults import Fault
from mlxtune.data.inspect import Sharing
from mlxtune.data.order import BatchOrder
from mlxtune.data.render import Rendered
from mlxtune.progress import Progress, silent

AROUND = 1000
"""Rows held besides those that were asked for, half of them before and half after, if there are as many."""
REPORT_EVERY = 10_000
"""Rows between two reports of progress."""
CHARACTERS = 4_000_000
"""Of the rows around, at most."""


@dataclass(frozen=True)
class Window:
    """Rows of a stream, bad ones included: those asked for, those before and after them.

    ``start`` is the number of the first row of ``before``, from 1; ``total`` how many rows there are, None where the
    stream was not read to its end; ``is_whole``: nothing but these rows is there.
    """

    before: tuple[Example | Fault, ...]
    rows: tuple[Example | Fault, ...]
    after: tuple[Example | Fault, ...]
    start: int
    total: int | None

    @property
    def is_whole(self) -> bool:
        return self.total == len(self.before) + len(self.rows) + len(self.after)


def find_window(
    stream: Iterable[Example | Fault],
    first: int,
    count: int,
    *,
    around: int = AROUND,
    characters: int = CHARACTERS,
    progress: Progress = silent,
) -> Window:
    """Rows ``first`` to ``first + count - 1``, from 1, and those around them; reads no further than it must.

    A stream that ends before ``first`` gives no ``rows``, and its ``total``.
    """
    before: deque[Example | Fault] = deque()
    rows: list[Example | Fault] = []
    after: list[Example | Fault] = []
    held, number, room = 0, 0, characters // 2
    for item in rows_of(stream):
        number += 1
        if number % REPORT_EVERY == 0:
            progress(f"look for row {first:,}: rows", min(number, first), first)
        if number < first:
            before.append(item)
            held += _size(item)
            while before and (len(before) > around // 2 or held > room):
                held -= _size(before.popleft())
        elif number < first + count:
            rows.append(item)
            held = 0
        elif len(before) + len(after) < around and held < room:
            after.append(item)
            held += _size(item)
        else:  # there is a row more than what is held
            return Window(tuple(before), tuple(rows), tuple(after), first - len(before), None)
    return Window(tuple(before), tuple(rows), tuple(after), min(first, number + 1) - len(before), number)


def rows_of(stream: Iterable[Example | Fault]) -> Iterator[Example | Fault]:
    """The same rows, one by one: a row with several faults comes as one that tells all of them."""
    for _, items in groupby(stream, key=lambda item: (item.where, isinstance(item, Fault))):
        first, *others = items
        if isinstance(first, Fault) and others:
            told = [fault.message for fault in (first, *others) if isinstance(fault, Fault)]
            yield replace(first, message="; ".join(told))
        else:
            yield first


def _size(item: Example | Fault) -> int:
    """Characters, roughly."""
    if isinstance(item, Fault):
        return len(item.message)
    return len(item.text) + sum(len(message.content) + len(message.thinking) for message in item.messages)


def share_in_order(rows: Sequence[Rendered], row: int, order: BatchOrder, *, multiple: int, whole: bool) -> Sharing:
    """What ``row`` of ``rows`` shares in training's first epoch, were these rows all that there is.

    Args:
        order: how ``rows`` are gone through.
        multiple: as `make_batch` takes it.
        whole: whether they are all that there is.
    """
    batch = next(batch for batch in order.epoch(0) if row in batch)
    shape = shape_of(rows, batch, share_prefix=True, multiple=multiple)
    return Sharing(shape.prefix, shape.rows, "its batch in the first epoch" if whole else _sampled(rows))


def share_in_reading(rows: Sequence[Rendered], row: int, *, whole: bool) -> Sharing:
    """What ``row`` shares where rows are only read, as held-out rows are, in the order of their lengths."""
    batch = next(batch for batch in reading_batches(rows, share_prefix=True) if row in batch.rows)
    return Sharing(
        batch.prefix_ids.size, len(batch.rows), "its batch when the loss is measured" if whole else _sampled(rows)
    )


def _sampled(rows: Sequence[Rendered]) -> str:
    return f"a batch made of the {len(rows):,} rows around it, not of the whole file"
