"""Rows that were rendered once are found again, as they were, and only where nothing they depend on has changed."""

import importlib.metadata
import json
import os
import stat
from unittest import mock

import numpy as np
import pytest
from tiny import CHATML, tiny_tokenizer

from mlxtune.cache import cache_folder, entries
from mlxtune.data.dataset import load_rendered
from mlxtune.data.rendering.chat_text import ChatTemplate
from mlxtune.data.store import token_cache
from mlxtune.data.store.token_cache import FOLDER, LEAST_ROWS
from mlxtune.errors import DataError

WORDS = ("Quietly", "said nobody")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "rows.jsonl", chats())


def chats(count=LEAST_ROWS):
    """Rows of different lengths, with two answers each."""
    return [
        [("user", f"{WORDS[0]} {'x' * (row % 7)}"), ("assistant", f"{row}"), ("user", "?"), ("assistant", WORDS[1])]
        for row in range(count)
    ]


def write(path, chats):
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in chats]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path, folder, tokenizer=None, **settings):
    """The rows, and how often the chat template was used for them."""
    tokenizer = tokenizer or tiny_tokenizer(folder)
    with mock.patch.object(ChatTemplate, "text", autospec=True, side_effect=ChatTemplate.text) as text:
        dataset = load_rendered(path, tokenizer, tokenizer_folder=folder, **{"max_seq_length": 200, **settings})
    return dataset.rows, text.call_count


def plain(rows):
    return [(row.token_ids.tolist(), row.is_target.tolist(), row.where) for row in rows]


def kept():
    return [entry.path for entry in entries(FOLDER)]


@pytest.mark.parametrize("train_on", ["completions", "last_completion", "everything"])
def test_what_is_found_again_is_what_was_rendered_and_no_template_is_asked(path, folder, train_on):
    first, rendered = load(path, folder, train_on=train_on)
    again, rendered_again = load(path, folder, train_on=train_on)
    assert rendered >= LEAST_ROWS
    assert rendered_again == 0
    assert plain(again) == plain(first)
    assert {(row.token_ids.dtype, row.is_target.dtype) for row in again} == {(np.dtype(np.int32), np.dtype(bool))}


def test_limits_on_length_are_applied_to_what_is_kept(path, folder):
    load(path, folder)
    cut, rendered = load(path, folder, max_seq_length=80, overflow="truncate_left")
    assert rendered == 0
    assert {len(row.token_ids) for row in cut} == {80}
    assert plain(cut) == plain(
        load_rendered(path, tiny_tokenizer(folder), max_seq_length=80, overflow="truncate_left").rows
    )


def test_rows_are_named_by_the_file_at_hand(path, folder, tmp_path):
    load(path, folder)
    moved = tmp_path / "moved.jsonl"
    moved.write_text("\n" + path.read_text())
    rows, rendered = load(moved, folder)
    assert rendered == 0
    assert [row.where for row in rows] == [f"{moved}:{line}" for line in range(2, LEAST_ROWS + 2)]


@pytest.mark.parametrize(
    "change",
    [
        "a row",
        "the order",
        "train_on",
        "the template",
        "a tokenizer file",
        "what ends a turn",
        "a library",
        "mlxtune/data/forms/turns.py",
        "mlxtune/models/chat_sandbox.py",
    ],
)
def test_a_change_to_what_rendering_depends_on_is_rendered_anew(path, folder, monkeypatch, change):
    load(path, folder)
    chosen, settings, tokenizer = chats(), {}, None
    if change == "a row":
        chosen[40][1] = ("assistant", "other")
    elif change == "the order":
        chosen.reverse()
    elif change == "train_on":
        settings = {"train_on": "last_completion"}
    elif change == "the template":
        tokenizer = tiny_tokenizer(folder, chat_template=CHATML.replace("You are small.", "You are large."))
    elif change == "a tokenizer file":
        tokenizer = tiny_tokenizer(folder)
        (folder / "generation_config.json").write_text('{"eos_token_id": [2]}')
    elif change == "what ends a turn":
        tokenizer = tiny_tokenizer(folder)
        tokenizer._eos_token_ids.add(0)
    elif change == "a library":
        monkeypatch.setattr(importlib.metadata, "version", lambda name: f"another {name}")
    else:
        sha256_of = token_cache.sha256_of
        monkeypatch.setattr(token_cache, "sha256_of", lambda path: "another" if path.match(change) else sha256_of(path))
    found, rendered = load(write(path, chosen), folder, tokenizer, **settings)
    assert rendered >= LEAST_ROWS
    assert len(kept()) == 2
    fresh = tokenizer or tiny_tokenizer(folder)
    assert plain(found) == plain(load_rendered(path, fresh, max_seq_length=200, **settings).rows)


