"""``mlxtune generate``: what a model, or a run's tuned model, answers to prompts."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from mlxtune.cli.output import Output, output_options
from mlxtune.deployment.sampling import MAX_TOKENS, SEED, TEMPERATURE


@click.command()
@click.argument("run_or_model", metavar="RUN_OR_MODEL")
@click.option("--adapter", type=click.Path(path_type=Path), help="An adapter folder to put on a model.")
@click.option("--prompt", help="What to answer; - reads it from standard input, less the last line end.")
@click.option("--system", help="A system message before the prompt, instead of the one that training had.")
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path),
    help="Many prompts: JSON Lines with prompt or messages in each row, or plain text with a prompt a line.",
)
@click.option("--raw", is_flag=True, default=None, help="Send the prompt as it is, without a chat template.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=MAX_TOKENS, show_default=True, help="Most tokens of an answer."
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=TEMPERATURE,
    show_default=True,
    help="0: the likeliest token.",
)
@click.option("--seed", type=click.IntRange(min=0), default=SEED, show_default=True, help="Of the draws.")
@output_options
def command(
    run_or_model: str,
    adapter: Path | None,
    prompt: str | None,
    system: str | None,
    input_file: Path | None,
    raw: bool | None,
    max_tokens: int,
    temperature: float,
    seed: int,
    output: Output,
) -> None:
    """Let RUN_OR_MODEL answer a prompt, or every prompt of a file.

    A run's model, or one fused from it, gets its prompts as in training: after the system message that all of the
    training rows began with, if they did, and as plain text if they were.
    """
    from mlxtune.deployment.answer import generate, open_answerer
    from mlxtune.deployment.prompts import as_prompt, read_prompts

    if (prompt is None) == (input_file is None):
        raise click.UsageError("give one of --prompt and --input")
    if system is not None and input_file is not None:
        raise click.UsageError("--system goes with --prompt; rows of --input bring their own messages")
    if system is not None and raw:
        raise click.UsageError("--raw sends the prompt alone; leave out --system")
    if prompt == "-":
        prompt = sys.stdin.read().removesuffix("\n")
    prompts = (
        read_prompts(input_file)
        if input_file is not None
        else [as_prompt(prompt or "", system=system, where="--prompt")]
    )
    answerer = open_answerer(run_or_model, adapter=adapter, device=output.device, raw=raw, progress=output.progress)
    if answerer.note is not None:
        output.note(f"note: {answerer.note}")
    answers = generate(
        answerer, prompts, max_tokens=max_tokens, temperature=temperature, seed=seed, progress=output.progress
    )
    for answer in answers:
        output.show(asdict(answer), answer.text)
