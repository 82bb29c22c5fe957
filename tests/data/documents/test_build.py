"""From a folder to a file of rows: what training reads, where it comes from, and a build that was killed goes on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlxtune.data.documents import build
from mlxtune.data.documents.build import Language, build_rows
from mlxtune.data.documents.kept import folder_beside, open_kept
from mlxtune.data.normalize import Shape
from mlxtune.data.source import DataFile, Source, read_examples
from mlxtune.errors import DataError, OutputExistsError, UsageError

SENTENCES = [f"Rule {n} says that visitor number {n} waits in room {n} until somebody comes." for n in range(40)]


def parrot(question, max_tokens):
    """Asks for, and answers with, the first sentence of the passage that has a rule in it."""
    passage = question.rpartition("Passage:\n")[2]
    sentence = next(part for part in SENTENCES if part in passage)
    return f"Question: What does rule {sentence.split()[1]} say?\nAnswer: {sentence}\nQuote: {sentence}"


def language(*_, drafts, asked=None, **__):
    def ask(questions, max_tokens):
        if asked is not None:
            asked.extend(questions)
        return [parrot(question, max_tokens) for question in questions]

    return Language(lambda text: len(text.split()), ask if drafts else None, "0" * 64)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "documents"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# Rules\n\n" + "\n\n".join(SENTENCES[:20]))
    (folder / "sub" / "b.txt").write_text("\n\n".join(SENTENCES[20:]))
    (folder / "c.odt").write_bytes(b"odt")
    (folder / "d.pdf").write_bytes(b"%PDF-1.4 nothing")
    return folder


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_text_rows_name_their_source_and_training_reads_them(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    report = build_rows(folder, out, "continue", chunk_tokens=60, overlap_tokens=0, open_language=language)
    rows = rows_of(out)
    assert len(rows) == report.rows > 2
    assert rows[0]["text"].startswith("# Rules\n\nRule 0 says")
    source = rows[1]["source"]
    assert (rows[1]["document"], source["file"], source["section"]) == ("a.md", "a.md", "Rules")
    text = (folder / "a.md").read_text()
    assert rows[1]["text"] == "# Rules\n\n" + text[source["start"] : source["end"]]
    examples = read_examples(Source((DataFile(out),), Shape()))
    assert [example.text for example in examples] == [row["text"] for row in rows]
    assert {one.file: one.reason for one in report.refused} == {
        "c.odt": ".odt files are not read",
        "d.pdf": "damaged: it is no whole PDF",
    }
    assert not folder_beside(out).exists()


def test_drafts_are_marked_linked_and_read_by_training(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    report = build_rows(folder, out, "qa", chunk_tokens=60, overlap_tokens=0, open_language=language)
    rows = rows_of(out)
    assert len(rows) == report.rows == report.passages
    assert all(row["draft"] is True for row in rows)
    text = (folder / "a.md").read_text()
    assert rows[0]["completion"] == SENTENCES[0]
    assert text[rows[0]["source"]["quote_start"] : rows[0]["source"]["quote_end"]] == SENTENCES[0].rstrip(".")
    examples = read_examples(Source((DataFile(out),), Shape()))
    assert [example.messages[-1].content for example in examples] == [row["completion"] for row in rows]


def test_a_file_that_is_there_twice_is_taken_once(folder, tmp_path):
    (folder / "z.md").write_text((folder / "a.md").read_text())
    out = tmp_path / "out.jsonl"
    report = build_rows(folder, out, "continue", open_language=language)
    assert report.dropped == {"it repeats an earlier one": 1}


def test_a_build_that_failed_goes_on_where_it_was_and_a_changed_document_is_asked_about_again(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(build, "BATCH", 2)
    settings = {"chunk_tokens": 60, "overlap_tokens": 0}
    whole = tmp_path / "whole.jsonl"
    everything = []
    build_rows(folder, whole, "qa", **settings, open_language=lambda *a, **k: language(*a, asked=everything, **k))

    def failing(*_, **more):
        good = language(**more)
        calls = iter(range(3))

        def ask(questions, max_tokens):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return good.ask(questions, max_tokens)

        return Language(good.count, ask, good.sha256)

    out = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        build_rows(folder, out, "qa", **settings, open_language=failing)
    assert not out.exists()
    assert folder_beside(out).stat().st_mode & 0o777 == 0o700
    rest = []
    build_rows(folder, out, "qa", **settings, open_language=lambda *a, **k: language(*a, asked=rest, **k))
    assert rest == everything[4:]
    assert out.read_bytes() == whole.read_bytes()
    out.unlink()
    with pytest.raises(KeyboardInterrupt):
        build_rows(folder, out, "qa", **settings, open_language=failing)
    (folder / "a.md").write_text("# Other rules\n\n" + "\n\n".join(SENTENCES[:20]))
    again = []
    build_rows(folder, out, "qa", **settings, open_language=lambda *a, **k: language(*a, asked=again, **k))
    assert again == [question.replace("# Rules", "# Other rules") for question in everything]


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[3:]
import test_build
from mlxtune.data.documents import build
build.BATCH = 1
calls = iter(range(5))
def open_language(*a, **k):
    good = test_build.language(*a, **k)
    def ask(questions, max_tokens):
        if next(calls) == 3: os.kill(os.getpid(), signal.SIGKILL)
        return good.ask(questions, max_tokens)
    return build.Language(good.count, ask, good.sha256)
build.build_rows(build.Path(sys.argv[1]), build.Path(sys.argv[2]), "qa", chunk_tokens=60, overlap_tokens=0,
                 open_language=open_language)
"""


def test_a_build_that_was_killed_goes_on_and_gives_the_same_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "BATCH", 1)
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    tests = Path(__file__).parent
    ended = subprocess.run([sys.executable, "-c", KILLED, folder, out, tests, tests.parents[1]], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()
    (answers,) = folder_beside(out).glob("answers-*/*.jsonl")
    with answers.open("ab") as file:
        file.write(b'["torn')
    asked = []
    build_rows(
        folder,
        out,
        "qa",
        chunk_tokens=60,
        overlap_tokens=0,
        open_language=lambda *a, **k: language(*a, asked=asked, **k),
    )
    report = build_rows(folder, whole, "qa", chunk_tokens=60, overlap_tokens=0, open_language=language)
    assert len(asked) == report.passages - 3
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents", "out.jsonl", "whole.jsonl"]


def test_two_builds_of_one_file_at_once_are_refused(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    with open_kept(out, ""), pytest.raises(UsageError, match="another process"):
        build_rows(folder, out, "continue", open_language=language)


def test_nothing_is_replaced_and_nothing_readable_is_an_error(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(OutputExistsError):
        build_rows(folder, out, "continue", open_language=language)
    (folder / "a.md").unlink()
    (folder / "sub" / "b.txt").unlink()
    with pytest.raises(DataError, match=r"none of the 2 files could be read: c\.odt: \.odt files are not read; d\.pdf"):
        build_rows(folder, out, "continue", force=True, open_language=language)
    assert out.read_text() == "mine"
    assert not folder_beside(out).exists()


@pytest.mark.parametrize(
    ("task", "more", "said"),
    [
        ("classify", {"labels": ["a"]}, "two labels"),
        ("qa", {"labels": ["a", "b"]}, "classify"),
        ("qa", {"pairs": 0}, "ask"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_read(folder, tmp_path, task, more, said):
    with pytest.raises(UsageError, match=said):
        build_rows(folder, tmp_path / "out.jsonl", task, **more, open_language=language)
