"""``mlxtune convert``: any model as an MLX folder of one's own."""

from pathlib import Path
from typing import Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.recipe.choices import BITS, DTYPE_NAMES, GROUP_SIZE, GROUP_SIZES, MIXES, MODES, in_words


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bits", type=int, help=f"Quantize to so many bits a weight: {in_words(BITS)}.")
@click.option(
    "--group-size",
    type=int,
    help=f"The weights that share a scale: {in_words(GROUP_SIZES)}; {GROUP_SIZE} if not given.",
)
@click.option("--mode", type=click.Choice(MODES), help="Quantize so; all but affine have bits and groups of their own.")
@click.option(
    "--mix",
    type=click.Choice(MIXES),
    help="Quantize some layers to more bits: mlx-lm's mixes; or sensitive, by what --data shows, --bits on average.",
)
@click.option("--dtype", type=click.Choice(DTYPE_NAMES), help="Store floats so; alone, expand.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="JSONL rows on which to measure what is lost; those of a packaged recipe if not given.",
)
@click.option("--measure/--no-measure", default=True, help="Whether to measure what is lost; on if not given.")
@click.option("--force", is_flag=True, help="Replace OUT.")
@output_options
def command(*, source: str, out: Path, output: Output, **options: Any) -> None:
    """Write the model SOURCE to the folder OUT, in MLX's form.

    SOURCE is a catalogue name, a folder in Hugging Face or MLX format, a .gguf file, or org/name on the hub. Without
    options the weights stay as they are stored, quantized ones to the last bit. Where something is lost, it is said
    how far the result is from SOURCE, on rows that chose nothing.
    """
    from mlxtune.iteration.converting import convert

    result = convert(source, out, **options, device=output.device, progress=output.progress)
    for note in result["notes"]:
        output.note(f"note: {note}")
    forms = _in_words(result["forms"], result["bits_per_weight"])
    written = f"wrote {out}: {result['parameters'] / 1e6:.1f} M parameters, {forms}, {result['bytes'] / 1e6:.1f} MB"
    output.show(result, "\n".join([written, *_lost(result)]))


def _in_words(forms: list[dict[str, Any]], bits_per_weight: float) -> str:
    """How a model is quantized: in one form throughout, or how many layers in which."""
    quantized = [form for form in forms if "bits" in form]
    if not quantized:
        return "not quantized"
    groups = {form["group_size"] for form in quantized}
    if len(forms) == 1:
        return f"{_name(forms[0])} in groups of {groups.pop()}"
    parts = []
    for form in forms:
        of = f" in groups of {form['group_size']}" if form in quantized and len(groups) > 1 else ""
        parts.append(f"{_name(form)}{of} ({form['layers']} layer{'s' * (form['layers'] > 1)})")
    return f"{bits_per_weight:.1f} bits a weight: {', '.join(parts)}"


def _name(form: dict[str, Any]) -> str:
    if "dtype" in form:
        return form["dtype"]
    return f"{form['bits']}-bit" if form["mode"] == "affine" else form["mode"]


def _lost(result: dict[str, Any]) -> list[str]:
    """What is known of the loss, in a line; none where nothing is."""
    if result["exact"]:
        return ["nothing was lost: every value is as it was stored"]
    found = result["fidelity"]
    if found is None:
        return []
    kl, agreement = f"KL {found['mean_kl']:.4f} nats a token", f"{found['token_agreement']:.1%}"
    where = f"{found['positions']:,} positions in {found['data']}"
    return [f"against {result['source']}: {kl}, the same likeliest token at {agreement} of {where}"]
