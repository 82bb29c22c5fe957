"""Parquet, Arrow and Feather files through pyarrow (the extra ``parquet``): a row a record, in small batches.

Columns of bytes, such as pictures, are left out, since no form reads them; times and decimals become their text. Values
keep their types otherwise, as JSON has them. A file whose columns claim to expand beyond all measure is refused before
it is read; beyond that, memory is bounded by what `BATCH` rows take.
"""

import contextlib
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from mlxtune.data.faults import Fault
from mlxtune.data.reading.content import ALWAYS_TAKEN, RATIO, open_binary
from mlxtune.data.reading.kinds import compression_of, kind_of
from mlxtune.data.reading.record import Record, what_is_no_character
from mlxtune.errors import DataError, DeviceError

BATCH = 128
"""Rows that are in memory at once."""
DAMAGED = "copy or download it again"
BROKEN = (OSError, EOFError, MemoryError, UnicodeDecodeError, OverflowError)
"""What pyarrow raises of damaged files besides its own: a length that was hit by chance asks for terabytes."""
REMEDY = "mend these rows or take them out"


def read_table(path: Path) -> Iterator[Record | Fault]:
    """The rows of a Parquet or Arrow file, and a fault in place of each that is none.

    Raises: DataError, if the file cannot be read, is damaged or cut short, or has two columns of one name;
        DeviceError, without pyarrow.
    """
    pyarrow = _pyarrow()
    with _opened(path) as file:
        row = 0
        try:
            for batch in _batches(pyarrow, file, path):
                for fields in _rows(batch):
                    row += 1
                    yield _checked(fields, path, row)
        except (pyarrow.ArrowException, *BROKEN) as error:
            raise _damaged(error, path) from error


def left_out(path: Path) -> tuple[str, ...]:
    """The columns of a file that are not read, because they hold bytes. Raises: as `read_table`."""
    pyarrow = _pyarrow()
    with _opened(path) as file:
        try:
            schema = _schema(file, path)
        except (pyarrow.ArrowException, *BROKEN) as error:
            raise _damaged(error, path) from error
        return tuple(field.name for field in schema if _holds_bytes(pyarrow, field.type))


def _pyarrow() -> ModuleType:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise DeviceError(
            "Parquet and Arrow files are read through pyarrow, which is not installed",
            remedy="pip install 'mlxtune[parquet]'",
        ) from error
    return pa


def _damaged(error: Exception, path: Path) -> DataError:
    first = str(error).split("\n", 1)[0].rstrip(".")[:200] or type(error).__name__
    return DataError(
        f"the file is damaged, cut short or of another kind than its name says: {first}", where=path, remedy=DAMAGED
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, to be read at any place: one that is compressed as a whole is expanded into a temporary file."""
    with open_binary(path) as binary:
        if not compression_of(path):
            yield binary
            return
        with tempfile.TemporaryFile() as expanded:
            shutil.copyfileobj(binary, expanded)
            expanded.seek(0)
            yield expanded


def _batches(pyarrow: ModuleType, file: BinaryIO, path: Path) -> Iterator[Any]:
    """Record batches of `BATCH` rows at most, without columns of bytes."""
    schema = _schema(file, path)
    names = [field.name for field in schema if not _holds_bytes(pyarrow, field.type)]
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise DataError(f"two columns are named {twice[0]!r}", where=path, remedy="give each its own name")
    if not names:
        raise DataError("the file has no columns of text or numbers", where=path, remedy="name another file")
    if kind_of(path) == "parquet":
        parquet = _parquet(file, path)
        yield from parquet.iter_batches(batch_size=BATCH, columns=names)
        return
    for whole in _arrow_batches(file):
        whole.validate(full=True)  # Arrow trusts its files: offsets may lead anywhere, in strings too
        batch = whole.select(names)
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _schema(file: BinaryIO, path: Path) -> Any:
    if kind_of(path) == "parquet":
        return _parquet(file, path).schema_arrow
    return _arrow(file).schema


def _parquet(file: BinaryIO, path: Path) -> Any:
    """The file, opened. Raises: DataError, if it claims to expand beyond all measure."""
    from pyarrow import parquet

    file.seek(0)
    # pre_buffer would hold the compressed columns of whole row groups; buffer_size reads pages as they are needed.
    opened = parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    facts = opened.metadata
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    for group in groups:
        for number in range(group.num_columns):
            column = group.column(number)
            stored, expanded = column.total_compressed_size, column.total_uncompressed_size
            if expanded > max(ALWAYS_TAKEN, RATIO * stored):
                raise DataError(
                    f"the column {column.path_in_schema!r} expands to more than {RATIO} times its size: nothing like "
                    "that is text",
                    where=path,
                    remedy="write the file again from its source",
                )
    return opened


def _arrow(file: BinaryIO) -> Any:
    """A reader of either of Arrow's two forms, the file (Feather too) and the stream."""
    from pyarrow import ipc

    file.seek(0)
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    return ipc.open_file(file) if is_file else ipc.open_stream(file)


def _arrow_batches(file: BinaryIO) -> Iterator[Any]:
    reader = _arrow(file)
    if hasattr(reader, "num_record_batches"):
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
    else:
        yield from reader


def _holds_bytes(pyarrow: ModuleType, kind: Any) -> bool:
    types = pyarrow.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    if types.is_binary_view(kind):
        return True
    if types.is_dictionary(kind):
        return _holds_bytes(pyarrow, kind.value_type)
    if types.is_nested(kind):
        return any(_holds_bytes(pyarrow, kind.field(number).type) for number in range(kind.num_fields))
    return False


def _rows(batch: Any) -> Iterator[Mapping[str, Any] | ValueError]:
    """The rows of a batch, and in place of one that cannot be told in Python's values the reason."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):  # one row's fault: UTF-8 that is none, or a time that Python does not have
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield ValueError(_reason(error))


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"a string is not UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start + 1}"
    return "a value cannot be read: a date out of range, or a number that is none"


def _checked(fields: Mapping[str, Any] | ValueError, path: Path, row: int) -> Record | Fault:
    where = f"{path}:{row}"
    if isinstance(fields, ValueError):
        return Fault(where, str(fields), "table", REMEDY)
    try:
        plain = {name: _plain(value) for name, value in fields.items()}
    except ValueError as error:
        return Fault(where, str(error), "table", REMEDY)
    if wrong := what_is_no_character(plain):
        return Fault(where, wrong, "table", REMEDY)
    return Record(plain, path, row)


def _plain(value: Any) -> Any:
    """A value as JSON has it. Raises: ValueError, with a sentence for the user, for NaN and infinity."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no JSON value".replace("nan", "NaN"))
        return value
    if isinstance(value, list):
        # A map comes as a list of pairs.
        return {str(key): _plain(inside) for key, inside in value} if _is_map(value) else [*map(_plain, value)]
    if isinstance(value, dict):
        return {name: _plain(inside) for name, inside in value.items()}
    if isinstance(value, Decimal):
        return format(value, "f")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _is_map(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value)  # noqa: PLR2004 - a pair
