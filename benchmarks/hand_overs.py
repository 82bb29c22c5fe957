"""What a tuned model loses on its way into each form: fused as floats, fused in fewer bits, and as GGUF.

Every form is written, opened again as a user would, and held against base plus adapter on the run's held-out rows:

- kept: the share of the adapter's update that the stored weights hold, over all layers; and in the layer that holds
  least;
- KL: nats a token, KL(base plus adapter || form); agreement: how often both have the same likeliest token;
- logits: the largest difference of any logit at any position of a few whole rows.

Nothing is refused here, however much it loses: that is what the table is for.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from measure import device_named, report, show_table, work_folder

ROWS = 6
"""Rows whose logits are compared whole."""
HEADERS = ("form", "MB", "kept", "least kept", "KL", "agreement", "largest logit difference")
FLOATS = ("float32", "float16", "bfloat16")
BITS = (8, 6, 5, 4, 3, "auto")
GGUF = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="A new folder that keeps what is written.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(run: Path, device: str, folder: Path | None, out: Path | None) -> None:
    """Write the model of a finished RUN in every form, and measure what each form lost."""
    device = device_named(device)
    with work_folder(folder) as work:
        results = list(measure_forms(run, device, work))
    show_table(HEADERS, [table_row(result) for result in results])
    report(out, "hand_overs", {"run": run.name, "device": device}, results)


def measure_forms(run: Path, device: str, folder: Path) -> Iterator[dict[str, Any]]:
    """One form after the other, as what was measured of it."""
    import mlx.core as mx
    import numpy as np

    from mlxtune.data.source import stream_of
    from mlxtune.deployment.export.gguf import export_gguf
    from mlxtune.deployment.fuse_run import fuse_run
    from mlxtune.deployment.tuned import find_tuned
    from mlxtune.device.choose import open_device
    from mlxtune.evaluation.fidelity import compare, read_distributions
    from mlxtune.inference.likelihood import make_reader
    from mlxtune.iteration.opening import held_out, render_split, source_of
    from mlxtune.recipe.load import load_recipe

    precision = open_device(device).precision
    tuned = find_tuned(run)
    recipe = load_recipe(run / "recipe.resolved.json").recipe
    split = held_out(recipe)
    if split is None:
        raise click.ClickException("the run's recipe names no held-out rows")
    source = source_of(recipe.data, split)
    model = tuned.open(precision)
    rows = render_split(recipe.data, stream_of(source), model, source.path).rows
    tokens = [mx.array(row.token_ids)[None] for row in rows[:ROWS]]
    reference, logits = read_distributions(make_reader(model.network), rows), [model.network(ids) for ids in tokens]
    mx.eval(logits)

    def against_reference(source: Path) -> dict[str, Any]:
        network = find_tuned(source).open(precision).network
        largest = max(
            float(np.abs(np.array(network(ids) - theirs)).max()) for ids, theirs in zip(tokens, logits, strict=True)
        )
        found = asdict(compare(reference, make_reader(network)))
        return found | {"largest_logit_difference": largest}

    forms: list[tuple[str, Any]] = [(dtype, {"dtype": dtype}) for dtype in FLOATS]
    for form, options in forms + [(f"{bits} bits", {"bits": bits}) for bits in BITS]:
        click.echo(form, err=True)
        fused = fuse_run(run, folder / form, accept_loss=True, device=device, **options)
        yield {
            "form": form,
            "bytes": fused.bytes,
            "update_kept": fused.update_kept,
            "least_kept": min(fused.layers.values()),
            **against_reference(fused.out),
        }
    for kind in GGUF:
        click.echo(f"GGUF {kind}", err=True)
        written = export_gguf(run, folder / f"{kind}.gguf", type=kind, accept_loss=True, device=device)
        found = {"form": f"GGUF {kind}", "bytes": written.bytes, "update_kept": written.update_kept, "least_kept": None}
        yield found | against_reference(written.out)


def table_row(result: dict[str, Any]) -> list[str]:
    """One form as text."""
    least = "" if result["least_kept"] is None else f"{result['least_kept']:.1%}"
    measured = [f"{result['mean_kl']:.2g}", f"{result['token_agreement']:.1%}"]
    size = f"{result['bytes'] / 1e6:.0f}"
    kept = f"{result['update_kept']:.2%}"
    return [result["form"], size, kept, least, *measured, f"{result['largest_logit_difference']:.2g}"]


if __name__ == "__main__":
    command()
