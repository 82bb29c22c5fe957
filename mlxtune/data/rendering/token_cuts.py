"""A text into tokens, and how many of them stand before places in it at which they can be split.

Knows one tokenizer. `Encoder.encode` is the definition: the tokens of a text can be split at a place if those of what
stands before it, encoded alone, are the first of them. `Encoder.encode_all` comes to the same for many texts at once.
For a tokenizer first splits a text at its added tokens and encodes what is between them part by part. So a text is
taken apart there, and each piece, an added token and what follows it, is encoded by itself: those of all texts
together, on all processor cores, and a piece that was met before (a system message, a label) not again. Where that is
not known to hold `encode` is asked.

The price is memory for `REMEMBERED` characters of pieces, some 30 MB at most.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxtune.data.rendering.answer_spans import pattern_of

REMEMBERED = 2_000_000
"""Characters of the pieces whose tokens are kept."""


class JoinedError(ValueError):
    """No tokens of a text can be split at a place in it."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The tokens of a text [L] int32, and how many stand before each of the places asked for and the text's end."""

    ids: np.ndarray
    ends: list[int]


class Encoder:
    """A tokenizer.

    Args:
        tokenizer: mlx_lm's TokenizerWrapper.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._added = _added_tokens(tokenizer)
        self._numbers = frozenset((self._added or {}).values())
        self._pattern = pattern_of(self._added or {})
        self._known: dict[str, np.ndarray | None] = {}
        self._characters = 0

    def ids(self, text: str) -> list[int]:
        """The tokens of ``text`` alone, without BOS or EOS."""
        # verbose=False: a row longer than the model's context is no matter for the tokenizer's own warning.
        return self.tokenizer.encode(text, add_special_tokens=False, verbose=False)

    def encode(self, text: str, cuts: Sequence[int]) -> Cut:
        """The tokens of ``text``, split at ``cuts``, which are places in it in their order.

        Where one token spans a place the parts are encoded one by one: generation too gets its prompt encoded alone.

        Raises: JoinedError, if the parts' tokens do not say what the text says.
        """
        ids = self.ids(text)
        heads = [self.ids(text[:cut]) for cut in cuts]
        if all(ids[: len(head)] == head for head in heads):
            return Cut(np.array(ids, np.int32), [*map(len, heads), len(ids)])
        parts = [self.ids(text[start:end]) for start, end in itertools.pairwise([0, *cuts, len(text)])]
        joined = list(itertools.chain.from_iterable(parts))
        if self.tokenizer.decode(joined) != self.tokenizer.decode(ids):
            raise JoinedError
        return Cut(np.array(joined, np.int32), list(itertools.accumulate(map(len, parts))))

    def encode_all(self, texts: Sequence[str], cuts: Sequence[Sequence[int]]) -> list[Cut | JoinedError]:
        """`encode` of each text with its own places, and the error where it would raise one."""
        found: list[Cut | JoinedError] = []
        apart = [self._apart(*asked) for asked in zip(texts, cuts, strict=True)]
        self._learn(piece for row in apart if row is not None for piece in itertools.chain(row.pieces, row.heads))
        for text, own, row in zip(texts, cuts, apart, strict=True):
            cut = None if row is None else self._join(row)
            try:
                found.append(self.encode(text, own) if cut is None else cut)
            except JoinedError as error:
                found.append(error)
        if self._characters > REMEMBERED:
            self._known, self._characters = {}, 0
        return found

    def _apart(self, text: str, cuts: Sequence[int]) -> "_Apart | None":
        """A text in pieces; None for a tokenizer that does not take it apart so."""
        if self._added is None:
            return None
        starts = [match.start() for match in self._pattern.finditer(text)]
        if not starts or starts[0]:
            starts.insert(0, 0)
        pieces = [text[start:end] for start, end in itertools.pairwise([*starts, len(text)])]
        numbers = [bisect_right(starts, max(0, cut - 1)) - 1 for cut in cuts]
        heads = [pieces[number][: cut - starts[number]] for number, cut in zip(numbers, cuts, strict=True)]
        return _Apart(pieces, numbers, heads)

    def _learn(self, pieces: Iterable[str]) -> None:
        """Encode those pieces that are not known, all together."""
        missing = [piece for piece in dict.fromkeys(pieces) if piece not in self._known]
        if not missing:
            return
        # The library's batches: on all cores, while other threads go on, and without offsets. Cutting and padding, for
        # which a tokenizer's file may ask, are off, as transformers has them for a single text.
        backend = self.tokenizer.backend_tokenizer
        if backend.truncation is not None or backend.padding is not None:
            backend.no_truncation()
            backend.no_padding()
        encoded = [one.ids for one in backend.encode_batch_fast(missing, add_special_tokens=False)]
        for piece, ids in zip(missing, encoded, strict=True):
            self._known[piece] = np.array(ids, np.int32) if self._is_whole(piece, ids) else None
            self._characters += len(piece)

    def _is_whole(self, piece: str, ids: list[int]) -> bool:
        """Whether a piece's tokens are its added token and no other one: else this is not how texts are taken apart."""
        match = self._pattern.match(piece)
        first = [] if match is None or self._added is None else [self._added[match.group()]]
        return ids[: len(first)] == first and self._numbers.isdisjoint(ids[len(first) :])

    def _join(self, row: "_Apart") -> Cut | None:
        """The tokens of a text from those of its pieces; None where `encode` has to be asked."""
        parts = [part for piece in row.pieces if (part := self._known[piece]) is not None]
        if len(parts) < len(row.pieces):
            return None
        counts = list(itertools.accumulate(map(len, parts), initial=0))
        ends = []
        for number, piece in zip(row.numbers, row.heads, strict=True):
            head = self._known[piece]
            if head is None or parts[number][: len(head)].tobytes() != head.tobytes():
                return None
            ends.append(counts[number] + len(head))
        return Cut(np.concatenate(parts), [*ends, counts[-1]])


@dataclass(frozen=True, slots=True)
class _Apart:
    """A text in pieces, each but maybe the first beginning with an added token; and of each place the number of the
    piece that it is in or ends, and what that is up to there.
    """

    pieces: list[str]
    numbers: list[int]
    heads: list[str]


def _added_tokens(tokenizer: Any) -> dict[str, int] | None:
    """The added tokens at which a tokenizer takes a text apart, id by spelling; None where it may not be so.

    Source: tokenizers' AddedVocabulary: tokens that are not ``normalized`` are looked for first, in the text as it is,
    from the left and the longest at each place. One that takes white space before it, or wants to be a word of its own,
    depends on its neighbours.
    """
    from transformers import PreTrainedTokenizerFast

    own = tokenizer._tokenizer  # noqa: SLF001 - the wrapper is of no such type
    kind = PreTrainedTokenizerFast
    names = ("__call__", "encode", "_encode_plus")
    if not isinstance(own, kind) or any(getattr(type(own), name) is not getattr(kind, name) for name in names):
        return None
    added = {i: token for i, token in own.added_tokens_decoder.items() if token.content and not token.normalized}
    if not added or any(token.single_word or token.lstrip for token in added.values()):
        return None
    return {token.content: i for i, token in added.items()}
