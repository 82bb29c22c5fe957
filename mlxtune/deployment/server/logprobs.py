"""Log-probabilities on the wire: of a chat's tokens, and in the older form of plain completions."""

from typing import Any

from mlxtune.inference.engine import TokenLogprob
from mlxtune.inference.token_bytes import TokenBytes


def of_chat(tokens: TokenBytes, said: TokenLogprob) -> dict[str, Any]:
    """One token's entry in ``logprobs.content``."""
    return _entry(tokens, said.token_id, said.logprob) | {
        "top_logprobs": [_entry(tokens, token, logprob) for token, logprob in said.likeliest]
    }


def _entry(tokens: TokenBytes, token: int, logprob: float) -> dict[str, Any]:
    spelled = tokens.of(token)
    return {"token": text_of(spelled), "logprob": logprob, "bytes": list(spelled)}


def of_completion(tokens: TokenBytes, said: list[TokenLogprob], offset: int) -> dict[str, Any]:
    """The ``logprobs`` of some tokens of a text, of which the first begins at the letter ``offset``."""
    spelled = [tokens.of(one.token_id) for one in said]
    offsets = [offset + len(text_of(b"".join(spelled[:i]))) for i in range(len(spelled))]
    return {
        "tokens": [text_of(one) for one in spelled],
        "token_logprobs": [one.logprob for one in said],
        "top_logprobs": [{text_of(tokens.of(token)): value for token, value in one.likeliest} for one in said],
        "text_offset": offsets,
    }


def text_of(spelled: bytes) -> str:
    """A token's text; of a part of a letter, its bytes as ``\\xe2``, as OpenAI writes them."""
    return spelled.decode("utf-8", "backslashreplace")
