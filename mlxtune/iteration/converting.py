"""``convert`` with its measures: which rows it is judged by, and what of the source the result still says.

The rows that choose a mix are never those that judge it. A user's own are learned answers, as in training; without any
the held-out rows of a packaged recipe are taken, whole, as text where the model has no chat template for them. Source
and result are opened one after the other, as the device has them.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxtune.data.dataset import render_examples
from mlxtune.data.example import Example, content_hash
from mlxtune.data.render import Rendered
from mlxtune.data.source import find_source, read_examples
from mlxtune.device.choose import Device, open_device
from mlxtune.device.dequantize import is_quantized, rounded_weight
from mlxtune.device.memory import memory_limit, readable_bytes
from mlxtune.errors import DataError, DeviceError, ModelError, UsageError
from mlxtune.evaluation.fidelity import TOKENS_READ, compare, read_distributions
from mlxtune.evaluation.sensitivity import ROW_TOKENS, foretell_losses, most_together
from mlxtune.files import check_not_inside
from mlxtune.inference.likelihood import make_reader
from mlxtune.models.convert import Compare
from mlxtune.models.convert import convert as convert_source
from mlxtune.models.load import Model, bytes_to_open, load_network, open_model, precision_to_ask
from mlxtune.models.quantization import (
    Setting,
    allocate_bits,
    quantization_of,
    quantization_wanted,
    setting_asked,
)
from mlxtune.progress import Progress, silent
from mlxtune.recipe.choices import BITS

PACKAGED = "support-triage"
"""The recipe whose held-out rows judge where there are no rows of the user's own."""


