"""``mlxtune cache``: what mlxtune keeps on this machine to save work, and clearing it."""

import click

from mlxtune.cache import KINDS
from mlxtune.cli.output import Output, output_options


@click.group()
def command() -> None:
    """List and clear what mlxtune keeps to save work; all of it can be made or fetched again."""


@command.command("list")
@output_options
def list_entries(output: Output) -> None:
    """List what is in the cache, the oldest first; and what its kinds are, and which of them hold private data."""
    from rich.console import Group
    from rich.table import Table

    from mlxtune.cache import cache_folder, entries, kind_of

    found = entries()
    table = Table("kind", "size", "private", "what", box=None)
    for entry in found:
        private = "yes" if entry.is_private else "no"
        table.add_row(entry.kind, f"{entry.size_bytes / 1e6:.1f} MB", private, entry.path.name)
    total = sum(entry.size_bytes for entry in found)
    table.add_row("all", f"{total / 1e6:.1f} MB", "", str(cache_folder()))
    kinds = {name: kind_of(name) for name in sorted({entry.kind for entry in found})}
    meanings = Table("kind", "is", box=None)
    for name, kind in kinds.items():
        meanings.add_row(name, kind.what)
    rows = [
        {
            "kind": entry.kind,
            "path": str(entry.path),
            "size_bytes": entry.size_bytes,
            "private": entry.is_private,
            "what": kinds[entry.kind].what,
        }
        for entry in found
    ]
    document = {"folder": str(cache_folder()), "size_bytes": total, "entries": rows}
    output.show(document, Group(table, "", meanings) if kinds else table)


@command.command()
@click.argument("kind", required=False, type=click.Choice(tuple(KINDS)))
@click.option("--private", is_flag=True, help="Only what holds your rows, or what can be read back from them.")
@output_options
def clear(kind: str | None, private: bool, output: Output) -> None:
    """Remove what is in the cache, or what is there of one KIND; models are then fetched or converted again."""
    from mlxtune.cache import entries, forget

    if private and kind is not None:
        raise click.UsageError("name a KIND or say --private: the one is narrower than the other")
    found = [entry for entry in entries(kind) if entry.is_private or not private]
    for entry in found:
        forget(entry)
    freed = sum(entry.size_bytes for entry in found)
    output.show({"entries": len(found), "freed_bytes": freed}, f"removed {len(found)} entries, {freed / 1e6:.1f} MB")
