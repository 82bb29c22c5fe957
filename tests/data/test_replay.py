"""Replay: general rows among those to learn, as large a share of an epoch as is asked for, the same ones every time."""

import json

import numpy as np
import pytest
from tiny import tiny_tokenizer

from mlxtune.data.dataset import render_examples
from mlxtune.data.example import Example
from mlxtune.data.normalize import Shape
from mlxtune.data.render import Renderer
from mlxtune.data.source import find_source, hash_of, iterate, stream_of
from mlxtune.data.stats import describe
from mlxtune.data.store.census import Stream, Weighted, replay_copies
from mlxtune.data.validate import Rendering, validate
from mlxtune.errors import DataError


@pytest.fixture
def tokenizer(tmp_path):
    return tiny_tokenizer(tmp_path)


def texts(name, count, start=0):
    return [Example("text", f"{name}:{i + 1}", text=f"{name} {start + i}") for i in range(count)]


def render(own, replay, share, tokenizer, tmp_path, **settings):
    files = (Weighted(lambda: own, "own"), Weighted(lambda: replay, "replay", share=share))
    settings = {"train_on": "completions", "max_seq_length": 64, "overflow": "error"} | settings
    return render_examples(Stream(files), tokenizer, path=tmp_path / "own", **settings)


def replayed(dataset):
    return [row.where for row in dataset.rows if row.where.startswith("replay")]


@pytest.mark.parametrize(
    ("own", "replay", "share", "expected"),
    [(40, 100, 0.2, 10), (40, 100, 0.5, 40), (40, 3, 0.2, 10), (7, 5, 0.9, 63), (3, 50, 0.01, 1), (10, 10, 0.5, 10)],
)
def test_its_share_of_an_epochs_rows_is_what_was_asked(own, replay, share, expected, tokenizer, tmp_path):
    dataset = render(texts("own", own), texts("replay", replay), share, tokenizer, tmp_path)
    assert len(replayed(dataset)) == dataset.report.replay_rows == expected
    assert len(dataset.rows) == dataset.report.rows == own + expected


def test_of_a_large_file_the_same_rows_are_taken_wherever_they_stand(tokenizer, tmp_path):
    rows = texts("replay", 60)

    def words(rows):
        dataset = render(texts("own", 40), rows, 0.2, tokenizer, tmp_path)
        return sorted(tokenizer.decode(row.token_ids.tolist()) for row in dataset.rows)

    assert words(rows) == words(rows[::-1])
    # A larger share takes these and more of them.
    more = render(texts("own", 40), rows, 0.3, tokenizer, tmp_path)
    assert set(words(rows)) < {tokenizer.decode(row.token_ids.tolist()) for row in more.rows}


def test_of_a_small_file_each_row_stands_there_as_often_as_the_others_or_once_more(tokenizer, tmp_path):
    dataset = render(texts("own", 40), texts("replay", 4), 0.2, tokenizer, tmp_path)
    counts = [replayed(dataset).count(f"replay:{i}") for i in range(1, 5)]
    assert sorted(counts) == [2, 2, 3, 3]


def test_weights_of_the_own_rows_count(tokenizer, tmp_path):
    own, replay = texts("own", 20), texts("replay", 50)
    files = (Weighted(lambda: own, "own", weight=2.0), Weighted(lambda: replay, "replay", share=0.2))
    dataset = render_examples(
        Stream(files), tokenizer, path=tmp_path, train_on="completions", max_seq_length=64, overflow="error"
    )
    assert (len(dataset.rows), dataset.report.replay_rows) == (50, 10)


def test_what_is_too_long_is_dropped_and_another_row_stands_in_its_place(tokenizer, tmp_path):
    rows = [Example("text", f"replay:{i}", text="long " * 20 if i % 2 else f"short {i}") for i in range(40)]
    dataset = render(texts("own", 40), rows, 0.2, tokenizer, tmp_path)
    assert len(replayed(dataset)) == 10
    assert {int(where.partition(":")[2]) % 2 for where in replayed(dataset)} == {0}
    assert len(dataset.report.dropped) == 20
    assert "data.max_seq_length is 64" in dataset.report.dropped[0].why
    assert [file.dropped for file in dataset.report.files] == [0, 20]
    assert len(list(dataset.examples(replay=False))) == 40
    with pytest.raises(DataError, match="the row has 101 tokens"):  # an own row is an error as ever
        render(rows, texts("replay", 5), 0.2, tokenizer, tmp_path)
    # The way out is of the own rows, however long those of replay are.
    longest = [Example("text", "replay:1", text="long " * 90), *texts("replay", 5)]
    with pytest.raises(DataError) as caught:
        render(rows, longest, 0.2, tokenizer, tmp_path)
    assert "data.max_seq_length to 101," in str(caught.value.remedy)


