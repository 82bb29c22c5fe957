"""The log of an attempt: plain lines with a time, and no text of the user's."""

from datetime import datetime

import pytest

from mlxtune.errors import DataError
from mlxtune.runs.log import attempt_log, in_short


def words_of(path):
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()]


def test_each_attempt_has_a_log_of_its_own(tmp_path):
    for _ in range(11):
        with attempt_log(tmp_path / "logs") as log:
            log("device: cpu")
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {f"attempt_{n}.log" for n in range(1, 12)}


def test_a_line_begins_with_its_time(tmp_path):
    with attempt_log(tmp_path) as log:
        log("device: cpu")
        time, said = (tmp_path / "attempt_1.log").read_text().split(" ", 1)  # it is there before the block ends
    assert datetime.fromisoformat(time).tzinfo is not None
    assert said == "device: cpu\n"


def test_an_error_is_told_by_its_type_and_place_since_its_words_may_quote_a_row(tmp_path):
    with pytest.raises(DataError), attempt_log(tmp_path):
        raise DataError("the answer 'my secret' is empty", where="rows.jsonl:3")
    assert words_of(tmp_path / "attempt_1.log") == ["ended: DataError at rows.jsonl:3"]


def test_an_interruption_is_told_too(tmp_path):
    with pytest.raises(KeyboardInterrupt), attempt_log(tmp_path):
        raise KeyboardInterrupt
    assert words_of(tmp_path / "attempt_1.log") == ["ended: KeyboardInterrupt"]


def test_a_step_and_a_validation_in_short():
    step = {"step": 3, "loss": 2.5, "learning_rate": 1e-3, "grad_norm": 0.5, "tokens": 90, "target_tokens": 30}
    step |= {"seconds": 0.5, "tokens_per_s": 180.0, "peak_memory_bytes": 1}
    assert in_short(step) == (
        "step 3: loss 2.5000, learning_rate 1.00e-03, grad_norm 0.500, 30 targets, 180 tokens/s, 0.50 s"
    )
    assert in_short({"step": 3, "valid_loss": 1.25, "valid_seconds": 2.0}) == "step 3: valid_loss 1.2500, 2.0 s"
    assert in_short({"step": 3, "valid_loss": 1.25, "valid_seconds": 2.0, "samples_seconds": 0.75}) == (
        "step 3: valid_loss 1.2500, 2.0 s; answers for watch, 0.8 s"
    )
