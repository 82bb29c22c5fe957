"""``mlxtune data stats``: lengths, targets, repeats and padding, as training will meet them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.cli.recipe_or_file import recipe_of

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from mlxtune.data.stats import Bin, Reading, Repeat, SplitStats
    from mlxtune.device.choose import Device
    from mlxtune.recipe.schema import Recipe

SHOWN = 5
"""Rows that a person is told of for each thing that is wrong; a program is told of as many as an error names."""
BAR = 20

Overlaps = Mapping[tuple[str, str], "Sequence[Repeat]"]
"""Rows of one split that an earlier split has too, by the names of both."""


@click.command("stats")
@click.argument("recipe_or_file", metavar="RECIPE_OR_FILE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@output_options
def command(recipe_or_file: str, overrides: tuple[str, ...], output: Output) -> None:
    """Count rows, tokens, targets, repeats and padding in a recipe's data, or in FILE as the default model reads it.

    KEY=VALUE changes a key of the recipe; for a FILE, of a recipe that has nothing but defaults.
    """
    from mlxtune.data.normalize import read_examples
    from mlxtune.data.stats import describe, find_repeats
    from mlxtune.device.choose import open_device
    from mlxtune.iteration.opening import SPLITS, find_recipe_model
    from mlxtune.models.tokenizer import open_tokenizer

    recipe = recipe_of(recipe_or_file, overrides)
    data, chosen = recipe.data, open_device(output.device)
    paths = {split: getattr(data, split) for split in SPLITS if getattr(data, split) is not None}
    examples = {split: read_examples(path, data.format) for split, path in paths.items()}  # before any download
    folder = find_recipe_model(recipe, progress=output.progress).path
    tokenizer = open_tokenizer(folder, data.chat_template)
    splits = {
        split: describe(
            examples[split],
            tokenizer,
            path=path,
            train_on=data.train_on,
            max_seq_length=data.max_seq_length,
            overflow=data.overflow,
            tokenizer_folder=folder,
            progress=output.progress,
        )
        for split, path in paths.items()
    }
    overlaps = {
        (split, earlier): found
        for number, split in enumerate(paths)
        for earlier in list(paths)[:number]
        if (found := find_repeats(examples[split], examples[earlier]))
    }
    epoch = read_first_epoch(recipe, folder, splits["train"], chosen)
    told = {"recipe_or_file": recipe_or_file, **document(recipe, splits, overlaps, epoch)}
    output.show(told, draw(recipe_or_file, recipe, splits, overlaps, epoch))


def read_first_epoch(recipe: "Recipe", folder: Path, train: "SplitStats", device: "Device") -> "Reading":
    """What the first epoch takes, in the batches that training would make on this device.

    Whether the network shares prefixes is told by its caches alone: its weights are not read, and nothing is tried.
    """
    from mlxtune.data.stats import read_epoch
    from mlxtune.inference.shared_prefix import layer_windows
    from mlxtune.iteration.opening import make_order
    from mlxtune.iteration.steps import shape_multiple
    from mlxtune.models.load import load_network

    share_prefix = layer_windows(load_network(folder)[0]) is not None
    rows = train.dataset.rows
    order = make_order(recipe, rows, share_prefix=share_prefix)
    return read_epoch(rows, order, share_prefix=share_prefix, multiple=shape_multiple(device))


def document(
    recipe: "Recipe", splits: "Mapping[str, SplitStats]", overlaps: Overlaps, epoch: "Reading"
) -> dict[str, Any]:
    """As JSON; the training rows' counts stand at the top too."""
    report = splits["train"].dataset.report
    counts = ("rows", "format", "tokens", "target_tokens")
    bins = histograms(splits)
    return {
        "model": recipe.model.source,
        **{name: getattr(report, name) for name in counts},
        "splits": {split: split_document(stats, bins[split]) for split, stats in splits.items()},
        "overlaps": [
            {"split": split, "with": earlier, "rows": len(found), "findings": findings(map(said, found))}
            for (split, earlier), found in overlaps.items()
        ],
        "epoch": {
            "tokens": report.tokens,
            "target_tokens": report.target_tokens,
            **asdict(epoch),
            "padding_share": epoch.padding_share,
            "prefix_saved_share": epoch.prefix_saved_share,
        },
    }


def histograms(splits: "Mapping[str, SplitStats]") -> "dict[str, tuple[Bin, ...]]":
    """Of each split, in bins that are the same for all."""
    from mlxtune.data.stats import bins_between, histogram

    lengths = [stats.lengths for stats in splits.values()]
    bins = bins_between(min(some.min for some in lengths), max(some.max for some in lengths))
    return {split: histogram(stats.dataset.rows, bins) for split, stats in splits.items()}


