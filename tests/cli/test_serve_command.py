"""`mlxtune serve` as a process: what it says, whom it lets in, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys

import httpx2
import pytest

from mlxtune.cli import main

ASKED = {"messages": [{"role": "user", "content": "Whisper x"}], "max_tokens": 4}


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *map(str, arguments)])
    return stopped.value.code, capsys.readouterr().err


@pytest.fixture
def start():
    """Start the command; its first line of standard output comes with the process."""
    processes = []

    def start(*arguments, **environment):
        command = [sys.executable, "-m", "mlxtune", "--json", "--device", "cpu", "serve", *map(str, arguments)]
        command += ["--port", "0"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )
        processes.append(process)
        return process, json.loads(process.stdout.readline())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_server_says_where_it_is_answers_and_finishes_what_it_began(tiny_run, start, stop):
    process, told = start(tiny_run, f"other={tiny_run}")
    assert told["models"] == ["tiny", "other", "base"]
    url = f"{told['address']}/v1/chat/completions"
    whole = httpx2.post(url, json=ASKED | {"max_tokens": 200}, timeout=60).json()
    with httpx2.stream("POST", url, json=ASKED | {"max_tokens": 200, "stream": True}, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(stop)
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    streamed = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert streamed == whole["choices"][0]["message"]["content"]
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "POST /v1/chat/completions 200" in errors
    assert "Whisper" not in errors


def test_a_key_from_the_environment_keeps_strangers_out(tiny_run, start):
    _, told = start(tiny_run, MLXTUNE_API_KEY="a-key-that-is-long-enough")
    url = f"{told['address']}/v1/chat/completions"
    assert httpx2.post(url, json=ASKED).status_code == 401
    assert httpx2.post(url, json=ASKED, headers={"Authorization": "Bearer another-key"}).status_code == 401
    mine = {"Authorization": "Bearer a-key-that-is-long-enough"}
    assert httpx2.post(url, json=ASKED, headers=mine, timeout=60).status_code == 200
    assert httpx2.get(f"{told['address']}/health").status_code == 200


def test_a_port_that_is_taken_is_told_before_anything_is_opened(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, errors = said(capsys, "nowhere", "--port", other.getsockname()[1])
    assert code == 2
    assert "cannot listen" in errors
    assert "--port" in errors


def test_another_host_needs_a_key(capsys, monkeypatch):
    monkeypatch.delenv("MLXTUNE_API_KEY", raising=False)
    code, errors = said(capsys, "nowhere", "--host", "0.0.0.0")  # noqa: S104 - it is what is refused
    assert code == 2
    assert "there is no key" in errors
    assert "--api-key-file" in errors


def test_what_cannot_be_opened_is_told(capsys, tmp_path):
    code, errors = said(capsys, tmp_path / "nothing", "--port", 0)
    assert code == 1
    assert "nothing" in errors
