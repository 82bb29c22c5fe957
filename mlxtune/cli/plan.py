"""``mlxtune plan``: what a recipe will take, before it is trained."""

from typing import TYPE_CHECKING

import click

from mlxtune.cli.allow_python import allow_python_option
from mlxtune.cli.offline import obey_offline
from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from mlxtune.iteration.forecast import Forecast


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@output_options
@allow_python_option
def command(recipe: str, overrides: tuple[str, ...], output: Output) -> None:
    """Foretell what training by RECIPE takes: memory, time, and the largest settings that fit.

    A few of the recipe's own batches are tried; what they learn is thrown away. Scoring at the end is not counted.
    """
    from mlxtune.device.memory import memory_limit
    from mlxtune.iteration.forecast import forecast, refuse_too_large
    from mlxtune.iteration.opening import open_recipe
    from mlxtune.iteration.ready import make_ready
    from mlxtune.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    obey_offline(loaded.recipe)
    loaded.check_files()
    ready = make_ready(open_recipe(loaded.recipe, device=output.device, progress=output.progress))
    found = forecast(ready, memory_limit(), progress=output.progress)
    output.show({"recipe": loaded.recipe.name, **found.to_json()}, "\n".join(lines(found, loaded.recipe.name)))
    refuse_too_large(found)


def lines(found: "Forecast", name: str) -> list[str]:
    """What a person reads."""
    from mlxtune.device.memory import readable_bytes

    epochs = found.steps_an_epoch and found.steps / found.steps_an_epoch
    recomputed = "off" if found.grad_checkpoint == "off" else f"every {found.grad_checkpoint.every}"
    limit = f"{readable_bytes(found.memory_limit_bytes)} may be taken: {found.memory_limit_reason}"
    saved = f"{found.prefix_saved_share:.0%} of the tokens are beginnings that rows share and are read once"
    time = f"{readable_seconds(found.seconds)} of steps, {readable_seconds(found.preparation_seconds)} before them"
    tokens = f"{found.tokens_an_epoch:,} tokens, {found.target_tokens_an_epoch:,} targets"
    replay = f" ({found.replay_rows:,} of replay)" if found.replay_rows else ""
    slower = (
        [] if found.targets_alone else ["slower    this family is read on full logits, at every position of every row"]
    )
    return [
        f"plan of {name} on {found.device}",
        f"trains    {found.trainable_parameters:,} parameters in {found.steps} steps ({epochs:.1f} epochs)",
        f"an epoch  {found.rows:,} rows{replay}, {tokens}",
        f"saved     {saved}; {found.padding_share:.1%} of what is read is padding",
        *slower,
        f"memory    {readable_bytes(found.peak_memory_bytes)} at the peak ({limit})",
        f"time      {time}, {readable_seconds(found.validation_seconds)} of validation; without the scoring at the end",
        f"fits      {'yes' if found.fits else 'no'}, with gradient checkpointing {recomputed}",
        f"largest   rows of {found.longest_row:,} tokens would fit; any batch_size does: batches are read in parts",
    ]


def in_short(found: "Forecast") -> str:
    """One line, for the start of a run."""
    from mlxtune.device.memory import readable_bytes

    seconds = found.preparation_seconds + found.seconds + found.validation_seconds
    recomputed = "" if found.grad_checkpoint == "off" else f", every {found.grad_checkpoint.every} blocks recomputed"
    return f"{readable_bytes(found.peak_memory_bytes)} of memory, about {readable_seconds(seconds)}{recomputed}"


def readable_seconds(seconds: float) -> str:
    """As in ``45 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004 - in an hour
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
