"""Supervised fine-tuning: the network learns to say the target tokens, each weighing the same."""

import mlx.core as mx

from mlxtune.data.batch import Batch
from mlxtune.inference.likelihood import Reader, target_loss_sum, target_states
from mlxtune.training.objectives.objective import Objective


def sft() -> Objective:
    """Mean cross-entropy a target."""
    return Objective(lambda reader, batch: (sft_loss_sum(reader, batch), []))


def sft_loss_sum(reader: Reader, batch: Batch) -> mx.array:
    """The sum over the batch's targets of weight x cross-entropy, in nats: a float32 scalar.

    A sum and not a mean, so that a window of several batches weighs each target alike; the step divides.
    """
    states = target_states(reader, batch.prefix_ids, batch.token_ids, batch.target_index)
    return target_loss_sum(reader, states, batch.target_id, batch.target_weight)
