"""``mlxtune sweep``: settings of a recipe tried one after the other, and the best by validation loss scored on test."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.allow_python import allow_python_option
from mlxtune.cli.failure import EXIT_CODES
from mlxtune.cli.output import Output, output_options
from mlxtune.cli.train import Screen, asked_to_stop

if TYPE_CHECKING:
    from mlxtune.iteration.ready import Ready
    from mlxtune.iteration.sweep.folder import SweepFolder, SweepPlan
    from mlxtune.iteration.sweep.result import SweepResult
    from mlxtune.iteration.sweep.study import Trial
    from mlxtune.runs.folder import RunFolder


@click.command()
@click.argument("recipe", required=False)
@click.argument("settings", nargs=-1, metavar="[KEY=A,B,C | KEY=LOW..HIGH | KEY=VALUE]...")
@click.option("--trials", type=int, help="Most trials; all combinations, where every key has a list.")
@click.option("--hours", type=float, help="Most hours of work, over all attempts.")
@click.option("--data-sizes", metavar="10%,30%,100%", help="Try parts of the training rows: would more data help?")
@click.option("--seeds", type=int, help="Of each data size (3).")
@click.option("--sweep-dir", type=click.Path(path_type=Path), help="The folder to make, instead of one below sweeps/.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with this sweep, or join it.")
@output_options
@allow_python_option
def command(
    recipe: str | None,
    settings: tuple[str, ...],
    trials: int | None,
    hours: float | None,
    data_sizes: str | None,
    seeds: int | None,
    sweep_dir: Path | None,
    resume: Path | None,
    output: Output,
) -> int:
    """Try settings of RECIPE, choose by the validation loss, and score the winner once on the test rows.

    A range LOW..HIGH is drawn on a logarithmic scale where both ends are above zero and a factor of 10 or more apart.
    Trials that fall behind at a quarter or half of their run are ended early. Ctrl-C saves and leaves; --resume DIR
    goes on, and may be given to several processes at once.
    """
    _refuse_odd_mixes(recipe, settings, resume, data_sizes=data_sizes, seeds=seeds, sweep_dir=sweep_dir)
    from mlxtune.iteration.sweep.data_sizes import read_shares
    from mlxtune.iteration.sweep.sweep import SEEDS, SweepWatch, resume_sweep, run_sweep
    from mlxtune.iteration.watch import Watch

    screen = SweepScreen(output)
    with asked_to_stop(screen), screen.telling_how_to_go_on():
        watch = SweepWatch(
            progress=output.progress,
            noted=output.note,
            opened=screen.opened,
            begun=screen.begun,
            ended=screen.ended,
            trial=Watch(
                progress=output.progress,
                warned=output.note,
                started=screen.started,
                paused=screen.paused,
                measured=screen.measured,
                trained=screen.trained,
                should_stop=lambda: bool(screen.signals),
            ),
        )
        if resume is not None:
            result = resume_sweep(resume, trials=trials, hours=hours, device=output.device, watch=watch)
        else:
            assert recipe is not None
            result = run_sweep(
                recipe,
                settings,
                trials=trials,
                hours=hours,
                shares=None if data_sizes is None else read_shares(data_sizes),
                seeds=SEEDS if seeds is None else seeds,
                sweep_dir=sweep_dir,
                device=output.device,
                watch=watch,
            )
    output.show(result.to_json(), summary(result))
    stopped_by = screen.signals[0] if screen.signals else signal.SIGINT
    return EXIT_CODES[stopped_by] if result.interrupted else 0


def _refuse_odd_mixes(
    recipe: str | None,
    settings: tuple[str, ...],
    resume: Path | None,
    *,
    data_sizes: str | None,
    seeds: int | None,
    sweep_dir: Path | None,
) -> None:
    """Raises: click.UsageError."""
    if resume is None:
        if recipe is None:
            raise click.UsageError("name a RECIPE, or a sweep to --resume")
        if "=" in recipe and not Path(recipe).exists():
            raise click.UsageError(f"a RECIPE comes before {recipe}")
        if seeds is not None and data_sizes is None:
            raise click.UsageError("--seeds is for --data-sizes; a key can be tried too: seed=1,2,3")
    elif recipe is not None or settings or data_sizes or seeds is not None or sweep_dir is not None:
        raise click.UsageError("--resume goes on with what the sweep began with; only --trials and --hours may be new")


class SweepScreen(Screen):
    """What is seen of a sweep: a line as each trial begins and ends, and the steps of the one that is worked on."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.sweep: SweepFolder | None = None
        self.total: int | None = None
        self.number = 0

    @contextlib.contextmanager
    def telling_how_to_go_on(self) -> Iterator[None]:
        """Say it where the process is stopped at once."""
        try:
            yield
        except KeyboardInterrupt:
            if self.sweep is not None:
                self.output.note(f"go on with: mlxtune sweep --resume {self.sweep.path}")
            raise

    def opened(self, sweep: "SweepFolder", plan: "SweepPlan") -> None:
        self.sweep, self.total = sweep, len(plan.points) or plan.trials
        self.output.note(f"sweep    {sweep.path}")

    def begun(self, trial: "Trial") -> None:
        from mlxtune.iteration.sweep.table import shown

        self.number = trial.number
        of = "" if self.total is None else f" (the last is {self.total - 1})"
        told = ", ".join(f"{key} {shown(value)}" for key, value in trial.point.items())
        self.output.note(f"trial    {trial.number}{of}: {told}")

    def started(self, run: "RunFolder", ready: "Ready") -> None:  # noqa: ARG002 - the interface of who looks on
        self.plan, self.training = ready.plan, True
        if ready.state.step:
            self.output.note(f"resumed  after step {ready.state.step}")

    def measured(self, line: dict[str, Any]) -> None:
        if "loss" in line:
            self.output.detail("  ".join(filter(None, [f"loss {line['loss']:.3f}", self.valid_loss])))
            total = self.plan.total_steps if self.plan is not None else None
            self.output.progress(f"trial {self.number}: steps", line["step"], total or 0)
        else:
            super().measured(line)

    def ended(self, trial: "Trial", is_best: bool) -> None:
        self.output.view.close()
        self.valid_loss = ""
        if trial.valid_loss is None:
            self.output.note(f"         {trial.facts.get('why', trial.state)}")
            return
        self.output.note(f"         valid loss {trial.valid_loss:.4f}{', the best so far' if is_best else ''}")


def summary(result: "SweepResult") -> Any:
    """What a person reads when a process leaves the sweep."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from mlxtune.cli.evaluate import table as scores_table
    from mlxtune.iteration.sweep.table import cells, headings, sentences

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings(result):
        table.add_column(heading, overflow="fold")
    for row in cells(result):
        table.add_row(*map(Text, row))
    go_on = f"mlxtune sweep --resume {result.sweep.path}"
    if result.interrupted:
        return Group(table, f"stopped; go on with: {go_on}")
    if result.others:
        return Group(table, "other processes are still at work in this sweep; the last one chooses")
    lines: list[Any] = [table, *sentences(result)]
    if result.scores is not None and result.winner is not None:
        lines.append(scores_table(result.scores, str(result.sweep.run_of(result.winner.number))))
    if result.winner is not None:
        lines.append(f"the winner's run: {result.sweep.run_of(result.winner.number)}")
        lines.append(f"its recipe: {result.sweep.winner}")
    if not result.finished:
        lines.append(f"not all was tried; go on with: {go_on} --hours MORE")
    return Group(*lines, f"page: {result.sweep.page}")
