"""Hostile files: each is refused with a reason, and the next one is read."""

import os
import sys
import zipfile

import pytest
from documents import docx, epub, packed, word_paragraph

from mlxtune.data.documents.archive import check_archive
from mlxtune.data.documents.find import find_documents
from mlxtune.data.documents.reading import DocumentReader
from mlxtune.data.documents.unreadable import UnreadableError
from mlxtune.errors import DataError

CHILD = """
import json, os, sys, time
for line in sys.stdin:
    name = os.path.basename(json.loads(line))
    if "hang" in name: time.sleep(60)
    if "crash" in name: os._exit(3)
    print(json.dumps({"document": {"blocks": [], "notes": [name]}}), flush=True)
"""


def test_a_file_that_hangs_or_crashes_its_reader_is_refused_and_the_next_one_is_read(tmp_path):
    with DocumentReader(seconds=3, command=(sys.executable, "-c", CHILD)) as reader:
        with pytest.raises(UnreadableError, match="not read within 3 s"):
            reader.read(tmp_path / "hang")
        with pytest.raises(UnreadableError, match="crashed"):
            reader.read(tmp_path / "crash")
        assert reader.read(tmp_path / "fine").notes == ("fine",)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


def test_bombs_and_damage_are_refused_by_the_real_reader(tmp_path):
    path = docx(tmp_path / "entities.docx", "")
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    entities = files["word/document.xml"].decode().replace("<w:body>", f"<w:body>{word_paragraph('&j;')}")
    packed(path, files | {"word/document.xml": BOMB + "]>" + entities})
    packed(tmp_path / "bomb.docx", files | {"word/media/x": b"\0" * (16 << 20)})
    (tmp_path / "cut.docx").write_bytes((tmp_path / "bomb.docx").read_bytes()[:500])
    (tmp_path / "old.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    book = epub(tmp_path / "entities.epub", {"a.xhtml": "<p>x</p>"})
    with zipfile.ZipFile(book) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    package = files["book/package.opf"].decode().replace('href="a.xhtml"', 'href="&j;"')
    packed(book, files | {"book/package.opf": BOMB + "]>" + package})
    deep = "<div>" * 100_000 + "deep"
    (tmp_path / "deep.html").write_text(deep)
    reasons = {}
    with DocumentReader() as reader:
        for path in sorted(tmp_path.iterdir()):
            try:
                reasons[path.name] = f"read {len(reader.read(path).text)}"
            except UnreadableError as error:
                reasons[path.name] = error.reason
    assert "ZIP bomb" in reasons["bomb.docx"]
    assert "damaged" in reasons["cut.docx"]
    assert "encrypted" in reasons["old.docx"]
    for name in ("entities.docx", "entities.epub"):
        assert reasons[name].startswith(("damaged", "it holds no text", "read 0", "read 1"))
    assert reasons["deep.html"] in ("it holds no text", "read 4") or "deep" in reasons["deep.html"]


def test_an_archive_that_is_something_else_says_so(tmp_path):
    with pytest.raises(UnreadableError, match="it has no word/document"):
        check_archive(packed(tmp_path / "a.docx", {"a": "b"}), holds="word/document.xml")


def test_pipes_links_to_nothing_and_empty_files_are_listed_and_circles_end(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty.txt").touch()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "nothing.txt").symlink_to(tmp_path / "gone")
    (tmp_path / "self.txt").symlink_to(tmp_path / "self.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "circle").symlink_to(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "b.txt").write_text("text")
    found = find_documents(tmp_path)
    assert [path.name for path in found.files] == ["a.txt"]
    assert {path.name: reason for path, reason, _ in found.refused} == {
        "empty.txt": "the file is empty",
        "pipe.txt": "it is no plain file",
        "nothing.txt": "it cannot be opened: No such file or directory",
        "self.txt": "it cannot be opened: Too many levels of symbolic links",
    }


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such"):
        find_documents(tmp_path / "gone")
