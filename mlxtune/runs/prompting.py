"""How a tuned model wants its prompts: what training had before each of them, recorded so that users need not know.

A run has it in run.json, a fused folder in mlxtune.json. ``raw``: as plain text, since the rows were text or the base
has no chat template. ``system``: the system message that all training rows began with, if they did.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "mlxtune.json"


@dataclass(frozen=True)
class Prompting:
    """None: not known, so the tokenizer decides about ``raw``."""

    raw: bool | None = None
    system: str | None = None

    def to_json(self) -> str:
        return json.dumps({"prompting": asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def prompting_of_folder(folder: Path) -> Prompting:
    """From a fused folder's mlxtune.json; nothing known where there is none."""
    path = folder / FILE
    if not path.is_file():
        return Prompting()
    return from_record(json.loads(path.read_text(encoding="utf-8")).get("prompting"))


def from_record(record: dict[str, Any] | None) -> Prompting:
    """From what run.json or mlxtune.json holds."""
    return Prompting(**(record or {}))
