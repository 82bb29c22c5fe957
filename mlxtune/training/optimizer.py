"""The optimizer, by its name in a recipe."""

from mlx import optimizers


def make_optimizer(name: str, *, weight_decay: float) -> optimizers.Optimizer:
    """An optimizer without a learning rate of its own: the loop sets that before each update.

    AdamW corrects the bias of its moments, as the paper and PyTorch do and MLX's default does not: without it the
    first updates are three to seven times too large, which a short run notices.

    Source: Decoupled Weight Decay Regularization, algorithm 2, https://arxiv.org/abs/1711.05101
    """
    assert name == "adamw"  # the recipe's schema refuses what is not here
    return optimizers.AdamW(
        learning_rate=0.0, betas=[0.9, 0.999], eps=1e-8, weight_decay=weight_decay, bias_correction=True
    )
