"""The runs of text on a page as lines in the order in which people read them.

Runs on one base line are one row; a wide gap parts it into segments. A strip without text down the page with prose on
both sides of it parts two columns, which are read one after the other; what crosses the strip (a title, a wide table)
is read where it stands. Other rows of several segments are rows of a table, and their segments its cells. Columns may
have columns. The price of a rule without a model: a page whose columns hold little prose is read as a table, row by
row, and a figure inside a column is read with it.

Points (1/72 inch), with y upwards, as in PDF.
"""

import bisect
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mlxtune.data.documents.page_text import Line

GAP = 1.2
"""How many times the height of the letters a gap is that parts segments."""
NARROWEST_COLUMN = 90.0
LEAST_LINES = 5
"""Of a column."""
SUPERSCRIPTS = str.maketrans("0123456789+-n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ")
RAISED = re.compile(r"[0-9+-]{1,4}n?\s*$|n\s*$")
"""Small digits that stand high: without them 8,935,112 with a footnote 3 would be another number."""
STEPS = 300
TRIED = 60
"""Places where two columns may part: how many there are, and how many of the best are tried."""
LEAST_LETTERS = 24
"""In the middle line of a column of prose; cells of tables are shorter."""


@dataclass(frozen=True, slots=True)
class Run:
    """Letters beside each other; ``height`` is that of the font."""

    text: str
    left: float
    right: float
    base: float
    height: float
    is_bold: bool = False
    is_turned: bool = False


@dataclass(slots=True)
class _Row:
    """Segments on one base line, from left to right."""

    base: float
    height: float
    runs: list[Run]


def lines_of_page(runs: Sequence[Run], width: float, height: float) -> list[Line]:
    """A page's lines in reading order.

    Args:
        runs: upright ones.
        width, height: of the page.
    """
    rows = _rows([run for run in runs if run.text.strip() and -0.1 * width < run.left < run.right < 1.5 * width])
    lines: list[Line] = []
    _read(rows, lines, height)
    return lines


def _rows(runs: Sequence[Run]) -> list[_Row]:
    rows: list[_Row] = []
    for run in sorted(runs, key=lambda run: (-run.base, run.left)):
        for row in reversed(rows[-6:]):
            # a smaller run may stand higher or lower: an index, an exponent, a footnote's mark
            if abs(row.base - run.base) < 0.4 * max(row.height, run.height):
                row.runs.append(run)
                if run.height > row.height:
                    row.base, row.height = run.base, run.height
                break
        else:
            rows.append(_Row(run.base, run.height, [run]))
    for row in rows:
        row.runs.sort(key=lambda run: run.left)
    rows.sort(key=lambda row: -row.base)
    return rows


def _segments(runs: Sequence[Run]) -> list[Run]:
    """Runs with narrow gaps between them as one."""
    joined: list[Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last is not None and run.left - last.right < GAP * max(last.height, run.height):
            if run.text == last.text and abs(run.left - last.left) < 0.3 * run.height:
                continue  # printed twice, to look bold
            space = " " if run.left - last.right > 0.15 * min(last.height, run.height) else ""
            space = " " if last.text.endswith(" ") else space
            joined[-1] = Run(
                last.text.rstrip() + space + _raised(run, last),
                last.left,
                max(last.right, run.right),
                last.base if last.height >= run.height else run.base,
                max(last.height, run.height),
                last.is_bold and run.is_bold,
            )
        else:
            joined.append(run)
    return joined


def _raised(run: Run, last: Run) -> str:
    """The text of ``run``, after ``last``: digits that are small and stand high as superscripts."""
    if run.height < 0.85 * last.height and run.base - last.base > 0.15 * last.height and RAISED.match(run.text):
        return run.text.translate(SUPERSCRIPTS)
    return run.text


def _read(rows: list[_Row], lines: list[Line], page_height: float) -> None:
    gutter = _gutter(rows)
    if gutter is None:
        _as_lines(rows, lines, page_height)
        return
    across: list[_Row] = []
    sides: tuple[list[_Row], list[_Row]] = ([], [])

    def flush() -> None:
        for side in sides:
            _read(list(side), lines, page_height)
            side.clear()

    for row in rows:
        left = [run for run in row.runs if run.right <= gutter]
        right = [run for run in row.runs if run.left >= gutter]
        if len(left) + len(right) < len(row.runs):
            flush()
            across.append(row)
            continue
        _as_lines(across, lines, page_height)
        across = []
        for side, runs in zip(sides, (left, right), strict=True):
            if runs:
                side.append(_Row(row.base, row.height, runs))
    _as_lines(across, lines, page_height)
    flush()


def _gutter(rows: Sequence[_Row]) -> float | None:
    """Where a strip without text parts two columns of prose; None, if none does."""
    runs = [run for row in rows for run in row.runs]
    if len(rows) < LEAST_LINES:
        return None
    left, right = min(run.left for run in runs), max(run.right for run in runs)
    if right - left < 2 * NARROWEST_COLUMN:
        return None
    step = max(2.0, (right - left) / STEPS)
    count = int((right - left - 2 * NARROWEST_COLUMN) / step) + 1
    places = [left + NARROWEST_COLUMN + number * step for number in range(count)]
    begin, end = sorted(run.left for run in runs), sorted(run.right for run in runs)
    crossing = {place: bisect.bisect_left(begin, place) - bisect.bisect_right(end, place) for place in places}
    middle = (left + right) / 2
    for place in sorted(places, key=lambda place: (crossing[place], abs(place - middle)))[:TRIED]:
        if crossing[place] > max(2, len(rows) * 0.35):
            return None
        if _is_prose(rows, place):
            return place
    return None


def _is_prose(rows: Sequence[_Row], gutter: float) -> bool:
    sides = [
        [_segments(left) for row in rows if (left := [run for run in row.runs if run.right <= gutter])],
        [_segments(right) for row in rows if (right := [run for run in row.runs if run.left >= gutter])],
    ]
    for segments in sides:
        side = [run for row in segments for run in row]
        if len(side) < LEAST_LINES:
            return False
        width = max(run.right for run in side) - min(run.left for run in side)
        if width < NARROWEST_COLUMN or statistics.median(len(run.text) for run in side) < LEAST_LETTERS:
            return False
        if statistics.median(run.right - run.left for run in side) < 0.6 * width:
            return False
    return True


def _as_lines(rows: Sequence[_Row], lines: list[Line], page_height: float) -> None:
    """Rows from top to bottom; of those with several segments, at least two in a row are a table's."""
    rows = [_Row(row.base, row.height, _segments(row.runs)) for row in rows]
    for row in rows:
        largest = max(row.runs, key=lambda run: len(run.text))
        row.height = largest.height
    many = [len(row.runs) > 1 for row in rows]
    margin = min((run.left for row in rows for run in row.runs), default=0.0)
    edge = max((run.right for row in rows for run in row.runs), default=0.0)
    for number, row in enumerate(rows):
        in_table = many[number] and (many[number - 1 : number] == [True] or many[number + 1 : number + 2] == [True])
        lines.append(
            Line(
                text=" ".join(run.text.strip() for run in row.runs),
                left=row.runs[0].left - margin,
                right=edge - row.runs[-1].right,
                base=row.base,
                height=row.height,
                place=row.base / page_height if page_height else 0.5,
                is_bold=all(run.is_bold for run in row.runs),
                cells=tuple((run.left, run.right, run.text.strip()) for run in row.runs) if in_table else (),
                width=edge - margin,
            )
        )
