"""Plans and runs in a process of their own: they measure all that is in MLX's arrays, so nothing that other tests of
this process hold, or let go of meanwhile, may be among it.
"""

import gc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from mlxtune.device.memory import MemoryLimit
from mlxtune.iteration.forecast import Forecast, forecast
from mlxtune.iteration.opening import open_recipe
from mlxtune.iteration.ready import make_ready
from mlxtune.iteration.run import run_recipe
from mlxtune.recipe.load import load_recipe


def in_own_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """What ``call``, a function of this file, returns there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def plan(recipe: Path, overrides: tuple[str, ...]) -> Forecast:
    """A recipe's forecast on the CPU, after networks that nobody names any more are gone."""
    gc.collect()
    ready = make_ready(open_recipe(load_recipe(recipe, overrides).recipe, device="cpu"))
    return forecast(ready, MemoryLimit(1 << 40, "plenty"))


def plan_each(recipe: Path, each: list[tuple[str, ...]]) -> list[Forecast]:
    """The forecasts of a recipe with each of several lists of overrides."""
    return [plan(recipe, overrides) for overrides in each]


def run_and_plan_each(recipe: Path, runs: dict[Path, tuple[str, ...]], scored: set[Path]) -> dict[Path, Forecast]:
    """The forecasts by run folder, of runs which are made as well."""
    found = {}
    for run_dir, overrides in runs.items():
        gc.collect()
        run_recipe(recipe, overrides, device="cpu", run_dir=run_dir, score=run_dir in scored)
        found[run_dir] = plan(recipe, overrides)
    return found
