"""``mlxtune data stats``: what rows say and how long they are, counted as training will meet them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.cli.recipe_or_file import recipe_of

if TYPE_CHECKING:
    from mlxtune.data.likeness.alike import Alike
    from mlxtune.data.likeness.repeats import Repeat
    from mlxtune.data.pairs import Pairs
    from mlxtune.data.source import Source
    from mlxtune.data.stats import Bin, Reading, SplitStats
    from mlxtune.data.store.census import Stream
    from mlxtune.data.survey.classes import Classes
    from mlxtune.data.survey.scripts import Written
    from mlxtune.device.choose import Device
    from mlxtune.recipe.schema import Recipe

Overlaps = Mapping[tuple[str, str], "Sequence[Repeat]"]
"""Rows of one split that an earlier split has too, by the names of both."""
AlikeRows = Mapping[tuple[str, str], "Sequence[Alike]"]
"""Rows of one split that are like an earlier row, by the name of their split and that of the earlier one."""

FILES_LOOKED_AT = 20
"""Of a split, to say how its files are read."""


@click.command("stats")
@click.argument("recipe_or_file", metavar="RECIPE_OR_FILE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@output_options
def command(recipe_or_file: str, overrides: tuple[str, ...], output: Output) -> None:
    """Count rows, tokens, targets, repeats, classes and odd characters in a recipe's data, or in FILE as the default
    model reads it; and what an epoch takes.

    KEY=VALUE changes a key of the recipe; for a FILE, of a recipe that has nothing but defaults.
    """
    from mlxtune.cli.data_stats_view import draw
    from mlxtune.data.likeness.alike import find_alike
    from mlxtune.data.likeness.duplicates import RowIndex
    from mlxtune.data.likeness.repeats import find_repeats
    from mlxtune.data.stats import describe
    from mlxtune.device.choose import open_device
    from mlxtune.iteration.opening import find_recipe_model
    from mlxtune.models.tokenizer import open_tokenizer

    recipe = recipe_of(recipe_or_file, overrides)
    data, chosen = recipe.data, open_device(output.device)
    streams = open_streams(recipe, output)  # before a model is fetched
    folder = find_recipe_model(recipe, progress=output.progress).path
    tokenizer = open_tokenizer(folder, data.chat_template)
    names = list(streams)
    with RowIndex() as index:
        splits = {
            split: describe(
                stream,
                tokenizer,
                path=source.path,
                train_on=data.train_on,
                max_seq_length=data.max_seq_length,
                overflow=data.overflow,
                tokenizer_folder=folder,
                index=index,
                split=number,
                pairs=looked_at(recipe),
                progress=output.progress,
            )
            for number, (split, (source, stream)) in enumerate(streams.items())
        }
        index.finish()
        alike = {
            (names[split], names[earlier]): found
            for (split, earlier), found in find_alike(index, output.progress).items()
        }
    overlaps = {
        (split, earlier): found
        for number, split in enumerate(splits)
        for earlier in list(splits)[:number]
        if (found := find_repeats(splits[split].survey.fingerprints, splits[earlier].survey.fingerprints))
    }
    epoch = read_first_epoch(recipe, folder, splits["train"], chosen)
    kinds = {split: kinds_of_files(source) for split, (source, _) in streams.items()}
    told = {"recipe_or_file": recipe_or_file, **document(recipe, splits, overlaps, alike, epoch, kinds)}
    output.show(told, draw(recipe_or_file, recipe, splits, overlaps, alike, epoch, kinds))


def kinds_of_files(source: "Source") -> list[str]:
    """How the first files of a split are read: format, packing, encoding, delimiter; each kind once."""
    from mlxtune.data.read import describe_file

    return list(dict.fromkeys(str(describe_file(path)) for path in source.paths[:FILES_LOOKED_AT]))


def open_streams(recipe: "Recipe", output: Output) -> "dict[str, tuple[Source, Stream]]":
    """Of each split that the recipe has, where its rows come from, and the rows, whose beginning is good."""
    from mlxtune.data.dataset import check_beginning
    from mlxtune.data.source import stream_of
    from mlxtune.iteration.opening import source_of, splits_of

    sources = {split: source_of(recipe.data, split, progress=output.progress) for split in splits_of(recipe.data)}
    streams = {split: (source, stream_of(source)) for split, source in sources.items()}
    for source, stream in streams.values():
        check_beginning(stream, source.path, pairs=looked_at(recipe))
    return streams


def read_first_epoch(recipe: "Recipe", folder: Path, train: "SplitStats", device: "Device") -> "Reading":
    """What the first epoch takes, in the batches that training would make on this device.

    Whether the network shares prefixes is told by its caches alone: its weights are not read, and nothing is tried.
    """
    from mlxtune.data.stats import read_epoch
    from mlxtune.inference.shared_prefix import layer_windows
    from mlxtune.iteration.batches import shape_multiple
    from mlxtune.iteration.opening import make_order
    from mlxtune.models.load import load_network
    from mlxtune.training.state import PART_POSITIONS

    share_prefix = layer_windows(load_network(folder)[0]) is not None
    rows = train.dataset.rows
    order = make_order(recipe, rows, share_prefix=share_prefix)
    return read_epoch(
        rows,
        order,
        part_positions=PART_POSITIONS,
        share_prefix=share_prefix,
        multiple=shape_multiple(device),
        pairs=train.dataset.pairs,
    )


def looked_at(recipe: "Recipe") -> "Pairs":
    """What preferences are counted as: for an objective that learns from them both answers, else the better one."""
    from mlxtune.iteration.opening import pairs_of

    return "both" if pairs_of(recipe) == "both" else "better"


def document(
    recipe: "Recipe",
    splits: "Mapping[str, SplitStats]",
    overlaps: Overlaps,
    alike: AlikeRows,
    epoch: "Reading",
    kinds: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """As JSON; the training rows' counts stand at the top too."""
    report = splits["train"].dataset.report
    counts = ("rows", "format", "tokens", "target_tokens")
    bins = histograms(splits)
    return {
        "model": recipe.model.source,
        **{name: getattr(report, name) for name in counts},
        "splits": {
            split: split_document(stats, bins[split], alike.get((split, split), ())) | {"kinds_of_files": kinds[split]}
            for split, stats in splits.items()
        },
        "overlaps": [
            {"split": split, "with": earlier, "rows": len(found), "findings": findings(map(said, found))}
            for (split, earlier), found in overlaps.items()
        ],
        "near_overlaps": [
            {"split": split, "with": earlier, "rows": len(found), "findings": findings(map(said_alike, found))}
            for (split, earlier), found in alike.items()
            if split != earlier
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


def split_document(stats: "SplitStats", bins: "Sequence[Bin]", alike: "Sequence[Alike]") -> dict[str, Any]:
    """One split as JSON: counts, and the first of the rows that are to be named."""
    report = stats.dataset.report
    return {
        "file": stats.dataset.stream.files[0].name,
        "files": [asdict(file) for file in report.files],
        "format": report.format,
        "rows_read": report.rows_read,
        "rows": report.rows,
        "replay_rows": report.replay_rows,
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
        "near_repeats": {"rows": len(alike), "findings": findings(map(said_alike, alike))},
        "classes": None if stats.survey.classes is None else classes_document(stats.survey.classes),
        "letter_shares": dict(stats.survey.writing.letter_shares),
        "scripts": [written_document(written) for written in stats.survey.writing.scripts],
        "languages": [written_document(written) for written in stats.survey.writing.languages],
        "oddities": [
            {
                "kind": oddity.kind,
                "meaning": oddity.meaning,
                "rows": oddity.rows,
                "count": oddity.count,
                "findings": findings((place.where, place.what) for place in oddity.places),
            }
            for oddity in stats.survey.oddities
        ],
    }


def written_document(written: "Written") -> dict[str, Any]:
    """A script or a language as JSON, with the first rows in it."""
    places = findings((where, f"written in {written.name}") for where in written.places)
    return {"name": written.name, "rows": written.rows, "findings": places}


def classes_document(classes: "Classes") -> dict[str, Any]:
    """Classes as JSON, the most frequent first."""
    return {
        "count": len(classes.counts),
        "rows": classes.rows,
        "most_share": classes.most_share,
        "counts": [{"class": name, "rows": rows} for name, rows in classes.counts],
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


def said_alike(row: "Alike") -> tuple[str, str]:
    """Of a row that is like another: where it is, and what to say of it."""
    how = "asks what" if row.similarity == 1 else f"is {row.similarity:.0%} like what"
    return row.where, f"{how} {row.like} {'asks' if row.similarity == 1 else 'says'}"
