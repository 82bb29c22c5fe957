"""Servers that benchmarks ask: ours and mlx_lm's, started, waited for, and asked as a client would.

Chats are made of words that mean nothing, so that no two begin alike unless they are meant to.
"""

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx2
from measure import child_environment, run_program

HERE = Path(__file__).resolve().parent
WORDS = (
    "river lamp garden window paper mountain letter train coffee winter stone market bridge music table "
    "forest button harbour silver story engine kitchen morning ticket island shadow copper yellow planet "
    "corner "
)
START_S, ANSWER_S = 180.0, 900.0
OURS, THEIRS = "mlxtune", "mlx_lm"


@dataclass(frozen=True)
class Answer:
    """One answer as its client saw it, in seconds."""

    first_s: float
    tokens: int
    text: str


def float_model(model: str, work: Path, device: str) -> Path:
    """The model's folder in float32, made in ``work``."""
    folder = work / "model"
    convert = [sys.executable, "-m", "mlxtune", "convert", model, folder, "--dtype", "float32"]
    run_program(convert, environment=child_environment(device), log=work / "convert.log")
    return folder


def made_up(clients: int, questions: int, system_words: int, *, seed: int) -> list[list[list[dict[str, str]]]]:
    """Each client's chats; no two have the same question."""
    draw = random.Random(f"{clients} {system_words} {seed}")  # noqa: S311 - words, not secrets
    system = (
        [{"role": "system", "content": " ".join(draw.choices(WORDS.split(), k=system_words))}] if system_words else []
    )
    return [
        [
            [*system, {"role": "user", "content": f"Tell a story about {' '.join(draw.choices(WORDS.split(), k=40))}."}]
            for _ in range(questions)
        ]
        for _ in range(clients)
    ]


@contextmanager
def running(
    server: str, model: Path, device: str, log: Path, *, own_blas: bool = False
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The address and the process of a server while it runs.

    Args:
        own_blas: mlx_lm multiplies with the BLAS in MLX's wheel.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ours = ["-m", "mlxtune", "serve", model, "--device", device, "--quiet", "--batch-size", "32"]
    blas = "own-blas" if own_blas else "fast-blas"
    theirs = [HERE / "children" / "serve_with_mlx_lm.py", blas, device, "--model", model, "--log-level", "WARNING"]
    arguments = [*(ours if server == OURS else theirs), "--port", port]
    command = [sys.executable, *(str(argument) for argument in arguments)]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, env=child_environment(device))
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(address, process, log)
            yield address, process
        finally:
            process.terminate()  # it may be over already
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a server listens."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise click.ClickException(f"the server ended: {log.read_text(errors='replace')[-500:]}")
        try:
            httpx2.get(f"{address}/health", timeout=5)
        except httpx2.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise click.ClickException(f"the server does not listen after {START_S:.0f} s; see {log}")


async def answer(client: httpx2.AsyncClient, model: str, messages: Any, max_tokens: int) -> Answer:
    """One streamed answer."""
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first_s, tokens, text = time.perf_counter(), None, 0, ""
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.is_error:
            await response.aread()
            response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
            if first_s is None and text:
                first_s = time.perf_counter() - began
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return Answer(first_s if first_s is not None else time.perf_counter() - began, tokens, text)
