"""``mlxtune data scan``: private data in rows, by kind and place, never in full; a copy without it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxtune.cli.offline import obey_offline
from mlxtune.cli.output import Output, output_options
from mlxtune.cli.recipe_or_file import place_of_rows
from mlxtune.synced import warning_of_synced

if TYPE_CHECKING:
    from mlxtune.data.scan import ScanReport

FOUND = 3
"""The exit code where something was found."""
SHOWN = 20


def scan_options(function: Any) -> Any:
    """``--regions`` and ``--terms``, for every command that scans."""
    regions = click.option(
        "--regions", help="Whose national telephone and identity numbers to look for: US,GB if not given; DE, FR, ..."
    )
    terms = click.option(
        "--terms", type=click.Path(path_type=Path), help="A file with names and terms that are private, one a line."
    )
    return regions(terms(function))


def scan_settings(regions: str | None, terms: Path | None) -> dict[str, Any]:
    """These options as arguments of `scan_file`."""
    from mlxtune.data.detectors import REGIONS
    from mlxtune.data.detectors.term import read_terms

    given = REGIONS if regions is None else regions.split(",")
    named = [region.strip().upper() for region in given if region.strip()]
    return {"regions": tuple(named), "terms": () if terms is None else read_terms(terms)}


@click.command("scan")
@click.argument("recipe_or_file", metavar="RECIPE_OR_FILE")
@scan_options
@click.option("--redact", type=click.Path(path_type=Path), metavar="OUT", help="Write a copy with placeholders to OUT.")
@click.option("--force", is_flag=True, help="Replace OUT.")
@output_options
@click.pass_context
def command(
    context: click.Context,
    recipe_or_file: str,
    regions: str | None,
    terms: Path | None,
    redact: Path | None,
    force: bool,
    output: Output,
) -> None:
    """Look for private data in a recipe's rows, or in FILE: e-mail and IP addresses, telephone, card, bank and identity
    numbers, passwords and keys, and your own terms. Ends with exit code 3 where there is any.

    What is found is shown by its place and a mask. Of a recipe, OUT is a folder with a file for each split.
    """
    from mlxtune.data.scan import scan_file, scan_files

    settings = scan_settings(regions, terms) | {"redact": redact, "force": force, "progress": output.progress}
    place = place_of_rows(recipe_or_file)
    if place is not None and not is_several(place):
        report = scan_file(Path(recipe_or_file).expanduser(), **settings)
    else:
        report = scan_files(data_files(recipe_or_file) if place is None else files_at(place), **settings)
    output.show(document(report), describe(report))
    if redact is not None and (warning := warning_of_synced(redact)):
        output.note(warning)
    if report.total:
        context.exit(FOUND)


def is_several(place: str) -> bool:
    """Whether a place of rows is more than a file: a folder, or on the hub."""
    from mlxtune.data.reading.locations import is_remote

    return is_remote(place) or Path(place).is_dir()


def files_at(place: str) -> dict[str, Path]:
    """The files of every split that a folder or a data set of the hub has."""
    from mlxtune.data.source import find_source
    from mlxtune.errors import DataError

    found: dict[Path, str] = {}
    refusals = []
    for split in ("train", "valid", "test"):
        try:
            paths = find_source([(place, 1.0)], split).paths
        except DataError as error:  # it may have no such split
            refusals.append(error)
            continue
        for number, path in enumerate(paths, start=1):
            found.setdefault(path, f"{split}-{number}")
    if not found:
        raise refusals[0]
    return {name: path for path, name in found.items()}


def data_files(recipe: str) -> dict[str, Path]:
    """The files of a recipe's splits, by the split's name, and a number where it has several."""
    from mlxtune.iteration.opening import source_of, splits_of
    from mlxtune.recipe.load import load_recipe

    loaded = load_recipe(recipe)
    obey_offline(loaded.recipe)
    loaded.check_files()
    files = {}
    for split in splits_of(loaded.recipe.data):
        paths = source_of(loaded.recipe.data, split).paths
        files |= {split if len(paths) == 1 else f"{split}-{number}": path for number, path in enumerate(paths, 1)}
    return files


def document(report: "ScanReport") -> dict[str, Any]:
    """As JSON."""
    return {
        "files": report.files,
        "rows": report.rows,
        "regions": report.regions,
        "found": report.total,
        "counts": report.counts,
        "redacted": report.redacted,
        "findings": [asdict(finding) for finding in report.findings],
    }


def describe(report: "ScanReport") -> str:
    """What a person reads: counts, then the first places."""
    from mlxtune.printable import printable

    scanned = f"{report.rows:,} rows scanned, regions {', '.join(report.regions)}"
    if not report.total:
        return f"nothing found; {scanned}"
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    lines = [f"found {counts}; {scanned}"]
    for one in report.findings[:SHOWN]:
        where = f"{one.file}:{one.line}" + (f" {printable(one.field)}" if one.field else "")
        lines.append(f"  {where}: {one.what} {printable(one.mask)}")
    if report.total > SHOWN:
        lines.append(f"  and {report.total - SHOWN:,} more (--json names {len(report.findings):,})")
    if report.redacted is not None:
        lines.append(f"wrote {report.redacted}, with placeholders; look through it: a scan does not find everything")
    return "\n".join(lines)
