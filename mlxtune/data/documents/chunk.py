"""A document cut into passages of at most so many tokens, at its structure where that is possible.

A passage is a piece of the document's own text, from one character to another, so that it can be found again. Before it
stand the headings that it is under, and the head of the table that it begins inside: its context, which counts as the
rest does. A passage ends before a heading once it is half full, or at the end of a chapter once it is an eighth full,
else where the next piece would not fit: between
blocks, then lines, sentences, words, and letters last. The next one begins with what the last one ended with, up to the
overlap, unless a heading parts them. Knows tokens by a function that counts them.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlxtune.data.documents.document import BETWEEN, Block, Document
from mlxtune.errors import UsageError

CHUNK_TOKENS = 400
"""With what a row adds (end tokens, a question) below `data.max_seq_length`'s default of 512."""
OVERLAP_TOKENS = 40
LEAST_TOKENS = 16
CONTEXT_SHARE = 0.25
"""How much of a passage its context may be."""

Count = Callable[[str], int]
_SENTENCE = re.compile("(?<=[.!?\u2026\u3002\uff01\uff1f\u061f])[\"'\u201d\u2019\u00bb)\\]]*\\s+|\n+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: ``text`` is ``context`` and the document's text from ``start`` to ``end``."""

    text: str
    context: str
    start: int
    end: int
    tokens: int
    section: tuple[str, ...]
    """The headings that it begins under, from the outermost; its own first one among them."""
    first_page: int | None
    last_page: int | None

    @property
    def body(self) -> str:
        return self.text[len(self.context) :]


@dataclass(slots=True)
class _Piece:
    """What is never cut: a part of a block from ``start`` to ``end``."""

    start: int
    end: int
    tokens: int
    block: Block
    path: tuple[str, ...]
    head: str
    """Of a table's rows but its first: the head of the table."""
    is_heading: bool


def chunk_document(
    document: Document, count: Count, *, chunk_tokens: int = CHUNK_TOKENS, overlap_tokens: int = OVERLAP_TOKENS
) -> list[Chunk]:
    """The passages of a document, in order; every word of it is in one.

    Args:
        count: the tokens of a text.

    Raises: UsageError, for sizes that leave no room.
    """
    check_sizes(chunk_tokens, overlap_tokens)
    pieces = list(_pieces(document, count, chunk_tokens))
    chunks: list[Chunk] = []
    first = 0
    begun = 0  # the first piece that no earlier passage has
    while begun < len(pieces):
        chunk, after = _fill(document, pieces, first, begun, count, chunk_tokens)
        chunks.append(chunk)
        parted = after < len(pieces) and pieces[after].is_heading
        first = after if parted else _overlap(pieces, begun, after, overlap_tokens)
        begun = after
    return chunks


def check_sizes(chunk_tokens: int, overlap_tokens: int) -> None:
    """Raises: UsageError."""
    if chunk_tokens < LEAST_TOKENS:
        raise UsageError(
            f"passages of {chunk_tokens} tokens hold nothing",
            where="--chunk-tokens",
            remedy=f"give {LEAST_TOKENS} or more",
        )
    if not 0 <= overlap_tokens <= chunk_tokens // 2:
        raise UsageError(
            f"an overlap of {overlap_tokens} tokens is not between 0 and half of {chunk_tokens}",
            where="--overlap-tokens",
            remedy="give less",
        )


def _fill(
    document: Document, pieces: list[_Piece], first: int, begun: int, count: Count, limit: int
) -> tuple[Chunk, int]:
    """The passage from piece ``first`` on, which takes at least piece ``begun``, and the piece after it."""
    while True:
        context = _context(pieces[first], count, limit)
        room = limit - count(context)
        used, after = 0, first
        while after < len(pieces):
            piece = pieces[after]
            ends = room // 8 if _is_outer(piece, pieces[first]) else room // 2
            if after > begun and piece.is_heading and used >= ends:
                break
            if after > begun and used + piece.tokens > room:
                break
            used += piece.tokens
            after += 1
        while len(pieces) > after > begun + 1 and pieces[after - 1].is_heading:  # a heading goes with what it is over
            after -= 1
        # Joined, pieces may make more tokens than each by itself: what is counted at last is the whole.
        while True:
            start, end = pieces[first].start, pieces[after - 1].end
            text = context + document.text[start:end]
            tokens = count(text)
            if tokens <= limit or after <= begun + 1:
                break
            after -= 1
        if tokens > limit and first < begun:  # the overlap is too much for what follows it
            first += 1
            continue
        if tokens > limit and context:
            context = ""
            text = document.text[start:end]
            tokens = count(text)
        pages = [piece.block.page for piece in pieces[first:after] if piece.block.page is not None]
        section = next((p.path for p in pieces[first:after] if p.path), ())
        chunk = Chunk(text, context, start, end, tokens, section, min(pages, default=None), max(pages, default=None))
        return chunk, after


def _is_outer(piece: _Piece, first: _Piece) -> bool:
    """Whether a heading is over what the passage began under: another chapter, not the next section of this one."""
    return len(piece.path) < len(first.path) or piece.path[:-1] != first.path[: len(piece.path) - 1]


def _overlap(pieces: list[_Piece], begun: int, after: int, overlap: int) -> int:
    """The piece that the next passage begins with: as many of the last one's as the overlap takes, and no heading."""
    first, tokens = after, 0
    while first > begun + 1 and not pieces[first - 1].is_heading and tokens + pieces[first - 1].tokens <= overlap:
        first -= 1
        tokens += pieces[first].tokens
    return first


def _context(piece: _Piece, count: Count, limit: int) -> str:
    """The headings over a piece, and its table's head; the outermost go first, if they are too long."""
    path = piece.path[:-1] if piece.is_heading else piece.path
    parts = list(path)
    if piece.head:
        parts.append(piece.head)
    most = int(limit * CONTEXT_SHARE)
    while parts:
        text = "".join(part + ("\n" if part is piece.head else BETWEEN) for part in parts)
        if count(text) <= most:
            return text
        parts.pop(0)
    return ""


def _pieces(document: Document, count: Count, limit: int) -> Iterator[_Piece]:
    path: list[tuple[int, str]] = []
    most = max(LEAST_TOKENS // 2, int(limit * (1 - CONTEXT_SHARE)) - 2)
    for block, start in zip(document.blocks, document.starts, strict=True):
        if block.kind == "heading":
            while path and path[-1][0] >= block.level:
                path.pop()
            path.append((block.level, block.text))
        names = tuple(text for _, text in path)
        lines = block.text.split("\n")
        head = "\n".join(lines[:2]) if block.kind == "table" and len(lines) > 2 else ""  # noqa: PLR2004 - with its rule
        for at, end in _spans(block, count, most):
            yield _Piece(
                start + at,
                start + end,
                count(block.text[at:end] + BETWEEN),
                block,
                names,
                head if at >= len(head) > 0 else "",
                block.kind == "heading" and at == 0,
            )


def _spans(block: Block, count: Count, most: int) -> Iterator[tuple[int, int]]:
    """The parts of a block that are never cut: lines of tables, lists and code, sentences of the rest."""
    text = block.text
    cuts = [0]
    if block.kind == "heading":
        pass
    elif block.kind == "table":
        lines = [match.end() for match in re.finditer("\n", text)]
        cuts += lines[1:] if count(text[: lines[1]] if len(lines) > 1 else text) <= most else lines
    elif block.kind in ("list", "code"):
        cuts += [match.end() for match in re.finditer("\n", text)]
    else:
        cuts += [match.end() for match in _SENTENCE.finditer(text)]
    cuts = sorted({*cuts, len(text)})
    for start, end in itertools.pairwise(cuts):
        yield from _fitting(text, start, end, count, most)


def _fitting(text: str, start: int, end: int, count: Count, most: int) -> Iterator[tuple[int, int]]:
    """A part as it is, or cut between words, or letters, into parts that fit."""
    if not text[start:end].strip():
        return
    while count(text[start:end]) > most and end - start > 1:
        low, high = start + 1, end  # the longest beginning that fits, by halving
        while low < high:
            middle = (low + high + 1) // 2
            if count(text[start:middle]) <= most:
                low = middle
            else:
                high = middle - 1
        space = max(text.rfind(" ", start, low), text.rfind("\n", start, low))
        cut = space + 1 if space > start else low
        yield start, cut
        start = cut
    if text[start:end].strip():
        yield start, end
