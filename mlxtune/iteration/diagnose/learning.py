"""What the losses of a run say of how it learned: too long, too short, or in too large steps.

A batch's loss is noisy, so parts of a run are compared by their means, with the error that such means have; a fall or
a rise that this error could be is none. Knows curves and scores; nothing of rows or weights.
"""

import math
from collections.abc import Sequence

import numpy as np

from mlxtune.iteration.diagnose.evidence import Evidence, at, number
from mlxtune.iteration.diagnose.finding import Finding

SURE = 3.0
"""Standard errors beyond which two means differ: one in 400 by chance, and a run is looked at a few times."""
FEWEST_STEPS = 30
"""Updates below which a curve says nothing: a fifth of them is six batches."""
PART = 5
"""A run is looked at in so many parts."""

RISE_SHARE, RISE_NATS = 0.05, 0.02
"""From its best, as a share and in nats a token, the validation loss has to have risen by more than both: the rows are
the same at every look, so what is left of noise is how the last steps fell, a percent or two; and of a loss near zero
any share is little."""
GAP_NATS = 0.5
"""Nats a token that unseen rows cost more than those of training: each of their tokens is 1.6 times less likely."""
GAP_TIMES = 2.0
STILL_FALLING, OF_THE_FALL = 0.05, 0.1
"""Of its loss, and of all that the loss fell by in the run, that it still fell in the last part, by both: a curve that
flattens goes on to fall by less and less, and of a loss near zero any share is little."""
KNOWN_NATS = 0.1
"""Loss at the start up to which there is next to nothing to fall by: each token is 90 % likely already."""
REBOUND = 0.5
"""Of what the loss had fallen by, that it rose again."""
BLOWN_UP_TIMES, BLOWN_UP_NATS = 2.0, 2.0
"""Of the first batch, which was read before any update, that the loss of several batches exceeded it by both: their
tokens were seven times less likely than to the base."""
WINDOWS = 10
SURE_OF_REBOUND = 4.0
"""Standard errors, where ten windows are looked at: one run in a thousand by chance."""

Losses = Sequence[tuple[int, float]]


def overfitting(evidence: Evidence) -> Finding | None:
    """The rows of training became likelier, and unseen ones less likely; or they are far apart at the end."""
    return _worse_on_unseen(evidence) or _past_its_best(evidence) or _far_from_unseen(evidence)


def _worse_on_unseen(evidence: Evidence) -> Finding | None:
    losses = [loss for _, loss in evidence.steps]
    verdict = at(evidence.scores, "differences", "loss", "verdict")
    base, tuned = (number(evidence.scores, model, "loss", "mean") for model in ("base", "tuned"))
    if verdict != "worse" or base is None or tuned is None or len(losses) < FEWEST_STEPS or not _is_of_tokens(evidence):
        return None
    first, last = parts(losses)[0], parts(losses)[-1]
    if not falls(first, last):
        return None
    return Finding(
        "overfitting",
        "problem",
        f"the loss on rows of training fell to {np.mean(last):.3f}, and on unseen rows it is worse than the base's: "
        f"{tuned:.3f}, not {base:.3f}",
        "train for fewer epochs, with a lower rate or rank, or on more and more varied rows",
        {
            "train_loss_at_start": round(float(np.mean(first)), 4),
            "train_loss_at_end": round(float(np.mean(last)), 4),
            "unseen_loss_of_base": base,
            "unseen_loss_of_tuned": tuned,
        },
        length_key(evidence),
    )


def _past_its_best(evidence: Evidence) -> Finding | None:
    looks, steps = evidence.validations, evidence.steps
    if len(looks) < 2:  # noqa: PLR2004 - a best one, and one after it
        return None
    best_step, best = min(looks, key=lambda look: look[1])
    last_step, last = looks[-1]
    rise = last - best
    if rise <= max(RISE_SHARE * best, RISE_NATS):
        return None
    before = [loss for step, loss in steps if 2 * best_step - last_step < step <= best_step]
    after = [loss for step, loss in steps if best_step < step <= last_step]
    if not before or not after or np.mean(after) >= np.mean(before):  # the steps were too large, if anything
        return None
    return Finding(
        "overfitting",
        "hint",
        f"from step {best_step} on the loss on validation rows rose, from {best:.3f} to {last:.3f}, while that on rows "
        f"of training fell on; the adapter is that of step {best_step}",
        "end there (evaluation.early_stopping_patience, or fewer epochs); to get further, bring more and more varied "
        "rows",
        {
            "best_step": best_step,
            "best_valid_loss": best,
            "last_step": last_step,
            "last_valid_loss": last,
            "train_loss_before": round(float(np.mean(before)), 4),
            "train_loss_after": round(float(np.mean(after)), 4),
        },
        "evaluation.early_stopping_patience",
    )


def _far_from_unseen(evidence: Evidence) -> Finding | None:
    losses = [loss for _, loss in evidence.steps]
    tuned = number(evidence.scores, "tuned", "loss", "mean")
    if tuned is None or len(losses) < FEWEST_STEPS or not _is_of_tokens(evidence):
        return None
    seen = float(np.mean(parts(losses)[-1]))
    if tuned - seen <= GAP_NATS or tuned <= GAP_TIMES * seen:
        return None
    return Finding(
        "overfitting",
        "hint",
        f"rows of training are known by heart (loss {seen:.3f}), and unseen ones are not (loss {tuned:.3f})",
        "train for fewer epochs, or on more and more varied rows; check that unseen rows are of the same kind",
        {"train_loss_at_end": round(seen, 4), "unseen_loss_of_tuned": tuned},
        length_key(evidence),
    )


