"""``mlxtune models``: the models that mlxtune knows by name."""

from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from mlxtune.models.catalogue import CatalogueEntry


@click.group()
def command() -> None:
    """List, show and fetch the models that mlxtune knows by name."""


@command.command("list")
@output_options
def list_models(output: Output) -> None:
    """List the models."""
    from rich.table import Table

    from mlxtune.models.catalogue import CATALOGUE, is_cached

    table = Table("name", "parameters", "size", "licence", "here", "what", box=None)
    for entry in CATALOGUE:
        here = "yes" if is_cached(entry) else "no"
        size = f"{entry.byte_count / 1e6:.0f} MB"
        table.add_row(entry.name, f"{entry.parameters / 1e6:.0f} M", size, entry.licence, here, entry.summary)
    output.show({"models": [_data(entry) for entry in CATALOGUE]}, table)


@command.command()
@click.argument("name")
@output_options
def show(name: str, output: Output) -> None:
    """Show the model NAME: its size, licence, and where it comes from."""
    from rich.table import Table

    from mlxtune.models.catalogue import named

    entry = named(name)
    data = _data(entry)
    table = Table(box=None, show_header=False)
    for key, value in data.items():
        table.add_row(key.replace("_", " "), f"{value:,}" if type(value) is int else str(value))
    output.show(data, table)


@command.command()
@click.argument("name")
@output_options
def get(name: str, output: Output) -> None:
    """Fetch the model NAME and convert it for MLX, once; later commands then need no network."""
    from mlxtune.device.choose import open_device
    from mlxtune.models.catalogue import named
    from mlxtune.models.source import find_model

    entry = named(name)
    open_device(output.device)
    folder = find_model(entry.name, progress=output.progress)
    data = {
        "name": entry.name,
        "path": folder.path,
        "sha256": folder.sha256,
        "already_there": folder.already_there,
        "licence": entry.licence,
    }
    state = "is there already" if folder.already_there else "is ready"
    output.show(data, f"{entry.name} ({entry.licence}) {state}: {folder.path}")


def _data(entry: "CatalogueEntry") -> dict[str, Any]:
    from mlxtune.models.catalogue import cached_file, is_cached

    return {
        "name": entry.name,
        "summary": entry.summary,
        "licence": entry.licence,
        "parameters": entry.parameters,
        "context_length": entry.context_length,
        "size_bytes": entry.byte_count,
        "source": f"{entry.wheel} on the package index",
        "second_source": f"{entry.hub} on the hub",
        "sha256": entry.sha256,
        "cached": str(cached_file(entry)) if is_cached(entry) else None,
    }
