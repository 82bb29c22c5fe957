"""A run, or a model and an adapter, into one model folder: measured on rows that the adapter was not trained on."""

from dataclasses import replace
from pathlib import Path

from mlxtune.data.dataset import check_beginning
from mlxtune.data.source import Source, stream_of
from mlxtune.deployment.fuse import FuseReport, fuse
from mlxtune.deployment.tuned import Tuned, check_not_replaced, find_tuned
from mlxtune.device.choose import open_device
from mlxtune.device.memory import memory_limit, readable_bytes
from mlxtune.device.precision import Precision
from mlxtune.errors import DataError, DeviceError, NetworkError, UsageError
from mlxtune.evaluation.fidelity import TOKENS_READ, Distributions, Fidelity, compare, read_distributions
from mlxtune.files import check_new_folder
from mlxtune.inference.likelihood import make_reader
from mlxtune.iteration.opening import held_out, render_split, source_of
from mlxtune.models.chat_template import template_files
from mlxtune.models.load import bytes_to_open, open_model, precision_to_ask
from mlxtune.offline import network_off
from mlxtune.progress import Progress, silent
from mlxtune.recipe.load import load_recipe
from mlxtune.recipe.schema import DataSettings
from mlxtune.runs.prompting import FILE


def fuse_run(
    source: str | Path,
    out: str | Path,
    *,
    adapter: str | Path | None = None,
    data: str | Path | None = None,
    dtype: str | None = None,
    bits: int | str | None = None,
    accept_loss: bool = False,
    device: str = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> FuseReport:
    """Fold an adapter into its base model and write the result to ``out``.

    What the result loses is measured: the share of the update that survives, always; how far its answers are from base
    plus adapter's on the run's held-out rows, or those of ``data``, where there are any.

    Args:
        source: a finished run; or a model source, with its ``adapter``.
        data: rows to measure on, instead of the run's own.
        dtype, bits, accept_loss, force: as of `deployment.fuse.fuse`.

    Raises: RunError, if the run has no adapter yet or its base is no longer the one it was trained on; UsageError, if
        there is no adapter, if ``out`` would replace what is read, or if ``bits`` are asked for and there are no rows
        to measure on; DataError, for rows that cannot be read; and as `fuse`.
    """
    out = Path(out)
    check_new_folder(out, force=force)
    chosen = open_device(device)
    tuned = find_tuned(source, adapter, progress=progress)
    if tuned.adapter is None:
        raise UsageError("there is no adapter to fold in", where=source, remedy="name a run, or add --adapter DIR")
    check_not_replaced(out, tuned, data=None if data is None else Path(data))
    rows = _held_out_rows(tuned, data)
    if bits is not None and rows is None and not accept_loss:
        raise UsageError(
            "there are no held-out rows on which the loss of requantizing could be measured",
            where=source,
            remedy="add --data FILE, or --accept-loss",
        )
    measure = None if rows is None else _Measure(tuned, *rows, chosen.precision, bits is None or accept_loss, progress)
    report = fuse(
        tuned.base.path,
        tuned.adapter,
        out,
        precision=chosen.precision,
        dtype=dtype,
        bits=bits,
        measure=measure,
        accept_loss=accept_loss,
        force=force,
        extra_files={FILE: tuned.prompting.to_json(), **_template_files(tuned)},
        progress=progress,
    )
    unmeasured = "there are no held-out rows to measure on" if measure is None else measure.unmeasured
    return replace(report, unmeasured=unmeasured, note=tuned.other_base)


def _template_files(tuned: Tuned) -> dict[str, str]:
    """What the fused folder needs for a chat template that training had in place of the base's own."""
    return {} if tuned.chat_template is None else template_files(tuned.open_tokenizer(), tuned.base.path)


def _held_out_rows(tuned: Tuned, data: str | Path | None) -> tuple[Source, DataSettings] | None:
    """The rows to measure on, and how its rows are read; None where there is none, or a run's own is gone."""
    recipe = None if tuned.run is None else load_recipe(tuned.run.resolved).recipe
    if data is not None:
        files = DataSettings.model_validate({"train": data}).train
        settings = DataSettings(train=files) if recipe is None else recipe.data.model_copy(update={"train": files})
        return source_of(settings, "train").own, settings
    if tuned.run is None or recipe is None or (split := held_out(recipe)) is None:
        return None
    try:
        commits = tuned.run.read_manifest()["inputs"].get("data_commits")
        with network_off(when=recipe.offline):
            return source_of(recipe.data, split, commits=commits), recipe.data
    except (DataError, NetworkError):
        return None


class _Measure:
    """Compares folders with base plus adapter, which is read now, once, and not kept in memory.

    Where a network would not fit into memory nothing is read, and ``unmeasured`` says so; or it is an error, unless
    going on without a measure is ``allowed``.
    """

    def __init__(
        self,
        tuned: Tuned,
        source: Source,
        settings: DataSettings,
        precision: Precision,
        allowed: bool,
        progress: Progress,
    ) -> None:
        self.unmeasured: str | None = None
        self._precision, self._allowed, self._progress = precision, allowed, progress
        self._reference: Distributions | None = None
        stream = stream_of(source)
        check_beginning(stream, source.path)
        if self._fits(bytes_to_open(tuned.base.path, precision)):
            model = tuned.open(precision)
            # A row that is too long to train on can be measured on all the same.
            longest = min(settings.max_seq_length, TOKENS_READ)
            settings = settings.model_copy(update={"overflow": "truncate_left", "max_seq_length": longest})
            rows = render_split(settings, stream, model, source.path, progress=progress).rows
            self._reference = read_distributions(make_reader(model.network), rows, progress=progress)

    def __call__(self, folder: Path) -> Fidelity | None:
        precision = precision_to_ask(folder, self._precision)
        if self._reference is None or not self._fits(bytes_to_open(folder, precision)):
            return None
        network = open_model(folder, precision).network
        return compare(self._reference, make_reader(network), progress=self._progress)

    def _fits(self, needed: int) -> bool:
        """Raises: DeviceError, if it does not and that is not ``allowed``."""
        if needed <= (limit := memory_limit().bytes):
            return True
        self.unmeasured = f"it takes {readable_bytes(needed)} of memory, and {readable_bytes(limit)} are to be had"
        if self._allowed:
            return False
        raise DeviceError(
            f"what requantizing loses cannot be measured: {self.unmeasured}",
            remedy="close other programs, or add --accept-loss",
        )
