"""A checkpoint: all that changes in training, in one folder that is whole or absent.

``latest.json`` is written last and names the newest; each folder holds its files' hashes, so that a damaged one is
passed over for the one before it. Knows the training state; nothing of recipes.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path

from mlxtune.adapters.attach import adapter_parameters, load_adapter_parameters
from mlxtune.errors import RunError
from mlxtune.files import clear_parts, new_folder, sha256_of, write_json, write_text
from mlxtune.models.safetensors import write_safetensors
from mlxtune.training.state import TrainingState, WindowSum

ADAPTER, OPTIMIZER, STATE, SUMS = "adapter.safetensors", "optimizer.safetensors", "trainer_state.json", "SHA256SUMS"
WINDOW = "window.safetensors"
"""The gradient of a window begun; only where a run was stopped within one."""
DRAWN = "drawn.safetensors"
"""The answers that the next update, or the rest of it, is made of, where they are there already."""


def save_checkpoint(state: TrainingState, folder: Path, *, keep: int, run: Mapping[str, Any] | None = None) -> Path:
    """Write ``folder``/step_NNNNNN; then forget all but the ``keep`` newest and the best.

    Args:
        run: what the run keeps with it as JSON values; `read_run` gives it back.

    One of the same step is replaced.
    """
    path = _place(folder, state.step)
    with new_folder(path, force=True) as part:
        write_safetensors(part / ADAPTER, adapter_parameters(state.network))
        write_safetensors(part / OPTIMIZER, dict(tree_flatten(state.optimizer.state)))
        begun = state.window_sum
        if begun is not None:
            write_safetensors(part / WINDOW, dict(tree_flatten(begun.gradients)))
        if state.drawn is not None:
            write_safetensors(part / DRAWN, state.drawn)
        counters = {**state.counters(), "window_sum": begun.counters() if begun else None, "run": dict(run or {})}
        write_json(part / STATE, counters)
        names = sorted(path.name for path in part.iterdir())
        write_text(part / SUMS, "".join(f"{sha256_of(part / name)}  {name}\n" for name in names))
    settle(state, folder, keep=keep)
    return path


def settle(state: TrainingState, folder: Path, *, keep: int) -> None:
    """Make the checkpoint of ``state`` the newest: ``latest.json`` names it, and all but those to keep are forgotten.

    Later steps' are forgotten too: they are damaged, or the run would have been resumed from there. To be called when a
    run is resumed as well, for a kill may have come between the checkpoint and this.
    """
    path = _place(folder, state.step)
    write_json(folder / "latest.json", {"step": state.step, "folder": path.name})
    found = checkpoints(folder)
    kept = found[: found.index(path) + 1][-keep:]
    if state.best_step is not None:
        kept.append(_place(folder, state.best_step))
    for old in found:
        if old not in kept:
            shutil.rmtree(old)
    clear_parts(folder)


def _place(folder: Path, step: int) -> Path:
    return folder / f"step_{step:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders, oldest first."""
    return sorted(folder.glob("step_[0-9]*"), key=lambda path: int(path.name.removeprefix("step_")))


def newest_checkpoint(folder: Path, *, damaged: Callable[[Path], None] = lambda _: None) -> Path | None:
    """The newest whole checkpoint, or None where there is none yet.

    Args:
        damaged: told of each newer one, which is passed over.

    One that was just being replaced when its process was killed gets its name back.

    Raises: RunError, if there are some and none of them is whole.
    """
    for hidden in folder.glob(".step_*.old"):
        path = hidden.with_name(hidden.name.split(".")[1])
        if not path.exists():
            hidden.rename(path)
    found = checkpoints(folder)
    for path in reversed(found):
        if _is_whole(path):
            return path
        damaged(path)
    if found:
        remedy = "start a new run; the disk may be failing"
        raise RunError("every checkpoint is damaged", where=folder, remedy=remedy)
    return None


def load_checkpoint(state: TrainingState, path: Path) -> None:
    """Bring ``state`` to what it was when ``path`` was written."""
    load_adapter_parameters(state.network, read_tensors(path / ADAPTER))
    state.optimizer.state = _as_in(state.optimizer.state, read_tensors(path / OPTIMIZER))
    counters = _read_state(path)
    begun = counters.pop("window_sum")
    del counters["run"]
    state.set_counters(counters)
    state.window_sum = None
    if begun is not None:
        gradients = _as_in(state.network.trainable_parameters(), read_tensors(path / WINDOW))
        state.window_sum = WindowSum(**begun, gradients=gradients)
        mx.eval(state.window_sum.gradients)
    state.drawn = read_tensors(path / DRAWN) if (path / DRAWN).exists() else None
    mx.eval(state.network.parameters(), state.optimizer.state, state.drawn or {})


def _as_in(tree: Any, tensors: Mapping[str, mx.array]) -> Any:
    """A tree like ``tree`` of a file's tensors. A file has another order, and a sum in another order other last bits.

    Raises: RunError, if the names are not the tree's.
    """
    names = [name for name, _ in tree_flatten(tree)]
    if odd := sorted(tensors.keys() ^ set(names)):
        remedy = "resume it with the version that it was begun with"
        raise RunError(f"the checkpoint is of another version: {', '.join(odd)}", remedy=remedy)
    return tree_map_with_path(lambda name, _: tensors[name], tree)


def read_run(path: Path) -> dict[str, Any]:
    """What the run kept with the checkpoint at ``path``."""
    return _read_state(path)["run"]


def _read_state(path: Path) -> dict[str, Any]:
    return json.loads((path / STATE).read_text(encoding="utf-8"))


def read_tensors(path: Path) -> dict[str, Any]:
    """The arrays of a safetensors file."""
    arrays = mx.load(str(path))
    assert isinstance(arrays, dict)
    return arrays


def _is_whole(path: Path) -> bool:
    try:
        sums = [line.split("  ", 1) for line in (path / SUMS).read_text().splitlines()]
        names = {name for _, name in sums}
        return names >= {ADAPTER, OPTIMIZER, STATE} and all(sha256_of(path / name) == digest for digest, name in sums)
    except (OSError, ValueError):
        return False
