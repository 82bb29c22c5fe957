"""What answering costs beside ``mlx_lm.server``: tokens a second and time to the first one, by clients at once.

Both servers have the same model in float32 and answer the same chats, greedily, to streaming clients that each ask one
question after another. Servers take turns; each starts anew for every turn, and its first answer is not counted. On
Linux both multiply with the BLAS that mlxtune opens, unless mlx_lm is asked for as where it is installed by itself.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import httpx2
from measure import device_named, report, show_table, work_folder
from servers import ANSWER_S, OURS, THEIRS, Answer, answer, float_model, made_up, running

APART_S = 0.05
"""Seconds between two clients' beginnings: mlx_lm.server resets connections of more than a few that come at once."""
HEADERS = ("scenario", "clients", "mlxtune, tokens/s", "mlx_lm, tokens/s", "ratio", "first, mlxtune", "first, mlx_lm")


@click.command()
@click.option("--model", default="smollm2-135m-instruct", show_default=True, help="Brought to float32 for both.")
@click.option("--clients", multiple=True, type=int, default=(1, 4, 16, 32), show_default=True)
@click.option("--questions", default=3, show_default=True, help="Of each client, one after another.")
@click.option("--max-tokens", default=48, show_default=True)
@click.option("--shared", default=500, show_default=True, help="Words of the system message they share; 0: none do.")
@click.option("--turns", default=1, show_default=True)
@click.option(
    "--own-blas", is_flag=True, help="mlx_lm has the BLAS in MLX's wheel, as where it is installed by itself."
)
@click.option("--device", type=click.Choice(["cpu", "auto"]), default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="To work in; kept.")
@click.option("--out", type=click.Path(path_type=Path), help="The report to write, as JSON.")
def command(
    model: str,
    clients: tuple[int, ...],
    questions: int,
    max_tokens: int,
    shared: int,
    turns: int,
    own_blas: bool,
    device: str,
    folder: Path | None,
    out: Path | None,
) -> None:
    """Compare the two servers."""
    device = device_named(device)
    results = []
    with work_folder(folder) as work:
        source = float_model(model, work, device)
        for scenario, words in {"apart": 0, **({"one system message": shared} if shared else {})}.items():
            for count in clients:
                for turn in range(turns):
                    chats = made_up(count, questions, words, seed=turn)
                    for server in (OURS, THEIRS):
                        log = work / f"{server}.log"
                        with running(server, source, device, log, own_blas=own_blas) as (address, _):
                            name = "base" if server == OURS else str(source)
                            measured = asyncio.run(load(address, name, chats, max_tokens))
                        results.append({"scenario": scenario, "clients": count, "server": server, **measured})
                        click.echo(json.dumps(results[-1]), err=True)
    show_table(HEADERS, table_rows(results))
    settings = {"model": model, "questions": questions, "max_tokens": max_tokens, "shared": shared, "device": device}
    settings["own_blas"] = own_blas
    report(out, "serving", settings, results)


async def load(address: str, model: str, chats: Sequence[Sequence[Any]], max_tokens: int) -> dict[str, float]:
    """All clients at once, after one answer that is not counted."""
    limits = httpx2.Limits(max_connections=len(chats) + 1)
    async with httpx2.AsyncClient(base_url=address, timeout=ANSWER_S, limits=limits) as client:

        async def ask(chat: Any) -> Answer:
            return await answer(client, model, chat, max_tokens)

        async def one_client(number: int, questions: Sequence[Any]) -> list[Answer]:
            await asyncio.sleep(APART_S * number)
            return [await ask(chat) for chat in questions]

        await ask([{"role": "user", "content": "Hello."}])
        began = time.perf_counter()
        answers = [
            one for found in await asyncio.gather(*(one_client(i, one) for i, one in enumerate(chats))) for one in found
        ]
        seconds = time.perf_counter() - began
    tokens = sum(one.tokens for one in answers)
    firsts = [one.first_s for one in answers]
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_s": tokens / seconds,
        "first_s": statistics.median(firsts),
        "first_s_p95": sorted(firsts)[int(0.95 * (len(firsts) - 1))],
    }


def table_rows(results: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Medians over turns, the two servers side by side."""
    rows = []
    for scenario, clients in dict.fromkeys((one["scenario"], one["clients"]) for one in results):
        found = {}
        for server in (OURS, THEIRS):
            mine = [
                one
                for one in results
                if (one["scenario"], one["clients"], one["server"]) == (scenario, clients, server)
            ]
            found[server] = {key: statistics.median(one[key] for one in mine) for key in ("tokens_per_s", "first_s")}
        ours, theirs = found[OURS], found[THEIRS]
        rows.append(
            [
                scenario,
                str(clients),
                f"{ours['tokens_per_s']:.1f}",
                f"{theirs['tokens_per_s']:.1f}",
                f"{ours['tokens_per_s'] / theirs['tokens_per_s']:.2f}",
                f"{ours['first_s']:.2f} s",
                f"{theirs['first_s']:.2f} s",
            ]
        )
    return rows


if __name__ == "__main__":
    command()
