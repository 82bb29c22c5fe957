"""What the ranks of a run tell each other before they train, and which rows each of them reads to validate.

Rank 0 alone reads the recipe and writes; the others hear from it what there is to do, and bring model and data along.
Of what they then add up, and from which state they go on, training/together.py knows.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np

from mlxtune.data.store.rows import take_rows
from mlxtune.device.distributed import Ranks
from mlxtune.errors import RunError, UsageError
from mlxtune.iteration.ready import Ready


def tell(ranks: Ranks, **what: Any) -> None:
    """Tell the other ranks what there is to do; of rank 0. JSON values."""
    ranks.text_of_first(json.dumps(what))


def heard(ranks: Ranks) -> dict[str, Any]:
    """What rank 0 tells; of every other rank."""
    return json.loads(ranks.text_of_first())


def refuse_other_inputs(ready: Ready, ranks: Ranks) -> None:
    """Raises: RunError, on a rank that would train on something else than rank 0: the sums would mean nothing; and
    UsageError, for an objective that is not shared out.
    """
    if ranks.is_alone:
        return
    if ready.objective.drawing is not None:
        raise UsageError(
            f"objective {ready.opened.recipe.objective.type} draws its answers on one machine, and there are several",
            remedy="start it without MPI or a hostfile",
        )
    own = {**ready.opened.inputs(), "order of batches": hashlib.sha256(repr(ready.order.epoch(0)).encode()).hexdigest()}
    first = json.loads(ranks.text_of_first(json.dumps(own)))
    if changed := [name for name in own if own[name] != first[name]]:
        raise RunError(
            f"rank {ranks.rank} has not what rank 0 has: {', '.join(changed)} differ",
            remedy="give all machines the same model, data and versions of mlxtune, at the same paths",
        )


def with_own_validation(ready: Ready, ranks: Ranks) -> Ready:
    """The same with this rank's share of the validation rows."""
    opened = ready.opened
    valid = opened.datasets.get("valid")
    if valid is None or ranks.is_alone:
        return ready
    units = ranks.share(range(len(valid.rows) // len(ready.rows_of([0]))))
    numbers = np.array(ready.rows_of(units), np.int64)
    own = replace(valid, rows=take_rows(valid.rows, numbers))
    references, elsewhere = dict(ready.references), dict(ready.elsewhere)
    if "valid" in references:
        references["valid"] = references["valid"][numbers]
    if "valid" in elsewhere:
        elsewhere["valid"] = elsewhere["valid"].take(np.array(units, np.int64))
    opened = replace(opened, datasets={**opened.datasets, "valid": own})
    return replace(ready, opened=opened, references=references, elsewhere=elsewhere)
