"""A sparkline's points are the means of the losses that the file has, whatever its length."""

import json
import os

import numpy as np
import pytest

from mlxtune.runs.curve import POINTS, read_curve


def write(path, count, loss):
    lines = [
        json.dumps({"step": step, "loss": loss(step), "tokens_per_s": 1234.5, "seconds": 0.123456}) for step in count
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_of_few_steps_every_loss_is_a_point(tmp_path):
    curve = read_curve(write(tmp_path / "metrics.jsonl", range(1, 6), lambda step: 1 / step))
    assert curve.losses == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert curve.last_step == 5


def test_of_more_steps_neighbours_are_averaged(tmp_path):
    curve = read_curve(write(tmp_path / "metrics.jsonl", range(1, 65), float))
    assert curve.losses == pytest.approx(np.arange(1, 65).reshape(16, 4).mean(axis=1))


def test_a_long_file_is_looked_into_at_even_distances(tmp_path):
    path = write(tmp_path / "metrics.jsonl", range(1, 100_001), lambda step: step / 1000)
    curve = read_curve(path)
    assert len(curve.losses) == POINTS
    assert curve.losses == pytest.approx(np.linspace(0, 100, POINTS), abs=1)
    assert curve.last_step == 100_000


def test_what_is_no_line_of_a_step_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n\xff\xfe\n[1]\n{"step": "3", "loss": 9}\n'
        b'{"step": 3, "valid_loss": 7.0}\n{"step": 4, "loss": 1.0}\n{"step": 5, "los'
    )
    curve = read_curve(path)
    assert (curve.losses, curve.last_step) == ((2.0, 1.0), 4)


def test_where_there_is_no_file_the_curve_is_empty(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # would be waited at for ever
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe"):
        assert read_curve(path).losses == ()


def test_the_time_it_takes_does_not_grow_with_the_file(tmp_path):
    path = write(tmp_path / "metrics.jsonl", range(1, 4), float)
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    assert read_curve(path).losses == pytest.approx([2.0])
