"""``mlxtune watch``: a page that shows a run while it trains; or, once, how far it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.cli.progress import duration
from mlxtune.printable import printable


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Where to listen; any that is free, if left out."
)
@click.option("--open", "opens", is_flag=True, help="Open the page.")
@click.option("--once", is_flag=True, help="Print how far the run is, and leave.")
@output_options
def command(run: Path, port: int, opens: bool, once: bool, output: Output) -> None:
    """Show RUN in a browser while it trains, or after: curves, time left, memory, findings, answers.

    Its buttons pause the run, let it go on, and stop it; it is saved first. The page can be opened on this machine
    only, by the address that is printed. Ctrl-C ends the page; the run is left alone.
    """
    if once:
        if opens:
            raise click.UsageError("--once prints and leaves; --open is for the page")
        _show_once(run, output)
        return

    from mlxtune.deployment.server.watch import watch_run

    def listening(address: str) -> None:
        output.show({"address": address}, address)
        output.note("open this address, with all that follows the #; Ctrl-C ends the page and leaves the run alone")
        if opens:
            click.launch(address)

    watch_run(run, port=port, listening=listening)


def _show_once(run: Path, output: Output) -> None:
    from mlxtune.deployment.server.live_run import LiveRun
    from mlxtune.errors import RunError
    from mlxtune.runs.folder import open_run

    live = LiveRun(open_run(run).path)
    told = live.look()
    while told.get("is_behind"):
        told = live.look()
    if told["state"] in ("broken", "gone"):
        raise RunError(told["why"], where=run, remedy="`mlxtune runs list` names the runs that there are")
    for name in ("version", "is_behind", "curves", "samples"):
        del told[name]
    output.show(told, in_words(told))


def in_words(told: Mapping[str, Any]) -> str:
    """How far a run is, in a few lines."""
    of = "" if told["total_steps"] is None else f" of {told['total_steps']:,}"
    steps = "no step is made yet" if told["step"] is None else f"step {told['step']:,}{of}"
    left = "" if told["seconds_left"] is None else f", about {duration(told['seconds_left'])} left"
    lines = [f"{printable(told['name'])}: {told['state']}, {steps}{left}"]
    lines += [f"paused: {printable(told['paused_why'])}"] if told["paused_why"] else []
    latest, best = told["latest"], told["best"]
    parts = [f"loss {latest['loss']:.3f}"] if "loss" in latest else []
    parts += [f"best valid loss {best['valid_loss']:.3f} (step {best['step']:,})"] if best else []
    parts += [f"{latest['tokens_per_s']:,.0f} tokens/s"] if "tokens_per_s" in latest else []
    parts += [f"{latest['peak_memory_bytes'] / 1e9:.1f} GB"] if "peak_memory_bytes" in latest else []
    lines += ["  ".join(parts)] if parts else []
    lines += [f"{one['severity']}: {printable(one['sentence'])}" for one in told["findings"]]
    lines += [f"go on with: {told['resume']}"] if told["state"] == "stopped" else []
    return "\n".join(lines)
