"""Whether the server holds under load: many clients streaming at once, for minutes.

Every answer has to be the one that its chat got alone, or a refusal that says when to come back; the server's memory
has to stay flat; and told to end, it finishes what it writes.
"""

import asyncio
import contextlib
import itertools
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import httpx2
from measure import device_named, report, show_table, work_folder
from servers import ANSWER_S, OURS, answer, float_model, made_up, running

SAMPLE_S = 2.0
WARM_UP = 0.3
"""The share of the time after which memory has to stay flat."""
HEADERS = (
    "clients",
    "seconds",
    "answers",
    "as alone",
    "refused (429)",
    "lost or failed",
    "MB after warm-up",
    "MB at the end",
    "MB at most",
)


@click.command()
@click.option("--model", default="smollm2-135m-instruct", show_default=True)
@click.option("--clients", default=32, show_default=True)
@click.option("--seconds", default=300.0, show_default=True)
@click.option("--chats", default=24, show_default=True, help="That are asked again and again.")
@click.option("--max-tokens", default=32, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="To work in; kept.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(
    model: str,
    clients: int,
    seconds: float,
    chats: int,
    max_tokens: int,
    device: str,
    folder: Path | None,
    out: Path | None,
) -> None:
    """Load the server, and say what became of every request."""
    device = device_named(device)
    with work_folder(folder) as work:
        source = float_model(model, work, device)
        asked = [chat for (chat,) in made_up(chats, 1, 30, seed=1)]
        with running(OURS, source, device, work / "server.log") as (address, process):
            result = asyncio.run(load(address, asked, clients, seconds, max_tokens, process))
            result["exit_code"] = process.wait(60)
    row = [
        str(clients),
        f"{seconds:.0f}",
        *(str(result[key]) for key in ("answers", "as_alone", "refused", "failed")),
        *(f"{result[key] / 1e6:.0f}" for key in ("warm_bytes", "end_bytes", "peak_bytes")),
    ]
    show_table(HEADERS, [row])
    click.echo(
        f"told to end while {result['draining']} answers were written: {result['drained']} were whole, "
        f"exit code {result['exit_code']}"
    )
    settings = {"model": model, "clients": clients, "seconds": seconds, "max_tokens": max_tokens, "device": device}
    report(out, "serving_load", settings, [result])


async def load(
    address: str,
    chats: Sequence[Any],
    clients: int,
    seconds: float,
    max_tokens: int,
    process: "subprocess.Popen[bytes]",
) -> dict[str, Any]:
    """What became of every request, and of the server's memory."""
    limits = httpx2.Limits(max_connections=clients + 1)
    async with httpx2.AsyncClient(base_url=address, timeout=ANSWER_S, limits=limits) as client:

        async def ask(number: int) -> str:
            return (await answer(client, "base", chats[number], max_tokens)).text

        alone = [await ask(number) for number in range(len(chats))]
        became: Counter[str] = Counter()
        numbers = itertools.cycle(range(len(chats)))
        end = time.monotonic() + seconds

        async def one_client() -> None:
            while time.monotonic() < end:
                number = next(numbers)
                became["asked"] += 1
                became[await _outcome(ask, number, alone[number])] += 1

        memory: list[tuple[float, int]] = []
        watching = asyncio.create_task(_watch(process.pid, memory))
        began = time.monotonic()
        await asyncio.gather(*(one_client() for _ in range(clients)))
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        warm = [size for moment, size in memory if moment - began > WARM_UP * seconds] or [size for _, size in memory]
        last = [asyncio.create_task(ask(number % len(chats))) for number in range(min(8, clients))]
        await asyncio.sleep(1)
        draining = sum(not task.done() for task in last)
        process.terminate()
        ended = await asyncio.gather(*last, return_exceptions=True)
    return {
        "answers": became["asked"],
        "as_alone": became["as alone"],
        "otherwise": became["otherwise"],
        "refused": became["refused"],
        "failed": became["asked"] - became["as alone"] - became["refused"],
        "warm_bytes": warm[0],
        "end_bytes": warm[-1],
        "peak_bytes": max(warm),
        "draining": draining,
        "drained": sum(text == alone[number % len(chats)] for number, text in enumerate(ended)),
    }


async def _outcome(ask: Any, number: int, expected: str) -> str:
    try:
        text = await ask(number)
    except httpx2.HTTPStatusError as error:
        wait = error.response.headers.get("Retry-After")
        if error.response.status_code != httpx2.codes.TOO_MANY_REQUESTS or wait is None:
            return "failed"
        await asyncio.sleep(float(wait))
        return "refused"
    except httpx2.HTTPError:
        return "failed"
    return "as alone" if text == expected else "otherwise"


async def _watch(pid: int, memory: list[tuple[float, int]]) -> None:
    while True:
        told = await asyncio.to_thread(subprocess.check_output, ["ps", "-o", "rss=", "-p", str(pid)])
        memory.append((time.monotonic(), int(told) * 1024))
        await asyncio.sleep(SAMPLE_S)


if __name__ == "__main__":
    command()
