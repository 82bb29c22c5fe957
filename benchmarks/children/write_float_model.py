"""Run by convert_vs_mlx_lm.py: writes a model of random weights, of the bytes and number format asked for.

The argument is a JSON file: ``{"device", "folder", "bytes", "dtype"}``.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from synthetic import Shape, write_model

# isort: split
import mlx.core as mx

HIDDEN_SIZE, VOCAB_SIZE = 1536, 32000

if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    dtype = getattr(mx, asked["dtype"])
    block = sum(a * b for a, b in Shape(HIDDEN_SIZE, 1, VOCAB_SIZE).linear_dims().values())
    layers = round((asked["bytes"] / dtype.size - HIDDEN_SIZE * VOCAB_SIZE) / block)
    write_model(Path(asked["folder"]), Shape(HIDDEN_SIZE, max(1, layers), VOCAB_SIZE), dtype)
