"""``mlxtune data inspect``: rows as the network will meet them, in the terminal or as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.cli.recipe_or_file import recipe_of
from mlxtune.printable import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from mlxtune.data.example import Example
    from mlxtune.data.inspect import Inspection, Side
    from mlxtune.data.inspection.neighbours import Window
    from mlxtune.data.render import Renderer
    from mlxtune.data.source import Source
    from mlxtune.recipe.schema import Recipe

SHARED, BOUNDARY = "¦", "│"
"""What ends the shared beginning, and what stands between tokens."""
COUNT = 20


@click.command("inspect")
@click.argument("recipe_or_file", metavar="RECIPE_OR_FILE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--row", type=click.IntRange(min=1), default=1, show_default=True, help="Which row, counted from 1.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), default="train", show_default=True)
@click.option("--boundaries", is_flag=True, help=f"Show where tokens begin: by {BOUNDARY}, or a line in the page.")
@click.option("--ids", is_flag=True, help="Show the ids of tokens: in a list, or in the page.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one HTML page that needs no network."
)
@click.option("--count", type=click.IntRange(1, 500), help=f"Rows of the page, from --row on; {COUNT} if not given.")
@click.option("--force", is_flag=True, help="Overwrite the page.")
@output_options
def command(
    recipe_or_file: str,
    overrides: tuple[str, ...],
    row: int,
    split: str,
    boundaries: bool,
    ids: bool,
    html: Path | None,
    count: int | None,
    force: bool,
    output: Output,
) -> None:
    """Show what is trained on in a row of a recipe's data, or of FILE as the default model reads it.

    Learned tokens are green and between « and »; ¦ ends the beginning that the row shares with others of its batch;
    what is cut is struck out, between lines that say so. KEY=VALUE changes a key of the recipe.
    """
    from mlxtune.data.faults import Fault
    from mlxtune.errors import DataError, UsageError
    from mlxtune.files import check_new_file, check_not_inside

    if html is not None:
        check_new_file(html, force=force)
    elif count is not None or force:
        raise UsageError("--count and --force are of a page", remedy="add --html FILE, or leave them out")
    recipe = recipe_of(recipe_or_file, overrides, split=split)
    seen = look(recipe, recipe_or_file, split, row, (count or COUNT) if html is not None else 1, output)
    if html is not None:
        files = {f"data file {path.name}": path for path in seen.source.paths}
        check_not_inside(html, {"recipe": Path(recipe_or_file), **files})
        page = write_page(seen, recipe_or_file, html, boundaries=boundaries, ids=ids, force=force)
        output.show(page, f"{page['page']}: {page['rows']} {'row' if page['rows'] == 1 else 'rows'} from row {row} on")
        return
    first = seen.window.rows[0]
    if isinstance(first, Fault):
        raise DataError(
            first.message, where=first.where, remedy=first.remedy or "mend the row, or choose another --row"
        )
    inspection = seen.inspect(first, longest=None if output.json else LONGEST)
    output.show(document(inspection, seen), draw(inspection, seen, boundaries=boundaries, ids=ids))


LONGEST = 20_000
"""Tokens that a terminal is given."""


@dataclass(frozen=True)
class Seen:
    """Rows of a split, from number ``first`` on, and all that is needed to show one."""

    recipe: "Recipe"
    split: str
    first: int
    window: "Window"
    renderer: "Renderer"
    source: "Source"
    form: str
    why: str
    sharing: "dict[str, Any]"

    def name_of(self, number: int) -> str:
        """Of a row, by its number in the split."""
        total = self.window.total
        return f"{self.split} row {number:,}" + (f" of {total:,}" if total is not None else "")

    def inspect(self, example: "Example", *, longest: int | None) -> "Inspection":
        from mlxtune.data.inspect import inspect_row

        data = self.recipe.data
        return inspect_row(
            example,
            self.renderer,
            train_on=data.train_on,
            max_seq_length=data.max_seq_length,
            overflow=data.overflow,
            sharing=self.sharing.get(example.where),
            longest=longest,
        )


def look(recipe: "Recipe", what: str, split: str, row: int, count: int, output: Output) -> Seen:
    """The rows ``row`` to ``row + count - 1`` of a split.

    Raises: UsageError, where there is no such split or row.
    """
    from mlxtune.data.inspection.neighbours import find_window
    from mlxtune.data.render import Renderer
    from mlxtune.data.source import iterate
    from mlxtune.errors import DataError, UsageError
    from mlxtune.iteration.opening import find_recipe_model, source_of, splits_of
    from mlxtune.models.tokenizer import open_tokenizer

    if split not in splits_of(recipe.data):
        raise UsageError(f"the recipe has no data.{split}", where=what, remedy="choose another --split")
    source = source_of(recipe.data, split, progress=output.progress)
    window = find_window(iterate(source), row, count, progress=output.progress)
    if window.total == 0:
        raise DataError("there are no rows", where=source.path, remedy="name a file that has some")
    if not window.rows:
        raise UsageError(f"there is no row {row}", where=what, remedy=f"--row goes from 1 to {window.total}")
    folder = find_recipe_model(recipe, progress=output.progress).path
    renderer = Renderer(open_tokenizer(folder, recipe.data.chat_template))
    is_whole = window.is_whole and all(file.weight == 1 for file in source.files)
    sharing = share_with_neighbours(recipe, split, window, renderer, folder, output, whole=is_whole)
    return Seen(recipe, split, row, window, renderer, source, *form_of(source, window.rows[0].where), sharing)


def form_of(source: "Source", where: str) -> tuple[str, str]:
    """The form of the location that a row is of, and what chose it."""
    from mlxtune.data.source import open_file

    name = where.rpartition(":")[0]
    file = next(file for file in source.files if name in map(str, file.files))
    rows = open_file(file, source.shape)
    return rows.form or "", rows.why


def share_with_neighbours(
    recipe: "Recipe",
    split: str,
    window: "Window",
    renderer: "Renderer",
    folder: Path,
    output: Output,
    *,
    whole: bool,
) -> "dict[str, Any]":
    """What each row of a window that was asked for shares with its batch, by its place; a row that shares nothing may
    be missing.

    Args:
        whole: whether an epoch has just the rows of the window, each once.
    """
    from mlxtune.data.faults import Fault
    from mlxtune.data.inspection.neighbours import share_in_order, share_in_reading
    from mlxtune.data.store.overflow import fit
    from mlxtune.device.choose import open_device
    from mlxtune.inference.shared_prefix import layer_windows
    from mlxtune.iteration.batches import shape_multiple
    from mlxtune.iteration.opening import make_order
    from mlxtune.models.load import load_network

    data, wanted = recipe.data, {item.where for item in window.rows if not isinstance(item, Fault)}
    rendered, first_part = [], {}
    items = (*window.before, *window.rows, *window.after)
    chats = (item for item in items if not isinstance(item, Fault) and item.kind != "preference")
    for found in renderer.render_stream(chats, data.train_on):
        if isinstance(found, Fault):  # told where the row itself is shown
            continue
        item, row = found
        parts = fit(row, data.max_seq_length, data.overflow, before=renderer.before)
        useful = [part for part in parts if part.is_target.any()]
        if useful and item.where in wanted:
            first_part[item.where] = len(rendered)
        rendered += useful
    if not first_part or layer_windows(load_network(folder)[0]) is None:
        return {}
    if split != "train":
        return {where: share_in_reading(rendered, row, whole=whole) for where, row in first_part.items()}
    order, multiple = make_order(recipe, rendered, share_prefix=True), shape_multiple(open_device(output.device))
    return {
        where: share_in_order(rendered, row, order, multiple=multiple, whole=whole) for where, row in first_part.items()
    }


def document(inspection: "Inspection", seen: Seen) -> dict[str, Any]:
    """One row as JSON; of a preference the chosen side stands at the top, and the rejected one below its name."""
    first, *others = inspection.sides
    return {
        "where": inspection.where,
        "split": seen.split,
        "row": seen.first,
        "rows": seen.window.total,
        "form": seen.form,
        "form_chosen_because": seen.why,
        "kind": inspection.kind,
        "shared_tokens": inspection.sharing.tokens,
        "shared_with": {"rows": inspection.sharing.rows, "of": inspection.sharing.known},
        **side_document(first),
        **{side.name: side_document(side) for side in others},
    }


def side_document(side: "Side") -> dict[str, Any]:
    return {
        "tokens": side.length,
        "target_tokens": side.target_tokens,
        "cut_tokens": side.cut_tokens,
        "note": side.note,
        "token_ids": [token.id for token in side.tokens],
        "is_target": [token.is_target for token in side.tokens],
        "weight": [token.weight for token in side.tokens],
        "is_special": [token.is_special for token in side.tokens],
        "is_cut": [token.is_cut for token in side.tokens],
        "pieces": [token.text for token in side.tokens],
    }


def draw(inspection: "Inspection", seen: Seen, *, boundaries: bool = False, ids: bool = False) -> "Group":
    """A row for a person: its text with what is trained on marked, in colour and without, and what to know of it."""
    from rich.console import Group
    from rich.text import Text

    marks = inspection.text_marks
    parts: list[Any] = [
        Text(f"{seen.name_of(seen.first)}, {printable(inspection.where)}", style="bold"),
        Text(f"form {seen.why or seen.form}", style="dim"),
    ]
    for side in inspection.sides:
        if side.name:
            parts.append(Text(f"\n{side.name}", style="bold"))
        parts.append(text_of(side, marks, boundaries=boundaries))
        parts += [Text(line, style=style) for line, style in told(inspection, side, marks)]
        if ids:
            parts.append(table_of(side))
    return Group(*parts)


def told(inspection: "Inspection", side: "Side", marks: tuple[str, str]) -> list[tuple[str, str]]:
    """What is said below a row's text, a line each with its style."""
    from mlxtune.data.inspect import TIMES
    from mlxtune.data.inspection.inspect_page import share_told, sharing_told

    lines = [(f"{share_told(side)}: those between {marks[0]} and {marks[1]}, in green", "")]
    sharing = inspection.sharing
    if sharing.known:
        lines.append((sharing_told(sharing) + (f": those before {SHARED}" if sharing.tokens else ""), ""))
    if any(token.is_target and token.weight != 1 for token in side.tokens):
        lines.append((f"{marks[0]}{TIMES}0.5 means that what follows counts half in the loss", ""))
    if side.omitted[1]:
        lines.append((f"{side.omitted[1]:,} tokens in the middle are not shown; --json has them", "yellow"))
    if side.note:
        lines.append((side.note, "yellow"))
    return lines


