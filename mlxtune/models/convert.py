"""``mlxtune convert``: any model source as an MLX folder of the user's own, with other number formats if wanted.

Without options what is stored is kept; ``dtype`` alone makes floats of everything; bits, a mode or a mix quantize. What
that loses is measured by functions that come in: networks are read on a floor above this one.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mlxtune.device.choose import open_device
from mlxtune.errors import UsageError
from mlxtune.files import check_disk_space, check_new_folder, check_not_inside, new_folder
from mlxtune.models.gguf.blocks import EXPANDED
from mlxtune.models.gguf.header import read_header
from mlxtune.models.gguf.read import imported_bytes, read_gguf, write_gguf_folder
from mlxtune.models.quantization import Setting, mixed, quantization_wanted, setting_asked
from mlxtune.models.rewrite import Choice, Rewriting, plan_rewriting, write_rewriting
from mlxtune.models.source import Located, fetch_located, locate
from mlxtune.models.write import COMPANIONS, DTYPES
from mlxtune.progress import Progress, silent

ChooseBits = Callable[[Path, Setting], Mapping[str, Setting]]
"""Of the sensitive mix: a model folder, and the setting whose bits are the mean, to the setting of each layer."""
Compare = Callable[[Path], Any]
Measure = Callable[[Path], Compare | None]
"""Reads the source's folder; gives the function that holds the folder which was written against it, or None where the
machine has not the memory."""


def convert(
    source: str,
    out: str | Path,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str | None = None,
    mix: str | None = None,
    dtype: str | None = None,
    device: str = "auto",
    force: bool = False,
    choose_bits: ChooseBits | None = None,
    measure: Measure = lambda _: None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the model that ``source`` means to the folder ``out``, which mlx_lm.load opens.

    Args:
        bits: one of `recipe.choices.BITS`; layers that are stored so already are passed through to the last bit.
        group_size: one of `recipe.choices.GROUP_SIZES`, else its ``GROUP_SIZE``; only where something is quantized.
        mode: one of `recipe.choices.MODES`; all but affine say themselves to how many bits.
        mix: one of `recipe.choices.MIXES`: mlx-lm's, which say how many bits which layers get; or ``sensitive``, where
            layers get what ``choose_bits`` says, ``bits`` on average at most.
        dtype: float16, bfloat16 or float32, for every float; alone, quantized layers are expanded.
        device: where to compute: ``auto``, ``cpu`` or ``gpu``; it stays the process's.
        force: replace ``out`` if it is there, and does not hold the source.
        measure: is called only where something is going to be lost.

    Returns: what was written: ``source``, ``out``, ``model_type``, ``parameters``, ``bytes``, ``bits_per_weight``,
        ``quantization``, ``forms`` (each setting or dtype, and how many layers have it), ``kept_layers`` (those passed
        through), ``exact`` (nothing was lost), ``fidelity`` (what was measured, or None) and ``notes``.
    Raises: UsageError, OutputExistsError, DeviceError, ModelError or NetworkError; ``out`` is then as it was before.
    """
    asked = setting_asked(bits, group_size, mode, mix)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"there is no dtype {dtype}", where="--dtype", remedy=f"choose from {', '.join(DTYPES)}")
    out = Path(out)
    check_new_folder(out, force=force)
    found = locate(source)
    open_device(device)
    found = fetch_located(found, progress=progress)
    check_not_inside(out, {"source": found.path})
    if found.kind == "gguf" and asked is None and dtype is None:
        rewriting, fidelity = _import(found.path, out, force=force, progress=progress), None
    else:
        with _as_folder(found, out, asked, dtype, progress) as folder:
            choose = None if asked is None else _choice(folder, asked, mix, choose_bits)
            rewriting = plan_rewriting(folder, choose=choose, dtype=dtype)
            fidelity = _write(rewriting, out, None if rewriting.is_exact else measure, force=force, progress=progress)
    expanded = _expanded_types(found)
    return {
        "source": source,
        "out": str(out),
        **_described(rewriting),
        "exact": rewriting.is_exact and not expanded,
        "fidelity": fidelity,
        "notes": _notes(rewriting, expanded),
    }


def _described(rewriting: Rewriting) -> dict[str, Any]:
    return {
        "model_type": rewriting.config["model_type"],
        "parameters": rewriting.parameters,
        "bytes": rewriting.bytes,
        "bits_per_weight": 8 * rewriting.bytes / rewriting.parameters,
        "quantization": rewriting.config.get("quantization"),
        "forms": rewriting.forms(),
        "kept_layers": rewriting.kept_layers,
    }


def _choice(folder: Path, asked: Setting, mix: str | None, choose_bits: ChooseBits | None) -> Choice:
    if mix is None:
        return partial(quantization_wanted, **asked)
    if mix != "sensitive":
        return partial(mixed, mix=mix, group_size=asked["group_size"])
    if choose_bits is None:
        raise UsageError("the sensitive mix is measured on rows", where="--mix sensitive", remedy="add --data FILE")
    chosen = choose_bits(folder, asked)
    return lambda _: chosen


def _write(rewriting: Rewriting, out: Path, measure: Measure | None, *, force: bool, progress: Progress) -> Any:
    """Write ``out``, and hold it against the source before it has its name. Returns: what ``measure`` found."""
    companions = {file for pattern in COMPANIONS for file in rewriting.source.glob(pattern) if file.is_file()}
    check_disk_space(out, rewriting.bytes + sum(file.stat().st_size for file in companions))
    compare = None if measure is None else measure(rewriting.source)
    with new_folder(out, force=force) as part:
        write_rewriting(rewriting, part, progress=progress)
        return None if compare is None else compare(part)


def _import(path: Path, out: Path, *, force: bool, progress: Progress) -> Rewriting:
    """A GGUF file as ``out``, as it is."""
    check_disk_space(out, imported_bytes(read_gguf(path)))
    with new_folder(out, force=force) as part:
        write_gguf_folder(path, part, progress=progress)
        return plan_rewriting(part)


@contextmanager
def _as_folder(
    found: Located, out: Path, asked: Setting | None, dtype: str | None, progress: Progress
) -> Iterator[Path]:
    """The source as a folder, for as long as the block runs: a GGUF file is imported beside ``out``."""
    if found.kind == "folder":
        yield found.path
        return
    model = read_gguf(found.path)
    # What is written after the import is known to the byte only then: its scales are left out here.
    weights = sum(math.prod(tensor.shape) for tensor in model.header.tensors.values())
    bits = asked["bits"] if asked else 8 * DTYPES[str(dtype)].size
    check_disk_space(out, imported_bytes(model) + bits * weights // 8)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        write_gguf_folder(found.path, Path(temporary), progress=progress)
        yield Path(temporary)


def _expanded_types(found: Located) -> list[str]:
    """The types in a GGUF file that MLX has nothing like, and that its import rounds to 16 bits."""
    if found.kind != "gguf":
        return []
    return sorted({tensor.type.name for tensor in read_header(found.path).tensors.values() if tensor.type in EXPANDED})


def _notes(rewriting: Rewriting, expanded: list[str]) -> list[str]:
    notes = []
    if expanded:
        notes.append(
            f"{', '.join(expanded)} became 16-bit floats, which rounds a value by at most 1/2048 of it or 3e-8; in a "
            "tensor with values beyond float16's range, by at most 1/256"
        )
    if count := rewriting.requantized_layers:
        notes.append(f"{count} layers were quantized before in another way: what that lost is lost too")
    return notes
