"""Once all is cached, no system call of train, evaluate, fuse and generate reaches another machine; told to or not.

What Python's guard sees is tried in test_offline.py; strace sees native code as well, and every thread and child.
"""

import os
import re
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from hub_server import running_hub
from tiny import tiny_recipe

from mlxtune.network import CLOSED_BY_US, HUB_OFFLINE

REACHING = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg|bind)\(.*")
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
SENDS_ELSEWHERE = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))"


def addresses(trace: Path) -> set[str]:
    """Of other machines, in calls that reach out; names go to a server by its number."""
    found = set()
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if call := REACHING.search(line):
            found |= {first or second for first, second in ADDRESS.findall(call[0])}
    return {address for address in found if not ip_address(address).is_loopback}


def traced(arguments: list[str], trace: Path, **settings) -> subprocess.CompletedProcess[str]:
    # Signals of the program's own are no calls, and abbreviated structures would hide addresses.
    command = ["strace", "-f", "-v", "-e", "trace=network", "-e", "signal=none", "-o", str(trace)]
    return subprocess.run(
        [*command, sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=300, **settings
    )


@pytest.fixture(scope="module")
def strace(tmp_path_factory) -> None:
    """Skips where system calls cannot be traced, and makes sure that an address would be seen."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not here; on Debian: apt install strace")
    trace = tmp_path_factory.mktemp("strace") / "trace"
    done = traced(["-c", SENDS_ELSEWHERE], trace)
    if done.returncode != 0:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[-200:]}")
    assert addresses(trace) == {"192.0.2.1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a recipe whose model, the hub's, is in the cache that `environment` names."""
    home = tmp_path_factory.mktemp("home")
    recipe = tiny_recipe(home)
    with running_hub() as hub:
        hub.add("org/tiny", home / "model")
        get = [sys.executable, "-m", "mlxtune", "models", "get", "org/tiny"]
        subprocess.run(get, env=environment(home) | {"HF_ENDPOINT": hub.url}, check=True, capture_output=True)
    shutil.rmtree(home / "model")
    recipe.write_text(recipe.read_text().replace("./model", "org/tiny"))
    return home


def environment(home: Path) -> dict[str, str]:
    """Of somebody who never forbade the hub; its address is the real one."""
    kept = {name: value for name, value in os.environ.items() if name not in (*HUB_OFFLINE, CLOSED_BY_US)}
    return kept | {"HF_HOME": str(home / "hf"), "MLXTUNE_CACHE": str(home / "cache"), "HOME": str(home)}


@pytest.mark.slow
@pytest.mark.parametrize("told", ["by option", "by recipe", "not told"])
def test_the_whole_path_reaches_no_other_machine_once_the_model_is_cached(strace, home, tmp_path, told):
    run, fused = str(tmp_path / "run"), str(tmp_path / "fused")
    train = ["train", str(home / "recipe.yaml"), "--run-dir", run, "training.max_steps=2"]
    commands = [
        [*train, *(["offline=true"] if told == "by recipe" else [])],
        ["evaluate", run],
        ["fuse", run, fused],
        ["generate", run, "--prompt", "hi", "--max-tokens", "2"],
        ["generate", fused, "--prompt", "hi", "--max-tokens", "2"],
    ]
    for number, command in enumerate(commands):
        shared = ["--device", "cpu", *(["--offline"] if told == "by option" else [])]
        trace = tmp_path / f"{number}.trace"
        done = traced(["-m", "mlxtune", *command, *shared], trace, env=environment(home), cwd=home)
        assert done.returncode == 0, done.stderr
        assert "exited with 0" in trace.read_text()
        assert addresses(trace) == set(), command
    assert not (home / "model").exists()
