"""``mlxtune fuse``: an adapter folded into its base, as one model folder that other programs open."""

from dataclasses import asdict
from pathlib import Path

import click

from mlxtune.cli.bits import bits_option
from mlxtune.cli.output import Output, output_options
from mlxtune.recipe.choices import DTYPE_NAMES


@click.command()
@click.argument("run_or_model", metavar="RUN_OR_MODEL")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--adapter", type=click.Path(path_type=Path), help="The adapter folder to fold into a model.")
@click.option("--data", type=click.Path(path_type=Path), help="JSON Lines to measure the loss on; else the run's own.")
@click.option("--dtype", type=click.Choice(DTYPE_NAMES), help="How floats are stored.")
@click.option("--requantize", is_flag=True, help="Quantize: with the base's bits, unless --bits says otherwise.")
@bits_option("With --requantize")
@click.option("--accept-loss", is_flag=True, help="Write it, though it loses too much of the tuning.")
@click.option("--force", is_flag=True, help="Replace OUT.")
@output_options
def command(
    *,
    run_or_model: str,
    out: Path,
    adapter: Path | None,
    data: Path | None,
    dtype: str | None,
    requantize: bool,
    bits: int | str | None,
    accept_loss: bool,
    force: bool,
    output: Output,
) -> None:
    """Fold the adapter of a run, or --adapter, into its base model; write a model folder to OUT.

    What storing the result loses is measured and printed: the share of the update that every layer still holds, and
    the distance from base plus adapter on held-out rows. Less than 90 % of the update, or more than 0.02 nats a token,
    is refused.
    """
    from mlxtune.deployment.fuse_run import fuse_run

    if bits is not None and not requantize:
        raise click.UsageError("--bits goes with --requantize")
    report = fuse_run(
        run_or_model,
        out,
        adapter=adapter,
        data=data,
        dtype=dtype,
        bits=(bits or "stored") if requantize else None,
        accept_loss=accept_loss,
        device=output.device,
        force=force,
        progress=output.progress,
    )
    if report.note is not None:
        output.note(f"note: {report.note}")
    size = f"{report.out}: {report.dtype}, {report.bytes / 1e6:.0f} MB ({report.reason})"
    output.show(asdict(report), f"{size}\nit {report.in_words()}")
