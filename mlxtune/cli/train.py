"""``mlxtune train``: a recipe into a run folder, with a bar on the way and the before/after table at its end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from mlxtune.iteration.opening import Opened
    from mlxtune.iteration.run import RunResult
    from mlxtune.runs.folder import RunFolder
    from mlxtune.training.plan import Plan
    from mlxtune.training.state import TrainingState

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@click.command()
@click.argument("recipe", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run folder to make, instead of one below runs/.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with this run.")
@click.option("--no-score", is_flag=True, help="Do not score base and tuned model at the end.")
@output_options
def command(
    recipe: str | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: Path | None,
    no_score: bool,
    output: Output,
) -> int:
    """Fine-tune a model by RECIPE, a file or the name of a packaged recipe; then score it beside its base.

    Ctrl-C finishes the step, saves and leaves; --resume RUN goes on from there.
    """
    from mlxtune.iteration.run import Watch, resume_run, run_recipe
    from mlxtune.recipe.load import load_recipe

    if recipe is None and resume is None:
        raise click.UsageError("name a RECIPE, or a run to --resume; `mlxtune recipes list` shows the packaged ones")
    if resume is not None and run_dir is not None:
        raise click.UsageError("--resume goes on in the run's own folder; leave out --run-dir")
    screen = Screen(output)
    with asked_to_stop(output) as signals:
        watch = Watch(output.progress, screen.started, screen.measured, lambda: bool(signals))
        loaded = None if recipe is None else load_recipe(recipe, overrides)
        if resume is not None:
            result = resume_run(resume, loaded, device=output.device, score=not no_score, watch=watch)
        else:
            assert loaded is not None
            result = run_recipe(loaded, device=output.device, run_dir=run_dir, score=not no_score, watch=watch)
    if screen.run is None:
        output.note(f"this run is finished already: {result.run_dir}")
    output.show(asdict(result) | {"interrupted": result.interrupted}, summary(result))
    return EXIT_CODES[signals[0]] if result.interrupted else 0


class Screen:
    """What is seen of a run while it trains: a few lines at the start, then the bar."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.run: RunFolder | None = None
        self.plan: Plan | None = None
        self.valid_loss = ""

    def started(self, run: "RunFolder", opened: "Opened", plan: "Plan", state: "TrainingState") -> None:
        self.run, self.plan = run, plan
        note = self.output.note
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
            note(f"{split:8} {report.rows} rows, {report.tokens} tokens, {report.target_tokens} targets{lost}")
            for dropped in report.dropped[:5]:
                note(f"         dropped {dropped.where}: {dropped.why}")
        if state.step:
            note(f"resumed  after step {state.step}")

    def measured(self, line: dict[str, Any]) -> None:
        if "valid_loss" in line:
            self.valid_loss = f"valid {line['valid_loss']:.3f}"
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


def summary(result: "RunResult") -> Any:
    """What a person reads when the run is over."""
    from rich.console import Group

    from mlxtune.evaluation.table import to_rich
    from mlxtune.iteration.score import comparison

    if result.interrupted:
        return f"stopped after step {result.steps}; go on with: mlxtune train --resume {result.run_dir}"
    losses = [f"loss {result.train_loss:.3f}" if result.train_loss is not None else ""]
    losses += [f"best valid loss {result.valid_loss:.3f}" if result.valid_loss is not None else ""]
    told = ", ".join(part for part in losses if part)
    line = f"{result.steps} steps in {result.seconds:.0f} s ({result.ended_by}): {told}"
    where = f"run: {result.run_dir}"
    if result.scores is None:
        return f"{line}\n{where}"
    title = f"before and after, on {result.scores['rows']} {result.scores['split']} rows"
    return Group(line, to_rich(comparison(result.scores), title=title), where)


@contextmanager
def asked_to_stop(output: Output) -> Iterator[list[signal.Signals]]:
    """SIGINT and SIGTERM are noted instead of obeyed, so that a step can be finished; a second one is obeyed."""
    received: list[signal.Signals] = []
    before = {number: signal.getsignal(number) for number in EXIT_CODES}

    def note_signal(number: int, _frame: Any) -> None:
        if received:
            signal.signal(signal.SIGINT, before[signal.SIGINT])
            raise KeyboardInterrupt
        received.append(signal.Signals(number))
        output.note("stopping after this step; once more to stop at once")

    for number in EXIT_CODES:
        signal.signal(number, note_signal)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
