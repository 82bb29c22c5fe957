"""A look at the loss on the validation rows, between two steps; of an objective that draws answers, at their reward.

Of several ranks each reads its share. Knows nothing of when it is done, nor of what is done with the result.
"""

from collections.abc import Callable, Sequence

from mlxtune.device.distributed import Ranks
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.iteration.ready import Ready
from mlxtune.iteration.reference import valid_sums
from mlxtune.iteration.rollouts import greedy_answers, mean_reward
from mlxtune.training.frozen_prefix import FrozenPrefix


def validation_loss(
    ready: Ready, frozen: FrozenPrefix, ranks: Ranks, *, answered: Callable[[Sequence[str]], None]
) -> float:
    """The mean loss a target, or a pair, of all ranks; of an objective that draws, the negative mean reward.

    Args:
        ready: with this rank's share of the validation rows.
        frozen: from the same rows.
        answered: told the answers to all rows in their order, where the reward is that of answers.
    """
    if ready.objective.drawing is not None:
        answers = greedy_answers(ready, "valid")
        answered(answers)
        return 0.0 - mean_reward(ready, "valid", answers)  # so that no reward is 0, and not -0
    tokenizer, rows = ready.opened.model.tokenizer, ready.opened.datasets["valid"].rows
    with ready.computing():
        found = read_heldout(frozen.reader, tokenizer, rows, lift=frozen.lift)
        sums = valid_sums(ready, found, ranks)
    loss_sum, weight_sum = ranks.gather(sums).sum(axis=0)
    return float(loss_sum / weight_sum)
