"""What a model costs to keep and to ask: parameters, bytes on disk, memory, and tokens a second.

Measured on this machine, at the side of the scores, in one way for all models: the prompt of the first held-out row is
read, and a fixed number of tokens is written after it, greedily, one after the other, as for one person who waits.
So neither how long a model likes to talk nor how many rows were answered at once counts. The speed is that of the
median token, which a moment's other work of the machine does not change. The price is a figure of one day all the same:
what else went on then, all the while, is in it.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mlx.core as mx
    from mlx import nn

WRITTEN_TOKENS = 32


@dataclass(frozen=True)
class Cost:
    """Of one model. None is what is not known."""

    parameters: int | None = None
    """Those of an adapter included."""
    disk_bytes: int | None = None
    """Of the weights as they are stored, an adapter's included."""
    peak_memory_bytes: int | None = None
    """Of the weights as they were opened, and the most that reading a prompt and writing an answer took beside them."""
    tokens_per_s: float | None = None
    """Written one after the other; by the median token."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Cost":
        """What `to_json` gave. Raises: TypeError, for anything else."""
        return Cost(**content)


def measure_cost(network: "nn.Module", prompt: Sequence[int], *, disk_bytes: int | None = None) -> Cost:
    """Ask a network for some tokens after ``prompt``, which are thrown away, and look at the clock and the memory.

    Args:
        prompt: token ids, at least one.
        disk_bytes: of the weights' files.
    """
    import mlx.core as mx  # here and below, so that a table of costs is shown without it
    from mlx.utils import tree_flatten
    from mlx_lm.models.cache import make_prompt_cache

    arrays: Any = tree_flatten(network.parameters(), destination={})
    mx.eval(list(arrays.values()))
    weights_bytes = sum(array.nbytes for array in arrays.values())
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    cache = make_prompt_cache(network)
    token = _likeliest(network, mx.array([list(prompt)]), cache)
    seconds = []
    for _ in range(WRITTEN_TOKENS):
        started = time.perf_counter()
        token = _likeliest(network, token, cache)
        seconds.append(time.perf_counter() - started)
    return Cost(
        parameters=count_parameters(network),
        disk_bytes=disk_bytes,
        peak_memory_bytes=weights_bytes + mx.get_peak_memory() - before,
        tokens_per_s=1 / statistics.median(seconds),
    )


def count_parameters(network: "nn.Module") -> int:
    """All numbers that a network has learned; of quantized weights, as many as they stand for."""
    return sum(_own_parameters(module) for _, module in network.named_modules())


def _own_parameters(module: "nn.Module") -> int:
    import mlx.core as mx

    own = {name: value for name, value in module.items() if isinstance(value, mx.array) and not name.startswith("_")}
    bits = getattr(module, "bits", None)
    if bits is None or "scales" not in own:
        return sum(value.size for value in own.values())
    # Quantized: scales and zero points are how the weights are written down, not weights of their own.
    bias = own["bias"].size if "bias" in own else 0
    return own["weight"].size * 32 // bits + bias


def _likeliest(network: "nn.Module", token_ids: "mx.array", cache: list[Any]) -> "mx.array":
    """[1, 1]: the likeliest token after [1, L]."""
    import mlx.core as mx

    token = mx.argmax(network(token_ids, cache=cache)[:, -1:], axis=-1)
    mx.eval(token)
    return token
