"""Whether a trial is ended early: successive halving, as optuna has it, on the validation loss at shares of a run.

Trials are compared where they have come equally far: when a quarter and when half of their own steps are made, so at
the same place of the learning rate's schedule, however many steps each has. Of the trials that came so far the better
half goes on. A pure function of the curves, so that a resumed trial meets the decision that it would have met: optuna's
pruner, which notes in its storage what it decided, gets the curves anew each time. The price: a setting that learns
slowly at first may be ended though it would have won.

Source: Li et al. 2018, A System for Massively Parallel Hyperparameter Tuning (ASHA), https://arxiv.org/abs/1810.05934
"""

from collections.abc import Iterable, Mapping

FIRST_RUNG = 25
"""Percent of a run."""
FACTOR = 2
"""One of so many goes on at each rung, and each lies so many times further than the one before."""
WHOLE = 100

Curve = Mapping[int, float]
"""The validation loss by the percent of a run at which it was measured, from 1."""


def percent_of(step: int, total: int) -> int:
    """How far a run is."""
    return max(1, min(WHOLE, WHOLE * step // total))


def is_cut(curve: Curve, others: Iterable[Curve]) -> bool:
    """Whether a trial is ended at the last rung that its curve has reached.

    Args:
        others: the curves of all other trials, ended or not, in order.
    """
    import optuna

    own = _at_rungs(curve)
    if not own:
        return False
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=FACTOR)
    study = optuna.create_study(direction="minimize", pruner=pruner)
    cut = False
    for values in (*map(_at_rungs, others), own):
        trial = study.ask()
        decided = []
        for percent, loss in values.items():
            trial.report(loss, percent)
            decided.append(trial.should_prune())
        cut = any(decided)
    return cut


def _at_rungs(curve: Curve) -> dict[int, float]:
    """The loss at each rung: the first that was measured there or later, while the run went on."""
    found: dict[int, float] = {}
    rung = FIRST_RUNG
    while rung < WHOLE:
        reached = [percent for percent in curve if rung <= percent < WHOLE]
        if reached:
            found[rung] = curve[min(reached)]
        rung *= FACTOR
    return found
