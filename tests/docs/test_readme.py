"""The README's commands run, on the real model and the packaged data, with overrides that make them short."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- run: (?P<name>[\w ]+) -->\n\s*```\w*\n(?P<text>.*?)\n\s*```", re.DOTALL)

SHORT = [
    "training.max_steps=1",
    "training.batch_size=2",
    "evaluation.tasks.0.max_tokens=8",
    "evaluation.forgetting=false",
]


def commands(name: str) -> list[str]:
    blocks = [match["text"] for match in BLOCK.finditer(README) if match["name"] == name]
    assert blocks, f"the README has no block {name!r}"
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A place to work in, with a few rows of the packaged data as one's own."""
    folder = tmp_path_factory.mktemp("readme")
    rows = (ROOT / "recipes/support-triage/data/train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "mine.jsonl").write_text("".join(rows[:12]), encoding="utf-8")
    (folder / "few.jsonl").write_text("".join(rows[:3]), encoding="utf-8")
    return folder


def run(command: str, folder: Path, *extra: str) -> subprocess.CompletedProcess:
    program, *arguments = shlex.split(command)
    assert program == "mlxtune"
    done = subprocess.run(
        [sys.executable, "-m", "mlxtune", *arguments, *extra],
        cwd=folder,
        env=os.environ | {"MLXTUNE_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done


def test_the_commands_by_hand_train_score_fuse_and_answer(folder):
    install, *rest = commands("by hand")
    assert install == "pip install ."  # not run here: it would change the environment that the tests run in
    few = folder / "few.jsonl"
    short = [*SHORT, f"data.train={few}", f"data.valid={few}", f"data.test={few}"]
    verbs = []
    for command in rest:
        verb = shlex.split(command)[1]
        done = run(command, folder, *(short if verb in ("plan", "train") else []), "--json")
        verbs.append(verb)
        said = json.loads(done.stdout)
        if verb == "evaluate":
            assert said["rows"] == 3
            assert said["base"].keys() == said["tuned"].keys()
        if verb == "generate":
            assert said["text"]
    assert verbs == ["train", "evaluate", "fuse", "generate"]
    assert (folder / "runs/first/README.md").is_file()


def test_the_steps_for_ones_own_data_run(folder):
    verbs = []
    for command in commands("own data"):
        verb = shlex.split(command)[1]
        few = [f"data.train={folder / 'few.jsonl'}", "data.test=null", "data.valid=null"]
        run(command, folder, *([*SHORT, *few] if verb in ("plan", "train") else []))
        verbs.append(verb)
    assert verbs == ["data", "recipes", "recipes", "data", "data", "plan", "train"]
    assert {path.name for path in (folder / "mine").iterdir()} == {"train.jsonl", "valid.jsonl", "test.jsonl"}
    assert (folder / "runs/mine/adapter/adapters.safetensors").is_file()


def test_the_python_example_runs(folder):
    script = "\n".join(commands("python"))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
