"""``mlxtune generate``: what a model, or a run's tuned model, answers to prompts."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.cli.sampling_options import sampling_options


@click.command()
@click.argument("run_or_model", metavar="RUN_OR_MODEL")
@click.option("--adapter", type=click.Path(path_type=Path), help="An adapter folder to put on a model.")
@click.option("--prompt", help="What to answer; - reads it from standard input, less the last line end.")
@click.option("--system", help="A system message before the prompt, instead of the one that training had.")
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Many prompts: JSON Lines with prompt or messages in each row, or plain text with a prompt a line; "
    "- reads JSON Lines from standard input.",
)
@click.option("--raw", is_flag=True, default=None, help="Send the prompt as it is, without a chat template.")
@sampling_options
@output_options
def command(
    run_or_model: str,
    adapter: Path | None,
    prompt: str | None,
    system: str | None,
    input_file: Path | None,
    raw: bool | None,
    sampling: dict[str, Any],
    output: Output,
) -> None:
    """Let RUN_OR_MODEL answer a prompt, or every prompt of a file, many at once; the answers keep the prompts' order.

    A run's model, or one fused from it, gets its prompts as in training: after the system message that all of the
    training rows began with, if they did, and as plain text if they were.
    """
    from mlxtune.deployment.answer import generate, open_answerer
    from mlxtune.deployment.prompts import as_prompt, read_prompt_rows, read_prompts

    if (prompt is None) == (input_file is None):
        raise click.UsageError("give one of --prompt and --input")
    if system is not None and input_file is not None:
        raise click.UsageError("--system goes with --prompt; rows of --input bring their own messages")
    if system is not None and raw:
        raise click.UsageError("--raw sends the prompt alone; leave out --system")
    if prompt == "-":
        prompt = sys.stdin.read().removesuffix("\n")
    if input_file is None:
        prompts = [as_prompt(prompt or "", system=system, where="--prompt")]
    elif input_file == Path("-"):
        prompts = read_prompt_rows(sys.stdin.buffer)
    else:
        prompts = read_prompts(input_file)
    answerer = open_answerer(run_or_model, adapter=adapter, device=output.device, raw=raw, progress=output.progress)
    if answerer.note is not None:
        output.note(f"note: {answerer.note}")
    for answer in generate(answerer, prompts, **sampling, progress=output.progress):
        output.show(asdict(answer), answer.text)
