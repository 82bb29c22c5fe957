import json

import pytest

from mlxtune.errors import RunError
from mlxtune.runs.metrics import append_metrics, cut_metrics, metrics_bytes, read_metrics

LINES = [
    {"step": 1, "loss": 2.0000000000000004, "seconds": 0.1},
    {"step": 2, "loss": 1.5, "seconds": 0.1},
    {"step": 2, "valid_loss": 1.75, "valid_seconds": 0.3},
    {"step": 3, "loss": 1.25, "seconds": 0.1},
]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for line in LINES:
        append_metrics(path, line)
    return path


def test_what_is_appended_is_one_line_of_json_and_read_back(path):
    assert [json.loads(line) for line in path.read_text().splitlines()] == LINES
    assert read_metrics(path) == LINES


def test_a_run_that_has_measured_nothing_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_line_that_a_kill_left_half_written_is_none(path):
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert read_metrics(path) == LINES


def test_cutting_brings_the_file_back_to_what_it_was_to_the_byte(path):
    whole = path.read_bytes()
    size = metrics_bytes(path)
    append_metrics(path, {"step": 4, "loss": 0.5})
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    cut_metrics(path, size)
    assert path.read_bytes() == whole


def test_a_run_that_starts_again_from_nothing_keeps_no_line(path):
    cut_metrics(path, 0)
    assert path.read_text() == ""


def test_what_was_never_measured_is_nothing_to_cut(tmp_path):
    assert metrics_bytes(tmp_path / "metrics.jsonl") == 0
    cut_metrics(tmp_path / "metrics.jsonl", 0)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_lines_that_were_lost_since_the_checkpoint_are_told(path):
    size = metrics_bytes(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RunError, match=f"is {size - 3} bytes long, and was {size} at the last checkpoint"):
        cut_metrics(path, size)


def test_a_number_that_json_does_not_know_is_refused_and_nothing_is_written(path):
    with pytest.raises(ValueError, match="JSON"):
        append_metrics(path, {"step": 4, "loss": float("nan")})
    assert read_metrics(path) == LINES