def test_replay_that_leaves_no_row_is_an_error_that_names_its_file(tokenizer, tmp_path):
    rows = [Example("text", "replay:1", text="long " * 20)]
    with pytest.raises(DataError, match="none of the rows of replay can be used") as caught:
        render(texts("own", 4), rows, 0.2, tokenizer, tmp_path)
    assert caught.value.where == "replay"
    with pytest.raises(DataError, match="the file has no rows"):
        render(texts("own", 4), [], 0.2, tokenizer, tmp_path)


def test_replay_has_no_say_in_how_the_tuned_model_is_prompted(tokenizer, tmp_path):
    def chat(name, number, system):
        turns = [("system", system)] * bool(system) + [("user", f"q {number}"), ("assistant", f"a {number}")]
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    own, replay = tmp_path / "own.jsonl", tmp_path / "replay.jsonl"
    replay.write_text("".join(json.dumps(chat("replay", i, "")) + "\n" for i in range(9)))
    for rows, kind, system in (
        ([chat("own", i, "Sort.") for i in range(4)], "chat", "Sort."),
        ([{"text": f"Q: {i}\nA: {i}"} for i in range(4)], "text", None),
    ):
        own.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = find_source([(str(own), 1.0)], "train", replay=(str(replay), 0.5))
        dataset = render_examples(
            stream_of(source), tokenizer, path=own, train_on="completions", max_seq_length=200, overflow="error"
        )
        assert (dataset.report.kind, dataset.system, dataset.report.replay_rows) == (kind, system, 4)


def test_the_form_of_replay_is_its_own_and_what_the_recipe_says_is_of_the_own_rows(tmp_path):
    own, replay = tmp_path / "own.csv", tmp_path / "replay.jsonl"
    own.write_text("message,queue\nhello,a\n")
    replay.write_text(json.dumps({"instruction": "Say it.", "output": "It."}) + "\n")
    shape = Shape("label", {"text": "message", "label": "queue"})
    source = find_source([(str(own), 1.0)], "train", shape, replay=(str(replay), 0.2))
    assert [row.messages[-1].content for row in iterate(source)] == ["a", "It."]
    assert [row.messages[-1].content for row in iterate(source.own)] == ["a"]
    assert source.replay is not None
    assert [row.messages[-1].content for row in iterate(source.replay)] == ["It."]
    assert source.own.replay is None


def test_the_hash_covers_the_rows_of_replay_and_their_share(tmp_path):
    own, replay = tmp_path / "own.jsonl", tmp_path / "replay.jsonl"
    own.write_text('{"text": "a"}\n')

    def hashed(share, text):
        replay.write_text(json.dumps({"text": text}) + "\n")
        return hash_of(find_source([(str(own), 1.0)], "train", replay=(str(replay), share)))

    alone = hash_of(find_source([(str(own), 1.0)], "train"))
    assert len({alone, hashed(0.2, "b"), hashed(0.3, "b"), hashed(0.2, "c")}) == 4
    assert hashed(0.2, "b") == hashed(0.2, "b")


def test_answers_of_replay_are_no_classes_and_its_long_rows_no_fault(tokenizer, tmp_path):
    own = [{"text": f"t {i}", "label": "ab"[i % 2]} for i in range(8)]
    general = [{"prompt": f"p {i}", "completion": f"a long answer {i} " * (1 + 30 * (i == 3))} for i in range(8)]
    for name, rows in (("own", own), ("replay", general)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = find_source([(str(tmp_path / "own.jsonl"), 1.0)], "train", replay=(str(tmp_path / "replay.jsonl"), 0.3))
    found = describe(
        stream_of(source), tokenizer, path=source.path, train_on="completions", max_seq_length=200, overflow="error"
    )
    assert found.survey.classes is not None
    assert found.survey.classes.counts == (("a", 4), ("b", 4))
    assert (len(found.too_long), found.dataset.report.replay_rows) == (0, 3)
    rendering = Rendering(Renderer(tokenizer), "completions", 200, "error")
    groups = validate({"train": stream_of(source)}, rendering).groups
    assert [(group.kind, group.severity, group.count) for group in groups] == [("dropped", "warning", 1)]


def test_copies_by_hand():
    hashes = np.array([0.9, 0.1, 0.5, 0.3])
    everyone = np.ones(4, bool)
    assert replay_copies(hashes, everyone, 2).tolist() == [0, 1, 0, 1]
    assert replay_copies(hashes, everyone, 6).tolist() == [1, 2, 1, 2]
    assert replay_copies(hashes, np.array([True, False, True, True]), 4).tolist() == [1, 0, 1, 2]
    assert replay_copies(hashes, ~everyone, 2).tolist() == [0, 0, 0, 0]
