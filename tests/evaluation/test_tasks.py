import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import bleu
from tiny import tiny_llama, tiny_tokenizer

from mlxtune.data.example import Example, Message
from mlxtune.data.render import Renderer
from mlxtune.errors import DataError
from mlxtune.evaluation.tasks import Task, check_task, run_task, score_answer
from mlxtune.inference.generate import generate

QUESTIONS = ("Why?", "Where is it?", "How many are there?")
MARK = "\nA:"
TASK = Task("task", "exact_match", max_tokens=6, answer_after=MARK)


@pytest.fixture(scope="module")
def network():
    return tiny_llama(hidden=32, heads=2, kv_heads=1, tied=False)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def chat(question, answer, number=1):
    return Example("chat", f"rows.jsonl:{number}", (Message("user", question), Message("assistant", answer)))


def text(question, answer, number=1):
    return Example("text", f"rows.jsonl:{number}", text=f"Q: {question}\nA: {answer}")


def said(network, tokenizer, example):
    prompt, _ = Renderer(tokenizer).prompt(example, TASK.answer_after)
    return generate(network, tokenizer, [prompt], max_tokens=TASK.max_tokens)[0].text


@pytest.mark.parametrize("form", [chat, text])
def test_a_row_is_right_where_the_network_says_what_the_row_says(network, tokenizer, form):
    right = said(network, tokenizer, form(QUESTIONS[1], "anything"))
    answers = ("wrong", right, "wrong")
    examples = [form(*pair, number) for number, pair in enumerate(zip(QUESTIONS, answers, strict=True), 1)]
    result = run_task(network, tokenizer, examples, TASK)
    np.testing.assert_array_equal(result.metrics["exact_match"].sums[:, 0], [0.0, 1.0, 0.0])
    assert [sample["where"] for sample in result.samples] == [example.where for example in examples]
    assert result.samples[1] == {
        "task": "task",
        "where": "rows.jsonl:2",
        "reference": answers[1].strip() if form is text else answers[1],
        "output": right,
        "finish_reason": "length",
        "scores": {"exact_match": 1.0, "exact_match_normalized": 1.0},
    }


def test_the_answer_is_no_part_of_the_question(network, tokenizer):
    results = [run_task(network, tokenizer, [chat("Why?", answer)], TASK) for answer in ("so", "otherwise")]
    assert results[0].samples[0]["output"] == results[1].samples[0]["output"]


def test_a_metric_has_one_value_a_row_that_has_it(network, tokenizer):
    examples = [
        chat("Why?", json.dumps({"a": 1, "b": 2})),
        chat("Where?", json.dumps({"a": 1})),
    ]
    result = run_task(network, tokenizer, examples, Task("task", "json_fields", max_tokens=3, answer_after=MARK))
    lengths = {name: len(measured.rows) for name, measured in result.metrics.items()}
    fields = {name: length for name, length in lengths.items() if name.endswith(("a", "b"))}
    assert sorted(fields.values()) == [1, 2]
    assert lengths["valid_json"] == 2
    assert all(set(measured.sums[:, 0]) <= {0.0, 1.0} for measured in result.metrics.values())


def test_a_field_that_few_of_many_rows_have_is_no_figure_of_its_own(network, tokenizer):
    def metrics(rows):
        answers = [json.dumps({"kind": i} | ({"lamp": i} if i < 2 else {})) for i in range(rows)]
        examples = [chat("What?", answer, number) for number, answer in enumerate(answers, 1)]
        task = Task("task", "json_fields", max_tokens=4, answer_after=MARK)
        result = run_task(network, tokenizer, examples, task)
        assert "field:lamp" in result.samples[0]["scores"]
        return {name: len(metric.rows) for name, metric in result.metrics.items()}

    assert metrics(5)["field:lamp"] == 2
    assert metrics(6) == dict.fromkeys(("valid_json", "field:kind", "fields", "all_fields"), 6)


