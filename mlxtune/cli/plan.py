"""``mlxtune plan``: what a recipe will take, before it is trained."""

from typing import TYPE_CHECKING

import click

from mlxtune.cli.allow_python import allow_python_option
from mlxtune.cli.offline import obey_offline
from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from mlxtune.iteration.elsewhere import Elsewhere
    from mlxtune.iteration.forecast import Forecast


@click.command()
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--machine", metavar="NAME", help="Estimate it for another Mac, such as m2-16gb, by published figures.")
@output_options
@allow_python_option
def command(recipe: str, overrides: tuple[str, ...], machine: str | None, output: Output) -> None:
    """Foretell what training by RECIPE takes: memory, time, and the largest settings that fit.

    A few of the recipe's own batches are tried; what they learn is thrown away. Scoring at the end is not counted. With
    --machine nothing is tried: memory and time are estimates, from published figures of that Mac.
    """
    if machine is not None:
        _plan_elsewhere(recipe, overrides, machine, output)
        return

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


def _plan_elsewhere(recipe: str, overrides: tuple[str, ...], name: str, output: Output) -> None:
    from mlxtune.device.profiles import machine_named

    machine = machine_named(name)

    from mlxtune.iteration.elsewhere import foretell_elsewhere
    from mlxtune.iteration.opening import open_recipe
    from mlxtune.models.load import open_unread
    from mlxtune.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    obey_offline(loaded.recipe)
    loaded.check_files()
    opened = open_recipe(loaded.recipe, device="cpu", open_network=open_unread, progress=output.progress)
    found = foretell_elsewhere(opened, machine)
    told = {"recipe": loaded.recipe.name, **found.to_json()}
    output.show(told, "\n".join(lines_elsewhere(found, loaded.recipe.name)))


def lines_elsewhere(found: "Elsewhere", name: str) -> list[str]:
    """What a person reads of an estimate."""
    from mlxtune.device.memory import readable_bytes
    from mlxtune.device.profiles import REACHED_SHARE
    from mlxtune.iteration.elsewhere import LABEL

    epochs = found.steps / found.steps_an_epoch
    limit = f"a GPU keeps {readable_bytes(found.memory_limit_bytes)} of {found.memory_gb} GB at hand there"
    weights = f"{readable_bytes(found.weight_bytes)} of it weights"
    figures = f"{found.gpu_cores} GPU cores and {found.bandwidth_gb_s:g} GB/s, {REACHED_SHARE:.0%} of both reached"
    return [
        f"plan of {name} on {found.machine} ({LABEL}: no Mac has shown these figures)",
        f"trains    {found.trainable_parameters:,} parameters in {found.steps} steps ({epochs:.1f} epochs)",
        f"memory    about {readable_bytes(found.peak_memory_bytes)} at the peak, {weights} ({limit})",
        f"time      about {readable_seconds(found.seconds)} of steps, bound by {found.bound_by} ({figures})",
        f"fits      {'yes' if found.fits else 'no'}"
        + (", with every block recomputed (training.grad_checkpoint)" if found.recomputed else ""),
    ]


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
