"""``mlxtune serve``: runs and models behind an OpenAI-compatible server and a web page."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxtune.cli.output import Output, output_options

if TYPE_CHECKING:
    from mlxtune.deployment.served import Served


@click.command()
@click.argument("sources", metavar="RUN_OR_MODEL...", nargs=-1, required=True)
@click.option("--adapter", type=click.Path(path_type=Path), help="An adapter folder to put on the only model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; another than this needs a key.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    help="A file that only you can read, with the key that clients send; else MLXTUNE_API_KEY.",
)
@click.option("--allow-host", multiple=True, help="A name by which the server is called too, such as a proxy's.")
@click.option("--allow-origin", multiple=True, help="A site whose pages may ask, such as https://example.org.")
@click.option("--raw", is_flag=True, default=None, help="Send prompts as they are, without a chat template.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=4096, show_default=True, help="The longest answer to write."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Answers written together."
)
@click.option(
    "--queue", type=click.IntRange(min=0), default=64, show_default=True, help="Answers that may wait beside those."
)
@click.option("--open", "opens", is_flag=True, help="Open the web page.")
@output_options
def command(
    sources: tuple[str, ...],
    adapter: Path | None,
    host: str,
    port: int,
    api_key_file: Path | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    raw: bool | None,
    max_tokens: int,
    batch_size: int,
    queue: int,
    opens: bool,
    output: Output,
) -> None:
    """Serve runs and models to applications: POST /v1/chat/completions as OpenAI's API has it, and a page to chat at /.

    Several runs of one base share it in memory. Each is asked by its recipe's name, or by NAME where NAME=RUN is given,
    and the untuned model as base. Ctrl-C ends it once answers that are being written are whole.
    """
    from mlxtune.deployment.server.api_key import read_api_key
    from mlxtune.deployment.server.guard import GuardSettings
    from mlxtune.deployment.server.serve import ServeSettings, serve
    from mlxtune.deployment.server.worker import Limits

    if adapter is not None and len(sources) > 1:
        raise click.UsageError("--adapter goes with one model")
    key = read_api_key(api_key_file, os.environ)
    settings = ServeSettings(
        GuardSettings(host, port, key, allow_origin, allow_host),
        Limits(batch_size=batch_size, waiting=queue, max_tokens=max_tokens),
        output.device,
        raw,
        adapter,
    )

    def listening(address: str, served: "Served") -> None:
        for model in served.models.values():
            if model.note is not None:
                output.note(f"note: {model.name}: {model.note}")
        models = list(served.models)
        output.show({"address": address, "models": models}, f"{address}  ({', '.join(models)})")
        output.note(f"the page is at {address}/, the API at {address}/v1; Ctrl-C ends it")
        if opens:
            click.launch(address)

    with access_log(is_shown=not output.quiet):
        serve(sources, settings, listening=listening, progress=output.progress)


@contextmanager
def access_log(*, is_shown: bool) -> Iterator[None]:
    """What the server notes of its requests, on standard error."""
    log, handler = logging.getLogger("mlxtune.server"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    before = log.level
    if is_shown:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
