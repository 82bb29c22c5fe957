"""How a tuned model wants its prompts: what training had before each of them, recorded so that users need not know.

It lies with the tuned weights, in ``mlxtune.json``: in a run's ``adapter/``, and in a fused folder.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mlxtune.errors import ModelError

FILE = "mlxtune.json"


@dataclass(frozen=True)
class Prompting:
    """``raw``: prompts are plain text, since the rows were text or the base has no chat template; None: not known, so
    the tokenizer decides. ``system``: the message that all training rows began with, if they did. ``thinking``:
    most answers of the training rows have thoughts before them.
    """

    raw: bool | None = None
    system: str | None = None
    thinking: bool = False

    def to_json(self) -> str:
        """The content of mlxtune.json."""
        return json.dumps({"prompting": asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def read_prompting(folder: Path) -> Prompting:
    """What the mlxtune.json of an adapter or model folder says; nothing known where there is none.

    Raises: ModelError, if it is there and not as mlxtune writes it.
    """
    path = folder / FILE
    if not path.is_file():
        return Prompting()
    try:
        record = json.loads(path.read_text(encoding="utf-8")).get("prompting", {})
        raw, system, thinking = record.get("raw"), record.get("system"), record.get("thinking", False)
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise _damaged(path) from error
    if not isinstance(raw, bool | None) or not isinstance(system, str | None) or not isinstance(thinking, bool):
        raise _damaged(path)
    return Prompting(raw, system, thinking)


def _damaged(path: Path) -> ModelError:
    remedy = "put it back as mlxtune wrote it, or take it away: prompts then go without a recorded system message"
    return ModelError("this file does not say how the model is asked", where=path, remedy=remedy)
