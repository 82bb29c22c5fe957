"""``mlxtune convert``: any model source as an MLX folder of the user's own, with other number formats if wanted.

Without options what is stored is kept; ``dtype`` alone makes floats of everything; ``bits`` quantizes.
"""

import tempfile
from pathlib import Path
from typing import Any

from mlxtune.device.choose import open_device
from mlxtune.errors import UsageError
from mlxtune.files import new_folder
from mlxtune.models.gguf import write_gguf_folder
from mlxtune.models.rewrite import rewrite_folder
from mlxtune.models.source import check_quantization, fetch_located, locate
from mlxtune.models.write import DTYPES
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import GROUP_SIZE


def convert(
    source: str,
    out: str | Path,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    dtype: str | None = None,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the model that ``source`` means to the folder ``out``, which mlx_lm.load opens.

    Args:
        bits: one of `recipe.choices.BITS`; layers that are stored so already are passed through to the last bit.
        group_size: one of `recipe.choices.GROUP_SIZES`, else its ``GROUP_SIZE``; only with ``bits``.
        dtype: float16, bfloat16 or float32, for every float; without ``bits`` quantized layers are expanded.
        device: where to compute: ``auto``, ``cpu`` or ``gpu``; it stays the process's.
        force: replace ``out`` if it is there.

    Returns: what was written: ``source``, ``out``, ``model_type``, ``parameters``, ``bytes``, ``quantization`` and
        ``kept_layers``, the number of quantized layers that were passed through.
    Raises: UsageError, OutputExistsError, DeviceError, ModelError or NetworkError; ``out`` is then as it was before.
    """
    if group_size is not None and bits is None:
        raise UsageError("a group size alone quantizes nothing", where="--group-size", remedy="add --bits")
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"there is no dtype {dtype}", where="--dtype", remedy=f"choose from {', '.join(DTYPES)}")
    quantize = None if bits is None else (bits, group_size or GROUP_SIZE)
    if quantize is not None:
        check_quantization(*quantize)
    out = Path(out)
    found = locate(source)
    open_device(device)
    with new_folder(out, force=force) as part:
        found = fetch_located(found, progress=progress)
        if found.kind == "folder":
            result = rewrite_folder(found.path, part, quantize=quantize, dtype=dtype, progress=progress)
        else:
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as imported:
                write_gguf_folder(found.path, Path(imported), progress=progress)
                result = rewrite_folder(Path(imported), part, quantize=quantize, dtype=dtype, progress=progress)
    config = result.pop("config")
    quantization = config.get("quantization")
    return {
        "source": source,
        "out": str(out),
        "model_type": config["model_type"],
        "quantization": quantization,
        **result,
    }