def convert(
    source: str,
    out: str | Path,
    *,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str | None = None,
    mix: str | None = None,
    dtype: str | None = None,
    data: str | Path | None = None,
    measure: bool = True,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the model that ``source`` means to the folder ``out``, and measure what it lost on the way.

    Args:
        bits, group_size, mode, mix, dtype, device, force: as of `models.convert.convert`.
        data: JSONL rows, of any form that training takes, by which a sensitive mix is chosen and every loss measured;
            with such a mix, half of them for each.
        measure: whether to measure; it takes reading both networks once.

    Returns: as `models.convert.convert`, where ``fidelity`` has ``mean_kl`` (nats a position, KL(source || result)),
        ``token_agreement``, ``positions``, and ``data``, the file whose rows were read; None where nothing was lost
        or nothing measured.
    Raises: as `models.convert.convert`; DataError, for rows that cannot be used; ModelError, if the result says no
        numbers where the source does.
    """
    setting_asked(bits, group_size, mode, mix)
    if mix == "sensitive" and data is None:
        raise UsageError("this mix is chosen on your own rows", where="--mix sensitive", remedy="add --data FILE")
    if not measure and data is not None and mix != "sensitive":
        raise UsageError("nothing is measured on these rows", where="--data", remedy="leave out --data or --no-measure")
    check_not_inside(Path(out), {"data": None if data is None else Path(data)})
    rows = None if data is None else _read_rows(Path(data), choosing=mix == "sensitive")
    judge = _Judge(rows, open_device(device), progress)
    result = convert_source(
        source,
        out,
        bits=bits,
        group_size=group_size,
        mode=mode,
        mix=mix,
        dtype=dtype,
        device=device,
        force=force,
        choose_bits=judge.choose_bits,
        measure=judge.read_source if measure else lambda _: None,
        progress=progress,
    )
    return result | {"notes": result["notes"] + judge.notes}


@dataclass(frozen=True)
class _Rows:
    """Examples of one file, those that choose and those that judge."""

    path: Path
    choosing: Sequence[Example]
    judging: Sequence[Example]
    are_own: bool


def _packaged_rows() -> _Rows:
    from mlxtune.recipe.catalogue import packaged_recipe

    path = packaged_recipe(PACKAGED).folder / "data" / "valid.jsonl"
    return _Rows(path, (), read_examples(find_source([(str(path), 1.0)], "valid")), are_own=False)


def _read_rows(path: Path, *, choosing: bool) -> _Rows:
    """Raises: DataError, for a file that cannot be read, or too few different rows to choose and judge."""
    examples = read_examples(find_source([(str(path), 1.0)], "test"))
    if not choosing:
        return _Rows(path, (), examples, are_own=True)
    different = list({content_hash(example): example for example in examples}.values())
    if len(different) == 1:
        raise DataError(
            "a mix is chosen by half of the rows and judged by the others, and all rows here are the same",
            where=path,
            remedy="add rows",
        )
    return _Rows(path, different[0::2], different[1::2], are_own=True)


@dataclass
class _Judge:
    """What `models.convert.convert` is handed: reads the source, and holds the result against it."""

    rows: _Rows | None
    """The user's own."""
    device: Device
    progress: Progress
    notes: list[str] = field(default_factory=list)

    def read_source(self, folder: Path) -> Compare | None:
        model = self._open(folder)
        if model is None:
            return None
        rows = self.rows or _packaged_rows()
        rendered = _render(rows, rows.judging, model, TOKENS_READ)
        reference = read_distributions(make_reader(model.network), rendered, progress=self.progress)

        def hold_against(written: Path) -> dict[str, Any] | None:
            model = self._open(written)
            if model is None:
                return None
            found = compare(reference, make_reader(model.network), progress=self.progress)
            if not math.isfinite(found.mean_kl):
                raise ModelError(
                    f"on the rows of {rows.path} the result or its source says values that are no numbers",
                    where=folder,
                    remedy="choose another number format, or add --no-measure to write it all the same",
                )
            return asdict(found) | {"data": str(rows.path)}

        return hold_against

    def _open(self, folder: Path) -> Model | None:
        """The model as it will be asked; None, where the memory is too small, which is noted."""
        precision = precision_to_ask(folder, self.device.precision)
        if said := _too_large(bytes_to_open(folder, precision)):
            self.notes.append(f"what was lost is not measured: {said}")
            return None
        return open_model(folder, precision)

    def choose_bits(self, folder: Path, asked: Setting) -> dict[str, Setting]:
        """The setting of each layer, ``asked["bits"]`` being the most that the mean may be, scales aside.

        Raises: DeviceError, if the source does not fit into memory.
        """
        precision = replace(self.device.precision, dequantize=True)
        stored, _ = load_network(folder)
        wanted = quantization_wanted(stored, **asked)
        sizes = [_weight_count(module) for path, module in stored.named_modules() if wanted.get(path) == asked]
        # Weights that are looked at have a gradient and its mean square, float32 both.
        if said := _too_large(bytes_to_open(folder, precision) + 8 * most_together(sizes)):
            raise DeviceError(
                f"a sensitive mix cannot be measured: {said}",
                where=folder,
                remedy="close other programs, or choose a mix that is not measured, such as mixed_4_6",
            )
        as_stored = {path: quantization_of(module) for path, module in stored.named_modules() if is_quantized(module)}
        model = open_model(folder, precision)
        layers = {path: module for path, module in model.network.named_modules() if wanted.get(path) == asked}

        def rounded(path: str, weight: mx.array, bits: int) -> mx.array:
            setting = asked | {"bits": bits}
            passes_through = as_stored.get(path) == setting
            return weight.astype(mx.float32) if passes_through else rounded_weight(weight, setting)

        assert self.rows is not None  # checked before any work
        rendered = _render(self.rows, self.rows.choosing, model, ROW_TOKENS)
        reader = make_reader(model.network)
        losses = foretell_losses(reader, layers, rendered, BITS, rounded, progress=self.progress)
        chosen = allocate_bits(losses, {path: layers[path].weight.size for path in losses}, asked["bits"])
        return wanted | {path: asked | {"bits": bits} for path, bits in chosen.items()}


def _weight_count(layer: Any) -> int:
    """How many weights a layer has, packed or not."""
    return layer.weight.size * 32 // layer.bits if is_quantized(layer) else layer.weight.size


def _too_large(needed: int) -> str | None:
    """Why a model that needs so many bytes cannot be opened whole; None, if it can."""
    limit = memory_limit()
    if needed <= limit.bytes:
        return None
    return f"the model takes {readable_bytes(needed)} of memory, and {readable_bytes(limit.bytes)} are to be had"


def _render(rows: _Rows, examples: Sequence[Example], model: Model, max_seq_length: int) -> Sequence[Rendered]:
    def render(examples: Sequence[Example], train_on: Any) -> Sequence[Rendered]:
        return render_examples(
            examples,
            model.tokenizer,
            path=rows.path,
            train_on=train_on,
            max_seq_length=max_seq_length,
            overflow="truncate_left",
        ).rows

    if rows.are_own:
        return render(examples, "completions")
    try:
        return render(examples, "everything")
    except DataError:  # no chat template, or one that refuses a system message: the words alone then
        texts = ["\n".join(message.content for message in example.messages) for example in examples]
        return render(
            [Example("text", example.where, text=text) for example, text in zip(examples, texts, strict=True)],
            "everything",
        )
