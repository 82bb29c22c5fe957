"""One row as the network will meet it: each token's text, and whether it is learned.

Gives plain data; the command line draws it, and other pages can. Knows a tokenizer and a rendered row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mlxtune.data.dataset import fit
from mlxtune.data.normalize import Example
from mlxtune.data.render import Renderer
from mlxtune.recipe.choices import Overflow, TrainOn


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens of one kind, as text."""

    text: str
    is_target: bool
    is_special: bool


@dataclass(frozen=True)
class Inspection:
    """A row's tokens [L]: ids, text pieces, targets, and which are special.

    ``note`` says what `data.overflow` makes of a row that is too long, and is empty for any other. A row that is cut
    is shown as it is after cutting, a row that is refused or dropped in full.
    """

    where: str
    token_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    is_target: tuple[bool, ...]
    is_special: tuple[bool, ...]
    note: str

    @property
    def target_tokens(self) -> int:
        return sum(self.is_target)

    @property
    def segments(self) -> list[Segment]:
        """The text in runs of tokens that are alike; put together, the text of the row."""
        tokens = zip(self.pieces, self.is_target, self.is_special, strict=True)
        runs = groupby(tokens, key=lambda token: token[1:])
        return [Segment("".join(piece for piece, *_ in run), *kind) for kind, run in runs]


def inspect_row(
    example: Example, tokenizer: Any, *, train_on: TrainOn, max_seq_length: int, overflow: Overflow
) -> Inspection:
    """What becomes of one example. Raises: as `Renderer.render`."""
    renderer = Renderer(tokenizer)
    whole = renderer.render(example, train_on)
    parts = fit(whole, max_seq_length, overflow, before=renderer.before)
    length = len(whole.token_ids)
    note = ""
    if not parts:
        fate = "an error" if overflow == "error" else "dropped"
        note = (
            f"{length} tokens, over data.max_seq_length {max_seq_length}: the row is {fate} (data.overflow: {overflow})"
        )
    elif len(parts) > 1:
        note = f"{length} tokens, read in {len(parts)} parts, of which this is the first (data.overflow: {overflow})"
    elif parts != [whole]:
        note = f"cut from {length} tokens to {len(parts[0].token_ids)} (data.overflow: {overflow})"
    shown = parts[0] if parts else whole
    token_ids = shown.token_ids.tolist()
    special = set(renderer.special.values())
    return Inspection(
        where=example.where,
        token_ids=tuple(token_ids),
        pieces=tuple(token_texts(token_ids, tokenizer)),
        is_target=tuple(shown.is_target.tolist()),
        is_special=tuple(i in special for i in token_ids),
        note=note,
    )


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
        if text.endswith("\ufffd") and end < len(token_ids):
            texts.append("")
            continue
        texts.append(text[len(known) :])
        start, shown = shown, end
    return texts
