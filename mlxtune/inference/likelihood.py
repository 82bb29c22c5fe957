"""What a network says of given tokens: the cross-entropy at target positions, and nowhere else.

The vocabulary projection is the widest product of a small network, and most positions (prompt, padding) need none. Here
only the T positions that predict a target are projected, in chunks whose memory is bounded. For training the gradient
is formed with the loss, chunk by chunk, so that no [T, V] array outlives its chunk. A head that trains wants a gradient
of its own, which that form has no place for: each chunk is then worked out again in the backward pass, at the price of
a second projection.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache

from mlxtune.adapters.saved import under_adapter
from mlxtune.inference.shared_prefix import (
    PIECE,
    Forward,
    Window,
    can_share_prefix,
    forward_shared,
    layer_windows,
    needs_caches,
)
from mlxtune.models.anatomy import Anatomy, anatomy_of, apply_head

CHUNK_BYTES = 64 << 20
"""Of one chunk's float32 logits; a few arrays of this size are alive at once."""


@dataclass(frozen=True)
class Reader:
    """A network made ready to be asked about tokens: how its parts are used, decided once.

    ``anatomy`` is None for a family that no test has shown to fit: it is read through its full logits.
    ``windows`` is None for a network that shares no prefixes. ``piece`` positions of a row run together at most.
    ``fresh_caches``: the network is to be read with caches, empty ones, since it is another without.
    """

    network: nn.Module
    anatomy: Anatomy | None
    windows: list[Window] | None
    piece: int = PIECE
    fresh_caches: bool = False

    @property
    def forward(self) -> Forward:
        forward = self.network if self.anatomy is None else self.anatomy.backbone
        if not self.fresh_caches:
            return forward
        return lambda token_ids, cache=None: forward(token_ids, cache=cache or make_prompt_cache(self.network))

    @property
    def shares_prefixes(self) -> bool:
        return self.windows is not None


def make_reader(network: nn.Module, *, in_pieces: bool = True) -> Reader:
    """Look at the network once: where its head is, and whether prefixes can be shared (tried on a few tokens).

    Args:
        in_pieces: whether long rows may be read piece by piece; not where dropout would draw each piece the same mask.
    """
    windows = layer_windows(network) if can_share_prefix(network) else None
    piece = PIECE if in_pieces else sys.maxsize
    return Reader(network, anatomy_of(network), windows, piece, fresh_caches=windows is None and needs_caches(network))


def target_states(reader: Reader, prefix_ids: mx.array, token_ids: mx.array, target_index: mx.array) -> mx.array:
    """The last hidden states (or, without an anatomy, the logits) of the positions that predict a target.

    Args:
        prefix_ids: [P]. token_ids: [B, L]. target_index: [T], into B * L.

    Returns: [T, D], or [T, V].
    """
    states = forward_shared(reader.forward, reader.windows, prefix_ids, token_ids, piece=reader.piece)
    return states.reshape(-1, states.shape[-1])[target_index]


def target_loss_sum(reader: Reader, states: mx.array, target_id: mx.array, target_weight: mx.array) -> mx.array:
    """The weighted sum of the targets' cross-entropy, in nats, differentiable in ``states`` and in a head that trains.

    Args:
        states: [T, D] or [T, V], from `target_states`. target_id: [T]. target_weight: [T], float32.

    Returns: a float32 scalar.
    """

    def chunk_loss(states: mx.array, ids: mx.array, weight: mx.array) -> mx.array:
        return mx.sum(weight * _cross_entropy(target_logits(reader, states), ids))

    if reader.anatomy is not None and tree_flatten(reader.anatomy.head.trainable_parameters()):
        return _loss_with_head(
            reader.anatomy.head, chunk_loss, _chunks(reader, states.shape), states, target_id, target_weight
        )

    @mx.custom_function
    def loss_and_gradient(states: mx.array, ids: mx.array, weight: mx.array) -> tuple[mx.array, mx.array]:
        loss, gradients = mx.zeros((), mx.float32), []
        for start, stop in _chunks(reader, states.shape):
            piece = states[start:stop]
            if gradients:  # without this the chunks would be computed side by side, and their memory add up
                piece = mx.depends(piece, gradients[-1])
            chunk, gradient = mx.value_and_grad(chunk_loss)(piece, ids[start:stop], weight[start:stop])
            loss = loss + chunk
            gradients.append(gradient)
        return loss, mx.concatenate(gradients)

    @loss_and_gradient.vjp
    def loss_and_gradient_vjp(primals, cotangents, outputs):  # noqa: ANN001, ANN202 - mx.custom_function's own form
        states, ids, weight = primals
        gradient = (cotangents[0] * outputs[1]).astype(states.dtype)
        return gradient, mx.zeros_like(ids), mx.zeros_like(weight)

    loss, _ = loss_and_gradient(states, target_id, target_weight)  # pyright: ignore[reportGeneralTypeIssues] - mlx's stub says object
    return loss


