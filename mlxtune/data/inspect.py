"""One row as the network will meet it: each token's text, whether it is learned, and what is cut.

Gives plain data; the command line and `inspect_page` draw it. Knows a tokenizer and a rendered row; what the row shares
with others comes in as a number. A row is always shown in full, so that what training leaves out is seen as well; of a
row that is very long the middle is left out, and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from mlxtune.data.example import Example
from mlxtune.data.render import Rendered, Renderer
from mlxtune.data.store.overflow import cut, parts_of
from mlxtune.recipe.choices import Overflow, TrainOn

LONGEST = 20_000
"""Tokens of a row that are drawn, at most."""
TAIL = 4
"""A row that is longer loses its middle: the last quarter of what is drawn is the row's end, where answers stand."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a row; ``position`` counts from 0.

    ``text`` is what the token adds; a character that spans tokens comes with its last, the others being empty.
    ``weight`` is how much it counts in the loss, 0 where it is not learned. ``is_cut``: training leaves it out.
    """

    position: int
    id: int
    text: str
    is_target: bool
    weight: float
    is_special: bool
    is_shared: bool
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens of one kind, as text."""

    text: str
    is_target: bool
    weight: float
    is_special: bool
    is_shared: bool
    is_cut: bool


@dataclass(frozen=True)
class Side:
    """What one rendering of a row comes to: the row itself, or a preference's better or worse answer.

    ``lines`` are to be drawn before the token of a position: what begins there. ``note`` says what `data.overflow`
    makes of a row that is too long, and is empty for any other. ``omitted`` tokens, from a position on, are not in
    ``tokens``.
    """

    name: str
    tokens: tuple[Token, ...]
    length: int
    target_tokens: int
    cut_tokens: int
    lines: tuple[tuple[int, str], ...] = ()
    note: str = ""
    omitted: tuple[int, int] = (0, 0)

    @property
    def kept_tokens(self) -> int:
        """How many go through the network."""
        return self.length - self.cut_tokens


@dataclass(frozen=True, slots=True)
class Sharing:
    """The tokens that a row begins with and that are read once for all ``rows`` that it goes with, itself included.

    ``known`` says which rows these are, and how that is known.
    """

    tokens: int = 0
    rows: int = 1
    known: str = ""


@dataclass(frozen=True)
class Inspection:
    """A row: where it comes from, and its one side, or the two of a preference."""

    where: str
    kind: str
    sides: tuple[Side, ...]
    sharing: Sharing

    @property
    def text_marks(self) -> tuple[str, str]:
        """Two signs to put around what is learned: such as the text itself does not have, if there are any."""
        text = "".join(token.text for side in self.sides for token in side.tokens)
        return next((pair for pair in MARKS if not set(pair) & set(text)), MARKS[0])


TIMES = "\N{MULTIPLICATION SIGN}"
"""Stands before a weight that is not 1."""
MARKS = (("«", "»"), ("⟪", "⟫"), ("⟦", "⟧"), ("⧼", "⧽"))


def inspect_row(
    example: Example,
    renderer: Renderer,
    *,
    train_on: TrainOn,
    max_seq_length: int,
    overflow: Overflow,
    sharing: Sharing | None = None,
    longest: int | None = LONGEST,
) -> Inspection:
    """What becomes of one example.

    Args:
        sharing: with the other rows of its batch; a preference's two sides share what they begin with alike instead.
        longest: tokens that are given, at most; None gives all.

    Raises: as `Renderer.render`, and of a preference as `Renderer.render_pair`.
    """
    names, rendered = render_sides(example, renderer, train_on)
    if len(rendered) > 1:
        sharing = share_of_pair(rendered)
    sharing = sharing or Sharing()
    sides = tuple(
        make_side(name, whole, renderer, max_seq_length, overflow, shared=sharing.tokens, longest=longest)
        for name, whole in zip(names, rendered, strict=True)
    )
    return Inspection(example.where, example.kind, sides, sharing)


def render_sides(example: Example, renderer: Renderer, train_on: TrainOn) -> tuple[tuple[str, ...], list[Rendered]]:
    """The one rendering of a row, without a name; of a preference both, by name, each up to its own last answer."""
    if example.kind != "preference":
        return ("",), [renderer.render(example, train_on)]
    return ("chosen", "rejected"), list(renderer.render_pair(example, "last_completion"))


def share_of_pair(sides: Sequence[Rendered]) -> Sharing:
    """What the two sides of a preference begin with alike, up to the token before the first target of either."""
    starts = [side.token_ids[: max(0, int(side.is_target.argmax()) - 1)] for side in sides]
    shortest = min(map(len, starts))
    different = np.flatnonzero(np.any([start[:shortest] != starts[0][:shortest] for start in starts], axis=0))
    return Sharing(int(different[0]) if len(different) else shortest, len(sides), "chosen and rejected begin alike")


