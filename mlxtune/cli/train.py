"""``mlxtune train``: a recipe into a run folder, with a bar on the way and the before/after table at its end."""

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.allow_python import allow_python_option
from mlxtune.cli.failure import EXIT_CODES, Terminated
from mlxtune.cli.output import Output, output_options
from mlxtune.cli.plan import in_short
from mlxtune.cli.progress import ProgressView

if TYPE_CHECKING:
    from mlxtune.device.guest import Awake
    from mlxtune.iteration.ready import Ready
    from mlxtune.iteration.watch import RunResult
    from mlxtune.runs.folder import RunFolder
    from mlxtune.training.plan import Plan

DROPPED_SHOWN = 5


@click.command()
@click.argument("recipe", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run folder to make, instead of one below runs/.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with this run.")
@click.option("--auto", is_flag=True, help="Foretell the run first, and save as much memory as it has to.")
@click.option("--no-score", is_flag=True, help="Do not score base and tuned model at the end.")
@click.option("--keep-awake/--no-keep-awake", default=True, help="Keep a Mac from falling asleep meanwhile.")
@click.option("--notify", "notifies", is_flag=True, help="Show a notification, or ring, when it is over.")
@output_options
@allow_python_option
def command(
    recipe: str | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: Path | None,
    auto: bool,
    no_score: bool,
    keep_awake: bool,
    notifies: bool,
    output: Output,
) -> int:
    """Fine-tune a model by RECIPE, a file or the name of a packaged recipe; then score it beside its base.

    Ctrl-C finishes the step, saves and leaves; --resume RUN goes on from there.
    """
    from mlxtune.device.distributed import rank_of
    from mlxtune.device.guest import Awake
    from mlxtune.iteration.run import resume_run, run_recipe
    from mlxtune.iteration.watch import Watch
    from mlxtune.recipe.load import load_recipe

    if recipe is None and resume is None:
        raise click.UsageError("name a RECIPE, or a run to --resume; `mlxtune recipes list` shows the packaged ones")
    if resume is not None and run_dir is not None:
        raise click.UsageError("--resume goes on in the run's own folder; leave out --run-dir")
    if resume is not None and auto:
        raise click.UsageError("--auto is for a new run; --resume goes on with the settings that a run began with")
    if recipe is not None and "=" in recipe and not Path(recipe).exists():
        raise click.UsageError(f"a RECIPE comes before {recipe}")
    is_first = rank_of() == 0
    if not is_first:  # of several processes that train together, one speaks
        output = replace(output, quiet=True, view=ProgressView())
    screen = Screen(output, Awake() if keep_awake else None)
    with screen.courteous(notifies=notifies and is_first), asked_to_stop(screen):
        watch = Watch(
            progress=output.progress,
            foretold=lambda found: output.note(f"plan     {in_short(found)}"),
            started=screen.started,
            warned=output.note,
            paused=screen.paused,
            measured=screen.measured,
            trained=screen.trained,
            should_stop=lambda: bool(screen.signals),
        )
        loaded = None if recipe is None else load_recipe(recipe, overrides)
        if resume is not None:
            result = resume_run(resume, loaded, device=output.device, score=not no_score, watch=watch)
        else:
            assert loaded is not None
            result = run_recipe(
                loaded, device=output.device, run_dir=run_dir, score=not no_score, auto=auto, watch=watch
            )
    if screen.run is None:
        output.note(f"this run is finished already: {result.run_dir}")
    if is_first:
        output.show(asdict(result), summary(result))
    # Without a signal here, another rank was sent one, or the wish came through the run's folder.
    stopped_by = screen.signals[0] if screen.signals else signal.SIGINT
    return EXIT_CODES[stopped_by] if result.interrupted else 0


class Screen:
    """What is seen of a run while it trains: a few lines at the start, then the bar; and what signals came."""

    def __init__(self, output: Output, awake: "Awake | None" = None) -> None:
        self.output = output
        self._awake = awake
        self.run: RunFolder | None = None
        self.plan: Plan | None = None
        self.training = False
        self.signals: list[signal.Signals] = []
        self.valid_loss = ""

    @contextmanager
    def courteous(self, *, notifies: bool) -> Iterator[None]:
        """Keep the machine awake within the block, where that is wanted, and say at its end that it is over."""
        from mlxtune.device.guest import notify

        said = "failed"
        self._hold(is_held=True)
        try:
            yield
            said = "stopped" if self.signals else "is finished"
        except KeyboardInterrupt:
            said = "stopped"
            raise
        finally:
            self._hold(is_held=False)
            if notifies:
                name = self.run.path.name if self.run is not None else "that was not begun"
                notify(f"the run {name} {said}", ring=lambda: click.echo("\a", nl=False, err=True))

    def _hold(self, *, is_held: bool) -> None:
        if self._awake is not None:
            if is_held:
                self._awake.hold()
            else:
                self._awake.let_go()

    def started(self, run: "RunFolder", ready: "Ready") -> None:
        self.run, self.plan, self.training = run, ready.plan, True
        opened, note = ready.opened, self.output.note
        note(f"run      {run.path}")
        note(f"device   {opened.device.kind}, {opened.device.precision.name}: {opened.device.reason}")
        note(f"model    {opened.recipe.model.source} ({opened.folder.path})")
        for split, dataset in opened.datasets.items():
            report = dataset.report
            lost = (
                f", {len(report.dropped)} dropped, {len(report.truncated)} cut"
                if report.dropped or report.truncated
                else ""
            )
            replay = f" ({report.replay_rows} of replay)" if report.replay_rows else ""
            note(f"{split:8} {report.rows} rows{replay}, {report.tokens} tokens, {report.target_tokens} targets{lost}")
            for dropped in report.dropped[:DROPPED_SHOWN]:
                note(f"         dropped {dropped.where}: {dropped.why}")
        steps = "" if ready.plan.total_steps is None else f", {ready.plan.total_steps} steps"
        note(f"training {ready.trainable_parameters:,} parameters{steps}")
        if ready.state.step:
            note(f"resumed  after step {ready.state.step}")

    def paused(self, step: int | None, why: str | None) -> None:
        self.output.view.close()  # so that the time left is told by the steps that come, not by the pause
        self._hold(is_held=step is None)  # what waits for the plug is not to empty the battery
        if step is None:
            self.output.note("the pause is over")
        elif why is not None:
            self.output.note(f"paused: {why}; after step {step}, and saved")
        else:
            self.output.note(f"paused after step {step}, and saved; mlxtune watch lets it go on, Ctrl-C stops it")

    def measured(self, line: dict[str, Any]) -> None:
        if "valid_loss" in line:
            self.valid_loss = f"valid {line['valid_loss']:.3f}"
            return
        if "skipped" in line:
            rows = ", ".join(line["rows"])
            self.output.note(f"step {line['step']} is left out: its {line['skipped']} is not a finite number ({rows})")
            return
        if "out_of_memory" in line:
            self.output.note(
                f"memory was short: from now on {line['part_positions']} positions at most are read at once"
            )
            return
        assert self.plan is not None
        gigabytes = line["peak_memory_bytes"] / 1e9
        parts = [
            f"loss {line['loss']:.3f}",
            self.valid_loss,
            f"{line['tokens_per_s']:.0f} tokens/s",
            f"{gigabytes:.1f} GB",
        ]
        self.output.detail("  ".join(part for part in parts if part))
        self.output.progress("train: steps", line["step"], self.plan.total_steps or 0)

    def trained(self) -> None:
        self.training = False


def summary(result: "RunResult") -> Any:
    """What a person reads when the run is over."""
    from rich.console import Group

    from mlxtune.cli.evaluate import table
    from mlxtune.cli.findings_view import findings_text
    from mlxtune.runs.folder import RunFolder

    if result.interrupted:
        where = "" if result.ended_by == "stopped" else ", before the scoring"
        return f"stopped after step {result.steps}{where}; go on with: mlxtune train --resume {result.run_dir}"
    losses = [f"loss {result.train_loss:.3f}" if result.train_loss is not None else ""]
    losses += [f"best valid loss {result.valid_loss:.3f}" if result.valid_loss is not None else ""]
    told = ", ".join(part for part in losses if part)
    line = f"{result.steps} steps in {result.seconds:.0f} s ({result.ended_by}): {told}"
    where = f"run: {result.run_dir}"
    parts = [] if result.scores is None else [table(result.scores, str(result.run_dir))]
    parts += ["", findings_text(result.findings), ""] if result.findings else []
    parts += [f"report: {report}"] if (report := RunFolder(result.run_dir).report).is_file() else []
    return Group(line, *parts, where)


@contextmanager
def asked_to_stop(screen: Screen) -> Iterator[None]:
    """While steps are made SIGINT and SIGTERM are noted instead of obeyed, so that the step can be finished.

    A second one is obeyed, and so is one before the first step or after the last: nothing is lost then.
    """
    before = {number: signal.getsignal(number) for number in EXIT_CODES}

    def note_signal(number: int, _frame: Any) -> None:
        if screen.signals or not screen.training:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated
        screen.signals.append(signal.Signals(number))
        with contextlib.suppress(RuntimeError):  # the signal may have come while standard error was being written
            screen.output.note("stopping after this step; once more to stop at once")

    for number in EXIT_CODES:
        signal.signal(number, note_signal)
    try:
        yield
    except KeyboardInterrupt:
        if screen.run is not None:
            screen.output.note(f"go on with: mlxtune train --resume {screen.run.path}")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