def text_of(side: "Side", marks: tuple[str, str], *, boundaries: bool) -> "Text":
    """The text; what is trained on between ``marks``, which also says it where there is no colour."""
    from rich.text import Text

    from mlxtune.data.inspect import TIMES

    text, weight, shared = Text(), 0.0, False
    omitted, count = side.omitted
    for before, token in zip([None, *side.tokens], side.tokens, strict=False):
        if token.weight != weight:
            opening = f"{marks[0]}{TIMES}{token.weight:g} " if token.weight not in (0, 1) else marks[0]
            text.append((marks[1] if weight else "") + (opening if token.weight else ""), style="green")
        if shared and not token.is_shared:
            text.append(SHARED, style="cyan")
        elif boundaries and before is not None and token.weight == weight:
            text.append(BOUNDARY, style="dim")
        for line in (line for position, line in side.lines if position == token.position):
            text.append(f"\n──── {line} ────\n", style="red")
        if count and token.position == omitted + count:
            text.append(f"\n──── {count:,} tokens are not shown ────\n", style="yellow")
        text.append(printable(token.text, keep="\n\t"), style=style_of(token))
        weight, shared = token.weight, token.is_shared
    if weight:
        text.append(marks[1], style="green")
    return text


def style_of(token: Any) -> str:
    style = "bold green" if token.is_target else "cyan" if token.is_shared else "dim"
    if token.is_cut:
        style = "dim strike red"
    return f"{style} reverse" if token.is_special else style


