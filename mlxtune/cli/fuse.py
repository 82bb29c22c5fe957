"""``mlxtune fuse``: a run's adapter folded into its base, as one model folder that other programs open."""

from dataclasses import asdict
from pathlib import Path

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.recipe.choices import DTYPE_NAMES


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--dtype", type=click.Choice(DTYPE_NAMES), help="How the weights are stored.")
@click.option("--requantize", is_flag=True, help="Not available yet: its loss is not measured yet.")
@click.option("--force", is_flag=True, help="Replace OUT.")
@output_options
def command(run: Path, out: Path, dtype: str | None, requantize: bool, force: bool, output: Output) -> None:
    """Fold the adapter of RUN into its base model; write a model folder to OUT."""
    from mlxtune.deployment.fuse_run import fuse_run
    from mlxtune.errors import UsageError

    if requantize:
        raise UsageError(
            "requantizing a fused model is not available yet: it can lose most of the tuning, and the loss is not "
            "measured yet",
            where="--requantize",
            remedy="leave it out; the fused model is stored in 16-bit floats",
        )
    report = fuse_run(run, out, dtype=dtype, device=output.device, force=force, progress=output.progress)
    output.show(asdict(report), f"{report.out}: {report.dtype}, {report.bytes / 1e6:.0f} MB ({report.reason})")
