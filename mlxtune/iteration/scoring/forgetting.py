"""What tuning cost a run's model in general: base and tuned model asked the same probe, side by side.

What the base knows is kept in the cache: it is the same for every task. Both models are opened for it once more, one at
a time, which takes a second or two; scoring stays a thing of its own. Knows runs; nothing of what is asked.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlxtune.adapters.open import attach_adapter
from mlxtune.device.choose import Device
from mlxtune.evaluation.forgetting.ask import Known, ask_all
from mlxtune.evaluation.forgetting.light import compare_known
from mlxtune.evaluation.forgetting.probe import probe_sha256, questions
from mlxtune.evaluation.score import BOOTSTRAP_SEED
from mlxtune.files import write_text
from mlxtune.iteration.scoring.one_model import kept, model_basis
from mlxtune.models.chat_template import chat_template_sha256
from mlxtune.models.load import open_model
from mlxtune.models.source import ModelFolder
from mlxtune.progress import Progress
from mlxtune.recipe.schema import DataSettings
from mlxtune.runs.folder import RunFolder


def measure_forgetting(
    run: RunFolder,
    base: ModelFolder,
    device: Device,
    data: DataSettings,
    *,
    force: bool,
    progress: Progress,
) -> dict[str, Any]:
    """What scores.json holds as ``forgetting`` (`light.compare_known`); every answer goes into the run's
    ``forgetting.jsonl``.

    Args:
        data: as the run was trained on: its chat template is asked in, and its replay told of.
        force: ask the base again, too.

    Raises: as `ask_all`; AdapterError, ModelError.
    """

    def ask(adapter: Path | None) -> Known:
        model = open_model(base.path, device.precision, data.chat_template)
        if adapter is not None:
            attach_adapter(model.network, adapter)
        name = "base" if adapter is None else "tuned"
        return ask_all(model, progress=lambda what, done, total: progress(f"{name}, {what}", done, total))

    basis = {
        **model_basis(base, device),
        "chat_template": chat_template_sha256(data.chat_template),
        "probe": probe_sha256(),
    }
    before = kept(basis, lambda: ask(None), Known.from_json, force=force)
    after = ask(run.finished_adapter())
    write_text(run.forgetting, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in _lines(before, after)))
    replay = None if data.replay is None else {"file": data.replay.file, "share": data.replay.share}
    return {**compare_known(before, after, seed=BOOTSTRAP_SEED), "replay": replay}


def _lines(before: Known, after: Known) -> Sequence[dict[str, Any]]:
    """Each question with both answers."""
    return [
        {
            "id": question.id,
            "area": question.area,
            "asked": question.ask,
            "wanted": question.wanted,
            "base": before.said[i],
            "tuned": after.said[i],
            "right": {"base": bool(before.right.sums[i, 0]), "tuned": bool(after.right.sums[i, 0])},
        }
        for i, question in enumerate(questions())
    ]
