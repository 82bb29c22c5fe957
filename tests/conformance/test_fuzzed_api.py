"""The server fuzzed from its own OpenAPI description: whatever is sent, no answer is a failure of the server's."""

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from serving import listening, serving_of
from tiny import tiny_model_folder
from tool_speaker import HERMES

from mlxtune.deployment.server.app import make_app
from mlxtune.deployment.server.guard import GuardSettings, guarded

pytest.importorskip("schemathesis", reason="pip install schemathesis")
pytestmark = pytest.mark.slow


def test_no_request_makes_the_server_fail(tmp_path):
    folder = tiny_model_folder(tmp_path / "model", hidden=32, heads=2, kv_heads=1, chat_template=HERMES)
    program = Path(sys.executable).with_name("schemathesis")
    with (
        serving_of(folder, max_tokens=24) as serving,
        listening(guarded(make_app(serving), GuardSettings())) as address,
    ):
        done = subprocess.run(
            [program, "run", f"{address}/openapi.json", "--checks", "not_a_server_error", "--max-examples", "100"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert httpx2.get(f"{address}/health").text == "ok"
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
