"""What a file is by its name: the kind of its rows, and how it is compressed."""

from pathlib import PurePath
from typing import Literal, get_args

from mlxtune.errors import DataError

Kind = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Compression = Literal["", "gzip", "zstd"]

ENDINGS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
}
COMPRESSED: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
REMEDY = (
    "rows come as .jsonl, .json, .csv, .tsv, .parquet, .arrow, .feather, .txt or .md, also with .gz or .zst after it"
)


def compression_of(path: PurePath) -> Compression:
    """How a file is compressed."""
    return COMPRESSED.get(path.suffix.lower(), "")


def find_kind(path: PurePath) -> Kind | None:
    """The kind of a file's rows; None for a name that says none."""
    name = path.with_suffix("") if compression_of(path) else path
    return ENDINGS.get(name.suffix.lower())


def kind_of(path: PurePath) -> Kind:
    """`find_kind`, where a name without an ending is JSON Lines. Raises: DataError, for an ending that says no kind."""
    kind = find_kind(path)
    if kind is None and path.suffix:
        ending = path.suffix.lower()
        raise DataError(f"files that end with {ending} are no rows that can be read", where=path, remedy=REMEDY)
    return kind or "jsonl"
