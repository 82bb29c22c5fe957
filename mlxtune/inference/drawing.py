"""Drawing one answer's tokens from what a network says of the next one.

Every answer draws with keys of its own, made from its seed and number, so that what it draws is a function of its
logits and those two alone: whoever shares its batch has no say, nor has MLX's global random state. Penalties are put
together before the token before is known; a constraint has to read it.
"""

from collections.abc import Callable
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from mlxtune.device import exponentials
from mlxtune.inference.sampling import Sampling

Sampler = Callable[[mx.array], mx.array]
"""Logits [1, V] to a token [1]; log-probabilities are logits too. Called once for every token."""

LEAST_TEMPERATURE = 1e-10
"""One over less than this is not finite for sure."""


class Constraint(Protocol):
    """Which tokens an answer may go on with: a grammar's state."""

    def allowed(self) -> np.ndarray:
        """Whether each token may come next, [V] booleans; at least one may."""
        ...

    def accept(self, token: int) -> None:
        """Go on by a token."""
        ...


def answer_key(seed: int, number: int) -> mx.array:
    """The key that the draws of answer ``number`` of a seed begin with."""
    return mx.random.split(mx.random.key(seed % 2**64), number + 1)[number]


def sampler_for(sampling: Sampling, number: int = 0, constraint: Constraint | None = None) -> Sampler | None:
    """What draws one answer's tokens, one after another; None where it is the likeliest one always."""
    is_adjusted = bool(sampling.logit_bias or sampling.presence_penalty or sampling.frequency_penalty)
    if sampling.temperature == 0 and not is_adjusted and constraint is None:
        return None
    draw = _chooser(sampling, number)
    if is_adjusted:
        draw = _adjusted(draw, sampling)
    return draw if constraint is None else _constrained(draw, constraint)


def _chooser(sampling: Sampling, number: int) -> Sampler:
    if sampling.temperature == 0:
        return lambda logits: mx.argmax(logits, axis=-1)
    key = answer_key(sampling.seed, number)

    def draw(logits: mx.array) -> mx.array:
        nonlocal key
        key, now = mx.random.split(key)
        return exponentials.categorical(_narrowed(logits, sampling), now)

    return draw


def _narrowed(logits: mx.array, sampling: Sampling) -> mx.array:
    """[1, V] logits at the temperature, without the tokens that are too unlikely to be drawn."""
    # No token is taken away before the scale is right: top_p's mass is of the distribution that is drawn from.
    scaled = logits.astype(mx.float32) * (1 / max(sampling.temperature, LEAST_TEMPERATURE))
    if sampling.top_p < 1:
        scaled = scaled - mx.logsumexp(scaled, axis=-1, keepdims=True)
    if 0 < sampling.top_k < scaled.shape[-1]:
        scaled = apply_top_k(scaled, sampling.top_k)
    if sampling.top_p < 1:
        scaled = apply_top_p(scaled, sampling.top_p)
    if sampling.min_p > 0:
        scaled = apply_min_p(scaled, sampling.min_p)
    return scaled


def _adjusted(draw: Sampler, sampling: Sampling) -> Sampler:
    """``draw`` after bias and penalties, by OpenAI's formula: logit - count * frequency - (count > 0) * presence."""
    counts: mx.array | None = None

    def adjust(logits: mx.array) -> mx.array:
        nonlocal counts
        if counts is None:
            counts = mx.zeros(logits.shape[-1])
        off = sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0)
        adjusted = logits.astype(mx.float32) - off  # 16 bits would round small penalties away
        if sampling.logit_bias:
            tokens, bias = mx.array(list(sampling.logit_bias)), mx.array(list(sampling.logit_bias.values()))
            adjusted = adjusted.at[:, tokens].add(bias.astype(mx.float32))
        token = draw(adjusted)
        counts = counts.at[token].add(1.0)
        return token

    return adjust


def _constrained(draw: Sampler, constraint: Constraint) -> Sampler:
    """``draw`` among the tokens that the constraint allows."""
    last: mx.array | None = None

    def choose(logits: mx.array) -> mx.array:
        nonlocal last
        if last is not None:
            token: Any = last.item()
            constraint.accept(token)
        last = draw(mx.where(mx.array(constraint.allowed()), logits, -float("inf")))
        return last

    return choose