def split_document(stats: "SplitStats", bins: "Sequence[Bin]") -> dict[str, Any]:
    """One split as JSON: counts, and the first of the rows that are to be named."""
    report = stats.dataset.report
    return {
        "file": stats.path,
        "format": report.format,
        "rows_read": report.rows_read,
        "rows": report.rows,
        "tokens": report.tokens,
        "target_tokens": report.target_tokens,
        "target_share": report.target_tokens / report.tokens,
        "lengths": asdict(stats.lengths),
        "histogram": [asdict(part) for part in bins],
        "too_long": {
            "rows": len(stats.too_long),
            "findings": findings((where, f"{tokens} tokens") for where, tokens in stats.too_long),
        },
        "dropped": {
            "rows": len(report.dropped),
            "findings": findings((dropped.where, dropped.why) for dropped in report.dropped),
        },
        "truncated": {
            "rows": len(report.truncated),
            "findings": findings((where, "cut or split") for where in report.truncated),
        },
        "repeats": {"rows": len(stats.repeats), "findings": findings(map(said, stats.repeats))},
    }


def findings(found: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows, given as ``file:line``, and what is to say of each: the first of them, as every data finding has it."""
    from itertools import islice

    from mlxtune.data.faults import LISTED, Fault

    faults = [Fault(where, why) for where, why in islice(found, LISTED)]
    return [{"file": fault.where.rpartition(":")[0], "line": fault.line, "message": fault.message} for fault in faults]


def said(row: "Repeat") -> tuple[str, str]:
    """Of a row that repeats another: where it is, and what to say of it."""
    return row.where, f"says what {row.repeats} says"


def draw(
    title: str, recipe: "Recipe", splits: "Mapping[str, SplitStats]", overlaps: Overlaps, epoch: "Reading"
) -> "Group":
    """What a person reads: counts, a histogram, an epoch, and what to look at."""
    from rich.console import Group

    report = splits["train"].dataset.report
    batches = "1 batch" if epoch.batches == 1 else f"{epoch.batches:,} batches"
    saved = f"{epoch.prefix_saved_share:.0%} of the tokens are beginnings that rows share and are read once"
    return Group(
        f"{title}, as {recipe.model.source} reads it",
        counts_table(splits),
        lengths_table(splits),
        f"an epoch  {report.tokens:,} tokens, {report.target_tokens:,} targets, {batches}",
        f"saved     {saved}; {epoch.padding_share:.1%} of what is read is padding",
        *notes(recipe, splits, overlaps),
    )


def counts_table(splits: "Mapping[str, SplitStats]") -> "Table":
    from rich.table import Table

    table = Table("", *splits, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    reports = [stats.dataset.report for stats in splits.values()]
    lengths = [stats.lengths for stats in splits.values()]
    table.add_row("rows", *(f"{report.rows:,}" for report in reports))
    table.add_row("format", *(report.format for report in reports))
    table.add_row("tokens", *(f"{report.tokens:,}" for report in reports))
    table.add_row("target tokens", *(f"{report.target_tokens:,}" for report in reports))
    table.add_row("target share", *(f"{report.target_tokens / report.tokens:.0%}" for report in reports))
    for name, what in (("p50", "half of the rows"), ("p90", "90 %"), ("p99", "99 %"), ("max", "all")):
        table.add_row(f"{what} within", *(f"{getattr(some, name):,} tokens" for some in lengths))
    return table


def lengths_table(splits: "Mapping[str, SplitStats]") -> "Table":
    """The histograms side by side, each with its own scale."""
    from rich.table import Table

    table = Table("tokens a row", *splits, box=None)
    bins = histograms(splits)
    most = {split: max(part.rows for part in own) for split, own in bins.items()}
    for parts in zip(*bins.values(), strict=True):
        bars = [
            f"{'#' * -(-BAR * part.rows // most[split])} {part.rows:,}" if part.rows else ""
            for split, part in zip(bins, parts, strict=True)
        ]
        table.add_row(f"{parts[0].start:,} to {parts[0].end - 1:,}", *bars)
    return table


def notes(recipe: "Recipe", splits: "Mapping[str, SplitStats]", overlaps: Overlaps) -> list[str]:
    """What is to be looked at: a line each, and below it the first of the rows that it is about."""
    lines: list[str] = []

    def note(split: str, rows: Sequence[str], what: str) -> None:
        if rows:
            lines.append(f"{split}: {'1 row is' if len(rows) == 1 else f'{len(rows):,} rows are'} {what}")
            lines.extend(f"  {row}" for row in rows[:SHOWN])
            if len(rows) > SHOWN:
                lines.append(f"  and {len(rows) - SHOWN:,} more")

    limit = f"data.max_seq_length, {recipe.data.max_seq_length} tokens"
    chosen = f"data.overflow: {recipe.data.overflow}"
    for split, stats in splits.items():
        report = stats.dataset.report
        too_long = [f"{where}: {tokens:,} tokens" for where, tokens in stats.too_long]
        note(split, too_long, f"longer than {limit}: training refuses them ({chosen}); counted in full here")
        note(split, [f"{row.where}: {row.why}" for row in report.dropped], f"dropped, and not counted here ({chosen})")
        note(split, report.truncated, f"longer than {limit}, and cut ({chosen})")
        note(split, [" ".join(said(row)) for row in stats.repeats], "the same as an earlier one")
    for (split, earlier), found in overlaps.items():
        what = f"in {earlier} too, so not all of {split} is unseen"
        note(split, [" ".join(said(row)) for row in found], what)
    return lines
