"""A text or Markdown file, which is one row: ``{"text": ...}``.

Markdown stays as it is written. Carriage returns at line ends are taken out, since no model should learn them.
"""

from collections.abc import Iterator
from pathlib import Path

from mlxtune.data.faults import Fault
from mlxtune.data.reading.content import LONGEST, open_content, too_long
from mlxtune.data.reading.encodings import not_utf8
from mlxtune.data.reading.record import Record

REMEDY = "mend the file or take it out"


def read_text_file(path: Path) -> Iterator[Record | Fault]:
    """The one row of a text, or a fault in its place.

    Raises: DataError, if the file cannot be read, or is not UTF-8.
    """
    with open_content(path) as content:
        raw = content.file.read(LONGEST + 1)
    where = f"{path}:1"
    if len(raw) > LONGEST:
        yield Fault(where, f"the text is {too_long()}", "text", "cut it into several files, or write JSON Lines")
        return
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        place = f"at byte {error.start + 1} of the file"
        raise not_utf8(raw, error.start, place, where=f"{path}:{line}", path=path) from error
    if "\0" in text:
        yield Fault(where, "the text holds a NUL character", "text", REMEDY)
    elif not text.strip():
        yield Fault(where, "the file is empty", "text", REMEDY)
    else:
        yield Record({"text": text}, path, 1)
