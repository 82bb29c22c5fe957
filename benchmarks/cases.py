"""The four pieces of work on which training is compared: which rows, what is learned of them, which layers.

Knows files and keys; nothing of models or of the programs that are compared.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlxtune.recipe.catalogue import packaged_recipe


@dataclass(frozen=True)
class Case:
    """One piece of work.

    ``steps`` are the updates of a turn unless another number is asked for; an epoch has ``steps / epochs`` of them.
    ``data`` names the folder that holds ``train.jsonl`` and ``valid.jsonl``, inside the folder of data sets; None
    stands for the data of the packaged recipe support-triage.
    """

    title: str
    data: str | None
    train_on: Literal["last_completion", "everything"]
    layers: Literal["all", "top half"]
    epochs: int
    steps: int
    as_rows: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """A row of the file in a form that both programs read."""

    def folder(self, data: Path | None) -> Path | None:
        """Where its rows are; None if they are not there."""
        if self.data is None:
            return packaged_recipe("support-triage").folder / "data"
        if data is None or not all((data / self.data / f"{split}.jsonl").is_file() for split in ("train", "valid")):
            return None
        return data / self.data


def from_oasst(row: Mapping[str, Any]) -> dict[str, Any]:
    """A conversation of Open Assistant in the keys and roles of a chat row."""
    roles = {"prompter": "user", "assistant": "assistant"}
    return {"messages": [{"role": roles[turn["role"]], "content": turn["text"]} for turn in row["messages"]]}


CHAT = "chats of mixed length, the last answer learned"

CASES = {
    "a": Case(
        title=f"{CHAT}, all layers",
        data="oasst_chat",
        as_rows=from_oasst,
        train_on="last_completion",
        layers="all",
        epochs=1,
        steps=6,
    ),
    "b": Case(
        title=f"{CHAT}, top half of the layers, 3 epochs",
        data="oasst_chat",
        as_rows=from_oasst,
        train_on="last_completion",
        layers="top half",
        epochs=3,  # what is frozen below can be read once and kept: one epoch would not show it
        steps=9,
    ),
    "c": Case(
        title="text rows, everything learned, all layers",
        data="wikisql",
        train_on="everything",
        layers="all",
        epochs=1,
        steps=20,
    ),
    "d": Case(
        title="one long instruction in every row, all layers",
        data=None,
        train_on="last_completion",
        layers="all",
        epochs=1,
        steps=12,
    ),
}


def read_rows(path: Path, case: Case) -> list[dict[str, Any]]:
    """The rows of a file, in the form that both programs read."""
    return [case.as_rows(json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
