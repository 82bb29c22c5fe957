"""The loop of a run on its own rows: what training is made of, and what a plan measures."""

from collections.abc import Callable, Sequence
from typing import Any

from mlxtune.data.pairs import SIDES
from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import places_of
from mlxtune.device.distributed import ALONE, Ranks
from mlxtune.iteration.batches import Batches
from mlxtune.iteration.ready import Ready
from mlxtune.training.frozen_prefix import FrozenPrefix
from mlxtune.training.loop import Training
from mlxtune.training.pause import NEVER, Pause
from mlxtune.training.step import make_step


def make_training(
    ready: Ready,
    rows: Sequence[Rendered],
    frozen: FrozenPrefix,
    *,
    record: Callable[[dict[str, Any]], None] = lambda _: None,
    validate: Callable[[], float] = lambda: 0.0,
    save: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
    pause: Pause = NEVER,
    ranks: Ranks = ALONE,
) -> Training:
    """What the loop works with.

    Args:
        rows: to train on: the recipe's, or, to try steps out, those of some units, whose references are then nothing.
        frozen: from the same rows.
    """
    objective, batches = ready.objective, Batches(ready, rows, frozen, ranks)
    step = make_step(
        ready.state.network,
        ready.state.optimizer,
        lambda batch: objective.loss(frozen.reader, batch),
        max_grad_norm=ready.plan.max_grad_norm,
        compiled=ready.opened.device.compiles,
        at_use=ready.at_use,
    )
    places = places_of(rows)
    return Training(
        plan=ready.plan,
        order=ready.order,
        step=step,
        make_batch=batches.make,
        positions=batches.positions,
        places=places[::SIDES] if objective.pairs else places,
        record=record,
        validate=validate,
        save=save,
        should_stop=should_stop,
        pause=pause,
        ranks=ranks,
        figures=objective.figures,
        before_window=batches.reference_point if objective.needs_reference_point else None,
        draw=batches.draw if ready.prompts else None,
    )
