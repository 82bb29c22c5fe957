"""What a figure is made of: sums over rows come in, the figure comes out, for one sum of rows or many resampled ones.

Named, because per-row numbers are kept in files, and must find the way back to their figure.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from mlxtune.evaluation.statistics import Figure


def ratio(sums: np.ndarray) -> np.ndarray:
    """Of [..., 2] numerators and denominators: nats a token, bits a byte, right ones of all."""
    return sums[..., 0] / sums[..., 1]


FIGURES: Mapping[str, Figure] = MappingProxyType({"ratio": ratio})
