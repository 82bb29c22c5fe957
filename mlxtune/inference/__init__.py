"""What a network says of token ids: likelihoods, shared prefixes, generation."""

from mlxtune.device.limits import import_mlx_lm

import_mlx_lm()  # before a module of this folder imports a part of it: see there
