"""The learning rate of each update: a linear warm-up, then cosine, linear or constant.

By update, not by micro-step; a function of the step alone, so a resumed run needs nothing saved.
"""

import math

from mlxtune.recipe.choices import Schedule


def learning_rate_at(step: float, total: int, *, peak: float, warmup_steps: int, kind: Schedule) -> float:
    """The learning rate of update ``step``, the first being 0; between two where a clock decides.

    Rises to ``peak`` over ``warmup_steps`` updates, the first of which is already above zero, then falls to zero, which
    the update after the last would have, as in Hugging Face's get_cosine_schedule_with_warmup.

    Source: SGDR, equation 5, for the cosine, https://arxiv.org/abs/1608.03983
    """
    if step < warmup_steps:
        return peak * min(1.0, (step + 1) / warmup_steps)  # a clock stands between two steps, the last one too
    if kind == "constant":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, total - warmup_steps))
    return peak * (0.5 * (1 + math.cos(math.pi * progress)) if kind == "cosine" else 1 - progress)