def make_side(
    name: str,
    whole: Rendered,
    renderer: Renderer,
    max_seq_length: int,
    overflow: Overflow,
    *,
    shared: int = 0,
    longest: int | None = LONGEST,
) -> Side:
    """One rendered row, token by token, with what is left of it."""
    length = len(whole.token_ids)
    parts = positions_of_parts(whole, renderer.before, max_seq_length, overflow)
    learned = whole.is_target.copy() if not parts else np.zeros(length, bool)
    is_cut = np.full(length, bool(parts))
    for positions, is_target in parts:
        is_cut[positions] = False
        learned[positions[is_target]] = True
    weight = np.ones(length, np.float32) if whole.weight is None else whole.weight
    ids = whole.token_ids.tolist()
    head, tail = _shown(length, longest)
    pieces = token_texts(ids[:head], renderer.tokenizer) + token_texts(ids[tail:], renderer.tokenizer)
    special = set(renderer.special.values())
    tokens = tuple(
        Token(
            position=at,
            id=ids[at],
            text=text,
            is_target=bool(learned[at]),
            weight=float(weight[at]) if learned[at] else 0.0,
            is_special=ids[at] in special,
            is_shared=at < shared and not is_cut[at],
            is_cut=bool(is_cut[at]),
        )
        for at, text in zip([*range(head), *range(tail, length)], pieces, strict=True)
    )
    note, lines = _overflow_told(whole, parts, max_seq_length, overflow)
    return Side(
        name=name,
        tokens=tokens,
        length=length,
        target_tokens=int(learned.sum()),
        cut_tokens=int(is_cut.sum()),
        lines=tuple(lines),
        note=note,
        omitted=(head, tail - head),
    )


Part = tuple[np.ndarray, np.ndarray]
"""Of a part of a row: the positions in the row of its tokens, and which of these are targets in it."""


def positions_of_parts(whole: Rendered, before: Sequence[int], max_seq_length: int, overflow: Overflow) -> list[Part]:
    """The parts of a row that training has, those with targets; none if it is refused or dropped."""
    if len(whole.token_ids) <= max_seq_length:
        found = [(np.arange(len(whole.token_ids)), whole.is_target)]
    else:
        parts = parts_of(whole.token_ids, max_seq_length, overflow, before=before)
        found = [(np.r_[: part.head, part.start : part.end], cut(whole, part).is_target) for part in parts]
    return [(positions, is_target) for positions, is_target in found if is_target.any()]


def _overflow_told(
    whole: Rendered, parts: Sequence[Part], max_seq_length: int, overflow: Overflow
) -> tuple[str, list[tuple[int, str]]]:
    """What becomes of a row that is too long, in a sentence and in lines at the places that it is about."""
    length, chosen = len(whole.token_ids), f"data.overflow: {overflow}"
    if length <= max_seq_length:
        return "" if parts else "no token of this row is trained on: it is dropped", []
    if not parts:
        fate = "refused" if overflow == "error" else "dropped"
        note = f"{length} tokens, over data.max_seq_length {max_seq_length}: the row is {fate} ({chosen})"
        if overflow not in ("error", "drop"):
            note += ", since no target would be left"
        return note, [(max_seq_length, f"{max_seq_length} tokens, data.max_seq_length, end here")]
    kept = [set(positions.tolist()) for positions, _ in parts]
    anywhere = set().union(*kept)
    lines = [
        (at, f"{len(run)} tokens are cut from here ({chosen})" if is_cut else "what is cut ends here")
        for is_cut, run in _runs(at not in anywhere for at in range(length))
        if (at := run[0]) > 0 or is_cut
    ]
    if len(parts) > 1:
        lines += [
            (min(own - before), f"part {number} of {len(parts)} begins here")
            for number, (before, own) in enumerate(pairwise(kept), start=2)
        ]
        note = f"{length} tokens, read in {len(parts)} parts ({chosen})"
        if length > len(anywhere):
            note += f"; {length - len(anywhere)} tokens are in none, since no target is near them"
        return note, sorted(lines)
    return f"cut from {length} tokens to {len(anywhere)} ({chosen})", lines


def _runs(values: Any) -> list[tuple[bool, list[int]]]:
    """Neighbouring positions whose values are alike."""
    return [(key, [at for at, _ in run]) for key, run in groupby(enumerate(values), key=lambda item: item[1])]


def _shown(length: int, longest: int | None) -> tuple[int, int]:
    """Where the drawn beginning of a row ends, and where its drawn end begins."""
    if longest is None or length <= longest:
        return length, length
    return longest - longest // TAIL, length - longest // TAIL


def segments(tokens: Sequence[Token]) -> list[Segment]:
    """The text in runs of tokens that are alike; put together, the text of the row."""

    def kind(token: Token) -> tuple[bool, float, bool, bool, bool]:
        return token.is_target, token.weight, token.is_special, token.is_shared, token.is_cut

    return [Segment("".join(token.text for token in run), *key) for key, run in groupby(tokens, key=kind)]


WAITED = 12
"""Tokens after which a character that is not whole is no longer waited for: it is U+FFFD itself, which the text has.
A multiple of the tokens that one U+FFFD may take (1 to 3), so that several are parted where one ends.
"""


def token_texts(token_ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text that each token adds; a character that spans tokens comes with its last, the others being empty."""

    def decode(start: int, end: int) -> str:
        return tokenizer.decode(token_ids[start:end], clean_up_tokenization_spaces=False)

    texts: list[str] = []
    # Decoding starts a few tokens back, since some tokenizers drop the space before the first token they are given.
    shown = start = 0
    for end in range(1, len(token_ids) + 1):
        known = decode(start, shown)
        text = decode(start, end)
        if text.endswith("\ufffd") and end < len(token_ids) and end - shown < WAITED:
            texts.append("")
            continue
        texts.append(text[len(known) :])
        start, shown = shown, end
    return texts
