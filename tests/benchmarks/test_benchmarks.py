"""The benchmarks' commands run to their end on tiny networks; what they measure is judged by nobody here."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_model_folder

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
# Warnings are errors, as in the tests' own process: the exception is the one that pyproject.toml makes.
STRICT = ["-W", "error", "-W", "ignore:builtin type:DeprecationWarning"]
EPOCHS, UPDATES, BATCH = 3, 6, 2


def run(name: str, tmp_path: Path, *arguments: object) -> tuple[dict, subprocess.CompletedProcess]:
    """The report of one benchmark, and its process."""
    out = tmp_path / "report.json"
    command = [sys.executable, *STRICT, BENCHMARKS / f"{name}.py", *arguments, "--device", "cpu", "--out", out]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done


@pytest.mark.slow
def test_both_programs_train_on_the_same_rows_and_a_case_without_data_is_left_out(tmp_path):
    tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1)
    folder = tmp_path / "data" / "oasst_chat"
    folder.mkdir(parents=True)
    for split, count in (("train", 7), ("valid", 2)):
        rows = [conversation(f"{split} {number}" * (1 + number % 3)) for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--model", tmp_path / "model", "--data", tmp_path / "data", "--steps", UPDATES, "--batch-size", BATCH]
    report, done = run("training_vs_mlx_lm", tmp_path, "--case", "b", "--case", "c", *options)
    (result,) = report["results"]
    assert "case c is left out" in done.stderr
    assert (result["case"], result["layers"], result["epochs"], result["updates"]) == ("b", 1, EPOCHS, UPDATES)
    (turn,) = result["turns"]
    ours, theirs = turn["mlxtune"], turn["mlx_lm"]
    # mlx_lm learns two tokens more of every row: the line end after the last turn, and one pad token.
    assert theirs["target_tokens"] == ours["target_tokens"] + 2 * UPDATES * BATCH
    for program in (ours, theirs):
        assert len(program["seconds"]) == UPDATES
        assert program["heldout_loss"] < turn["base_heldout_loss"]
        assert program["wall_s"] > program["steps_s"]
        assert program["peak_bytes"] > program["peak_mlx_bytes"]
    assert len(done.stdout.splitlines()) == 5  # headers, rule, two programs, ratio


def conversation(text: str) -> dict:
    """A row of Open Assistant's, two questions long."""
    roles = ["prompter", "assistant", "prompter", "assistant"]
    return {"messages": [{"role": role, "text": f"{text} {i}"} for i, role in enumerate(roles)]}


def test_both_programs_convert_the_same_folder_to_the_same_bytes(tmp_path):
    tiny_model_folder(tmp_path / "model")
    options = ["--model", tmp_path / "model", "--dtype", "bfloat16", "--form", "4-bit"]
    report, done = run("convert_vs_mlx_lm", tmp_path, *options)
    (result,) = report["results"]
    assert (result["source"], result["form"]) == ("model, bfloat16", "4-bit")
    (turn,) = result["turns"]
    assert turn["mlxtune"]["bytes"] == turn["mlx_lm"]["bytes"] > 0
    assert result["ratio"]["wall_s"] == turn["mlxtune"]["wall_s"] / turn["mlx_lm"]["wall_s"]
    assert min(turn[program]["peak_bytes"] for program in turn) > 10e6
    assert len(done.stdout.splitlines()) == 5


@pytest.mark.slow
def test_scaling_measures_each_point_and_draws_a_figure(tmp_path):
    options = ["--axis", "layers", "--width", 192, "--steps", 2, "--figure", tmp_path / "figure.svg"]
    report, done = run("scaling", tmp_path, *options)
    points = report["results"]
    assert [point["layers"] for point in points] == [1, 2, 4, 8, 16]
    assert len(done.stdout.splitlines()) == len(points) + 2
    assert all(later["peak_bytes"] > earlier["peak_bytes"] for earlier, later in itertools.pairwise(points))
    assert (tmp_path / "figure.svg").read_text().count("<polyline") == 3  # time, memory, share


def test_resume_cost_knows_the_size_of_what_is_saved_and_resumes(tmp_path):
    options = ["--width", 192, "--rank", 2, "--rank", 8, "--saves", 2, "--rows", 1, "--length", 16]
    report, _ = run("resume_cost", tmp_path, *options)
    small, large = report["results"]
    assert large["trainable_parameters"] == 4 * small["trainable_parameters"]
    for result in (small, large):
        # an adapter and the two moments of AdamW, in float32; names and hashes besides
        assert result["checkpoint_bytes"] > 3 * 4 * result["trainable_parameters"]
        assert result["resume_s"] > 0


@pytest.mark.slow
def test_both_programs_load_the_same_rows_and_the_second_time_finds_them(tmp_path):
    tiny_model_folder(tmp_path / "model")
    report, done = run("data_vs_mlx_lm", tmp_path, "--model", tmp_path / "model", "--rows", 100)
    (result,) = report["results"]
    (turn,) = result["turns"]
    ours, theirs, again = (turn[name] for name in ("mlxtune", "mlx_lm", "mlxtune, again"))
    assert ours["rows"] == theirs["rows"] == again["rows"] == result["rows"] == 100
    assert ours["target_tokens"] == again["target_tokens"] == theirs["target_tokens"] - 100  # a line end each
    assert result["ratio"]["rows_per_s"] == ours["rows_per_s"] / theirs["rows_per_s"]
    assert min(found["peak_bytes"] for found in turn.values()) > 10e6
    assert len(done.stdout.splitlines()) == 6  # headers, rule, two programs, the second time, ratio


@pytest.mark.slow
@pytest.mark.parametrize(("own_blas", "shared"), [(False, 20), (True, 0)])
def test_both_servers_answer_the_same_chats(own_blas, shared, tmp_path):
    tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1)
    options = ["--model", tmp_path / "model", "--clients", 3, "--questions", 2, "--max-tokens", 5, "--shared", shared]
    report, done = run("serving", tmp_path, *options, *["--own-blas"] * own_blas)
    results = report["results"]
    scenarios = ["apart", "one system message"][: 2 if shared else 1]
    assert [(one["scenario"], one["server"]) for one in results] == [
        (scenario, server) for scenario in scenarios for server in ("mlxtune", "mlx_lm")
    ]
    assert all(one["tokens"] > 0 and one["first_s"] <= one["seconds"] for one in results)
    assert len(done.stdout.splitlines()) == 2 + len(scenarios)  # headers, rule


@pytest.mark.slow
def test_under_load_each_answer_is_its_solo_answer_and_the_end_is_drained(tmp_path):
    tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1)
    options = ["--model", tmp_path / "model", "--clients", 24, "--seconds", 6, "--chats", 8, "--max-tokens", 20]
    report, done = run("serving_load", tmp_path, *options)
    (result,) = report["results"]
    assert result["answers"] == result["as_alone"] + result["refused"] > 0
    assert result["failed"] == 0
    assert (result["drained"], result["exit_code"]) == (8, 0)
    assert "told to end" in done.stdout
