"""Prompts: the turns before an answer, from a text, a file of texts, or rows of JSON Lines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxtune.data.faults import Fault, refuse
from mlxtune.data.normalize import ROLES, Message
from mlxtune.data.read import read_lines, scan_records
from mlxtune.errors import DataError

ROWS = (".jsonl", ".json", ".ndjson")
"""The endings of files that hold JSON Lines; any other file is text."""

REMEDY = 'write {"prompt": "..."}, or {"messages": [...]} whose last turn is the one to answer, in each row'


@dataclass(frozen=True)
class Prompt:
    """At least one turn, the last of which is no assistant's; ``where`` it stands, for an error."""

    messages: tuple[Message, ...]
    where: str

    @property
    def text(self) -> str:
        """The last turn's."""
        return self.messages[-1].content


def as_prompt(text: str, *, system: str | None = None, where: str = "the prompt") -> Prompt:
    """One user's turn, after a system message if there is one."""
    before = () if system is None else (Message("system", system),)
    return Prompt((*before, Message("user", text)), where)


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from JSON Lines (``prompt`` or ``messages`` in each row), or from any other file, one a line.

    Other keys of a row, such as a data file's ``completion``, are passed over; blank lines are none.

    Raises: DataError, if the file cannot be read or holds no prompt, and for all rows at once that are none.
    """
    if path.suffix.lower() not in ROWS:
        return _read_texts(path)
    records, faults = scan_records(path)
    prompts = []
    for record in records:
        messages, wrong = _turns(record.fields)
        prompts.append(Prompt(messages, record.where))
        if wrong:
            faults.append(Fault(record.where, wrong))
    refuse(sorted(faults, key=lambda fault: fault.line), path=path, remedy=REMEDY)
    return prompts


def _read_texts(path: Path) -> list[Prompt]:
    prompts = []
    for line, raw in read_lines(path):
        where = f"{path}:{line}"
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError("the line is not UTF-8", where=where, remedy="save the file as UTF-8") from error
        prompts.append(as_prompt(text, where=where))
    if not prompts:
        raise DataError("there is no prompt in the file", where=path, remedy="write one prompt a line")
    return prompts


def _turns(fields: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
    """The turns of a row, and what is wrong with them, if anything is."""
    if "messages" in fields and "prompt" in fields:
        return (), "the row has both 'prompt' and 'messages'"
    if "prompt" in fields:
        text = fields["prompt"]
        is_text = isinstance(text, str) and bool(text.strip())
        return ((Message("user", text),), "") if is_text else ((), "'prompt' is empty, or no string")
    turns = fields.get("messages")
    if not isinstance(turns, list) or not turns:
        wrong = "the row has neither 'prompt' nor a list of 'messages'"
    elif not all(_is_turn(turn) for turn in turns):
        wrong = f"'messages' has a turn without a role ({', '.join(ROLES)}) or without a text as content"
    elif turns[-1]["role"] == "assistant":
        wrong = "the last turn is the assistant's: there is nothing left to answer"
    else:
        return tuple(Message(turn["role"], turn["content"]) for turn in turns), ""
    return (), wrong


def _is_turn(turn: object) -> bool:
    return isinstance(turn, dict) and turn.get("role") in ROLES and isinstance(turn.get("content"), str)
