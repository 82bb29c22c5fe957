"""What several ranks do as one: add up what each has read, and go on from the same state.

Each rank reads its share of a batch's rows. Sums of losses, weights, counts and gradients travel, never means, so that
the update is that of all rows whatever the number of ranks: to rounding, which depends on the order of adding. A
process that is alone passes through all of this untouched. Knows ranks and the training state; nothing of data.
"""

import json
from collections.abc import Callable

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_map_with_path

from mlxtune.device.distributed import Ranks
from mlxtune.training.state import TrainingState, WindowSum
from mlxtune.training.step import Tree, leaves


def joined(found: WindowSum, state: TrainingState, ranks: Ranks, *, figures: int = 0) -> WindowSum:
    """What all ranks found in a window, with so many ``figures``; the seconds are rank 0's, since a limit in minutes
    has to end all at once.

    The ranks compare their parameters on the way. Machines that differ may differ in last bits after a while; then
    rank 0's state is the one that all go on with.
    """
    if ranks.is_alone:
        return found
    own = found.figures or [0.0] * figures  # a rank without rows has none
    counts = (found.loss_sum, found.weight_sum, found.tokens, found.target_tokens, *own)
    parameters = state.network.trainable_parameters()
    table = ranks.gather([*counts, found.seconds, digest(parameters)])
    if (table[:, -1] != table[0, -1]).any():
        follow_tensors(state, ranks)
    mine = found.gradients if found.gradients is not None else tree_map(mx.zeros_like, parameters)
    found.gradients = None  # the sum of all is what is kept
    gradients = mapped(mine, ranks.sum_arrays)
    loss_sum, weight_sum, tokens, target_tokens, *sums = table[:, : len(counts)].sum(axis=0).tolist()
    seconds = float(table[0, len(counts)])
    return WindowSum(found.batches, loss_sum, weight_sum, int(tokens), int(target_tokens), seconds, sums, gradients)


def follow(state: TrainingState, ranks: Ranks) -> None:
    """Bring every rank to rank 0's state, so that it alone needs a checkpoint.

    A window begun is begun anew: other ranks, or another number of them, know nothing of what was read of it.
    """
    if ranks.is_alone:
        return
    follow_tensors(state, ranks)
    state.set_counters(json.loads(ranks.text_of_first(json.dumps(state.counters()))))
    state.window_sum = None


def follow_tensors(state: TrainingState, ranks: Ranks) -> None:
    """Take rank 0's parameters and optimizer state, to the last bit."""
    parameters, optimizer_state = state.parameters()
    state.set_parameters(mapped(parameters, ranks.arrays_of_first), mapped(optimizer_state, ranks.arrays_of_first))


def mapped(tree: Tree, function: Callable[[list[mx.array]], list[mx.array]]) -> Tree:
    """A tree with ``function`` of its arrays for these.

    They come in the order of their names: a tree that was read from a file has another order than one that was made.
    """
    arrays = {name: leaf for name, leaf in tree_flatten(tree) if isinstance(leaf, mx.array)}
    names = sorted(arrays)
    results = dict(zip(names, function([arrays[name] for name in names]), strict=True))
    return tree_map_with_path(results.get, tree)


def digest(parameters: Tree) -> int:
    """A number that two sets of float32 parameters share if they are the same to the last bit, and hardly else."""
    words = [array.view(mx.uint32) for array in leaves(parameters)]
    return int(np.array(mx.sum(mx.stack([mx.sum(each * each) for each in words]))))
