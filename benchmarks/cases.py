"""The pieces of work on which training is compared: which rows, what is learned of them, which layers.

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
    every: int = 1
    """Of a file sorted by its labels, every so many rows, so that the rows chosen have many labels."""

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


BANK_INSTRUCTION = """You sort the messages that customers of a bank send through its app. Read the customer's \
message and answer with the one label that fits it best, and nothing else: no greeting, no explanation, no quotation \
marks and no full stop. Labels are written in lower case, with low lines between the words, and name what the \
customer needs, for example card_arrival, lost_or_stolen_card, exchange_rate, top_up_failed, pending_transfer, \
declined_cash_withdrawal, change_pin, verify_my_identity or terminate_account. Where two labels fit, choose the one \
for what the customer asks last; where a message only complains, choose the label of what went wrong."""


def from_banking(row: Mapping[str, Any]) -> dict[str, Any]:
    """A message of Banking77 as a chat row, behind one instruction for all."""
    turns = {"system": BANK_INSTRUCTION, "user": row["text"], "assistant": row["category"]}
    return {"messages": [{"role": role, "content": content} for role, content in turns.items()]}


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
    "e": Case(
        title="the same before short messages, all layers",
        data="banking77",
        as_rows=from_banking,
        every=32,
        train_on="last_completion",
        layers="all",
        epochs=1,
        steps=12,
    ),
}


def read_rows(path: Path, case: Case) -> list[dict[str, Any]]:
    """The rows of a file, in the form that both programs read."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    return [case.as_rows(json.loads(line)) for line in lines[:: case.every]]
