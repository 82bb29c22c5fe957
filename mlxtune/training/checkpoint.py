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
from mlx.utils import tree_flatten, tree_unflatten

from mlxtune.adapters.attach import adapter_parameters, load_adapter_parameters
from mlxtune.errors import RunError
from mlxtune.files import new_folder, sha256_of, write_json, write_text
from mlxtune.training.state import TrainingState, WindowSum

ADAPTER, OPTIMIZER, STATE, SUMS = "adapter.safetensors", "optimizer.safetensors", "trainer_state.json", "SHA256SUMS"
WINDOW = "window.safetensors"
"""The gradient of a window begun; only where a run was stopped within one."""


def save_checkpoint(state: TrainingState, folder: Path, *, keep: int, run: Mapping[str, Any] | None = None) -> Path:
    """Write ``folder``/step_NNNNNN; then forget all but the ``keep`` newest and the best.

    Args:
        run: what the run keeps with it as JSON values; `read_run` gives it back.

    Later steps' checkpoints are forgotten too: they are damaged, or the run would have been resumed from there. One of
    the same step is replaced.
    """
    path = _place(folder, state.step)
    with new_folder(path, force=True) as part:
        mx.save_safetensors(str(part / ADAPTER), adapter_parameters(state.network))
        mx.save_safetensors(str(part / OPTIMIZER), dict(tree_flatten(state.optimizer.state)))
        begun = state.window_sum
        if begun is not None:
            mx.save_safetensors(str(part / WINDOW), dict(tree_flatten(begun.gradients)))
        counters = {**state.counters(), "window_sum": begun.counters() if begun else None, "run": dict(run or {})}
        write_json(part / STATE, counters)
        names = sorted(path.name for path in part.iterdir())
        write_text(part / SUMS, "".join(f"{sha256_of(part / name)}  {name}\n" for name in names))
    write_json(folder / "latest.json", {"step": state.step, "folder": path.name})
    found = checkpoints(folder)
    kept = found[: found.index(path) + 1][-keep:]
    if state.best_step is not None:
        kept.append(_place(folder, state.best_step))
    for old in found:
        if old not in kept:
            shutil.rmtree(old)
    for part in folder.glob(".step_*"):  # of an attempt that was killed while it wrote
        shutil.rmtree(part)
    return path


def _place(folder: Path, step: int) -> Path:
    return folder / f"step_{step:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint folders, oldest first."""
    return sorted(folder.glob("step_[0-9]*"), key=lambda path: int(path.name.removeprefix("step_")))


def newest_checkpoint(folder: Path, *, damaged: Callable[[Path], None] = lambda _: None) -> Path | None:
    """The newest whole checkpoint, or None where there is none yet.

    Args:
        damaged: told of each newer one, which is passed over.

    Raises: RunError, if there are some and none of them is whole.
    """
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
    state.optimizer.state = tree_unflatten(list(read_tensors(path / OPTIMIZER).items()))
    counters = _read_state(path)
    begun = counters.pop("window_sum")
    del counters["run"]
    state.set_counters(counters)
    state.window_sum = None
    if begun is not None:
        state.window_sum = WindowSum(**begun, gradients=tree_unflatten(list(read_tensors(path / WINDOW).items())))
        mx.eval(state.window_sum.gradients)
    mx.eval(state.network.parameters(), state.optimizer.state)


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