@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "text"])
def test_a_damaged_entry_is_rendered_anew_and_replaced(path, folder, damage):
    first = plain(load(path, folder)[0])
    (entry,) = kept()
    whole = entry.read_bytes()
    middle = len(whole) // 2
    entry.write_bytes(
        {
            "cut": whole[:-10],
            "empty": b"",
            "changed": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "text": b"not what was written",
        }[damage]
    )
    again, rendered = load(path, folder)
    assert rendered >= LEAST_ROWS
    assert plain(again) == first
    assert entry.read_bytes() == whole
    assert load(path, folder)[1] == 0


def test_rows_that_cannot_be_rendered_are_told_of_each_time_and_never_kept(folder, tmp_path):
    chosen = chats()
    chosen[5][1] = ("assistant", "early <|im_end|> end")
    path = write(tmp_path / "bad.jsonl", chosen)
    for _ in range(2):
        with pytest.raises(DataError, match="which ends the model's turn"):
            load(path, folder)
    assert kept() == []


def test_a_row_more_is_rendered_anew_and_so_is_a_row_less(folder, tmp_path):
    for count in (LEAST_ROWS + 1, LEAST_ROWS + 2, LEAST_ROWS):
        assert load(write(tmp_path / "rows.jsonl", chats(count)), folder)[1] >= count
    assert len(kept()) == 3
    for count in (LEAST_ROWS + 1, LEAST_ROWS + 2, LEAST_ROWS):
        assert load(write(tmp_path / "rows.jsonl", chats(count)), folder)[1] == 0


def test_what_a_killed_process_left_half_written_is_removed_in_time(path, folder):
    old, new = (cache_folder(FOLDER) / f".{name}.rows.0123abcd" for name in ("old", "new"))
    for part in (old, new):
        part.write_bytes(b"half")
    os.utime(old, (1_000_000, 1_000_000))
    load(path, folder)
    assert not old.exists()
    assert new.exists()


def test_what_is_kept_is_the_users_alone_and_holds_no_text(path, folder):
    load(path, folder)
    (entry,) = kept()
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600
    assert stat.S_IMODE(entry.parent.stat().st_mode) == 0o700
    assert not any(word.encode() in entry.read_bytes() for word in WORDS)


def test_a_template_that_writes_the_date_is_asked_each_time(path, folder):
    dated = CHATML.replace("You are small.", "Today is ' + strftime_now('%d %b %Y') + '.")
    tokenizer = tiny_tokenizer(folder, chat_template=dated)
    for _ in range(2):
        assert load(path, folder, tokenizer)[1] >= LEAST_ROWS
    assert kept() == []


def test_a_few_rows_are_not_kept(folder, tmp_path):
    path = write(tmp_path / "few.jsonl", chats(LEAST_ROWS - 1))
    load(path, folder)
    assert kept() == []


def test_without_a_place_for_a_cache_rows_are_rendered_all_the_same(path, folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    expected, _ = load(path, folder)
    monkeypatch.setenv("MLXTUNE_CACHE", str(tmp_path / "file"))
    assert plain(load(path, folder)[0]) == plain(expected)


def test_where_nothing_can_be_written_rows_are_rendered_all_the_same(path, folder):
    expected, _ = load(path, folder)
    (entry,) = kept()
    entry.unlink()
    entry.mkdir()
    assert plain(load(path, folder)[0]) == plain(expected)


def test_what_was_used_last_stays_when_room_is_made(path, folder, tmp_path, monkeypatch):
    load(path, folder)
    (first,) = kept()
    load(write(tmp_path / "second.jsonl", chats(LEAST_ROWS + 1)), folder)
    (second,) = set(kept()) - {first}
    for entry, seconds in ((first, 1_000_000), (second, 2_000_000)):
        os.utime(entry, (seconds, seconds))
    load(path, folder)
    monkeypatch.setattr(token_cache, "CACHE_BYTES", 2 * second.stat().st_size + 1000)
    load(write(tmp_path / "third.jsonl", chats(LEAST_ROWS + 2)), folder)
    assert first.exists()
    assert not second.exists()
