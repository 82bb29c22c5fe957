"""``mlxtune data validate``: every problem of a recipe's rows, grouped and counted; exit code 3 where there are any."""

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.forms_told import form_lines
from mlxtune.cli.output import Output, output_options
from mlxtune.cli.recipe_or_file import place_of_rows, recipe_of
from mlxtune.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlxtune.data.example import Example
    from mlxtune.data.faults import Fault
    from mlxtune.data.pairs import Pairs
    from mlxtune.data.store.census import Stream
    from mlxtune.data.validate import Group, Rendering, Validation
    from mlxtune.recipe.schema import Recipe

FOUND = 3
"""The exit code where there are problems; warnings alone are none."""
SHOWN = 5
"""Of each kind in each split that a person is told of; `--json` has up to `validate.KEPT`."""

CHECKS = "rows, their form, repeats in and across splits"
RENDERING = "what the chat template makes of them, what is trained on, lengths"


@click.command("validate")
@click.argument("recipe_or_file", metavar="RECIPE_OR_FILE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--similarity",
    type=click.FloatRange(0.7, 1),
    default=0.7,
    show_default=True,
    help="How much of their word trigrams near-duplicates share; 1: look for rows that ask the same alone.",
)
@output_options
@click.pass_context
def command(
    context: click.Context, recipe_or_file: str, overrides: tuple[str, ...], similarity: float, output: Output
) -> None:
    """Look for every problem in a recipe's data, or in FILE: bad rows, rows that are too long, rows of test or valid
    that are in train too, repeats. Ends with exit code 3 where there is any; warnings alone end with 0.

    KEY=VALUE changes a key of the recipe. Without its model at hand, and offline, what needs the model is not checked,
    and that is said.
    """
    from mlxtune.data.validate import validate
    from mlxtune.iteration.opening import pairs_of

    recipe = recipe_of(recipe_or_file, overrides)
    pairs = pairs_of(recipe)
    if pairs == "refused" and place_of_rows(recipe_or_file) is not None:
        pairs = "better"  # a file of rows has no objective
    rendering, why_not = open_rendering(recipe, pairs, output)
    streams = open_streams(recipe, output)
    found = validate(streams, rendering, pairs=pairs, similarity=similarity, progress=output.progress)
    output.show(document(recipe_or_file, recipe, found, why_not), draw(recipe_or_file, recipe, found, why_not))
    if found.count("error"):
        context.exit(FOUND)


def open_streams(recipe: "Recipe", output: Output) -> "dict[str, Stream]":
    """The rows of each split that the recipe has; of one whose files cannot be found, a stream that says so."""
    from mlxtune.data.source import stream_of
    from mlxtune.data.store.census import Stream, Weighted
    from mlxtune.errors import DataError
    from mlxtune.iteration.opening import source_of, splits_of

    def refuse(error: DataError) -> "Iterable[Example | Fault]":
        raise error

    streams = {}
    for split in splits_of(recipe.data):
        try:
            streams[split] = stream_of(source_of(recipe.data, split, progress=output.progress))
        except DataError as error:
            streams[split] = Stream((Weighted(partial(refuse, error), f"data.{split}"),))
    return streams


def open_rendering(recipe: "Recipe", pairs: "Pairs", output: Output) -> "tuple[Rendering | None, str]":
    """How the recipe renders rows; or None, and why that is not known, where its model cannot be had now."""
    from mlxtune.data.render import Renderer
    from mlxtune.data.validate import Rendering
    from mlxtune.errors import NetworkError
    from mlxtune.iteration.opening import find_recipe_model, learned_of
    from mlxtune.models.tokenizer import open_tokenizer

    data = recipe.data
    try:
        folder = find_recipe_model(recipe, progress=output.progress).path
    except NetworkError as error:
        return None, error.message
    renderer = Renderer(open_tokenizer(folder, data.chat_template))
    return Rendering(renderer, learned_of(data, pairs=pairs), data.max_seq_length, data.overflow), ""


def document(what: str, recipe: "Recipe", found: "Validation", why_not: str) -> dict[str, Any]:
    """As JSON."""
    return {
        "recipe_or_file": what,
        "model": recipe.model.source,
        "rows": found.rows,
        "files": [
            {"split": read.split, "file": read.file, "form": read.form, "form_chosen_because": read.why}
            for read in found.forms
        ],
        "checked": [CHECKS] if why_not else [CHECKS, RENDERING],
        "not_checked": [f"{RENDERING}: {why_not}"] if why_not else [],
        "errors": found.count("error"),
        "warnings": found.count("warning"),
        "groups": [
            {"split": group.split, "kind": group.kind, "severity": group.severity, "count": group.count}
            for group in found.groups
        ],
        "findings": [
            {"split": group.split, "kind": group.kind, "severity": group.severity, **asdict(finding)}
            for group in found.groups
            for finding in group.findings
        ],
    }


def draw(what: str, recipe: "Recipe", found: "Validation", why_not: str) -> str:
    """What a person reads: the kinds of problems, each with its first places and what to do; then what was checked."""
    errors, warnings = found.count("error"), found.count("warning")
    lines = [line for group in found.groups for line in draw_group(group)]
    rows = sum(found.rows.values())
    counts = ", ".join(f"{count:,} {split}" for split, count in found.rows.items())
    result = f"{errors:,} problem{'s' * (errors != 1)}" if errors else "no problems"
    if warnings:
        result += f", {warnings:,} warning{'s' * (warnings != 1)}"
    checked = CHECKS if why_not else f"{CHECKS}; with {recipe.model.source}, {RENDERING}"
    lines += form_lines((read.split, read.file, read.why) for read in found.forms)
    lines.append(f"{what}: {result} in {rows:,} row{'s' * (rows != 1)} ({counts})")
    lines.append(f"checked: {checked}")
    if why_not:
        lines.append(f"not checked: {RENDERING}, because {printable(why_not)}")
    return "\n".join(lines)


def draw_group(group: "Group") -> list[str]:
    """One kind of problem in one split; a remedy that all have stands once."""
    lines = [f"{group.severity}: {group.split} {group.kind.replace('_', ' ')}, {group.count:,}"]
    shown = group.findings[:SHOWN]
    for finding in shown:
        place = f"{finding.file}:{finding.line}" if finding.line else finding.file
        message = printable(finding.message, keep="\n").replace("\n", "\n    ")
        lines.append(f"  {printable(place)}: {message}")
    if group.count > len(shown):
        more = f"  and {group.count - len(shown):,} more"
        kept = len(group.findings)
        lines.append(more if group.count == kept else f"{more} (--json names {kept:,})")
    lines += [f"  hint: {printable(remedy)}" for remedy in dict.fromkeys(finding.remedy for finding in shown)]
    return [*lines, ""]
