"""The benchmark of replay runs to its end on a tiny network: three models asked, a run with replay and one without."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_model_folder

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "forgetting.py"


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_a_model_is_tuned_without_and_with_replay_and_both_are_asked(tmp_path):
    tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1)
    data = tmp_path / "data"
    for split, count in (("train", 40), ("test", 300)):
        rows = [{"text": f"{split} {number}", "category": f"c{number % 3}"} for number in range(count)]
        write_rows(data / "banking77" / f"{split}.jsonl", rows)
    write_rows(data / "self_instruct/train.jsonl", [{"instruction": f"Say {i}.", "output": f"{i}"} for i in range(9)])
    turns = [{"role": "prompter", "text": "Hello"}, {"role": "assistant", "text": "Hi"}]
    write_rows(
        data / "oasst_chat/train.jsonl",
        [{"messages": turns}, {"messages": [turns[0], turns[1] | {"text": "x" * 9999}]}],
    )
    out, folder = tmp_path / "report.json", tmp_path / "work"
    command = [sys.executable, BENCHMARK, "--data", data, "--folder", folder, "--model", tmp_path / "model"]
    command += ["--steps", 2, "--device", "cpu", "--out", out]
    done = subprocess.run([str(word) for word in command], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, replay = json.loads(out.read_text())["results"]
    assert (plain["forgetting"]["replay"], replay["forgetting"]["replay"]["share"]) == (None, 0.3)
    assert plain["forgetting"]["questions"]["base"] == replay["forgetting"]["questions"]["base"]
    general = [json.loads(line)["messages"] for line in (folder / "general.jsonl").read_text().splitlines()]
    assert len(general) == 10  # the long chat is left out
    assert general[-1] == [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    assert len(done.stdout.splitlines()) == 5  # headers, rule, base, two runs
