import json
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_llama, tiny_tokenizer

from mlxtune.data.dataset import fit
from mlxtune.data.example import Example, Message
from mlxtune.data.render import Renderer
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.evaluation.score import Scores, score_model
from mlxtune.evaluation.tasks import Task, run_task
from mlxtune.inference.likelihood import make_reader
from mlxtune.models.load import Model

SCORERS = {"said": "exact_match", "fields": "json_fields"}
TASKS = [Task(name, scorer, max_tokens=4, answer_after=None) for name, scorer in SCORERS.items()]
EXAMPLES = [
    Example("chat", f"rows.jsonl:{number}", (Message("user", "?" * number), Message("assistant", f'{{"a": {number}}}')))
    for number in range(1, 6)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return Model(tiny_llama(hidden=32, heads=2, kv_heads=1, tied=False), tokenizer, {}, Path())


@pytest.fixture(scope="module")
def rendered(model):
    return [Renderer(model.tokenizer).render(example, "completions") for example in EXAMPLES]


@pytest.fixture(scope="module")
def scores(model, rendered):
    return score_model(model, rendered, EXAMPLES, TASKS)


def test_each_figure_is_the_one_its_own_reading_gives(model, rendered, scores):
    heldout = read_heldout(make_reader(model.network), model.tokenizer, rendered)
    assert scores.metrics["loss"].mean == pytest.approx(heldout.loss)
    assert scores.metrics["bits_per_byte"].mean == pytest.approx(heldout.bits_per_byte)
    assert scores.metrics["token_accuracy"].mean == pytest.approx(heldout.token_accuracy)
    for task in TASKS:
        result = run_task(model.network, model.tokenizer, EXAMPLES, task)
        for name, measured in result.metrics.items():
            assert scores.metrics[f"{task.name}.{name}"].mean == pytest.approx(np.mean(measured.sums[:, 0]))
    tasks = {f"{sample['task']}" for sample in scores.samples}
    assert tasks == {"said", "fields"}
    assert len(scores.samples) == 2 * len(EXAMPLES)


def test_each_figure_lies_in_an_interval_over_the_rows(scores):
    for name, interval in scores.metrics.items():
        assert interval.low <= interval.mean <= interval.high, name
        assert interval.count == len(EXAMPLES), name


def test_scores_survive_being_written_as_json(scores):
    again = Scores.from_json(json.loads(json.dumps(scores.to_json())))
    assert again.metrics == scores.metrics
    assert again.samples == scores.samples
    assert again.calibration.summary() == scores.calibration.summary()


def test_rows_that_are_read_in_parts_have_the_numbers_of_their_examples(model, rendered, scores):
    parts = [part for row in rendered[1:4] for part in fit(row, len(row.token_ids) - 3, "split")]
    found = score_model(model, parts, EXAMPLES[1:4], TASKS[:1], row_of=[0, 0, 1, 1, 2, 2])
    assert [measured.rows.tolist() for measured in found.measured.values()] == [[0, 1, 2]] * len(found.measured)
    targets = found.measured["loss"].sums[:, 1]
    np.testing.assert_array_equal(targets, scores.measured["loss"].sums[1:4, 1])
