"""``mlxtune recipes``: the recipes that come with mlxtune, and checking one's own."""

import json
from pathlib import Path

import click

from mlxtune.cli.output import Output, output_options


@click.group()
def command() -> None:
    """List, show, copy and check recipes."""


@command.command("list")
@output_options
def list_recipes(output: Output) -> None:
    """List the recipes that come with mlxtune."""
    from rich.table import Table

    from mlxtune.recipe.catalogue import packaged_recipes

    recipes = packaged_recipes()
    table = Table("name", "what for", box=None)
    for recipe in recipes:
        table.add_row(recipe.name, recipe.description)
    data = [{"name": recipe.name, "description": recipe.description, "path": recipe.path} for recipe in recipes]
    output.show({"recipes": data}, table)


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
