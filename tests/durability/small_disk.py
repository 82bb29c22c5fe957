"""A run on a small disk that is mounted for this process alone: python small_disk.py RECIPE UNDISTURBED PLACE.

Prints what it met, a line each. To be started where mounting is allowed, as ``unshare`` does.
"""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from click.testing import CliRunner
from durability.runs import SETTINGS, contents

from mlxtune.cli import main

TOLD = {"No space left on device": "full", "Read-only file system": "read-only"}


def train(*arguments: str) -> None:
    """Run ``mlxtune train``, and print what it ended with."""
    result = CliRunner().invoke(main, ["train", *arguments, "--json", "--quiet", "--device", "cpu"])
    if result.exit_code == 0:
        return
    error = json.loads(result.stderr)["error"]
    assert result.exit_code == 1
    assert Path(error["where"]).is_relative_to(place)
    assert error["remedy"]
    print(TOLD[error["message"]])  # noqa: T201 - what the test reads


def mount(*options: str) -> None:
    subprocess.run(["mount", *options, str(place)], check=True)


recipe, undisturbed, place = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
run_dir = place / "run"
mount("-t", "tmpfs", "-o", "size=80k", "tmpfs")
train(recipe, *SETTINGS, "--run-dir", str(run_dir))
for size in ("120k", "160k"):
    mount("-o", f"remount,size={size}")
    train("--resume", str(run_dir))
mount("-o", "remount,ro,size=4m")
train("--resume", str(run_dir))
train(recipe, *SETTINGS, "--run-dir", str(place / "another"))
mount("-o", "remount,rw")
train("--resume", str(run_dir))
mount("-o", "remount,ro")
train("--resume", str(run_dir))  # there is nothing left to write
if contents(run_dir) == contents(undisturbed):
    print("the same")  # noqa: T201