def underfitting(evidence: Evidence) -> Finding | None:
    """The loss was still falling when training ended, or never fell."""
    losses = [loss for _, loss in evidence.steps]
    if len(losses) < FEWEST_STEPS:
        return None
    first, *_, before, last = parts(losses)
    start, end, earlier = (float(np.mean(part)) for part in (first, last, before))
    numbers = {"train_loss_at_start": round(start, 4), "train_loss_at_end": round(end, 4), "steps": len(losses)}
    if falls(before, last) and earlier - end > max(STILL_FALLING * earlier, OF_THE_FALL * (start - end)):
        return Finding(
            "underfitting",
            "hint",
            f"the training loss was still falling when training ended: from {earlier:.3f} to {end:.3f} over the last "
            f"{len(last)} steps",
            "train longer",
            numbers | {"train_loss_before_the_end": round(earlier, 4)},
            length_key(evidence),
        )
    if (
        start > KNOWN_NATS
        and not falls(first, last)
        and at(evidence.scores, "differences", "loss", "verdict") != "better"
    ):
        return Finding(
            "underfitting",
            "problem",
            f"the training loss did not fall: {start:.3f} at the start, {end:.3f} at the end of {len(losses)} steps",
            "raise the learning rate, train longer, or give the adapter more rank or layers",
            numbers,
            "training.learning_rate",
        )
    return None


def learning_rate_too_high(evidence: Evidence) -> Finding | None:
    """Updates had to be left out, or the loss rose again by much of what it had fallen."""
    rate = number(evidence.recipe, "training", "learning_rate")
    skipped = sum("skipped" in line for line in evidence.metrics)
    remedy = "lower it, by three to ten times" + ("" if rate is None else f" (it is {rate:g})")
    if skipped:
        return Finding(
            "learning_rate_too_high",
            "problem",
            f"{skipped} of {skipped + len(evidence.steps)} updates were left out, since loss or gradient was no finite "
            "number",
            f"{remedy}; if the same rows come each time (metrics.jsonl names them), look at these first",
            {"skipped": skipped, "learning_rate": rate},
            "training.learning_rate",
        )
    found = rebound([loss for _, loss in evidence.steps])
    if found is None or draws(evidence):
        return None
    start, lowest, highest = found
    return Finding(
        "learning_rate_too_high",
        "problem",
        f"the training loss fell from {start:.3f} to {lowest:.3f}, and rose again to {highest:.3f}"
        if lowest < start
        else f"the training loss rose from {start:.3f} to {highest:.3f}",
        remedy,
        {"loss_at_start": start, "lowest_loss": lowest, "highest_loss_after": highest, "learning_rate": rate},
        "training.learning_rate",
    )


def rebound(losses: Sequence[float]) -> tuple[float, float, float] | None:
    """The loss at the start, its lowest, and its highest after that, where it rose by much; the last two are means of
    windows of several steps, and so is the first, unless the loss blew up in the first of them.
    """
    if len(losses) < FEWEST_STEPS:
        return None
    width = max(PART, len(losses) // WINDOWS)
    windows = [losses[start : start + width] for start in range(0, len(losses) - width + 1, width)]
    means = np.array([np.mean(window) for window in windows])
    variances = np.array([np.var(window, ddof=1) for window in windows])
    first, highest = losses[0], float(means.max())
    if highest > max(BLOWN_UP_TIMES * first, BLOWN_UP_NATS + first):
        return round(first, 4), round(first, 4), round(highest, 4)
    worst = int(np.argmax(means - np.minimum.accumulate(means)))
    best = int(np.argmin(means[: worst + 1]))
    start, low, high = float(means[0]), float(means[best]), float(means[worst])
    # batches may be noisier at one end of a run, and a few of them may be alike by chance: the larger of both counts
    variance = max(float(variances[best] + variances[worst]), 2 * float(variances.mean()))
    if high - low <= max(REBOUND * (start - low), SURE_OF_REBOUND * math.sqrt(variance / width)):
        return None
    return round(start, 4), round(low, 4), round(high, 4)


def parts(losses: Sequence[float]) -> list[Sequence[float]]:
    """A run's losses in `PART` parts of one length; what is left over is at the beginning of the second."""
    size = len(losses) // PART
    return [losses[:size], *(losses[len(losses) - size * left :][:size] for left in range(PART - 1, 0, -1))]


def falls(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether the mean of ``after`` is lower than that of ``before``, surely."""
    error = math.sqrt(float(np.var(before, ddof=1)) / len(before) + float(np.var(after, ddof=1)) / len(after))
    return float(np.mean(before) - np.mean(after)) > SURE * error


def draws(evidence: Evidence) -> bool:
    """Whether the run learned from answers that it drew, whose loss is no measure: see rewards.py."""
    return at(evidence.recipe, "objective", "type") == "grpo"


def _is_of_tokens(evidence: Evidence) -> bool:
    """Whether the loss of training is of the kind of that of unseen rows; another objective's is not."""
    return at(evidence.recipe, "objective", "type") in (None, "sft")


def length_key(evidence: Evidence) -> str:
    """The key that says how long the run was to be."""
    ended_by = at(evidence.manifest, "finished", "ended_by")
    return f"training.{ended_by}" if ended_by in ("max_steps", "max_minutes") else "training.epochs"
