"""What the ranks of a run tell each other before they train, and which rows each of them reads to validate.

Rank 0 alone reads the recipe and writes; the others hear from it what there is to do, and bring model and data along.
Of what they then add up, and from which state they go on, training/together.py knows.
"""

import hashlib
import json
from dataclasses import replace
from typing import Any

from mlxtune.device.distributed import Ranks
from mlxtune.errors import RunError
from mlxtune.iteration.ready import Ready


def tell(ranks: Ranks, **what: Any) -> None:
    """Tell the other ranks what there is to do; of rank 0. JSON values."""
    ranks.text_of_first(json.dumps(what))


def heard(ranks: Ranks) -> dict[str, Any]:
    """What rank 0 tells; of every other rank."""
    return json.loads(ranks.text_of_first())


def refuse_other_inputs(ready: Ready, ranks: Ranks) -> None:
    """Raises: RunError, on a rank that would train on something else than rank 0: the sums would mean nothing."""
    if ranks.is_alone:
        return
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
    own = replace(valid, rows=ranks.share(valid.rows))
    return replace(ready, opened=replace(opened, datasets={**opened.datasets, "valid": own}))
