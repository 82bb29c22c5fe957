"""Slides, by python-pptx: titles as headings, text in the order of places on the slide, tables, charts, notes.

Why python-pptx (34 MB with Pillow and lxml): nothing else kept reads placeholders, groups and charts; markitdown uses
it too, and costs 20 MB more. A slide is a page. Pictures give nothing, nor do dates, feet and slide numbers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlxtune.data.documents.archive import check_archive
from mlxtune.data.documents.document import Block, Document, make_document, table_text
from mlxtune.data.documents.unreadable import UnreadableError

MOST_LEVELS = 20
"""Groups inside groups that are gone into."""


def read(path: Path) -> Document:
    """Raises: UnreadableError."""
    from pptx import Presentation

    check_archive(path, holds="ppt/presentation.xml")
    try:
        slides = list(Presentation(str(path)).slides)
        blocks = [block for number, slide in enumerate(slides, 1) for block in _slide(slide, number)]
    # python-pptx meets damage as whatever error its own code runs into
    except Exception as error:
        raise UnreadableError(f"damaged: {type(error).__name__} while it was read", "save it again") from error
    return make_document(blocks)


def _slide(slide: Any, page: int) -> Iterator[Block]:
    title = slide.shapes.title
    if title is not None and title.text_frame.text.strip():
        yield Block("heading", title.text_frame.text, 1, page)
    for shape in _in_order(slide.shapes, 0):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        yield from _shape(shape, page)
    if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None and frame.text.strip():
        yield Block("paragraph", f"Notes: {frame.text}", page=page)


def _in_order(shapes: Any, depth: int) -> Iterator[Any]:
    """Shapes from top to bottom, then from left to right, with those of groups in the place of the group."""
    from pptx.enum.shapes import MSO_SHAPE_TYPE

    for shape in sorted(shapes, key=lambda shape: (shape.top or 0, shape.left or 0)):
        if shape.shape_type == MSO_SHAPE_TYPE.GROUP:
            if depth < MOST_LEVELS:
                yield from _in_order(shape.shapes, depth + 1)
        elif not _is_beside(shape):
            yield shape


def _is_beside(shape: Any) -> bool:
    from pptx.enum.shapes import PP_PLACEHOLDER

    beside = (PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.SLIDE_NUMBER, PP_PLACEHOLDER.HEADER)
    return shape.is_placeholder and shape.placeholder_format.type in beside


def _shape(shape: Any, page: int) -> Iterator[Block]:
    if shape.has_table:
        rows = [[cell.text for cell in row.cells] for row in shape.table.rows]
        yield Block("table", table_text(rows), page=page)
    elif shape.has_chart:
        yield from _chart(shape.chart, page)
    elif shape.has_text_frame:
        lines = [(part.level, part.text.replace("\v", " ").strip()) for part in shape.text_frame.paragraphs]
        lines = [(level, text) for level, text in lines if text]
        if len(lines) > 1:
            yield Block("list", "\n".join(f"{'  ' * level}- {text}" for level, text in lines), page=page)
        elif lines:
            yield Block("paragraph", lines[0][1], page=page)


def _chart(chart: Any, page: int) -> Iterator[Block]:
    if chart.has_title and chart.chart_title.has_text_frame and (title := chart.chart_title.text_frame.text).strip():
        yield Block("paragraph", title, page=page)
    for plot in chart.plots:
        names = [series.name or "" for series in plot.series]
        columns = [list(series.values) for series in plot.series]
        rows = [
            [str(label), *("" if number >= len(one) or one[number] is None else f"{one[number]:g}" for one in columns)]
            for number, label in enumerate(plot.categories)
        ]
        yield Block("table", table_text([["", *names], *rows]), page=page)
