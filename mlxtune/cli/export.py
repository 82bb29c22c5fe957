"""``mlxtune export``: a tuned model in the form of another program."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from mlxtune.cli import export_hub
from mlxtune.cli.bits import bits_option
from mlxtune.cli.output import Output, output_options
from mlxtune.errors import UsageError
from mlxtune.recipe.choices import GGUF_TYPES

ADAPTER = click.option("--adapter", type=click.Path(path_type=Path), help="The adapter folder to put on a model.")
ACCEPT_LOSS = click.option("--accept-loss", is_flag=True, help="Write it, though it loses too much of the tuning.")
FORCE = click.option("--force", is_flag=True, help="Replace OUT.")
OUT = click.argument("out", type=click.Path(path_type=Path))
LEAVE_OUT = "leave it out, or leave out --adapter-only"
RUN_OR_MODEL = click.argument("run_or_model", metavar="RUN_OR_MODEL")


def type_option(help_text: str) -> Callable[[Any], Any]:
    return click.option("--type", "type_", type=click.Choice(GGUF_TYPES), help=help_text)


@click.group()
def command() -> None:
    """Write a tuned model in the form of another program."""


command.add_command(export_hub.command)


@command.command()
@RUN_OR_MODEL
@OUT
@ADAPTER
@FORCE
@output_options
def peft(*, run_or_model: str, out: Path, adapter: Path | None, force: bool, output: Output) -> None:
    """Write the adapter of a run to the folder OUT, for PEFT and mlx-lm: the same bytes.

    With a model and --adapter, one that either program made is written for the other, too.
    """
    from mlxtune.deployment.export.peft import export_peft

    report = export_peft(run_or_model, out, adapter=adapter, force=force, progress=output.progress)
    for_whom = [program for program in ("PEFT", "mlx-lm") if program not in report.cannot_open]
    text = f"wrote {report.out}, {report.bytes / 1e6:.1f} MB, for {' and '.join(for_whom)}"
    output.show(asdict(report), f"{text}; its base model is {report.base_model}")
    tell(output, [f"{program} cannot open it: {reason}" for program, reason in report.cannot_open.items()])


@command.command()
@RUN_OR_MODEL
@OUT
@ADAPTER
@type_option("Of matrices: f16 if not given, of an adapter alone f32.")
@click.option("--adapter-only", is_flag=True, help="Write the adapter alone, as a LoRA for a GGUF of its base.")
@ACCEPT_LOSS
@FORCE
@output_options
def gguf(
    *,
    run_or_model: str,
    out: Path,
    adapter: Path | None,
    type_: str | None,
    adapter_only: bool,
    accept_loss: bool,
    force: bool,
    output: Output,
) -> None:
    """Write a run's model, or any other, to the GGUF file OUT, for llama.cpp and its kin.

    Base and adapter are merged; tokenizer, special tokens and chat template are part of the file. What the type loses
    of the tuning is measured and printed; less than 90 % of the update is refused.
    """
    from mlxtune.deployment.export.gguf import export_gguf
    from mlxtune.deployment.export.lora_gguf import export_lora

    if adapter_only and accept_loss:
        raise UsageError("an adapter alone loses nothing: nothing is merged", where="--accept-loss", remedy=LEAVE_OUT)
    options: dict[str, Any] = {"adapter": adapter, "device": output.device, "force": force}
    options |= {"progress": output.progress} | ({} if type_ is None else {"type": type_})
    if adapter_only:
        report = export_lora(run_or_model, out, **options)
    else:
        report = export_gguf(run_or_model, out, accept_loss=accept_loss, **options)
    text = f"wrote {report.out}: {'LoRA' if adapter_only else report.architecture}, {report.type}, {_size(report)}"
    output.show(asdict(report), text)
    tell(output, report.notes, report.system)


@command.command()
@RUN_OR_MODEL
@OUT
@ADAPTER
@type_option("Of matrices: f16 if not given.")
@ACCEPT_LOSS
@FORCE
@output_options
def ollama(
    *,
    run_or_model: str,
    out: Path,
    adapter: Path | None,
    type_: str | None,
    accept_loss: bool,
    force: bool,
    output: Output,
) -> None:
    """Write a run's model, or any other, to the folder OUT: a GGUF file, and a Modelfile that asks as in training."""
    from mlxtune.deployment.export.ollama import export_ollama

    report = export_ollama(
        run_or_model,
        out,
        adapter=adapter,
        type=type_ or "f16",
        accept_loss=accept_loss,
        device=output.device,
        force=force,
        progress=output.progress,
    )
    text = f"wrote {report.out}: {report.type}, {_size(report)}"
    output.show(asdict(report), f"{text}; next: ollama create {report.name} -f {report.out / 'Modelfile'}")
    tell(output, report.notes)


@command.command()
@RUN_OR_MODEL
@click.argument("out", type=click.Path(path_type=Path), required=False)
@ADAPTER
@click.option("--models-dir", type=click.Path(path_type=Path), help="LM Studio's folder of models, if it is not found.")
@bits_option("Quantize")
@ACCEPT_LOSS
@FORCE
@output_options
def lmstudio(
    *,
    run_or_model: str,
    out: Path | None,
    adapter: Path | None,
    models_dir: Path | None,
    bits: int | str | None,
    accept_loss: bool,
    force: bool,
    output: Output,
) -> None:
    """Write a run's model where LM Studio looks for MLX models, or to the folder OUT."""
    from mlxtune.deployment.export.lmstudio import export_lmstudio

    report = export_lmstudio(
        run_or_model,
        out,
        models_dir=models_dir,
        adapter=adapter,
        bits=bits,
        accept_loss=accept_loss,
        device=output.device,
        force=force,
        progress=output.progress,
    )
    output.show(asdict(report), f"wrote {report.out}, {report.fused.bytes / 1e6:.1f} MB")
    tell(output, report.notes, report.system)


def _size(report: Any) -> str:
    kept = f", {report.update_kept:.1%} of the update kept" if report.adapted_layers else ""
    return f"{report.bytes / 1e6:.1f} MB{kept}"


def tell(output: Output, notes: list[str], system: str | None = None) -> None:
    """What does not hold everywhere, a line each; and the system message, where the form has no place for it."""
    for note in notes:
        output.note(f"note: {note}")
    if system is not None:
        output.note(
            f"note: training began every chat with this system message, which is to be given there too:\n{system}"
        )
