"""Text from a network: many prompts at once, greedily or sampled, by an engine that lives as long as they take.

What all prompts begin with is read once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mlx import nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlxtune.errors import DataError
from mlxtune.inference.engine import BATCH_SIZE, Engine, Request
from mlxtune.inference.sampling import Sampling
from mlxtune.inference.shared_prefix import common_prefix_length
from mlxtune.progress import Progress, silent


@dataclass(frozen=True)
class Generation:
    """What came after one prompt."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    """``stop``: an end token or a text to stop at came; ``length``: the limit was reached."""
    prompt_tokens: int
    end_token: int | None = None
    """The token that ended the answer, which is none of ``token_ids``; None where a text or the limit did."""

    @property
    def completion_tokens(self) -> int:
        return len(self.token_ids)


def generate(
    network: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float = Sampling.temperature,
    top_p: float = Sampling.top_p,
    top_k: int = Sampling.top_k,
    min_p: float = Sampling.min_p,
    seed: int = Sampling.seed,
    stop: Sequence[str] = (),
    batch_size: int = BATCH_SIZE,
    progress: Progress = silent,
) -> list[Generation]:
    """Continue each prompt, in order, until an end token, one of the texts in ``stop``, or ``max_tokens``.

    Args:
        prompts: token ids.
        temperature, top_p, top_k, min_p: how tokens are drawn, as in `Sampling`.
        seed: with a prompt's number, it decides that prompt's draws.
        stop: texts before which an answer's own text ends; the tokens of the first that came stay in ``token_ids``.
        batch_size: prompts that are worked on together, where the network takes them so.
        progress: told of prompts done.

    Raises: DataError, for a prompt without tokens; UsageError, for a setting out of range.
    """
    for number, prompt in enumerate(prompts, 1):
        if len(prompt) == 0:
            raise DataError("the prompt is empty", where=f"prompt {number}", remedy="write something to go on from")
    if not prompts:
        return []
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        seed=seed,
        stop=tuple(stop),
    )
    shared = common_prefix_length([np.asarray(ids) for ids in prompts]) if len(prompts) > 1 else 0
    asked = [tuple(prompt) for prompt in prompts]
    times = Counter(asked)  # of a prompt that is answered several times, all is read once
    engine = Engine(network, tokenizer, batch_size=min(batch_size, len(prompts)))
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # like lengths together: less padding
    number = {
        engine.submit(
            Request(prompts[i], sampling, number=i, shared=len(prompts[i]) - 1 if times[asked[i]] > 1 else shared)
        ): i
        for i in order
    }
    try:
        found = _run(engine, number, progress)
    finally:
        engine.close()
    return [
        Generation(text, tuple(ids), reason, len(prompt), end)
        for (text, ids, reason, end), prompt in zip(found, prompts, strict=True)
    ]


def _run(engine: Engine, number: Mapping[int, int], progress: Progress) -> list[tuple[str, list[int], str, int | None]]:
    """Every prompt's text, tokens, why they end and the token that ended them, in the order of the prompts; ``number``
    is each one's by ticket.
    """
    texts = [""] * len(number)
    tokens: list[list[int]] = [[] for _ in number]
    reasons = [""] * len(number)
    ends: list[int | None] = [None] * len(number)
    done = 0
    progress("generate: prompts", done, len(number))
    while not engine.is_idle:
        for piece in engine.step():
            i = number[piece.ticket]
            texts[i] += piece.text
            if piece.token_id is not None:
                tokens[i].append(piece.token_id)
            if piece.finish_reason is not None:
                reasons[i], ends[i] = piece.finish_reason, piece.end_token
                done += 1
                progress("generate: prompts", done, len(number))
    return list(zip(texts, tokens, reasons, ends, strict=True))


def text_before(text: str, stop: Sequence[str]) -> str:
    """What of ``text`` stands before the first of the texts in ``stop``; all of it, where there is none."""
    return text[: min((text.index(one) for one in stop if one and one in text), default=None)]
