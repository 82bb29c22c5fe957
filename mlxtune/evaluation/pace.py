"""How many positions are read at once, so that no single evaluation holds an Apple GPU for long.

The display is drawn by the same GPU; macOS shows nothing new while it works off what it was given. So a batch that is
only read is as large as is read in `LONGEST_S` by an estimate: two operations a weight and position, at half of what
the chip's cores can do. An estimate and no measurement, since a validation must read the same batches after a resume
as before, to the last bit. A single row is never cut. Of a mixture of experts all weights are counted, though few
work for a token: the price is smaller batches there than need be. On the CPU nothing is bounded.
"""

import mlx.core as mx
from mlx import nn

from mlxtune.data.batch import READING_TOKENS
from mlxtune.device.profiles import flops_of_device
from mlxtune.evaluation.cost import count_parameters

LONGEST_S = 1.0


def positions_at_once(
    parameters: int, flops_per_s: float, *, seconds: float = LONGEST_S, most: int = READING_TOKENS
) -> int:
    """Positions that a network of so many parameters reads in ``seconds``: at least 1, at most ``most``."""
    return max(1, min(most, int(seconds * flops_per_s / (2 * max(1, parameters)))))


def reading_tokens(network: nn.Module) -> int:
    """Positions of a batch that is only read, on MLX's default device."""
    if mx.default_device() != mx.gpu:
        return READING_TOKENS
    return positions_at_once(count_parameters(network), flops_of_device(str(mx.device_info().get("device_name", ""))))
