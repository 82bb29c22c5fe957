"""Text from a network: many prompts at once, greedily or sampled, on mlx-lm's batch generation.

What all prompts begin with is read once. An answer depends on its own prompt and seed alone as far as sampling goes:
each row draws from its own key. Rounding still differs in the last bits with the company that a row is batched with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlxtune.errors import DataError
from mlxtune.inference.shared_prefix import common_prefix_length, is_alike, layer_windows
from mlxtune.progress import Progress, silent

DEFAULT_BATCH_SIZE = 16
SHAPES_DIFFER = ("[broadcast_shapes]", "[reshape]")
"""How MLX's errors begin that say so."""
LOOK_BACK = 4
"""Tokens that are decoded before those that a text to stop at can have, since a letter may be cut among several."""
Sampler = Callable[[mx.array], mx.array]


@dataclass(frozen=True)
class Generation:
    """What came after one prompt."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    """``stop``: an end token or a text to stop at came; ``length``: the limit was reached."""
    prompt_tokens: int

    @property
    def completion_tokens(self) -> int:
        return len(self.token_ids)


def generate(
    network: nn.Module,
    tokenizer: TokenizerWrapper,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop: Sequence[str] = (),
    batch_size: int = DEFAULT_BATCH_SIZE,
    progress: Progress = silent,
) -> list[Generation]:
    """Continue each prompt, in order, until an end token, one of the texts in ``stop``, or ``max_tokens``.

    Args:
        prompts: token ids.
        temperature: 0 takes the likeliest token.
        seed: with a prompt's number, it decides that prompt's draws.
        stop: texts before which an answer's own text ends; the tokens of the first that came stay in ``token_ids``.
        batch_size: prompts that are worked on together, where the network takes them so; see `can_batch`.
        progress: told of prompts done.

    Raises: DataError, for a prompt without tokens.
    """
    for number, prompt in enumerate(prompts, 1):
        if len(prompt) == 0:
            raise DataError("the prompt is empty", where=f"prompt {number}", remedy="write something to go on from")
    if not prompts:
        return []
    if min(batch_size, len(prompts)) > 1 and not can_batch(network):
        batch_size = 1
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # like lengths together: less padding
    generator = BatchGenerator(
        network,
        max_tokens=max_tokens,
        stop_tokens=[[token] for token in tokenizer.eos_token_ids],
        completion_batch_size=batch_size,
        prefill_batch_size=batch_size,
        stream=mx.default_stream(mx.default_device()),  # this thread's; mlx-lm's own was bound when it was imported
    )
    length = _shared_length(network, prompts)
    prefix_cache = _read_prefix(network, prompts[0][:length]) if length else None
    uids = generator.insert(
        [list(prompts[i][length:]) for i in order],
        caches=None if prefix_cache is None else [prefix_cache] * len(prompts),  # merging into a batch copies
        samplers=None if temperature == 0 else [_sampler(temperature, seed, i) for i in order],
    )
    is_over = _stop_finder(tokenizer, stop)
    tokens, reasons = _run(generator, dict(zip(uids, order, strict=True)), is_over, progress)
    return [
        Generation(text_before(_decode(tokenizer, ids), stop), tuple(ids), reason, len(prompt))
        for prompt, ids, reason in zip(prompts, tokens, reasons, strict=True)
    ]


def text_before(text: str, stop: Sequence[str]) -> str:
    """What of ``text`` stands before the first of the texts in ``stop``; all of it, where there is none."""
    return text[: min((text.index(one) for one in stop if one and one in text), default=None)]


def _decode(tokenizer: TokenizerWrapper, ids: Sequence[int]) -> str:
    # Some tokenizers' own clean-up takes the space out of " .", which no answer that is scored can spare.
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def _stop_finder(tokenizer: TokenizerWrapper, stop: Sequence[str]) -> Callable[[list[int]], bool]:
    """Whether some tokens, of which all but the last were looked at before, hold one of the texts in ``stop``.

    The last tokens are decoded first, since decoding all at each token would take quadratic time.
    """
    wanted = [one for one in stop if one]
    tail = max((len(one.encode()) for one in wanted), default=0) + LOOK_BACK

    def is_over(ids: list[int]) -> bool:
        return any(one in _decode(tokenizer, ids[-tail:]) and one in _decode(tokenizer, ids) for one in wanted)

    return is_over


def can_batch(network: nn.Module) -> bool:
    """Whether prompts of different lengths get together what each would get alone: tried, on the shorter of two.

    Of the families that keep a state, some take the padding before a shorter prompt into it, and gemma2 adds a mask of
    another shape: in mlx-lm 0.32.2 mamba, jamba, nemotron_h, rwkv7 and most of gemma2 do not fit. The price is four
    passes of a few tokens.
    """
    shorter, longer = [1, 2], [6, 5, 4, 3, 2, 1]
    generator = BatchGenerator(network, max_tokens=1, stream=mx.default_stream(mx.default_device()))
    uid, _ = generator.insert([shorter, longer])
    try:
        (found,) = (response.logprobs for response in generator.next_generated() if response.uid == uid)
    except ValueError as error:
        if not str(error).startswith(SHAPES_DIFFER):
            raise
        return False
    finally:
        generator.close()
    alone = network(mx.array([shorter]), cache=make_prompt_cache(network))[0, -1]
    return is_alike(found, alone - mx.logsumexp(alone))


def _run(
    generator: BatchGenerator, number: dict[int, int], is_over: Callable[[list[int]], bool], progress: Progress
) -> tuple[list[list[int]], list[str]]:
    """Every prompt's tokens and why they end, in the order of the prompts; ``number`` is each one's by uid."""
    tokens: list[list[int]] = [[] for _ in number]
    reasons = [""] * len(number)
    done = 0
    progress("generate: prompts", done, len(number))
    try:
        while responses := generator.next_generated():
            for response in responses:
                i, reason = number[response.uid], response.finish_reason
                if reason != "stop":
                    tokens[i].append(response.token)
                    if is_over(tokens[i]):
                        if reason is None:
                            generator.remove([response.uid])
                        reason = "stop"
                if reason is not None:
                    reasons[i] = reason
                    done += 1
                    progress("generate: prompts", done, len(number))
    finally:
        generator.close()
    return tokens, reasons


def _shared_length(network: nn.Module, prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens to read once: none where a layer keeps more than keys and values, or for a single prompt."""
    windows = layer_windows(network)
    if len(prompts) == 1 or windows is None or any(window is not None for window in windows):
        return 0
    return min(common_prefix_length([np.asarray(ids) for ids in prompts]), min(len(ids) for ids in prompts) - 1)


def _read_prefix(network: nn.Module, prefix: Sequence[int]) -> list[Any]:
    cache = make_prompt_cache(network)
    network(mx.array([list(prefix)]), cache=cache)
    mx.eval([layer.state for layer in cache])
    return cache


def _sampler(temperature: float, seed: int, number: int) -> Sampler:
    """Draws from softmax(logits / temperature) with one key a token, of this prompt alone."""
    key = mx.random.split(mx.random.key(seed), number + 1)[number]

    def sample(logprobs: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        return mx.random.categorical(logprobs * (1 / temperature), key=now)

    return sample
