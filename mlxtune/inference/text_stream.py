"""An answer's text as its tokens come: whole letters only, and nothing of a text to stop at.

All that was given out, joined, is at every moment a beginning of the whole tokens' text before the first text to stop
at, and at the end all of it. A letter may be cut among several tokens, so what decodes to a replacement character at
the end waits; what may be the beginning of a text to stop at waits too. A few tokens are decoded at each, never all.
"""

from collections.abc import Sequence

from mlx_lm.tokenizer_utils import TokenizerWrapper

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LOOK_BACK = 4
"""Tokens that new ones are decoded after, since some decode otherwise at the start of a text."""


class TextStream:
    """The text of one answer; ``is_over`` once a text to stop at has come, after which nothing may be added."""

    def __init__(self, tokenizer: TokenizerWrapper, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = [one for one in stop if one]
        self._before: list[int] = []  # tokens given out already, which those after them are decoded with
        self._held: list[int] = []  # tokens whose letters are not whole yet
        self._pending = ""  # whole letters that a text to stop at may begin with
        self.is_over = False

    def add(self, token: int) -> str:
        """What can be given out now."""
        self._held.append(token)
        text = self._decoded_after()
        if text.endswith(REPLACEMENT):
            return ""
        self._before, self._held = (self._before + self._held)[-LOOK_BACK:], []
        return self._release(text, is_last=False)

    def finish(self) -> str:
        """What is left, where no text to stop at came."""
        text = self._decoded_after() if self._held else ""
        self._held = []
        return self._release(text, is_last=True)

    def _decoded_after(self) -> str:
        return decode(self._tokenizer, self._before + self._held)[len(decode(self._tokenizer, self._before)) :]

    def _release(self, text: str, *, is_last: bool) -> str:
        if self.is_over:
            return ""
        self._pending += text
        places = [place for one in self._stop if (place := self._pending.find(one)) >= 0]
        if places:
            self.is_over = True
            given, self._pending = self._pending[: min(places)], ""
            return given
        kept = 0 if is_last else self._begun()
        given, self._pending = self._pending[: len(self._pending) - kept], self._pending[len(self._pending) - kept :]
        return given

    def _begun(self) -> int:
        """How many letters at the end may be the beginning of a text to stop at."""
        longest = max((len(one) for one in self._stop), default=1) - 1
        return next(
            (
                count
                for count in range(min(longest, len(self._pending)), 0, -1)
                if any(one.startswith(self._pending[-count:]) for one in self._stop)
            ),
            0,
        )


def decode(tokenizer: TokenizerWrapper, token_ids: Sequence[int]) -> str:
    """The text of tokens, as it is: some tokenizers' own clean-up takes the space out of " .", which no answer can
    spare.
    """
    return tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False) if token_ids else ""
