"""PEFT's reading of its own file in numpy, float64: which weights a model with the adapter folded in has.

Written from peft/tuners/lora/layer.py and dora.py: a linear layer has W + s B A, with A [R, D_in] and B [D_out, R]; an
embedding E + s (B A)^T, with A [R, V] and B [D, R]; with a magnitude m a linear layer's rows have the lengths m, an
embedding's columns. Modules to save are in the file as they are.
"""

import numpy as np

PREFIX = "base_model.model."


def merge_peft(weights, tensors, scale_of):
    """
    Args:
        weights: of the base, by Hugging Face's names.
        tensors: of adapter_model.safetensors.
        scale_of: from a layer's name to s.

    Returns: the weights by name, those of changed layers in float64.
    """
    merged = dict(weights)
    tensors = {name.removeprefix(PREFIX): np.asarray(array, np.float64) for name, array in tensors.items()}
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            change, axis = tensors[f"{layer}.lora_B.weight"] @ a, 1
        elif name.endswith(".lora_embedding_A"):
            layer = name.removesuffix(".lora_embedding_A")
            change, axis = (tensors[f"{layer}.lora_embedding_B"] @ a).T, 0
        else:
            continue
        moved = np.asarray(merged[f"{layer}.weight"], np.float64) + scale_of(layer) * change
        if (m := tensors.get(f"{layer}.lora_magnitude_vector")) is not None:
            moved = moved * np.expand_dims(m, axis) / np.sqrt((moved**2).sum(axis=axis, keepdims=True))
        merged[f"{layer}.weight"] = moved
    merged |= {name: array for name, array in tensors.items() if "lora_" not in name}
    return merged