def table_of(side: "Side") -> "Table":
    """The tokens, one a line: position, id, text, and what is to be known of each."""
    from rich.table import Table

    table = Table("position", "id", "token", "weight in the loss", "", box=None, pad_edge=False)
    for column in table.columns[:2]:
        column.justify = "right"
    for token in side.tokens:
        marks = (("special", token.is_special), ("shared", token.is_shared), ("cut", token.is_cut))
        names = ", ".join(name for name, holds in marks if holds)
        weight = f"{token.weight:g}" if token.is_target else "-"
        table.add_row(
            str(token.position), str(token.id), f"'{printable(token.text)}'", weight, names, style=style_of(token)
        )
    return table


def write_page(seen: Seen, what: str, path: Path, *, boundaries: bool, ids: bool, force: bool) -> dict[str, Any]:
    """Write the page of the rows, and say what was written."""
    from mlxtune.data.faults import Fault
    from mlxtune.data.inspection.inspect_page import PAGE_TOKENS, ROW_TOKENS, make_page
    from mlxtune.errors import DataError
    from mlxtune.files import new_file

    longest = min(ROW_TOKENS, max(100, PAGE_TOKENS // len(seen.window.rows)))
    rows: list[tuple[str, Inspection | Fault]] = []
    for number, item in enumerate(seen.window.rows, start=seen.first):
        try:
            shown = item if isinstance(item, Fault) else seen.inspect(item, longest=longest)
        except DataError as error:
            shown = Fault(item.where, error.message)
        rows.append((seen.name_of(number), shown))
    recipe = seen.recipe
    title = f"{recipe.name}: {seen.split} rows as {recipe.model.source} reads them"
    page = make_page(rows, title=title, facts=facts(seen, what), boundaries=boundaries, ids=ids)
    with new_file(path, force=force) as part:
        part.write_text(page, "utf-8")
    return {"page": path, "split": seen.split, "row": seen.first, "rows": len(rows), "bytes": len(page.encode())}


def facts(seen: Seen, what: str) -> dict[str, str]:
    """What holds for all rows of a page."""
    data = seen.recipe.data
    return {
        "from": what,
        "form": seen.why or seen.form,
        "trained on": data.train_on,
        "longest row": f"{data.max_seq_length:,} tokens (data.overflow: {data.overflow})",
    }
