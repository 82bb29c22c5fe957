"""The command line `llm` asks the server as it asks OpenAI."""

import os
import subprocess
import sys

import pytest
from serving import server_of

from mlxtune.deployment.answer import generate, open_answerer

pytest.importorskip("llm", reason="pip install llm")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stream", [[], ["--no-stream"]])
def test_llm_answers_as_generate_does(tiny_run, tmp_path, stream):
    (expected,) = generate(open_answerer(tiny_run, device="cpu"), "Whisper x", max_tokens=12)
    with server_of(tiny_run) as address:
        (tmp_path / "extra-openai-models.yaml").write_text(
            f"- model_id: tiny\n  model_name: tiny\n  api_base: {address}/v1\n  api_key_name: none\n"
        )
        command = [sys.executable, "-m", "llm", "-m", "tiny", "Whisper x", "--key", "none", "-o", "max_tokens", "12"]
        done = subprocess.run(
            [*command, *stream],
            env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected.text.strip()
