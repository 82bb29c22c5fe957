"""How far one network is from another: what both say at the same positions of the same rows.

The two never have to be in memory together: of the reference the log-probabilities of every token are kept, at
positions spread evenly over the rows, and the other is then read there. The price is a sample, bounded in bytes and in
tokens read; it is the same for every network that is held against one reference.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from mlxtune.data.batch import reading_batches
from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import facts_of
from mlxtune.errors import DataError
from mlxtune.evaluation.pace import reading_tokens
from mlxtune.inference.likelihood import Reader, log_probabilities, target_states
from mlxtune.progress import Progress, silent

KEPT_BYTES = 256 << 20
TOKENS_READ = 2048


@dataclass(frozen=True, eq=False)
class Distributions:
    """What one network says at the targets of ``rows``, which are those of a data set that were chosen for it."""

    rows: tuple[Rendered, ...]
    log_probabilities: tuple[mx.array, ...]
    """[t, V] float32 each, in the order in which `reading_batches` has the targets of ``rows``."""


@dataclass(frozen=True)
class Fidelity:
    """How far a network is from a reference, at ``positions`` target positions."""

    positions: int
    mean_kl: float
    """KL(reference || other), nats a position; NaN, where one of them says no numbers."""
    token_agreement: float
    """The share of positions at which both have the same likeliest token."""


def read_distributions(
    reader: Reader,
    dataset: Sequence[Rendered],
    *,
    max_bytes: int = KEPT_BYTES,
    max_tokens: int = TOKENS_READ,
    progress: Progress = silent,
) -> Distributions:
    """What the reference says at the targets of ``dataset``, or at as many as may be kept, for `compare`.

    Args:
        max_bytes: of the log-probabilities that are kept.
        max_tokens: of the rows that are read, together; a row that is longer is left out. It is for whoever renders to
            cut it, who knows what it has to begin with.

    Raises: DataError, if every row is longer, or has no target.
    """
    vocabulary_size = reader.network(mx.zeros((1, 1), mx.int32)).shape[-1]  # lazy: a shape costs no work
    rows = choose_rows(dataset, max_tokens=max_tokens, max_targets=max(1, max_bytes // (4 * vocabulary_size)))
    return Distributions(rows, tuple(_read(reader, rows, "read the reference: rows", progress)))


def compare(reference: Distributions, reader: Reader, *, progress: Progress = silent) -> Fidelity:
    """How far another network, of the same vocabulary, is from the reference; it is read at the same positions."""
    kl, same = [], []
    for ours, theirs in zip(
        reference.log_probabilities, _read(reader, reference.rows, "compare: rows", progress), strict=True
    ):
        p = mx.exp(ours)
        terms = mx.where(p == 0, 0.0, p * (ours - theirs))  # 0 log 0 is 0: of a token that both forbid, too
        kl.append(np.array(mx.sum(terms, axis=-1), np.float64))
        same.append(np.array(mx.argmax(ours, axis=-1) == mx.argmax(theirs, axis=-1)))
    nats, agrees = np.concatenate(kl), np.concatenate(same)
    # Never negative but for the last bits of its terms; and Python's max would make a NaN 0.
    return Fidelity(len(nats), float(np.maximum(nats.mean(), 0.0)), float(agrees.mean()))


def choose_rows(dataset: Sequence[Rendered], *, max_tokens: int, max_targets: int) -> tuple[Rendered, ...]:
    """Rows spread evenly over ``dataset``, of ``max_tokens`` together at most, with at most ``max_targets`` targets,
    which are spread evenly over these.

    Raises: DataError, as of `read_distributions`.
    """
    facts = facts_of(dataset)
    useful = np.flatnonzero((facts.target_count > 0) & (facts.length <= max_tokens)).tolist()
    if not useful:
        raise DataError(
            f"no row has a target and at most {max_tokens} tokens",
            where=dataset[0].where,
            remedy="give shorter rows, that end with what is to be learned",
        )
    mean_length = float(facts.length[useful].mean())
    chosen: list[Rendered] = []
    room = max_tokens
    for number in _spread(len(useful), max(1, int(max_tokens / mean_length))):
        row = dataset[useful[number]]
        if len(row.token_ids) <= room:
            chosen.append(row)
            room -= len(row.token_ids)
    targets = [(i, position) for i, row in enumerate(chosen) for position in np.flatnonzero(row.is_target)]
    kept = [np.zeros_like(row.is_target) for row in chosen]
    for number in _spread(len(targets), max_targets):
        i, position = targets[number]
        kept[i][position] = True
    return tuple(replace(row, is_target=mask) for row, mask in zip(chosen, kept, strict=True) if mask.any())


def _spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of the numbers below ``count``, or all, from first to last at even distances."""
    return np.linspace(0, count - 1, min(count, wanted)).round().astype(int).tolist()


def _read(reader: Reader, rows: Sequence[Rendered], what: str, progress: Progress) -> Iterator[mx.array]:
    """Log-probabilities, [t, V] at a time, at every target of ``rows``."""
    done = 0
    for batch in reading_batches(rows, share_prefix=reader.shares_prefixes, max_tokens=reading_tokens(reader.network)):
        states = target_states(reader, batch.prefix_ids, batch.token_ids, batch.target_index)
        yield from log_probabilities(reader, states)
        done += len(batch.rows)
        progress(what, done, len(rows))
