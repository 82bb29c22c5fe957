"""run.json: what made this run, so that it can be explained, repeated, and not resumed as something else.

Plain values come in; nothing of networks is known here.
"""

import importlib.metadata
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlxtune.errors import RunError

SHA256 = re.compile("[0-9a-f]{64}")
PACKAGES = ("mlxtune", "mlx", "mlx-lm", "numpy", "transformers", "tokenizers")


def versions() -> dict[str, str]:
    """Of Python and the packages that a result depends on."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_commit(folder: Path) -> str | None:
    """The commit of the checkout around ``folder``, with ``+changes`` where files differ from it; None elsewhere."""
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def make_manifest(
    *, name: str, device: Mapping[str, str], inputs: Mapping[str, Any], plan: Mapping[str, Any], recipe_folder: Path
) -> dict[str, Any]:
    """What run.json holds at the start.

    Args:
        device: kind, precision and the reason for them.
        inputs: what the result depends on: hashes of model, data and chat template, train_on, the model's source.
        plan: what is to end the run: total_steps and max_minutes, each None where it does not.
        recipe_folder: where a checkout is looked for, whose commit is noted.
    """
    return {
        "name": name,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": sys.argv,
        "versions": versions(),
        "git_commit": git_commit(recipe_folder),
        "device": dict(device),
        "inputs": dict(inputs),
        "plan": dict(plan),
    }


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], *, where: Path) -> None:
    """Raise RunError, listing every difference, if what a run was started with is not what it would go on with."""
    changed = _differences("", before, now)
    if changed:
        told = "; ".join(f"{path} was {_shown(old)}, is {_shown(new)}" for path, old, new in changed)
        raise RunError(
            f"what this run was started with has changed: {told}",
            where=where,
            remedy="put it back to resume, or start a new run",
        )


def _differences(path: str, before: Any, now: Any) -> list[tuple[str, Any, Any]]:
    """The dotted keys at which two mappings differ, with both values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found = []
        for key in sorted(before.keys() | now.keys()):
            found += _differences(f"{path}.{key}".lstrip("."), before.get(key), now.get(key))
        return found
    return [] if before == now else [(path, before, now)]


def _shown(value: Any) -> str:
    """A value in a sentence; of a hash, enough to compare."""
    if isinstance(value, str) and SHA256.fullmatch(value):
        return f"sha256 {value[:12]}"
    return "nothing" if value is None else str(value)
