"""``mlxtune convert``: any model as an MLX folder of one's own."""

from pathlib import Path
from typing import Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.recipe.choices import BITS, DTYPE_NAMES, GROUP_SIZE, GROUP_SIZES, in_words


@click.command()
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--bits", type=int, help=f"Quantize to so many bits a weight: {in_words(BITS)}.")
@click.option(
    "--group-size",
    type=int,
    help=f"With --bits: the weights that share a scale, {in_words(GROUP_SIZES)}; {GROUP_SIZE} if not given.",
)
@click.option("--dtype", type=click.Choice(DTYPE_NAMES), help="Store floats so; alone, expand.")
@click.option("--force", is_flag=True, help="Replace OUT.")
@output_options
def command(
    *,
    source: str,
    out: Path,
    bits: int | None,
    group_size: int | None,
    dtype: str | None,
    force: bool,
    output: Output,
) -> None:
    """Write the model SOURCE to the folder OUT, in MLX's form.

    SOURCE is a catalogue name, a folder in Hugging Face or MLX format, or a .gguf file. Without options the weights
    stay as they are stored, quantized ones to the last bit.
    """
    from mlxtune.models.convert import convert

    result = convert(
        source,
        out,
        bits=bits,
        group_size=group_size,
        dtype=dtype,
        device=output.device,
        force=force,
        progress=output.progress,
    )
    quantization = result["quantization"]
    form = _form(quantization) if quantization else "not quantized"
    text = f"wrote {out}: {result['parameters'] / 1e6:.1f} M parameters, {form}, {result['bytes'] / 1e6:.1f} MB"
    output.show(result, text)


def _form(quantization: dict[str, Any]) -> str:
    others = sum(isinstance(value, dict) for value in quantization.values())
    but = f" but for {others} layers" if others else ""
    return f"{quantization['bits']}-bit in groups of {quantization['group_size']}{but}"
