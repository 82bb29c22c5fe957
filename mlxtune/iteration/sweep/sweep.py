"""A sweep: trial after trial of one recipe, chosen by their validation loss, and the winner scored once on test rows.

This is what ``mlxtune sweep`` calls. A killed sweep goes on where it was, with the half-done trial first, and comes to
the winner that it would have come to; any number of processes may work on the same folder, each on a trial of its own,
though what is drawn then depends on which was faster. The last one to finish chooses and scores.
"""

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxtune.data.source import stream_of
from mlxtune.device.distributed import backend_of
from mlxtune.errors import RecipeError, UsageError
from mlxtune.files import write_json
from mlxtune.iteration.opening import Opened, kept_columns, open_recipe, render_split, source_of
from mlxtune.iteration.ready import Ready, make_ready
from mlxtune.iteration.sweep import data_sizes
from mlxtune.iteration.sweep.clock import Clock, start_clock
from mlxtune.iteration.sweep.draw import draw
from mlxtune.iteration.sweep.folder import (
    Claims,
    SweepFolder,
    SweepPlan,
    create_sweep,
    deciding,
    open_sweep,
    refuse_taken,
)
from mlxtune.iteration.sweep.halving import WHOLE, percent_of
from mlxtune.iteration.sweep.result import SweepResult, best_of, conclude, free_losers
from mlxtune.iteration.sweep.space import Choices, Dimension, Point, Space, count_points, read_space
from mlxtune.iteration.sweep.study import Study, Trial, open_study, require_optuna
from mlxtune.iteration.sweep.trial import run_trial
from mlxtune.iteration.watch import NOBODY, Watch
from mlxtune.offline import network_off
from mlxtune.progress import Progress, silent
from mlxtune.synced import warning_of_synced

SEEDS = 3
"""Of each share of the rows."""


@dataclass(frozen=True)
class SweepWatch:
    """Who looks on while a sweep works."""

    progress: Progress = silent
    noted: Callable[[str], None] = lambda _line: None
    """Told what a user should know."""
    opened: Callable[[SweepFolder, SweepPlan], None] = lambda *_: None
    begun: Callable[[Trial], None] = lambda _trial: None
    """A trial is next, or goes on."""
    trial: Watch = NOBODY
    """Of each trial's run; its ``should_stop`` stops the sweep."""
    ended: Callable[[Trial, bool], None] = lambda *_: None
    """A trial is over; whether it is the best so far."""


ALONE = SweepWatch()


def run_sweep(
    recipe: str | Path,
    settings: Sequence[str] = (),
    *,
    trials: int | None = None,
    hours: float | None = None,
    shares: Sequence[float] | None = None,
    seeds: int = SEEDS,
    sweep_dir: str | Path | None = None,
    device: str = "auto",
    watch: SweepWatch = ALONE,
) -> SweepResult:
    """Try settings of a recipe, or parts of its training rows, in a new sweep folder.

    Args:
        recipe: a file, or the name of a packaged recipe; it needs data.valid.
        settings: as of `space.read_space`.
        trials: at most so many; None where every key has a list means all combinations.
        hours: work at most so long, over all attempts; the trial that is worked at then is saved.
        shares: of the training rows, instead of settings; each key of ``settings`` has one value then.
        seeds: of each share.

    Raises: MlxtuneError, in its kinds; before the folder is made for all that is wrong with the recipe, the settings,
        the model or the data.
    """
    require_optuna()
    _refuse_ranks()
    space = read_space(recipe, settings)
    _check_limits(space.dimensions, trials, hours, shares, seeds)
    path = None if sweep_dir is None else Path(sweep_dir)
    if path is not None:
        refuse_taken(path)
    if space.base.recipe.data.valid is None:
        raise RecipeError(
            "a sweep chooses by the loss on data.valid, and there is none",
            where=space.base.place_of(("data",)),
            remedy="name validation rows; `mlxtune data split` makes them from one file",
        )
    space.base.check_files()
    with network_off(when=space.base.recipe.offline):
        ready = make_ready(open_recipe(space.base.recipe, device=device, progress=watch.progress))
        plan = _plan(space, ready, trials, hours, shares, seeds)
        _check_choices(space, ready.opened, watch.progress)
        _say_if_none_is_ended_early(ready, plan, watch)
        source = ready.opened.sources["train"].own
        del ready

        def fill(made: SweepFolder) -> None:
            if shares is not None:
                data_sizes.write_parts(made.parts, source, shares, _seeds(space, seeds))

        sweep = create_sweep(
            path,
            plan,
            recipe_text=space.base.text,
            base=space.base.recipe.model_dump(mode="json", exclude_unset=True),
            fill=fill,
        )
    return _work(sweep, plan, device=device, watch=watch)


