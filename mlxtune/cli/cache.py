"""``mlxtune cache``: what mlxtune keeps on this machine to save work, and clearing it."""

import click

from mlxtune.cli.output import Output, output_options

KINDS = ("blas", "frozen_states", "models", "scores", "tokens")


@click.group()
def command() -> None:
    """List and clear what mlxtune keeps to save work; all of it can be made or fetched again."""


@command.command("list")
@output_options
def list_entries(output: Output) -> None:
    """List what is in the cache, the oldest first."""
    from rich.table import Table

    from mlxtune.cache import cache_folder, entries

    found = entries()
    table = Table("kind", "size", "what", box=None)
    for entry in found:
        table.add_row(entry.kind, f"{entry.size_bytes / 1e6:.1f} MB", entry.path.name)
    total = sum(entry.size_bytes for entry in found)
    table.add_row("all", f"{total / 1e6:.1f} MB", str(cache_folder()))
    rows = [{"kind": entry.kind, "path": str(entry.path), "size_bytes": entry.size_bytes} for entry in found]
    output.show({"folder": str(cache_folder()), "size_bytes": total, "entries": rows}, table)


@command.command()
@click.argument("kind", required=False, type=click.Choice(KINDS))
@output_options
def clear(kind: str | None, output: Output) -> None:
    """Remove what is in the cache, or what is there of one KIND; models are then fetched or converted again."""
    from mlxtune.cache import entries, forget

    found = entries(kind)
    for entry in found:
        forget(entry)
    freed = sum(entry.size_bytes for entry in found)
    output.show({"entries": len(found), "freed_bytes": freed}, f"removed {len(found)} entries, {freed / 1e6:.1f} MB")
