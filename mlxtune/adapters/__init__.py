"""LoRA: layers beside frozen weights, their files, and folding them in."""

from mlxtune.device.limits import import_mlx_lm

import_mlx_lm()  # before a module of this folder imports a part of it: see there