def resume_sweep(
    path: str | Path,
    *,
    trials: int | None = None,
    hours: float | None = None,
    device: str = "auto",
    watch: SweepWatch = ALONE,
) -> SweepResult:
    """Go on with a sweep, or join the processes that work on it. A finished one is left as it is.

    Args:
        trials, hours: new limits, in place of those that it has.

    Raises: MlxtuneError, in its kinds.
    """
    require_optuna()
    _refuse_ranks()
    sweep, plan = open_sweep(Path(path))
    if trials is not None and plan.points:
        raise UsageError("the trials of data sizes are all given", where="--trials", remedy="leave it out")
    if trials is not None or hours is not None:
        _check_numbers(trials, hours)
        plan = replace(plan, trials=trials or plan.trials, hours=hours or plan.hours)
        with deciding(sweep):
            write_json(sweep.plan, plan.to_json())
    return _work(sweep, plan, device=device, watch=watch)


def _work(sweep: SweepFolder, plan: SweepPlan, *, device: str, watch: SweepWatch) -> SweepResult:
    """Trial after trial, until nothing is left to try, time is over or the process is told to stop."""
    watch.opened(sweep, plan)
    if (warning := warning_of_synced(sweep.path)) is not None:
        watch.noted(warning)
    claims = Claims(sweep)
    with deciding(sweep):
        study = open_study(sweep.study, plan.dimensions)
        clock = start_clock(sweep.attempts)
    try:
        result = _try_all(sweep, plan, study, clock, claims, device=device, watch=watch)
        if result.interrupted or result.others:
            return result
        return conclude(result, device=device, progress=watch.progress)
    finally:
        clock.tick(at_once=True)
        claims.leave_all()
        study.close()


def _try_all(
    sweep: SweepFolder,
    plan: SweepPlan,
    study: Study,
    clock: Clock,
    claims: Claims,
    *,
    device: str,
    watch: SweepWatch,
) -> SweepResult:
    was_stopped = False

    def is_late() -> bool:
        return plan.hours is not None and clock.seconds() >= 3600 * plan.hours

    def should_stop() -> bool:
        return was_stopped or is_late() or watch.trial.should_stop()

    def measured(line: dict[str, Any]) -> None:
        clock.tick()
        watch.trial.measured(line)

    looking_on = replace(watch.trial, should_stop=should_stop, measured=measured)
    while True:
        with deciding(sweep):
            trial = None if should_stop() else next_trial(plan, study, claims)
            if trial is None:
                others = _others_at_work(study, claims) or not claims.take("conclusion")
                break
        watch.begun(trial)
        ending = run_trial(sweep, plan, study, trial, device=device, watch=looking_on)
        # a trial that is stopped through its own folder ends the sweep: it would be next again
        was_stopped = ending == "stopped" and not is_late()
        with deciding(sweep):
            claims.leave(str(trial.number))
        gc.collect()  # a network is a web of references, and the next one is to have its memory
        mx.clear_cache()
        if ending == "over":
            free_losers(sweep, study.trials())
            ended = study.trial(trial.number)
            watch.ended(ended, ended == best_of(study.trials()))
    trials = tuple(study.trials())
    is_over = all(trial.state != "running" for trial in trials) and _next_point(plan, study) is None
    return SweepResult(
        sweep,
        plan,
        trials,
        finished=is_over,
        interrupted=was_stopped or watch.trial.should_stop(),
        others=others,
        seconds=clock.seconds(),
    )


def next_trial(plan: SweepPlan, study: Study, claims: Claims) -> Trial | None:
    """The trial that is next, claimed: one that was left behind, else a new one; None if there is none.

    To be called while `deciding`.
    """
    for trial in study.trials():
        if trial.state == "running" and claims.take(str(trial.number)):
            return trial
    point = _next_point(plan, study)
    if point is None:
        return None
    number = study.add(point)
    claims.take(str(number))
    return study.trial(number)


def _next_point(plan: SweepPlan, study: Study) -> Point | None:
    trials = study.frozen()
    if plan.points:
        return plan.points[len(trials)] if len(trials) < len(plan.points) else None
    if plan.trials is not None and len(trials) >= plan.trials:
        return None
    return draw(plan.dimensions, trials, seed=plan.seed, first=plan.first)


def _others_at_work(study: Study, claims: Claims) -> bool:
    """Whether another process is at a trial."""
    for trial in study.trials():
        if trial.state == "running":
            name = str(trial.number)
            if not claims.take(name):
                return True
            claims.leave(name)
    return False


