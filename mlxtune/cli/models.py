"""``mlxtune models``: the models that mlxtune knows by name, and those of the hub."""

from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from mlxtune.models.catalogue import CatalogueEntry


@click.group()
def command() -> None:
    """List the models that mlxtune knows by name; show and fetch these and the hub's."""


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
    """Show the model NAME, of the list or org/name[@revision] of the hub: size, licence, and where it comes from."""
    from rich.table import Table

    from mlxtune.models.catalogue import entry, unknown
    from mlxtune.models.hub import describe, parse_hub_name

    if (known := entry(name)) is not None:
        data = _data(known)
    elif (hub := parse_hub_name(name)) is not None:
        data = describe(hub)
    else:
        raise unknown(name)
    table = Table(box=None, show_header=False)
    for key, value in data.items():
        table.add_row(key.replace("_", " "), f"{value:,}" if type(value) is int else str(value))
    output.show(data, table)


@command.command()
@click.argument("name")
@click.option("--newest", is_flag=True, help="Ask the hub where a branch is now, though it is on this machine.")
@output_options
def get(name: str, newest: bool, output: Output) -> None:
    """Fetch the model NAME, of the list or org/name[@revision] of the hub, once; later commands need no network."""
    from mlxtune.device.choose import open_device
    from mlxtune.models.catalogue import entry, unknown
    from mlxtune.models.hub import parse_hub_name
    from mlxtune.models.source import find_model

    known = entry(name)
    if known is None and parse_hub_name(name) is None:
        raise unknown(name)
    open_device(output.device)
    folder = find_model(name, newest=newest, progress=output.progress)
    data = {
        "name": name,
        "path": folder.path,
        "sha256": folder.sha256,
        "revision": folder.revision,
        "already_there": folder.already_there,
        "licence": known and known.licence,
    }
    state = "is there already" if folder.already_there else "is ready"
    what = known.licence if known else f"commit {folder.revision}" if folder.revision else "a local folder"
    output.show(data, f"{name} ({what}) {state}: {folder.path}")


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
