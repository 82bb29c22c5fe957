"""The weights of base plus adapter as a GGUF file has them, one by one, and how much of the update each still holds.

The same measure as fused_weights.py's, on the very bytes that are written, in GGUF's order of rows. Memory holds one
tensor, and while that is measured a few of its size, since neither the network nor the arrays that were worked out are
held. Knows arrays, not files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlxtune.adapters.format import located
from mlxtune.adapters.full import trained_weights
from mlxtune.adapters.lora import lora_layers
from mlxtune.adapters.merge import layer_updates, merged_weights
from mlxtune.adapters.open import attach_adapter
from mlxtune.deployment.fused_weights import Survival
from mlxtune.deployment.tuned import Tuned
from mlxtune.device.dequantize import is_quantized
from mlxtune.errors import AdapterError, ModelError
from mlxtune.models.gguf.architectures import Architecture, tensor_parts
from mlxtune.models.gguf.metadata import NO_PLACE, Factors, architecture_for, filled_config, make_metadata
from mlxtune.models.gguf.read import stored_rows
from mlxtune.models.gguf.write import Stored, choose_type, decode, encode
from mlxtune.models.load import load_network, read_config
from mlxtune.progress import Progress, silent


@dataclass(frozen=True)
class GgufPlan:
    """What GGUF calls a network's parts, and what it says of it."""

    config: dict[str, Any]
    """As `filled_config` gives it."""
    architecture: Architecture
    metadata: dict[str, Any]
    factors: Factors
    names: dict[str, str]
    """mlx_lm's name of each weight to GGUF's."""
    adapted_layers: int
    is_quantized: bool
    """Whether the base is."""
    folder: Path
    """The base's."""
    changes_weights: bool
    """Whether it is full fine-tuning that the network carries."""

    def layout(self, kind: str) -> dict[str, Stored]:
        """Every tensor of a file of one type, in the file's order."""
        layout = {name: Stored(array.shape, choose_type("f32", array.shape)) for name, array in self.factors.items()}
        head = "token_embd.weight" if self.config["tie_word_embeddings"] else "output.weight"
        for name, (_, shape) in tensor_parts(self.architecture, self.config).items():
            layout[name] = Stored(shape, choose_type(kind, shape, is_head=name == head))
        return layout

    def rows(self, values: np.ndarray, stored: str) -> np.ndarray:
        """A tensor's rows in GGUF's order."""
        return stored_rows(values, stored, self.architecture, self.config)


def open_for_gguf(tuned: Tuned) -> tuple[Any, GgufPlan]:
    """The network with its adapter on it, weights not yet read from the disk, and what GGUF makes of it.

    Raises: ModelError, if GGUF has no place for the model or one of its weights; AdapterError.
    """
    folder = tuned.base.path
    stored = read_config(folder)
    name, architecture = architecture_for(stored, folder)
    network: Any = load_network(folder)[0]
    rows = network.model.embed_tokens.weight.shape[0]
    was_quantized = any(is_quantized(module) for module in network.modules())
    if tuned.adapter is not None:
        attach_adapter(network, tuned.adapter, as_stored=True)
    try:
        names = {name for name, _ in merged_weights(network, mx.float32)}
    except AdapterError as error:
        raise located(error, tuned.adapter or folder) from error
    config = filled_config(stored, network, rows=rows, has_head="lm_head.weight" in names)
    parts = {name: stored for stored, (name, _) in tensor_parts(architecture, config).items()}
    odd = sorted(names ^ parts.keys())
    if not odd and "lm_head.weight" in names and not architecture.has_output:
        odd = ["lm_head.weight"]
    if odd:
        what = f"the weight {odd[0]} is {'more' if odd[0] in names else 'less'} than GGUF's {name} has"
        raise ModelError(what, where=folder, remedy=NO_PLACE)
    metadata, factors = make_metadata(config, folder)
    weights = trained_weights(network) if tuned.adapter is not None else {}
    adapted = len(lora_layers(network)) or len(weights)
    return network, GgufPlan(
        config, architecture, metadata, factors, parts, adapted, was_quantized, folder, bool(weights)
    )


class GgufWeights:
    """One pass over the weights of a network; known afterwards, by GGUF's names: how much of each update is there."""

    def __init__(self, network: Any, plan: GgufPlan) -> None:
        """Look at ``network``, which is not held: it would hold on to every array that was worked out for it."""
        plain = load_network(plan.folder)[0] if plan.changes_weights else None
        self.plan = plan
        self.survival: dict[str, Survival] = {}
        self._merged = {plan.names[name]: array for name, array in merged_weights(network, mx.float32)}
        updates = ((plan.names.get(f"{path}.weight"), update) for path, update in layer_updates(network, plain))
        self._updates = {name: update for name, update in updates if name is not None and update[0].ndim > 1}

    def arrays(self, layout: Mapping[str, Stored], progress: Progress = silent) -> Iterator[np.ndarray]:
        """The tensors in the layout's order, float32; each is let go of when the next is asked for."""
        for done, stored in enumerate(layout, 1):
            yield self.plan.factors[stored] if stored in self.plan.factors else self._array(stored)
            mx.clear_cache()
            progress("export: tensors", done, len(layout))

    def _array(self, stored: str) -> np.ndarray:
        values = np.array(self._merged.pop(stored))
        if values.ndim == 1 and not stored.endswith(".bias"):
            values += np.float32(self.plan.architecture.norm_offset)
        return self.plan.rows(values, stored)

    def measure(self, stored: str, encoded: np.ndarray, kind: Stored) -> None:
        """Take note of how much of its update a tensor holds as it is written: <W' - W, D> and <D, D>."""
        if stored in self._updates:
            base, change = (self.plan.rows(np.array(one), stored) for one in self._updates.pop(stored))
            moved = decode(encoded, kind.type) - base
            kept, whole = (float(np.sum(one * change, dtype=np.float64)) for one in (moved, change))
            self.survival[stored] = Survival(kept, whole)

    @property
    def update_kept(self) -> float:
        """The share of the whole update; 1 where there is none."""
        kept, whole = (sum(getattr(one, side) for one in self.survival.values()) for side in ("kept", "whole"))
        return Survival(kept, whole).share

    def update_kept_at(self, kind: str) -> float:
        """The share that a file of a type would hold; 0, if the type cannot hold the values. Writes nothing."""
        layout = {name: stored for name, stored in self.plan.layout(kind).items() if name in self._updates}
        try:
            for (name, stored), array in zip(layout.items(), self.arrays(layout), strict=True):
                self.measure(name, encode(array, stored.type), stored)
        except ValueError:
            return 0.0
        return self.update_kept