def _plan(
    space: Space,
    ready: Ready,
    trials: int | None,
    hours: float | None,
    shares: Sequence[float] | None,
    seeds: int,
) -> SweepPlan:
    """What the sweep is, of checked values."""
    base = space.base
    rows = sum(file.rows_read for file in ready.opened.datasets["train"].report.files if file.share is None)
    steps = ready.plan.total_steps
    dimensions: tuple[Dimension, ...] = space.dimensions
    points: tuple[Point, ...] = ()
    if shares is not None:
        data_sizes.refuse_equal(shares, rows)
        if steps is None:
            raise RecipeError(
                "only time ends this recipe, so parts of its rows would not be trained alike",
                where=base.place_of(("training",)),
                remedy="set training.epochs or training.max_steps",
            )
        numbers = _seeds(space, seeds)
        dimensions = (Choices(data_sizes.SHARE, tuple(shares)), Choices(data_sizes.SEED, tuple(numbers)))
        points = data_sizes.points_of(shares, numbers)
    is_every_point = trials is None and hours is None and shares is None
    return SweepPlan(
        kind="settings" if shares is None else "data_sizes",
        name=base.recipe.name,
        recipe=str(base.path),
        seed=base.recipe.seed,
        dimensions=dimensions,
        first=None if shares is not None else space.own,
        points=points,
        trials=int(count_points(dimensions)) if is_every_point else trials,
        hours=hours,
        rows=rows,
        steps=steps or 0,
    )


def _check_choices(space: Space, opened: Opened, progress: Progress) -> None:
    """Look for the files that some trials have in place of the recipe's, and open the rows that they learn: when it is
    such a trial's turn it is late to find a fault in them.

    Raises: as `open_recipe`; RecipeError, for a file that is not there.
    """
    for dimension in space.dimensions:
        for value in dimension.values if isinstance(dimension, Choices) else ():
            loaded = space.at({dimension.key: value})
            loaded.check_files()
            if not dimension.key.startswith("data."):
                continue
            source = source_of(loaded.recipe.data, "train", keep=kept_columns(loaded.recipe), progress=progress)
            render_split(loaded.recipe.data, stream_of(source), opened.model, source.path, progress=progress)


def _seeds(space: Space, count: int) -> list[int]:
    return [space.base.recipe.seed + number for number in range(count)]


def _check_limits(
    dimensions: Sequence[Dimension],
    trials: int | None,
    hours: float | None,
    shares: Sequence[float] | None,
    seeds: int,
) -> None:
    """Raises: UsageError, where the limits and what is tried do not go together."""
    _check_numbers(trials, hours)
    if shares is not None:
        if dimensions:
            raise UsageError(
                f"the sizes of the data are tried alone, and {dimensions[0].key} has several values",
                where="--data-sizes",
                remedy="give the key one value, or leave out --data-sizes",
            )
        if trials is not None:
            remedy = "leave out --trials; --seeds says how many there are of each size"
            raise UsageError("the trials of data sizes are all given", where="--trials", remedy=remedy)
        if not data_sizes.FEWEST_SEEDS <= seeds <= data_sizes.MOST_SEEDS:
            remedy = f"give {data_sizes.FEWEST_SEEDS} to {data_sizes.MOST_SEEDS}: one alone says nothing of chance"
            raise UsageError(f"{seeds} seeds are out of range", where="--seeds", remedy=remedy)
        return
    if not dimensions:
        raise UsageError(
            "nothing is tried: no key has several values",
            remedy="as in method.rank=4,8,16 or training.learning_rate=1e-4..1e-3, or --data-sizes 10%,30%,100%",
        )
    if trials is None and hours is None and count_points(dimensions) == float("inf"):
        raise UsageError("nothing says when to end", remedy="give --trials N, --hours H, or both")


def _check_numbers(trials: int | None, hours: float | None) -> None:
    if trials is not None and trials < 1:
        raise UsageError(f"{trials} trials are none", where="--trials", remedy="give 1 or more")
    if hours is not None and not 0 < hours < float("inf"):
        raise UsageError(f"{hours} hours are no limit", where="--hours", remedy="give a number above 0")


def _refuse_ranks() -> None:
    """Raises: UsageError, in one of several processes that train one network together."""
    if backend_of(os.environ) is not None:
        raise UsageError(
            "a sweep's trials are trained by one process each",
            remedy="start it without mlx.launch; further processes join with: mlxtune sweep --resume DIR",
        )


def _say_if_none_is_ended_early(ready: Ready, plan: SweepPlan, watch: SweepWatch) -> None:
    if plan.kind == "data_sizes":
        return
    every, total = ready.opened.recipe.evaluation.every_steps, ready.plan.total_steps
    if total is None:
        watch.noted("no trial is ended early: only time ends this recipe, so trials are not compared on the way")
    elif percent_of(every, total) >= WHOLE:
        watch.noted(
            f"no trial is ended early: the recipe looks at the validation loss every {every} updates, and has {total}"
        )
