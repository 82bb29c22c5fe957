"""Names on the hub, from the command line: `models get` and `show`, and whatever else takes a model.

In processes of their own, since huggingface_hub reads HF_ENDPOINT and HF_HOME once, when it is imported.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, running_hub
from tiny import tiny_model_folder, tiny_recipe

from mlxtune.network import CLOSED_BY_US, HUB_OFFLINE


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory):
    with running_hub() as hub:
        folder = tiny_model_folder(tmp_path_factory.mktemp("hub") / "model", hidden=32, heads=2, kv_heads=1)
        hub.add("org/tiny", folder)
        hub.add("org/gated", folder, gated=True)
        yield hub


def run(hub: Hub, home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in (*HUB_OFFLINE, CLOSED_BY_US)}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "MLXTUNE_CACHE": str(home / "cache")}
    command = [sys.executable, "-m", "mlxtune", *arguments, "--device", "cpu"]
    return subprocess.run(
        command, env=environment | variables, cwd=home, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_model_is_fetched_once_and_then_answers_with_the_network_off(hub, tmp_path):
    hub.requests.clear()
    fetched = run(hub, tmp_path, "models", "get", "org/tiny", "--json")
    assert fetched.returncode == 0, fetched.stderr
    told = json.loads(fetched.stdout)
    assert (told["revision"], told["already_there"]) == (hub.repositories["org/tiny"].branches["main"], False)
    assert Path(told["path"]).is_relative_to(tmp_path / "hf" / "hub")
    assert "download org/tiny: 0.1/0.1 MB" in fetched.stderr
    asked = len(hub.requests)
    assert asked > 0

    answered = run(hub, tmp_path, "generate", "org/tiny", "--prompt", "hi", "--max-tokens", "2", "--json")
    assert answered.returncode == 0, answered.stderr
    shown = run(hub, tmp_path, "models", "show", "org/tiny", "--offline", "--json")
    assert json.loads(shown.stdout)["cached"] == told["path"]
    assert len(hub.requests) == asked


def test_a_token_is_in_no_error_not_even_with_debug(hub, tmp_path):
    refused = run(hub, tmp_path, "models", "get", "org/gated", "--debug", HF_TOKEN=f"{TOKEN}x")

    assert refused.returncode == 1
    assert "error: org/gated is gated" in refused.stderr
    assert "https://huggingface.co/org/gated" in refused.stderr
    assert TOKEN not in refused.stdout + refused.stderr
    assert f"Bearer {TOKEN}x" in {request.token for request in hub.requests}  # it was used


def test_offline_a_model_that_is_not_here_is_one_sentence(hub, tmp_path):
    refused = run(hub, tmp_path, "--offline", "convert", "org/tiny", "out")

    assert refused.returncode == 1
    assert refused.stderr.splitlines()[0] == "error: the model org/tiny is not on this machine, and the network is off"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("cache")] == []


def test_a_run_goes_on_with_the_commit_it_began_with_though_the_branch_has_moved(tmp_path):
    tiny_recipe(tmp_path)
    train = ("model.source=org/moving", "training.max_steps=2", "--no-score", "--json")
    with running_hub() as hub:
        hub.add("org/moving", tmp_path / "model")
        began = hub.repositories["org/moving"].branches["main"]
        first = run(hub, tmp_path, "train", "recipe.yaml", *train, "--run-dir", "run")
        assert first.returncode == 0, first.stderr
        assert json.loads((tmp_path / "run" / "run.json").read_text())["inputs"]["model"]["revision"] == began
        hub.add("org/moving", tiny_model_folder(tmp_path / "newer", seed=1, hidden=32, heads=2, kv_heads=1))
        assert run(hub, tmp_path, "models", "get", "org/moving", "--newest").returncode == 0
        moved = run(hub, tmp_path, "train", "recipe.yaml", *train, "--run-dir", "other")
        told = json.loads((tmp_path / "other" / "run.json").read_text())["inputs"]["model"]["revision"]
        assert (moved.returncode, told) == (0, hub.repositories["org/moving"].branches["main"])
        assert told != began
        scored = run(hub, tmp_path, "evaluate", "run", "--json")
        assert scored.returncode == 0, scored.stderr
