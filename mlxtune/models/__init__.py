"""Stage 1: a pre-trained model, from any source to a network that is ready to work."""

from mlxtune.device.limits import import_mlx_lm

import_mlx_lm()  # before a module of this folder imports a part of it: see there