def _loss_with_head(
    head: nn.Module,
    chunk_loss: Callable[[mx.array, mx.array, mx.array], mx.array],
    chunks: Sequence[tuple[int, int]],
    states: mx.array,
    ids: mx.array,
    weight: mx.array,
) -> mx.array:
    """The sum of a loss over chunks, differentiable in ``states`` and the head's parameters."""
    parameters = head.trainable_parameters()
    loss = mx.zeros((), mx.float32)
    for start, stop in chunks:

        def with_chunk(
            parameters: dict[str, Any],
            loss: mx.array,
            piece: mx.array,
            others: tuple[mx.array, mx.array] = (ids[start:stop], weight[start:stop]),
        ) -> mx.array:
            head.update(parameters)
            return loss + chunk_loss(piece, *others)

        # What came before goes into the next, so that no two chunks are worked out side by side.
        loss = mx.checkpoint(with_chunk)(parameters, loss, mx.depends(states[start:stop], loss))
    head.update(parameters)
    return loss


def target_log_probabilities(reader: Reader, states: mx.array, target_id: mx.array) -> mx.array:
    """The log-probability of each target, [T] float32, in nats; lazy, in chunks that follow each other.

    Args: as of `target_loss_sum`.
    """
    chunks: list[mx.array] = []
    for start, stop in _chunks(reader, states.shape):
        piece = states[start:stop]
        if chunks:  # as in `target_loss_sum`
            piece = mx.depends(piece, chunks[-1])
        chunks.append(-_cross_entropy(target_logits(reader, piece), target_id[start:stop]))
    return mx.concatenate(chunks)


class TargetLosses(NamedTuple):
    """Of T targets, each [T]: the cross-entropy, float32 nats; whether it was the likeliest token, bool; and how
    likely the likeliest token was, float32.
    """

    nats: mx.array
    is_likeliest: mx.array
    top_probability: mx.array


def target_losses(reader: Reader, states: mx.array, target_id: mx.array) -> TargetLosses:
    """What is said of each target; for evaluation, evaluated on return.

    Args: as of `target_loss_sum`.
    """
    chunks = []
    for start, stop in _chunks(reader, states.shape):
        logits = target_logits(reader, states[start:stop])
        ids = target_id[start:stop]
        shifted, log_sum = _shifted(logits)
        nats = log_sum - _picked(shifted, ids)
        # The likeliest token's own shifted logit is 0, so this is its probability.
        chunks.append((nats, mx.argmax(logits, axis=-1) == ids, mx.exp(-log_sum)))
        mx.eval(*chunks[-1])
    return TargetLosses(*(mx.concatenate(list(parts)) for parts in zip(*chunks, strict=True)))


def log_probabilities(reader: Reader, states: mx.array) -> Iterator[mx.array]:
    """The log-probability of every token, for some positions at a time, in their order; evaluated.

    Args:
        states: [T, D] or [T, V], from `target_states`.

    Yields: [t, V] float32, of at most ``CHUNK_BYTES``.
    """
    for start, stop in _chunks(reader, states.shape):
        logits = target_logits(reader, states[start:stop])
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        mx.eval(logits)
        yield logits


def target_logits(reader: Reader, states: mx.array) -> mx.array:
    """[T, V] float32, of ``states`` from `target_states`; lazy, and differentiable in all."""
    logits = states if reader.anatomy is None else apply_head(reader.anatomy, states)
    return logits.astype(mx.float32)


def _cross_entropy(logits: mx.array, ids: mx.array) -> mx.array:
    """log sum exp(logits) - logits[id]: [T, V] and [T] to [T]."""
    shifted, log_sum = _shifted(logits)
    return log_sum - _picked(shifted, ids)


def _shifted(logits: mx.array) -> tuple[mx.array, mx.array]:
    """``logits`` [T, V] less the highest of each row, and [T] the log of the sum of their exponentials.

    Written out, because the gradient of mx.logsumexp works every exponential out again, and this one's reuses them.
    """
    highest = mx.stop_gradient(mx.max(logits, axis=-1, keepdims=True))
    shifted = logits - highest
    return shifted, mx.log(mx.sum(mx.exp(shifted), axis=-1))


def _picked(shifted: mx.array, ids: mx.array) -> mx.array:
    return mx.take_along_axis(shifted, ids[:, None], axis=-1).squeeze(-1)


def _chunks(reader: Reader, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Spans of the T positions, each of at most CHUNK_BYTES of logits."""
    width = shape[1] if reader.anatomy is None else under_adapter(reader.anatomy.head).weight.shape[0]
    size = max(1, CHUNK_BYTES // (4 * width))
    return [(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]
