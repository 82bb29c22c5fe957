"""All rows of a file at once, for tests of what reads it row by row."""

from pathlib import Path

from mlxtune.data.faults import Fault, refuse
from mlxtune.data.read import Record, read_stream


def read_records(path: Path) -> list[Record]:
    """The rows of a file, in order. Raises: DataError, as `read_stream` does, and for all faults at once."""
    rows = list(read_stream(path))
    faults = [row for row in rows if isinstance(row, Fault)]
    refuse(faults, path=path, remedy=next((fault.remedy for fault in faults), ""))
    return [row for row in rows if isinstance(row, Record)]