def test_fields_and_limits_of_the_task_are_the_scorers_and_the_generations(network, tokenizer):
    task = Task("task", "json_fields", max_tokens=2, answer_after=MARK, settings={"fields": ("a",)})
    result = run_task(network, tokenizer, [chat("Why?", json.dumps({"a": 1, "b": 2}))], task)
    assert not any(name.endswith("b") for name in result.metrics)
    assert len(result.samples[0]["output"]) <= 2  # a token is a byte here


def test_a_text_row_without_an_answer_names_itself(network, tokenizer):
    with pytest.raises(DataError) as error:
        run_task(network, tokenizer, [Example("text", "rows.jsonl:7", text="no question at all")], TASK)
    assert error.value.where == "rows.jsonl:7"


def test_rows_that_cannot_be_asked_are_all_told_before_any_work(tokenizer):
    task = Task("triage", "json_fields", max_tokens=8, answer_after=MARK)
    good = chat("Why?", json.dumps({"a": 1}))
    check_task(tokenizer, [good], task, path=Path("rows.jsonl"))
    examples = [good, chat("Why?", "no JSON", 2), Example("text", "rows.jsonl:3", text="no question at all")]
    with pytest.raises(DataError) as error:
        check_task(tokenizer, examples, task, path=Path("rows.jsonl"))
    assert "task triage" in error.value.message
    assert all(where in f"{error.value.where} {error.value.message}" for where in ("rows.jsonl", "2", "3"))


NUMERIC = {"pattern": r"####\s*(.+)", "tolerance": 0.0, "relative_tolerance": 0.0, "decimal_mark": "."}
BLEU = {"tokenize": "13a", "lowercase": False}


def test_a_figure_that_is_no_mean_is_made_of_what_rows_add(network, tokenizer):
    examples = [chat(question, "a b c d e f", number) for number, question in enumerate(QUESTIONS)]
    result = run_task(network, tokenizer, examples, Task("task", "bleu", 20, MARK, BLEU))
    outputs = [sample["output"] for sample in result.samples]
    expected = bleu.BLEU(**BLEU).corpus_score(outputs, [["a b c d e f"] * 3]).score / 100
    assert result.metrics["bleu"].figure == "bleu"
    assert result.metrics["bleu"].value == pytest.approx(expected)
    assert result.metrics["bleu"].interval(seed=0).count == 3


def test_what_is_wrong_with_references_is_told_of_all_rows_at_once(tokenizer):
    task = Task("sum", "numeric", 8, MARK, NUMERIC)
    examples = [chat("1 + 1?", "#### 2"), chat("2 + 2?", "4", 2), chat("3 + 3?", "six", 3)]
    with pytest.raises(DataError) as error:
        check_task(tokenizer, examples, task, path=Path("rows.jsonl"))
    assert error.value.message.count("where pattern says") == 2


def test_a_task_scores_one_answer_as_a_reward(tokenizer):
    task = Task("sum", "numeric", 8, MARK, NUMERIC)
    assert score_answer(task, chat("1 + 1?", "#### 2"), "It is\n#### 2.0", "#### 2")["numeric"] == 1.0


def test_a_scorer_that_reads_columns_gets_those_of_the_row(tokenizer):
    task = Task("query", "sql", 8, MARK, {"setup": ("tables",), "row_order": "auto"})
    assert task.columns == ("tables",)
    example = replace(chat("All?", "SELECT a FROM t"), kept={"tables": "CREATE TABLE t (a); INSERT INTO t VALUES (1)"})
    check_task(tokenizer, [example], task, path=Path("rows.jsonl"))
    assert score_answer(task, example, "SELECT 1", "SELECT a FROM t") == {"sql": 1.0, "sql_runs": 1.0}
    with pytest.raises(DataError, match="no column 'tables'"):
        check_task(tokenizer, [chat("All?", "SELECT a FROM t")], task, path=Path("rows.jsonl"))


def test_what_scores_depend_on_of_a_task_can_be_written_as_json():
    tasks = [Task("a", "choice", 0, MARK, labels=("x", "y")), Task("b", "sql", 8, None, {"setup": ("t",)})]
    assert [json.loads(json.dumps(task.basis())) == task.basis() for task in tasks] == [True, True]
    assert tasks[0].basis() != replace(tasks[0], labels=("y", "x")).basis()
