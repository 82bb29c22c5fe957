"""An adapter alone as a LoRA GGUF, which llama.cpp puts on a base that it has as GGUF.

llama.cpp scales every layer by one alpha over that layer's rank, so whatever a layer's own scale has beyond that goes
into its B; and where GGUF has the rows of a projection in another order, those of B follow them. Only what is a sum to
a matrix has a place there: no DoRA, no module trained whole.

Source: src/llama-adapter.cpp of https://github.com/ggml-org/llama.cpp
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlxtune.adapters.lora import LoRALinear, lora_layers
from mlxtune.adapters.saved import saved_modules
from mlxtune.deployment.export.gguf import GgufReport, model_name
from mlxtune.deployment.export.gguf_weights import GgufPlan, open_for_gguf
from mlxtune.deployment.tuned import check_not_replaced, find_tuned
from mlxtune.device.choose import open_device
from mlxtune.errors import AdapterError, UsageError
from mlxtune.files import check_new_file, new_file
from mlxtune.models.gguf.header import read_header
from mlxtune.models.gguf.write import FILE_TYPES, TYPES, Stored, write_gguf
from mlxtune.progress import Progress, silent

LORA_TYPES = ("f32", "f16", "bf16")
"""Factors are too narrow for types of blocks; the first is the default, and what they are trained in."""


def export_lora(
    source: str | Path,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    type: str = "f32",  # noqa: A002 - as the option is called, and llama.cpp calls it
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> GgufReport:
    """Write the adapter of a run, or ``adapter``, to the GGUF file ``out``, whole or not at all.

    The base is to be exported with `export_gguf`, or to be any GGUF of the very model that was tuned.

    Raises: UsageError, for a type that factors are not written in, where there is no adapter, or for an ``out`` that is
        taken; AdapterError, for an adapter that is more than LoRA; ModelError, for a base that GGUF has no place for.
    """
    if type not in LORA_TYPES:
        remedy = f"choose from {', '.join(LORA_TYPES)}"
        raise UsageError(f"an adapter is not written as {type!r}", where="--type", remedy=remedy)
    out = Path(out)
    check_new_file(out, force=force)
    open_device(device)
    tuned = find_tuned(source, adapter, progress=progress)
    if tuned.adapter is None:
        raise UsageError("there is no adapter", where=source, remedy="name a run, or give --adapter")
    check_not_replaced(out, tuned)
    network, plan = open_for_gguf(tuned)
    layers = _plain_layers(network, plan, tuned.adapter)
    # llama.cpp takes an alpha of 0 for none, which is a scale of 1
    alpha = float(np.median([layer.scale * layer.rank for _, layer in layers])) or 1.0
    architecture = plan.metadata["general.architecture"]
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "general.name": model_name(tuned),
        "general.file_type": int(FILE_TYPES[type]),
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
    }
    layout: dict[str, Stored] = {}
    for path, layer in layers:
        (input_dims, rank), output_dims = layer.lora_a.shape, layer.lora_b.shape[1]
        stored = plan.names[f"{path}.weight"]
        layout[f"{stored}.lora_a"] = Stored((rank, input_dims), TYPES[type])
        layout[f"{stored}.lora_b"] = Stored((output_dims, rank), TYPES[type])
    with new_file(out, force=force) as part:
        write_gguf(part, metadata, layout, _factors(plan, layers, alpha, progress), where=tuned.adapter)
        read_header(part)
        size = part.stat().st_size
    return GgufReport(out, type, architecture, len(layout), size, len(layers), 1.0, tuned.prompting.system)


def _plain_layers(network: Any, plan: GgufPlan, folder: Path) -> list[tuple[str, LoRALinear]]:
    """Raises: AdapterError, if the adapter holds anything but LoRA on matrices that GGUF has."""
    layers = lora_layers(network)
    if not layers and not saved_modules(network):
        what = "these are the network's own weights, trained in full, and no low-rank adapter"
        raise AdapterError(what, where=folder, remedy="leave out --adapter-only: the merged model has it all")
    odd = [(path, "a whole module") for path, _ in saved_modules(network)]
    for path, layer in layers:
        if "m" in layer:
            odd.append((path, "DoRA"))
        elif type(layer) is not LoRALinear or f"{path}.weight" not in plan.names:
            odd.append((path, type(layer).__name__))
    if odd:
        what = f"{odd[0][0]} has {odd[0][1]} of its own, and a LoRA GGUF holds LoRA on linear layers alone"
        raise AdapterError(what, where=folder, remedy="leave out --adapter-only: the merged model has it all")
    return layers


def _factors(
    plan: GgufPlan, layers: list[tuple[str, LoRALinear]], alpha: float, progress: Progress
) -> Iterator[np.ndarray]:
    """A [R, D_in] and B [D_out, R] of each layer, float32."""
    for done, (path, layer) in enumerate(layers, 1):
        yield np.array(layer.lora_a).T
        rows = np.array(layer.lora_b).T * np.float32(layer.scale * layer.rank / alpha)
        yield plan.rows(rows, plan.names[f"{path}.weight"])
        progress("export: layers", done, len(layers))
