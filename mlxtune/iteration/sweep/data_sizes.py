"""Parts of the training rows, to learn whether more rows would help: trials that have nothing but these apart.

The parts of one seed are nested: rows stand in the order of a hash of the seed and of what each says, and a part is
the beginning. Another seed has other parts, begins elsewhere and sees its rows in another order, so the spread between
seeds is what chance makes of all three. Each part is trained for as many updates as all rows would be, and judged at
its best validation: more rows are not to be taken for more training. The price: small parts cost as much as all rows,
and the rows of parts are copied into the sweep's folder.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlxtune.data.example import Example, content_hash
from mlxtune.data.faults import Fault
from mlxtune.data.read import read_stream
from mlxtune.data.source import DataFile, Source, open_file
from mlxtune.errors import UsageError
from mlxtune.iteration.sweep.space import Point
from mlxtune.recipe.schema import Recipe

FEWEST_SEEDS, MOST_SEEDS = 2, 10
LOOKS = 10
"""At the validation loss, at least: a small part is at its best early."""
SHARE, SEED = "share", "seed"
"""The keys of such a trial's point."""

_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


def read_shares(text: str) -> tuple[float, ...]:
    """The shares in ``10%,30%,100%``, smallest first.

    Raises: UsageError, for what is no list of two or more different percentages up to 100.
    """
    where, remedy = "--data-sizes", "as in 10%,30%,100%"
    found = [_PERCENT.fullmatch(part) for part in text.split(",")]
    if not all(found):
        raise UsageError(f"{text!r} is no list of percentages", where=where, remedy=remedy)
    shares = sorted(float(one[1]) / 100 for one in found if one is not None)
    if len(shares) < 2 or len(set(shares)) < len(shares) or not 0 < shares[0] <= shares[-1] <= 1:  # noqa: PLR2004
        what = "two or more different percentages above 0, up to 100, make a curve"
        raise UsageError(what, where=where, remedy=remedy)
    return tuple(shares)


def points_of(shares: Sequence[float], seeds: Sequence[int]) -> tuple[Point, ...]:
    """All trials, seed by seed, so that what is there when time runs out is a whole curve."""
    return tuple({SHARE: share, SEED: seed} for seed in seeds for share in shares)


def count_of(share: float, rows: int) -> int:
    """How many of the rows a share is."""
    return max(1, round(share * rows))


def refuse_equal(shares: Sequence[float], rows: int) -> None:
    """Raises: UsageError, if two shares of so few rows are the same rows."""
    counts = [count_of(share, rows) for share in shares]
    if len(set(counts)) < len(counts):
        told = ", ".join(map(str, counts))
        raise UsageError(
            f"of {rows} rows these shares are {told} rows", where="--data-sizes", remedy="name shares further apart"
        )


def write_parts(folder: Path, source: Source, shares: Sequence[float], seeds: Sequence[int]) -> int:
    """Write the rows of every part but the whole, a file of JSON Lines for each of the source's.

    Args:
        folder: to be made; what fails leaves some of it.
        source: without replay, which is the same for all parts.

    Returns: how many rows there are in all.
    Raises: UsageError, if two parts would be the same.
    """
    hashes = [
        [(content_hash(row), row.where) for row in open_file(file, source.shape) if isinstance(row, Example)]
        for file in source.files
    ]
    rows = sum(map(len, hashes))
    refuse_equal(shares, rows)
    folder.mkdir(mode=0o700)
    for seed in seeds:
        order = sorted((_key(seed, said), where) for file in hashes for said, where in file)
        for share in shares:
            if share < 1:
                chosen = {where for _, where in order[: count_of(share, rows)]}
                _write_part(part_folder(folder, share, seed), source.files, chosen)
    return rows


def _key(seed: int, said: str) -> str:
    return hashlib.sha256(f"{seed} {said}".encode()).hexdigest()


def part_folder(folder: Path, share: float, seed: int) -> Path:
    """Where the rows of a part are."""
    return folder / f"seed_{seed}" / f"{100 * share:g}"


def _write_part(folder: Path, files: Sequence[DataFile], chosen: set[str]) -> None:
    folder.mkdir(parents=True, mode=0o700)
    for number, file in enumerate(files):
        lines = list(_lines(file, chosen))
        if lines:
            path = folder / f"{number}.jsonl"
            path.touch(0o600)
            path.write_text("".join(lines), encoding="utf-8")


def _lines(file: DataFile, chosen: set[str]) -> Iterator[str]:
    for path in file.files:
        for record in read_stream(path):
            if not isinstance(record, Fault) and record.where in chosen:
                yield json.dumps(record.fields, ensure_ascii=False) + "\n"


def overrides_of_part(folder: Path, recipe: Recipe, point: Point, *, steps: int) -> list[str]:
    """What the recipe of one trial has in place of its own.

    Args:
        folder: of all parts.
        steps: the updates that all rows take.
    """
    share, seed = point[SHARE], point[SEED]
    found: dict[str, Any] = {
        "seed": seed,
        "training.epochs": None,
        "training.max_steps": steps,
        "evaluation.every_steps": min(recipe.evaluation.every_steps, max(1, steps // LOOKS)),
    }
    if share < 1:
        part = part_folder(folder, share, seed)
        found["data.train"] = [
            {"path": str(part / f"{number}.jsonl"), "weight": file.weight}
            for number, file in enumerate(recipe.data.train)
            if (part / f"{number}.jsonl").is_file()
        ]
    return [f"{key}={json.dumps(value)}" for key, value in found.items()]
