"""What ``mlxtune data stats`` tells a person: tables, a histogram, and what is to be looked at."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mlxtune.cli.data_stats import AlikeRows, Overlaps, histograms, said, said_alike
from mlxtune.cli.forms_told import form_lines
from mlxtune.printable import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from mlxtune.data.stats import Reading, SplitStats
    from mlxtune.data.survey.classes import Classes
    from mlxtune.recipe.schema import Recipe

SHOWN = 5
"""Rows that a person is told of for each thing that is wrong; a program is told of as many as an error names."""
BAR = 20
"""Signs of the longest bar."""
CLASSES = 5
"""Of the most frequent, and of the rarest classes, so many are named."""
NAME = 40
"""Characters of a class's name."""


def draw(
    title: str,
    recipe: "Recipe",
    splits: "Mapping[str, SplitStats]",
    overlaps: Overlaps,
    alike: AlikeRows,
    epoch: "Reading",
    kinds: Mapping[str, Sequence[str]],
) -> "Group":
    """What a person reads: counts, a histogram, an epoch, and what to look at."""
    from rich.console import Group

    report = splits["train"].dataset.report
    batches = "1 batch" if epoch.batches == 1 else f"{epoch.batches:,} batches"
    saved = f"{epoch.prefix_saved_share:.0%} of the tokens are beginnings that rows share and are read once"
    return Group(
        f"{title}, as {recipe.model.source} reads it",
        counts_table(splits, kinds),
        *form_lines(
            (split, file.name, file.why) for split, stats in splits.items() for file in stats.dataset.report.files
        ),
        lengths_table(splits),
        f"an epoch  {report.tokens:,} tokens, {report.target_tokens:,} targets, {batches}",
        f"saved     {saved}; {epoch.padding_share:.1%} of what is read is padding",
        *(line for split, stats in splits.items() for line in class_lines(split, stats.survey.classes)),
        *notes(recipe, splits, overlaps, alike),
        *(line for split, stats in splits.items() for line in oddity_lines(split, stats)),
    )


def counts_table(splits: "Mapping[str, SplitStats]", kinds: Mapping[str, Sequence[str]]) -> "Table":
    from rich.table import Table

    table = Table("", *splits, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    reports = [stats.dataset.report for stats in splits.values()]
    lengths = [stats.lengths for stats in splits.values()]
    table.add_row("files", *(printable("; ".join(kinds[split])) for split in splits))
    table.add_row("rows", *(f"{report.rows:,}" for report in reports))
    if any(report.replay_rows for report in reports):
        table.add_row("of them of replay", *(f"{report.replay_rows:,}" for report in reports))
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


def notes(recipe: "Recipe", splits: "Mapping[str, SplitStats]", overlaps: Overlaps, alike: AlikeRows) -> list[str]:
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
    for (split, earlier), found in alike.items():
        what = "like an earlier one" if split == earlier else f"like one in {earlier}, so not all of {split} is unseen"
        note(split, [" ".join(said_alike(row)) for row in found], what)
    return lines


def class_lines(split: str, classes: "Classes | None") -> list[str]:
    """How many rows the classes have: all of a few, or of many the most frequent and the rarest."""
    if classes is None:
        return []

    def told(counts: Sequence[tuple[str, int]]) -> str:
        return ", ".join(f"{printable(name[:NAME])}{'…' if len(name) > NAME else ''} {rows:,}" for name, rows in counts)

    counts = classes.counts
    line = f"{split}: {len(counts):,} classes; the most frequent has {classes.most_share:.1%} of the rows"
    if len(counts) <= 2 * CLASSES:
        return [line, f"  {told(counts)}"]
    return [line, f"  most    {told(counts[:CLASSES])}", f"  fewest  {told(counts[-CLASSES:])}"]


def oddity_lines(split: str, stats: "SplitStats") -> list[str]:
    """Rows in another script or language than most, and characters that a person may not see: a line each, and the
    first places.
    """
    lines: list[str] = []
    writing = stats.survey.writing
    for written in (writing.scripts, writing.languages):
        for other in written[1:]:
            rows = "1 row seems" if other.rows == 1 else f"{other.rows:,} rows seem"
            lines.append(f"{split}: {rows} to be in {other.name}, most are in {written[0].name}")
            lines.extend(f"  {where}" for where in other.places[:SHOWN])
    for oddity in stats.survey.oddities:
        rows = "1 row has" if oddity.rows == 1 else f"{oddity.rows:,} rows have"
        lines.append(f"{split}: {rows} {oddity.meaning} ({oddity.count:,})")
        lines.extend(f"  {place.where}: {place.what}" for place in oddity.places[:SHOWN])
    return lines
