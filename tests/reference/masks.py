"""Which tokens of a conversation are learned, counted in characters: written from the format, not from templates.

A row is a list of pieces of text, each learned or not. A tokenizer that gives every byte a token of its own, and each
special token one, has as many tokens in a piece as can be counted by hand.
"""

import numpy as np

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def chatml_pieces(turns: list[tuple[str, str]], default_system: str) -> list[tuple[str, bool]]:
    """The pieces of a ChatML conversation, up to the last end of turn; answers and their ends are learned."""
    if turns[0][0] != "system":
        turns = [("system", default_system), *turns]
    pieces: list[tuple[str, bool]] = []
    for role, content in turns:
        learned = role == "assistant"
        pieces += [("<|im_start|>", False), (f"{role}\n", False), (content, learned), ("<|im_end|>", learned)]
        pieces.append(("\n", False))
    return pieces[:-1]


def byte_mask(pieces: list[tuple[str, bool]]) -> np.ndarray:
    """Whether each token is learned, [L], under a tokenizer of bytes and special tokens."""
    counts = [1 if text in SPECIAL else len(text.encode("utf-8")) for text, _ in pieces]
    return np.repeat([learned for _, learned in pieces], counts)
