"""The option ``--bits`` of the commands that write a tuned model quantized."""

from collections.abc import Callable
from typing import Any

import click

from mlxtune.recipe.choices import BITS, in_words


def bits_option(when: str) -> Callable[[Any], Any]:
    """Gives the command a number, ``auto``, or None; ``when`` begins the help."""
    return click.option(
        "--bits",
        type=click.Choice([*map(str, BITS), "auto"]),
        callback=lambda context, option, value: int(value) if value and value.isdigit() else value,  # noqa: ARG005 - click's own form
        help=f"{when}: {in_words(BITS)}, or auto: layer by layer, as few as lose little enough.",
    )
