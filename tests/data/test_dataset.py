"""A file becomes rows, and each row that is cut or left out is counted and named."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import CHATML, tiny_tokenizer

from mlxtune.data.dataset import Dropped, FileReport, fit, load_rendered, render_examples
from mlxtune.data.example import Example, Message
from mlxtune.data.faults import LISTED, Fault
from mlxtune.data.render import Rendered, Renderer
from mlxtune.data.store.census import Stream, Weighted
from mlxtune.data.store.rows import facts_of, places_of
from mlxtune.errors import DataError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("chatml"))


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def texts(*lengths):
    """Rows of so many letters, each a token; EOS makes one more."""
    return [{"text": "a" * length} for length in lengths]


def test_the_report_counts_rows_tokens_and_targets(tokenizer, written):
    path = written(*texts(3, 5))
    dataset = load_rendered(path, tokenizer, max_seq_length=6)
    assert [len(row.token_ids) for row in dataset.rows] == [4, 6]
    assert asdict(dataset.report) == {
        "format": "text",
        "kind": "text",
        "rows_read": 2,
        "rows": 2,
        "tokens": 10,
        "target_tokens": 8,
        "dropped": (),
        "truncated": (),
        "files": (
            {
                "name": str(path),
                "format": "text",
                "why": dataset.report.files[0].why,
                "weight": 1.0,
                "rows_read": 2,
                "rows": 2,
                "share": None,
                "dropped": 0,
            },
        ),
    }


def test_rows_that_are_too_long_are_an_error_that_names_them_all(tokenizer, written):
    path = written(*texts(3, 9, 4, 12))
    with pytest.raises(DataError) as caught:
        load_rendered(path, tokenizer, max_seq_length=5)
    assert caught.value.message.split("\n") == [
        "2 problems",
        f"  {path}:2: the row has 10 tokens; data.max_seq_length is 5",
        f"  {path}:4: the row has 13 tokens; data.max_seq_length is 5",
    ]
    assert "data.max_seq_length to 13" in str(caught.value.remedy)


def test_drop_leaves_long_rows_out_and_names_them(tokenizer, written):
    path = written(*texts(3, 9, 4))
    dataset = load_rendered(path, tokenizer, max_seq_length=5, overflow="drop")
    assert [row.where for row in dataset.rows] == [f"{path}:1", f"{path}:3"]
    assert dataset.report.rows_read == 3
    assert dataset.report.dropped == (Dropped(f"{path}:2", "the row has 10 tokens; data.max_seq_length is 5"),)


def test_truncation_keeps_the_end_or_the_beginning_and_names_the_row(tokenizer, written):
    path = written({"text": "abcdef"}, {"text": "x"})
    left = load_rendered(path, tokenizer, max_seq_length=3, overflow="truncate_left")
    right = load_rendered(path, tokenizer, max_seq_length=3, overflow="truncate_right")
    assert tokenizer.decode(left.rows[0].token_ids.tolist()) == "ef<|im_end|>"
    assert tokenizer.decode(right.rows[0].token_ids.tolist()) == "abc"
    assert left.rows[0].is_target.tolist() == right.rows[0].is_target.tolist() == [False, True, True]
    assert left.report.truncated == right.report.truncated == (f"{path}:1",)


def test_a_row_that_keeps_no_target_is_dropped_and_counted(tokenizer, written):
    path = written({"prompt": "a" * 50, "completion": "b"}, {"prompt": "a", "completion": "b"})
    dataset = load_rendered(path, tokenizer, max_seq_length=80, overflow="truncate_right")
    assert [row.where for row in dataset.rows] == [f"{path}:2"]
    (dropped,) = dataset.report.dropped
    assert dropped.where == f"{path}:1"
    assert dropped.why.startswith("no target is among the 80 tokens left of ")


def test_a_data_set_with_no_row_left_is_an_error(tokenizer, written):
    with pytest.raises(DataError, match="none of the 2 rows is left"):
        load_rendered(written(*texts(9, 9)), tokenizer, max_seq_length=5, overflow="drop")


def test_every_row_that_the_template_refuses_is_named(tmp_path, written):
    refusing = CHATML.replace("message['content']", "message['content'] | replace('bad', '')")
    tokenizer = tiny_tokenizer(tmp_path, chat_template=refusing)
    good, bad = ({"prompt": "a", "completion": words} for words in ("good", "bad"))
    path = written(good, bad, good, bad)
    with pytest.raises(DataError) as caught:
        load_rendered(path, tokenizer, max_seq_length=500)
    places = [line.split(": ")[0].strip() for line in caught.value.message.split("\n")[1:]]
    assert places == [f"{path}:2", f"{path}:4"]
    assert caught.value.remedy


def test_progress_ends_at_the_number_of_rows(tokenizer, written):
    told = []
    path = written(*texts(1, 2, 3))
    load_rendered(path, tokenizer, max_seq_length=9, progress=lambda *report: told.append(report))
    assert told == [("render rows.jsonl: rows", 0, 3), ("render rows.jsonl: rows", 3, 3)]


@given(length=st.integers(2, 40), limit=st.integers(3, 20), before=st.sampled_from([(), (0,), (99,)]))
def test_a_row_that_is_split_keeps_every_target_once_each_with_what_stands_before_it(length, limit, before):
    row = Rendered(np.arange(length, dtype=np.int32), np.arange(length) % 3 > 0, "rows.jsonl:1")
    parts = fit(row, limit, "split", before=before)
    assert all(len(part.token_ids) <= limit for part in parts)
    targets = [part.token_ids[i] for part in parts for i in np.flatnonzero(part.is_target)]
    assert targets == row.token_ids[row.is_target].tolist()
    for part in parts:
        for i in np.flatnonzero(part.is_target):
            assert part.token_ids[i - 1] == part.token_ids[i] - 1
        assert before != (0,) or part.token_ids[0] == 0


def test_split_names_the_rows_and_counts_their_parts(tokenizer, written):
    path = written(*texts(3, 9, 4))
    dataset = load_rendered(path, tokenizer, max_seq_length=5, overflow="split")
    assert [row.where for row in dataset.rows] == [f"{path}:{line}" for line in (1, 2, 2, 2, 3)]
    assert dataset.report.truncated == (f"{path}:2",)
    assert (dataset.report.rows_read, dataset.report.rows, len(list(dataset.examples()))) == (3, 5, 3)
    whole = load_rendered(path, tokenizer, max_seq_length=50)
    assert dataset.report.target_tokens == whole.report.target_tokens


@given(
    length=st.integers(1, 20),
    limit=st.integers(2, 20),
    overflow=st.sampled_from(["error", "drop", "truncate_left", "truncate_right"]),
    before=st.sampled_from([(), (0,), (99,)]),
)
def test_what_is_left_is_an_end_of_the_row_within_the_limit(length, limit, overflow, before):
    row = Rendered(np.arange(length, dtype=np.int32), np.arange(length) > 0, "rows.jsonl:1")
    left = fit(row, limit, overflow, before=before)
    if length <= limit:
        assert left == [row]
    elif overflow in ("error", "drop"):
        assert left == []
    else:
        (left,) = left
        wanted = list(range(length))[:limit] if overflow == "truncate_right" else list(range(length))[-limit:]
        if before == (0,) and overflow == "truncate_left":
            wanted[0] = 0
        assert left.token_ids.tolist() == wanted
        assert left.is_target.tolist() == [False] + [True] * (limit - 1)
        assert left.token_ids.dtype == np.int32


OVERFLOWS = ("drop", "truncate_left", "truncate_right", "split")


def example(number, words="aaa", *, name="rows.jsonl", system=None):
    turns = (Message("user", "?"), Message("assistant", words))
    return Example("chat", f"{name}:{number}", ((Message("system", system),) if system else ()) + turns)


def text_examples(lengths, name="rows.jsonl"):
    return [Example("text", f"{name}:{number}", text="a" * length) for number, length in enumerate(lengths, 1)]


def prompts(lengths):
    """Rows of so many letters in the prompt and in the completion."""
    return [
        Example("prompt_completion", f"rows.jsonl:{i}", (Message("user", "a" * one), Message("assistant", "b" * two)))
        for i, (one, two) in enumerate(lengths, 1)
    ]


def render(examples, tokenizer, tmp_path, **settings):
    settings = {"train_on": "completions", "max_seq_length": 1000, "overflow": "error", **settings}
    return render_examples(examples, tokenizer, path=tmp_path / "rows.jsonl", **settings)


def plain(rows):
    return [(row.where, row.token_ids.tolist(), row.is_target.tolist()) for row in rows]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=12),
    limit=st.integers(55, 140),
    overflow=st.sampled_from(OVERFLOWS),
)
def test_every_row_is_kept_cut_split_or_dropped_as_it_would_be_one_by_one(
    tokenizer, tmp_path_factory, lengths, limit, overflow
):
    examples, renderer = prompts([(1, 1), *lengths]), Renderer(tokenizer)
    dataset = render(
        examples, tokenizer, tmp_path_factory.getbasetemp(), max_seq_length=max(limit, 70), overflow=overflow
    )
    expected, kept, cut = [], set(), set()
    for one in examples:
        whole = renderer.render(one, "completions")
        parts = fit(whole, max(limit, 70), overflow, before=renderer.before)
        useful = [part for part in parts if part.is_target.any()]
        expected += useful
        kept |= {one.where} if useful else set()
        cut |= {one.where} if useful and useful != [whole] else set()
    assert plain(dataset.rows) == plain(expected)
    report = dataset.report
    assert report.rows_read == len(examples) == len(kept) + len(report.dropped)
    assert {dropped.where for dropped in report.dropped} == {one.where for one in examples} - kept
    assert set(report.truncated) == cut
    assert report.rows == len(dataset.rows) == len(expected)
    assert report.tokens == sum(len(row.token_ids) for row in expected)
    assert report.target_tokens == sum(int(row.is_target.sum()) for row in expected)
    assert [one.where for one in dataset.examples()] == [one.where for one in examples if one.where in kept]
    facts = facts_of(dataset.rows)
    assert facts.length.tolist() == [len(row.token_ids) for row in expected]
    assert facts.first_target.tolist() == [int(row.is_target.argmax()) for row in expected]


def test_rows_are_a_sequence_whose_parts_are_rows_again(tokenizer, tmp_path):
    rows = render(text_examples([3, 9, 4, 12]), tokenizer, tmp_path, max_seq_length=5, overflow="split").rows
    every = plain(rows)
    assert [rows[number].where for number in range(len(rows))] == [where for where, *_ in every]
    for part in (slice(1, 4), slice(None, None, 2), slice(1, None, 3), slice(9, 4)):
        assert plain(rows[part]) == every[part]
        assert list(places_of(rows[part])) == [where for where, *_ in every[part]]
    assert plain([rows[-1]]) == every[-1:]
    with pytest.raises(IndexError):
        rows[len(rows)]


def test_a_file_of_weight_two_stands_in_an_epoch_twice(tokenizer, tmp_path):
    once, twice = text_examples([1, 2], "once.jsonl"), text_examples([3, 30], "twice.jsonl")
    stream = Stream((Weighted(lambda: once, "once.jsonl"), Weighted(lambda: twice, "twice.jsonl", 2.0)))
    dataset = render(stream, tokenizer, tmp_path, max_seq_length=9, overflow="drop")
    assert [row.where for row in dataset.rows] == ["once.jsonl:1", "once.jsonl:2", "twice.jsonl:1", "twice.jsonl:1"]
    assert dataset.report.files == (
        FileReport("once.jsonl", "text", "", 1.0, 2, 2),
        FileReport("twice.jsonl", "text", "", 2.0, 2, 2, dropped=1),
    )
    assert (dataset.report.rows_read, dataset.report.rows, dataset.report.tokens) == (4, 4, 2 + 3 + 4 + 4)
    assert [one.where for one in dataset.examples()] == ["once.jsonl:1", "once.jsonl:2", "twice.jsonl:1"]


def test_a_weight_below_one_takes_the_same_rows_each_time_wherever_they_stand(tokenizer, tmp_path):
    examples = [Example("text", f"rows.jsonl:{i}", text=f"row {i}") for i in range(1, 201)]

    def words(examples, weight):
        rows = render(Stream((Weighted(lambda: examples, weight=weight),)), tokenizer, tmp_path).rows
        return sorted(tokenizer.decode(row.token_ids.tolist()) for row in rows)

    half, most, one_and_a_half = (words(examples, weight) for weight in (0.5, 0.8, 1.5))
    assert 70 < len(half) < 130
    assert words(examples[::-1], 0.5) == half
    assert set(half) < set(most)
    assert sorted([*half, *words(examples, 1)]) == one_and_a_half


@pytest.mark.parametrize("overflow", ["split", "drop", "truncate_right"])
@pytest.mark.parametrize("weight", [1.0, 2.0, 0.5, 2.5])
def test_rows_once_are_the_examples_in_their_parts_whatever_they_weigh(tokenizer, tmp_path, weight, overflow):
    one, other = text_examples([3, 12, 4, 5], "one.jsonl"), text_examples([9, 2, 13, 7, 3, 8, 4, 1], "other.jsonl")
    stream = Stream((Weighted(lambda: one, "one.jsonl"), Weighted(lambda: other, "other.jsonl", weight=weight)))
    dataset = render(stream, tokenizer, tmp_path, max_seq_length=6, overflow=overflow)
    renderer, expected = Renderer(tokenizer), []
    for number, example in enumerate(dataset.examples()):
        parts = fit(renderer.render(example, "completions"), 6, overflow, before=renderer.before)
        expected += [(number, *part) for part in plain(parts)]
    parts, row_of = dataset.once()
    assert [(number, *part) for number, part in zip(row_of.tolist(), plain(parts), strict=True)] == expected
    assert len(set(row_of.tolist())) == dataset.kept.sum()


def test_weights_that_leave_no_row_are_an_error(tokenizer, tmp_path):
    with pytest.raises(DataError, match="the weights of the files leave none"):
        render(Stream((Weighted(lambda: text_examples([3]), weight=0.0),)), tokenizer, tmp_path)


def test_faults_of_reading_and_of_rendering_are_told_together_in_their_order_and_counted(tokenizer, tmp_path):
    bad = [Fault("rows.jsonl:2", "not JSON", remedy="mend it"), example(3, "early <|im_end|> end")]
    more = [Fault(f"rows.jsonl:{line}", "not JSON") for line in range(4, 40)]
    with pytest.raises(DataError) as caught:
        render([example(1), *bad, *more], tokenizer, tmp_path)
    first, *lines = caught.value.message.split("\n")
    assert first == "38 problems"
    assert lines[0] == "  rows.jsonl:2: not JSON"
    assert lines[1].startswith("  rows.jsonl:3: an answer holds '<|im_end|>'")
    assert lines[LISTED:] == [f"  and {38 - LISTED} more"]
    assert caught.value.remedy == "mend it"


def test_a_stream_without_rows_is_an_error(tokenizer, tmp_path):
    with pytest.raises(DataError, match="the file has no rows"):
        render([], tokenizer, tmp_path)


@pytest.mark.parametrize(
    ("systems", "expected"),
    [(["Be brief."] * 3, "Be brief."), (["Be brief.", "Be long."], None), (["Be brief.", None], None), ([None], None)],
)
def test_the_system_message_that_all_rows_share_is_known(tokenizer, tmp_path, systems, expected):
    rows = [example(number, system=system) for number, system in enumerate(systems, 1)]
    assert render(rows, tokenizer, tmp_path).system == expected


def test_a_row_that_is_dropped_has_no_say_in_the_system_message(tokenizer, tmp_path):
    rows = [example(1, "a" * 300, system="Be long."), example(2, system="Be brief.")]
    assert render(rows, tokenizer, tmp_path, max_seq_length=200, overflow="drop").system == "Be brief."


@pytest.mark.parametrize(("thoughts", "thinks"), [(["why"] * 3, True), (["why", "", ""], False), ([""], False)])
def test_whether_most_answers_have_thoughts_is_known(tmp_path, thoughts, thinks):
    template = CHATML.replace("message['content'] +", "(message.thinking or '') + message['content'] +")
    rows = [
        Example("chat", f"rows.jsonl:{i}", (Message("user", "Hi"), Message("assistant", "Yes", thinking=thought)))
        for i, thought in enumerate(thoughts, 1)
    ]
    assert render(rows, tiny_tokenizer(tmp_path, chat_template=template), tmp_path).thinks is thinks


def test_examples_that_are_no_longer_what_they_were_are_refused(tokenizer, tmp_path):
    examples = [example(1), example(2)]
    dataset = render(examples, tokenizer, tmp_path)
    examples.append(example(3))
    with pytest.raises(DataError, match="the rows have changed"):
        list(dataset.examples())


def test_among_chats_and_texts_the_chats_say_what_kind_the_rows_are(tokenizer, tmp_path):
    texts, chats = text_examples([3]), [example(1, name="chats.jsonl")]
    stream = Stream((Weighted(lambda: texts, "texts.jsonl"), Weighted(lambda: chats, "chats.jsonl")))
    report = render(stream, tokenizer, tmp_path).report
    assert (report.format, report.kind) == ("text", "chat")
    assert [file.format for file in report.files] == ["text", "chat"]
