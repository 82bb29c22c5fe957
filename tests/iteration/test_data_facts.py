"""What is told of a run's data is counted from the rows that training has, and nothing private is quoted."""

import json

import pytest
from tiny import tiny_row, tiny_tokenizer

from mlxtune.data.dataset import load_rendered
from mlxtune.data.source import DataFile, Source
from mlxtune.errors import DataError
from mlxtune.iteration import data_facts as module
from mlxtune.iteration.data_facts import data_facts, facts_of_run
from mlxtune.recipe.schema import DataSettings
from mlxtune.runs.folder import open_run


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def facts_of(tmp_path, tokenizer):
    """The facts of splits given as rows."""

    def make(*, max_seq_length=200, overflow="drop", **splits):
        sources, datasets = {}, {}
        for split, rows in splits.items():
            path = tmp_path / f"{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            sources[split] = Source((DataFile(path),))
            datasets[split] = load_rendered(sources[split], tokenizer, max_seq_length=max_seq_length, overflow=overflow)
        settings = DataSettings.model_validate(
            {"train": "train.jsonl", "max_seq_length": max_seq_length, "overflow": overflow}
        )
        return data_facts(settings, sources, datasets, tokenizer)

    return make


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_a_leaked_row_is_counted_once_as_what_it_most_surely_is(facts_of):
    train = [chat(f"question {i} of many different ones, number {i}", f"answer {i}") for i in range(8)]
    test = [
        train[0],
        chat("question 1 of many  different ones, NUMBER 1", "another answer"),
        chat("something that nobody asked before", "x"),
    ]
    found = facts_of(train=train, test=test)["leakage"]["test"]
    assert (found["rows"], found["same"], found["asks_same"]) == (3, 1, 1)
    assert [one["like"].rpartition(":")[2] for one in found["first"]] == ["1", "2"]


def test_a_mask_shows_the_row_as_training_has_it(facts_of, tokenizer):
    (mask,) = facts_of(train=[chat("Hi", "yes")])["masks"]
    learned = "".join(text for text, is_target in mask["spans"] if is_target)
    whole = "".join(text for text, _ in mask["spans"])
    assert learned == "yes<|im_end|>"
    assert whole.startswith("<|im_start|>system\n")
    assert "user\nHi<|im_end|>" in whole
    assert mask["target_tokens"] == 4
    assert mask["omitted"] is None


def test_of_a_long_row_the_middle_is_left_out_and_counted(facts_of):
    (mask,) = facts_of(train=[chat("x" * 900, "yes")], max_seq_length=2000)["masks"]
    shown = sum(len(text.encode()) for text, _ in mask["spans"])
    assert mask["omitted"]["tokens"] == mask["tokens"] - module.MASK_TOKENS
    assert shown > 0
    assert mask["spans"][mask["omitted"]["after"] - 1][0].endswith("x")
    assert mask["spans"][-1][1]


def test_rows_that_are_too_long_are_counted_and_named(facts_of):
    found = facts_of(train=[chat("Hi", "yes"), chat("x" * 300, "no")])["splits"]["train"]
    assert (found["rows_read"], found["rows"], found["dropped"]["count"]) == (2, 1, 1)
    assert "tokens" in found["dropped"]["first"][0]["why"]


def test_labels_are_counted_where_answers_are_labels(facts_of):
    rows = [chat(f"text number {i}", "yes" if i % 3 else "no") for i in range(9)]
    assert facts_of(train=rows)["splits"]["train"]["labels"] == {
        "classes": 2,
        "rows": 9,
        "counts": [["yes", 6], ["no", 3]],
    }


def test_private_data_are_counted_by_kind_and_split_and_never_quoted_as_such(facts_of):
    found = facts_of(
        train=[chat("write to jane.doe@example.org", "yes"), chat("Hi", "no")],
        test=[chat("write to john@example.org and joe@example.org", "no")],
    )["privacy"]
    assert found["counts"] == {"email": 3}
    assert found["by_split"] == {"train": {"email": 1}, "test": {"email": 2}}
    assert "@" not in json.dumps(found)


def test_what_is_too_much_to_look_for_is_said(facts_of, monkeypatch):
    monkeypatch.setattr(module, "SEARCHED_ROWS", 1)
    monkeypatch.setattr(module, "SCANNED_BYTES", 1)
    rows = [chat("Hi", "yes"), chat("Ho", "no")]
    found = facts_of(train=rows, test=rows[:1])
    assert found["privacy"] is None
    assert found["leakage"]["test"] == found["leakage"]["test"] | {"same": 1, "asks_same": None, "near": None}
    assert found["splits"]["train"]["near_duplicates"] is None
    assert [sentence.rpartition(" look")[0].split("`")[1] for sentence in found["not_checked"]] == [
        "mlxtune data validate",
        "mlxtune data scan",
    ]


def test_a_row_that_all_splits_have_is_counted_once_among_those_of_two(facts_of):
    rows = [chat(f"What is the name of the colour with the number {i}, and why?", "yes") for i in range(8)]
    found = facts_of(train=rows, valid=rows, test=rows)
    assert found["overlap"] == found["overlap"] | {"rows": 8, "same": 8, "asks_same": 0, "near": 0}


def test_the_facts_are_json(facts_of):
    found = facts_of(train=[chat(f"{i}", "yes") for i in range(3)], valid=[chat("a", "b")], test=[chat("a", "b")])
    assert json.loads(json.dumps(found, allow_nan=False))["overlap"]["same"] == 1


def test_a_run_writes_them_and_they_are_the_same_when_made_later(own_run):
    run = open_run(own_run)
    assert json.loads(run.data.read_text()) == json.loads(json.dumps(facts_of_run(run)))


def test_rows_that_have_changed_since_are_refused(own_run):
    train = own_run.parent / "train.jsonl"
    train.write_text(train.read_text() + json.dumps(tiny_row("more")) + "\n")
    with pytest.raises(DataError, match="the train rows have changed since the run"):
        facts_of_run(open_run(own_run))


def test_rows_of_replay_count_for_nothing_in_what_is_told_of_the_own_ones(tmp_path, tokenizer):
    """Twelve own rows with one system message, two of them the same; general rows without it, most the same."""
    system = {"role": "system", "content": "Sort."}
    own = [{"messages": [system, *chat(f"q {max(i, 1)}", "a")["messages"]]} for i in range(12)]
    general = [chat("the same", "again") for _ in range(9)]
    for name, rows in (("own", own), ("general", general)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = (DataFile(tmp_path / "own.jsonl"), DataFile(tmp_path / "general.jsonl", share=0.2))
    source = Source(files)
    dataset = load_rendered(source, tokenizer, max_seq_length=200)
    settings = DataSettings.model_validate({"train": "own.jsonl", "max_seq_length": 200})
    found = data_facts(settings, {"train": source}, {"train": dataset}, tokenizer)["splits"]["train"]
    assert (found["rows_read"], found["duplicates"]) == (21, 1)
    assert found["system"] == {"of": 12, "rows": 12, "different": 1}


def test_a_row_that_was_dropped_lacks_no_system_message(facts_of):
    system = {"role": "system", "content": "Sort."}
    rows = [{"messages": [system, *chat("x" * (300 * (i == 0)) + str(i), "a")["messages"]]} for i in range(9)]
    assert facts_of(train=rows)["splits"]["train"]["system"] == {"of": 8, "rows": 8, "different": 1}
