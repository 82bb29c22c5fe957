"""A base network plus an adapter folder: the network that the adapter was trained to be.

The folder's config says which layers have an update, its weights must fit each of them. Whether the base is the one
that the adapter was trained on cannot be seen in the numbers; a run folder has its hash and is compared above.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, block_paths, load_adapter_parameters
from mlxtune.adapters.format import located, read_adapter
from mlxtune.errors import AdapterError


def attach_adapter(network: Any, folder: Path) -> LoraShape:
    """Put the adapter in ``folder`` on ``network``, in place; its factors alone are trainable afterwards.

    Args:
        folder: written by mlxtune, mlx-lm or PEFT.

    Returns: its shape, as the network has it now.
    Raises: AdapterError, if the folder cannot be read or does not fit the network, which is then not to be used.
    """
    shape, parameters, _ = read_adapter(folder)
    try:
        if shape.layers != "all":  # mlx-lm's num_layers may be larger than the network is deep
            shape = replace(shape, layers=min(shape.layers, len(block_paths(network))))
        attach_lora(network, shape, seed=0)
        load_adapter_parameters(network, parameters)
    except AdapterError as error:
        raise located(error, folder) from error
    mx.eval(adapter_parameters(network))
    return shape
