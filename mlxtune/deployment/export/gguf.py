"""A tuned model as one GGUF file, for llama.cpp, Ollama and their kin: base and adapter merged, tokenizer and all.

What the type of the file loses of the tuning is measured while it is written, and too much is refused. The file gets
its name when our own reader has read it again. Knows the way through; the weights are gguf_weights.py's, and what
GGUF calls things stands in models/gguf/.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlxtune.data.example import Message
from mlxtune.data.render import Renderer
from mlxtune.deployment.export.gguf_weights import GgufPlan, GgufWeights, open_for_gguf
from mlxtune.deployment.fused_weights import KEPT_ENOUGH, is_kept
from mlxtune.deployment.tuned import Tuned, check_not_replaced, find_tuned
from mlxtune.device.choose import open_device
from mlxtune.errors import ModelError, UsageError
from mlxtune.files import check_disk_space, check_new_file, new_file
from mlxtune.models.gguf.read import read_gguf
from mlxtune.models.gguf.vocabulary import make_vocabulary
from mlxtune.models.gguf.write import FILE_TYPES, TYPES, header_bytes, write_gguf
from mlxtune.models.tokenizer import end_tokens
from mlxtune.progress import Progress, silent

ADD_BOS = "tokenizer.ggml.add_bos_token"
BY_SIZE = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "f32")
"""What a type that lost too much may be exchanged for, fewest bits first."""
QUANTIZATION_VERSION = 2  # ggml's own


@dataclass(frozen=True)
class GgufReport:
    """What was written."""

    out: Path
    type: str
    architecture: str
    tensors: int
    bytes: int
    adapted_layers: int
    update_kept: float
    """The share of the adapter's update that the written weights hold."""
    system: str | None
    """The system message that all training rows began with, which GGUF has no place for."""
    notes: list[str] = field(default_factory=list)
    """What does not hold everywhere, a sentence each."""


def export_gguf(
    source: str | Path,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    type: str = "f16",  # noqa: A002 - as the option is called, and llama.cpp calls it
    accept_loss: bool = False,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> GgufReport:
    """Write a run, or a model with or without an adapter, to the GGUF file ``out``, whole or not at all.

    Args:
        source, adapter: as `find_tuned` takes them.
        type: of matrices; the name of one of ``gguf_write.TYPES``.
        accept_loss: write it, however little of the update the type keeps.

    Raises: UsageError, for an unknown type or an ``out`` that is taken; ModelError, for a model that GGUF has no place
        for, or a type that loses too much; DeviceError, if the disk is too full; and as `find_tuned`.
    """
    if type not in TYPES:
        raise UsageError(f"there is no type {type!r}", where="--type", remedy=f"choose from {', '.join(TYPES)}")
    out = Path(out)
    check_new_file(out, force=force)
    open_device(device)
    tuned = find_tuned(source, adapter, progress=progress)
    check_not_replaced(out, tuned)
    network, plan = open_for_gguf(tuned)
    weights = GgufWeights(network, plan)
    del network
    metadata, notes = _metadata(tuned, plan, type)
    if type.startswith("q") and plan.is_quantized:
        notes.append(f"the base's weights were quantized already; their values are quantized anew, as {type}")
    layout = plan.layout(type)
    check_disk_space(out.parent, sum(one.byte_count for one in layout.values()) + header_bytes(metadata))
    with new_file(out, force=force) as part:
        write_gguf(
            part,
            metadata,
            layout,
            weights.arrays(layout, progress),
            where=tuned.base.path,
            written=lambda name, encoded: weights.measure(name, encoded, layout[name]),
        )
        if not accept_loss and not is_kept(weights.update_kept):
            raise _loses(type, weights.update_kept, tuned)
        read_gguf(part)
        size = part.stat().st_size
    name, kept = plan.metadata["general.architecture"], weights.update_kept
    return GgufReport(out, type, name, len(layout), size, plan.adapted_layers, kept, tuned.prompting.system, notes)


def model_name(tuned: Tuned) -> str:
    """What programs show the model as: the name of the run's folder, the adapter's, or the model's."""
    if tuned.run is not None or tuned.adapter is not None:
        return (tuned.run.path if tuned.run else Path(tuned.adapter or "")).resolve().name
    source = tuned.base.source
    return Path(source.partition("@")[0] if tuned.base.revision else source).resolve().name.removesuffix(".gguf")


def takes_text(tuned: Tuned, tokenizer: Any) -> bool:
    """Whether the model is asked in plain text, without a chat template."""
    return not tokenizer.has_chat_template if tuned.prompting.raw is None else tuned.prompting.raw


def _loses(kind: str, kept: float, tuned: Tuned) -> ModelError:
    """What was lost, and the smallest type that would pass: found by trying, since no rule foretells it."""
    wider = BY_SIZE[BY_SIZE.index("f16" if kind == "bf16" else kind) + (kind != "bf16") :]
    passing = next((one for one in wider if is_kept(GgufWeights(*open_for_gguf(tuned)).update_kept_at(one))), None)
    remedy = "add --accept-loss to write it all the same"
    return ModelError(
        f"as {kind} the file would hold {kept:.1%} of what was learned; at least {KEPT_ENOUGH:.0%} are asked for",
        where=tuned.adapter,
        remedy=f"--type {passing} is the smallest that would pass; or {remedy}" if passing else remedy,
    )


def _metadata(tuned: Tuned, plan: GgufPlan, kind: str) -> tuple[dict[str, Any], list[str]]:
    """All that the file says, and what of it does not hold everywhere."""
    folder = tuned.base.path
    general = {"type": "model", "name": model_name(tuned), "file_type": int(FILE_TYPES[kind])}
    general |= {"quantization_version": QUANTIZATION_VERSION}
    metadata = plan.metadata | {f"general.{key}": value for key, value in general.items()}
    tokenizer = tuned.open_tokenizer()
    ends = {*end_tokens(folder), *tokenizer.eos_token_ids}
    rows = plan.config["vocab_size"]
    vocabulary, notes = make_vocabulary(tokenizer, metadata, rows=rows, ends=ends, where=folder)
    if vocabulary[ADD_BOS] and not takes_text(tuned, tokenizer) and not _chat_has_bos(tokenizer):
        # Programs that read GGUF ask nothing else before they put bos in front of a chat.
        vocabulary[ADD_BOS] = False
        notes.append("bos is put before no text, since chats have none; the tokenizer puts it before plain text")
    return metadata | vocabulary, notes


def _chat_has_bos(tokenizer: Any) -> bool:
    turns = [Message("user", "a")]
    return Renderer(tokenizer).encode_prompt(turns, "chat template")[:1] == [tokenizer.bos_token_id]
