"""How likely each answer was before training: read once, by the network that the run starts from, and kept.

Preferences are learned against it. No second network is needed: an adapter that has learned nothing leaves the network
as it was, so it is asked before the first step. What was read is in the cache, so that a run that goes on, and the next
trial of a sweep, need not read it again. The price is a pass over all rows, without gradients.
"""

import hashlib
import importlib.metadata
import io
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np

from mlxtune.cache import cache_folder
from mlxtune.data.mismatched import Mismatched
from mlxtune.data.render import Rendered
from mlxtune.device.distributed import Ranks
from mlxtune.evaluation.heldout import HeldOut, read_heldout
from mlxtune.files import write_bytes
from mlxtune.iteration.ready import Elsewhere, Ready
from mlxtune.progress import Progress, silent
from mlxtune.training.objectives.objective import RowSums

FOLDER = "references"


def with_references(ready: Ready, *, progress: Progress = silent) -> Ready:
    """The same with what its objective compares with, if it does.

    To be asked before the first step: of a run that goes on, before its checkpoint is loaded.
    """
    if not ready.objective.needs_reference:
        return ready
    splits = [split for split in ("train", "valid") if split in ready.opened.datasets]
    rows = {split: ready.opened.datasets[split].rows for split in splits}
    references = {split: reference_of(ready, rows[split], progress=progress) for split in splits}
    elsewhere = {}
    if ready.objective.needs_reference_point:
        for split in splits:
            others = mismatched(ready, rows[split])
            elsewhere[split] = Elsewhere(others, reference_of(ready, others, progress=progress))
    return replace(ready, references=references, elsewhere=elsewhere)


def mismatched(ready: Ready, rows: Sequence[Rendered]) -> Mismatched:
    """Of pairs, what a reference point is estimated from."""
    return Mismatched(rows, ready.opened.recipe.data.max_seq_length)


def reference_point(ready: Ready, known: Elsewhere, units: Sequence[int], ranks: Ranks) -> float:
    """How much likelier than before training the network finds answers to other prompts, in nats an answer, and at
    least 0: `RowSums.reference_point`.

    Args:
        units: this rank's; the mean is over those of all ranks, who all ask at once.
    """
    rows = [known.rows[unit] for unit in units]
    gained = 0.0
    if rows:
        with ready.computing():
            found = read_heldout(ready.reader, ready.opened.model.tokenizer, rows)
        gained = float(-found.loss_sum.sum() - known.reference[list(units)].sum(dtype=np.float64))
    total, count = ranks.gather([gained, len(rows)]).sum(axis=0)
    return max(0.0, float(total / count))


def valid_sums(ready: Ready, found: HeldOut, ranks: Ranks) -> tuple[float, float]:
    """The objective's loss on the validation rows, of which ``found`` is what the network says: its sum, and the weight
    that it is to be divided by.
    """
    of_rows = ready.objective.of_rows
    if of_rows is None:
        return float(found.loss_sum.sum()), float(found.target_count.sum())
    known = ready.references.get("valid", np.zeros(len(found.loss_sum)))
    likely, counts, known = (
        mx.array(array.astype(np.float32)) for array in (-found.loss_sum, found.target_count, known)
    )
    units = len(found.loss_sum) // len(ready.rows_of([0]))
    point = 0.0
    if ready.objective.needs_reference_point:
        point = reference_point(ready, ready.elsewhere["valid"], range(units), ranks)
    loss, _ = of_rows(RowSums(likely, counts, known, point))
    return float(loss), units


def reference_of(ready: Ready, rows: Sequence[Rendered], *, progress: Progress = silent) -> np.ndarray:
    """The log-probability, in nats, of the targets of each row, [rows] float32: from the cache, or by the network as it
    is.
    """
    opened = ready.opened
    path = cache_folder(FOLDER) / f"{_key(ready, rows)}.npy"
    if path.is_file():
        try:
            found = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        except ValueError:
            found = np.zeros(0)
        if found.shape == (len(rows),) and found.dtype == np.float32:
            return found
    with ready.computing():
        read = read_heldout(ready.reader, opened.model.tokenizer, rows, progress=progress)
    found = -read.loss_sum.astype(np.float32)
    kept = io.BytesIO()
    np.save(kept, found)
    write_bytes(path, kept.getvalue())
    return found


def _key(ready: Ready, rows: Sequence[Rendered]) -> str:
    """All that the numbers depend on: the base, the adapter to start from, the number format, and the rows' tokens."""
    opened = ready.opened
    start = opened.inputs().get("adapter", {}).get("sha256")
    basis = (opened.folder.sha256, start, opened.device.precision.name, importlib.metadata.version("mlx"))
    digest = hashlib.sha256(repr(basis).encode())
    for row in rows:
        digest.update(len(row.token_ids).to_bytes(8, "little"))
        digest.update(row.token_ids.tobytes())
        digest.update(row.is_target.tobytes())
    return digest.hexdigest()[:32]
