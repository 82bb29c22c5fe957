"""Workbooks, by openpyxl: each visible sheet a heading and its tables, the values that formulas had when last saved.

Why openpyxl (2 MB): it knows how numbers are meant (whole, dates, percent). python-calamine (3 MB) is more than ten
times faster, and gives 89.0 for 89 and 0.25 for 25 %. A table ends at an empty row. Rows are read as a stream, at most
`MOST_CELLS` cells of a sheet.
"""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlxtune.data.documents.archive import check_archive
from mlxtune.data.documents.document import Block, Document, make_document, table_text
from mlxtune.data.documents.unreadable import UnreadableError

MOST_CELLS = 2_000_000
MOST_COLUMNS = 500
EMPTY_ROWS = 1000
"""Empty rows in a row after which a sheet is over: some declare a million."""


def read(path: Path) -> Document:
    """Raises: UnreadableError."""
    import openpyxl

    check_archive(path, holds="xl/workbook.xml")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
            blocks = [block for number, sheet in enumerate(sheets, 1) for block in _sheet(sheet, number)]
        finally:
            book.close()
    except UnreadableError:
        raise
    # openpyxl meets damage as whatever error its own code runs into
    except Exception as error:
        raise UnreadableError(f"damaged: {type(error).__name__} while it was read", "save it again") from error
    return make_document(blocks if any(block.kind == "table" for block in blocks) else [])


def _sheet(sheet: Any, page: int) -> Iterator[Block]:
    yield Block("heading", sheet.title, 1, page)
    rows: list[list[str]] = []
    cells = empty = 0
    sheet.reset_dimensions()  # some declare cells that are not there
    for row in sheet.iter_rows(max_col=MOST_COLUMNS):
        values = [_text(cell) for cell in row]
        cells += len(values)
        if cells > MOST_CELLS:
            raise UnreadableError(
                f"the sheet has more than {MOST_CELLS:,} cells", "train on it as rows: save it as CSV"
            )
        if any(values):
            rows.append(values)
            empty = 0
            continue
        empty += 1
        if rows:
            yield Block("table", table_text(rows), page=page)
            rows = []
        if empty > EMPTY_ROWS:
            break
    if rows:
        yield Block("table", table_text(rows), page=page)


def _text(cell: Any) -> str:  # noqa: PLR0911 - a return for each type
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else value.isoformat(" ", "minutes")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, int | float):
        if "%" in (cell.number_format or ""):
            return f"{value * 100:.10g}%"
        return str(value) if isinstance(value, int) else f"{value:.12g}"
    return str(value)
