"""Writing an MLX model folder: weights in shards, config.json with what is quantized how, the files beside them.

Knows names and arrays, not networks: weights come as a stream, so that a model larger than memory is written a tensor
at a time. Writes plainly, file by file; whoever calls gives a folder that nobody sees yet (``files.new_folder``).
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxtune.device.limits import import_mlx_lm
from mlxtune.files import write_json
from mlxtune.models.safetensors import INDEX
from mlxtune.models.shard import ShardWriter
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import DTYPE_NAMES

DTYPES: dict[str, mx.Dtype] = {name: getattr(mx, name) for name in DTYPE_NAMES}
"""The number formats that weights may be written in, by the names that commands and config.json give them."""

SHARD_BYTES = 5 << 30

COMPANIONS = (
    *("tokenizer*", "*.model", "*.tiktoken", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("*.jinja", "chat_template*", "additional_chat_templates/*.jinja", "generation_config.json", "LICENSE*"),
    "mlxtune.json",
)
"""What belongs to a model beside config and weights: tokenizer, how to generate, licence, how a tuned one is asked."""


def write_weights(
    folder: Path,
    weights: Iterable[tuple[str, mx.array]],
    *,
    count: int,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = silent,
) -> int:
    """Write tensors as ``model.safetensors``, or as numbered shards with an index beside them.

    Args:
        weights: name and array, which may be lazy; each is evaluated, written and dropped as it comes, so that memory
            holds what one tensor is made of.
        count: about how many there are, for ``progress``.
        shard_bytes: no shard is larger, except for a tensor that is.

    Returns: the bytes of all tensors together.
    """
    shards: list[list[str]] = []
    total = done = 0
    stream = iter(weights)
    item = next(stream, None)
    while item is not None or not shards:
        with ShardWriter(folder / f"part-{len(shards)}.safetensors", count - done) as shard:
            while item is not None and (not shard.size or shard.size + item[1].nbytes <= shard_bytes):
                shard.add(*item)
                item = None  # let go of, before the next is made
                done += 1
                progress("write: tensors", done, count)
                item = next(stream, None)
        shards.append(list(shard.entries))
        total += shard.size
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        last = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"part-{i}.safetensors").rename(folder / last)
        weight_map |= dict.fromkeys(names, last)
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})
    return total


def quantization_config(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The ``quantization`` entry of config.json: the commonest setting, and beside it each layer that has another.

    Args:
        layers: module path to ``{"group_size", "bits", "mode"}``.
    """
    if not layers:
        return None
    (common, _), *_ = Counter(tuple(sorted(setting.items())) for setting in layers.values()).most_common(1)
    others = {path: dict(setting) for path, setting in layers.items() if tuple(sorted(setting.items())) != common}
    return dict(common) | others


def plain_config(config: Mapping[str, Any], dtype: str | None = None) -> dict[str, Any]:
    """The config of the same model with nothing quantized; and of its ``text_config``, where it has one.

    Args:
        dtype: in which the floats are stored now; None leaves what is said of it.
    """
    dropped = ("quantization", "quantization_config", "quantize_activations")
    plain = {key: value for key, value in config.items() if key not in dropped}
    if dtype is not None:
        plain["torch_dtype"] = dtype
        if "dtype" in plain:  # the same, by its newer name
            plain["dtype"] = dtype
    if isinstance(text_config := plain.get("text_config"), dict):
        plain["text_config"] = plain_config(text_config, dtype)
    return plain


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json as mlx_lm does: sorted, ``quantization`` repeated for the hub, infinities tagged."""
    import_mlx_lm()
    from mlx_lm.utils import save_config

    save_config(dict(config), folder / "config.json")


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what ``COMPANIONS`` names from one model folder to another; links, as in the hub's cache, become files."""
    for pattern in COMPANIONS:
        for file in sorted(source.glob(pattern)):
            if file.is_file():
                target = folder / file.relative_to(source)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)
