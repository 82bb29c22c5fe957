"""Run by convert_vs_mlx_lm.py: one call of ``mlx_lm.convert``.

The argument is a JSON file: ``{"device", "settings": the keyword arguments of mlx_lm.convert}``.
"""

import json
import sys
from pathlib import Path

import mlx.core as mx

if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if asked["device"] == "cpu":
        mx.set_default_device(mx.Device(mx.cpu))
    from mlx_lm import convert

    convert(**asked["settings"])
