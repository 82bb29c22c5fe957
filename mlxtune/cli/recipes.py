"""``mlxtune recipes``: the recipes that come with mlxtune, and checking one's own."""

import json
from pathlib import Path

import click

from mlxtune.cli.output import Output, output_options


@click.group()
def command() -> None:
    """List, show, copy, check and import recipes."""


@command.command("list")
@click.option("--fits", is_flag=True, help="Only those that fit into this machine's memory, as it is free now.")
@output_options
def list_recipes(fits: bool, output: Output) -> None:
    """List the recipes that come with mlxtune, and the memory that each needs, as `mlxtune plan` foretold it."""
    from rich.table import Table

    from mlxtune.recipe.catalogue import packaged_recipes

    limit, on_gpu = _free_memory(output) if fits else (None, True)
    table = Table("name", "memory", "what for", box=None)
    data = []
    for recipe in packaged_recipes():
        needs = recipe.needs()
        if limit is not None and (recipe.memory_bytes > limit or (recipe.wants_gpu and not on_gpu)):
            continue
        table.add_row(recipe.name, f"{recipe.memory_bytes / 1e9:.1f} GB", recipe.description)
        data.append(
            {
                "name": recipe.name,
                "description": recipe.description,
                "path": recipe.path,
                "needs": [
                    {
                        "file": file,
                        "peak_memory_bytes": needs[file.name],
                        "fits": None if limit is None else needs[file.name] <= limit,
                    }
                    for file in recipe.paths
                ],
            }
        )
    output.show({"recipes": data}, table)


def _free_memory(output: Output) -> tuple[int, bool]:
    """Bytes that training may take, which people are told, and whether an Apple GPU would train."""
    from mlxtune.device.choose import open_device
    from mlxtune.device.memory import memory_limit

    device = open_device(output.device)
    limit = memory_limit()
    output.note(
        f"{limit.bytes / 1e9:.1f} GB may be taken ({limit.reason}); what recipes need is foretold, not measured"
    )
    return limit.bytes, not device.precision.name.startswith("cpu")


@command.command()
@click.argument("recipe")
@output_options
def show(recipe: str, output: Output) -> None:
    """Show RECIPE, a file or a packaged recipe, as it is written; with --json, with every default filled in."""
    from mlxtune.recipe.load import load_recipe

    loaded = load_recipe(recipe)
    output.note(f"# {loaded.path}")
    output.show(loaded.recipe.model_dump(mode="json"), loaded.text.rstrip())


@command.command()
@click.argument("name")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace DIR.")
@output_options
def copy(name: str, folder: Path, force: bool, output: Output) -> None:
    """Copy the packaged recipe NAME, its data and the schema for your editor, to DIR."""
    from mlxtune.recipe.catalogue import copy_recipe

    path = copy_recipe(name, folder, force=force)
    output.show({"folder": folder, "recipe": path}, f"wrote {folder}; next: edit {path}, then mlxtune train {path}")


@command.command()
@click.argument("recipe")
@click.argument("overrides", metavar="[KEY=VALUE]...", nargs=-1)
@output_options
def validate(recipe: str, overrides: tuple[str, ...], output: Output) -> None:
    """Check RECIPE, a file or a packaged recipe, and that its data files are there."""
    from mlxtune.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    loaded.check_files()
    output.show({"valid": True, "name": loaded.recipe.name, "path": loaded.path}, f"{loaded.path} is valid")


@command.command()
@output_options
def schema(output: Output) -> None:
    """Print the JSON Schema of a recipe: every key, its meaning, default and bounds."""
    from mlxtune.recipe.schema import json_schema

    output.show(json_schema(), json.dumps(json_schema(), indent=2, ensure_ascii=False))


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path), help="The recipe to write; standard output if not given.")
@click.option("--force", is_flag=True, help="Replace the file that --out names.")
@output_options
def import_recipe(file: Path, out: Path | None, force: bool, output: Output) -> None:
    """Read FILE, a YAML configuration of mlx_lm.lora, and write it as a recipe; name what has no counterpart."""
    from pydantic import ValidationError

    from mlxtune.files import new_file
    from mlxtune.recipe.faults import faults_of
    from mlxtune.recipe.mlx_lm_config import as_yaml, import_config
    from mlxtune.recipe.schema import Recipe

    imported = import_config(file)
    for key, note in imported.notes.items():
        output.note(f"{key}: {note}")
    try:
        Recipe.model_validate(imported.values)
    except ValidationError as error:
        for fault in faults_of(error):
            output.note(f"to mend in the recipe: {fault.message}")
    text = as_yaml(imported.values, f"From {file.name}, a configuration of mlx_lm.lora.")
    if out is not None:
        with new_file(out, force=force) as part:
            part.write_text(text, encoding="utf-8")
    told = text.rstrip() if out is None else f"wrote {out}; next: mlxtune plan {out}"
    output.show({"recipe": imported.values, "out": out, "notes": imported.notes}, told)
