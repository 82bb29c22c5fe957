"""Prompts: the turns before an answer, from a text, a file of texts, or rows of JSON Lines."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlxtune.data.example import Message
from mlxtune.data.faults import Fault, refuse
from mlxtune.data.forms.columns import columns_of
from mlxtune.data.forms.row import Row
from mlxtune.data.forms.tools import read_tools
from mlxtune.data.forms.turns import read_turns
from mlxtune.data.read import Record, read_json_stream, read_lines, read_stream
from mlxtune.errors import DataError

ROWS = (".jsonl", ".json", ".ndjson")
"""The endings of files that hold JSON Lines; any other file is text."""

REMEDY = 'write {"prompt": "..."}, or {"messages": [...]} whose last turn is the one to answer, in each row'


@dataclass(frozen=True)
class Prompt:
    """At least one turn, the last of which is no assistant's; ``where`` it stands, for an error.

    ``tools`` are the functions that the model may call, as JSON schemas.
    """

    messages: tuple[Message, ...]
    where: str
    tools: tuple[dict[str, Any], ...] = ()

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

    Turns and ``tools`` are read as those of training rows are, calls and their results too. Other keys of a row, such
    as a data file's ``completion``, are passed over; blank lines are none.

    Raises: DataError, if the file cannot be read or holds no prompt, and for all rows at once that are none.
    """
    if path.suffix.lower() not in ROWS:
        return _read_texts(path)
    return _read_rows(read_stream(path), path)


def read_prompt_rows(file: BinaryIO, name: str = "standard input") -> list[Prompt]:
    """Prompts from JSON Lines that come through a pipe, as `read_prompts` has them from a file.

    Args:
        name: what their places begin with.
    """
    return _read_rows(read_json_stream(file, name), Path(name))


def _read_rows(rows: Iterable[Record | Fault], path: Path) -> list[Prompt]:
    prompts: list[Prompt] = []
    faults: list[Fault] = []
    for row in rows:
        prompt = [row] if isinstance(row, Fault) else _prompt(row)
        if isinstance(prompt, Prompt):
            prompts.append(prompt)
        else:
            faults += prompt
    refuse(faults, path=path, remedy=REMEDY)
    if not prompts:
        raise DataError("there are no rows", where=path, remedy=REMEDY)
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


def _prompt(record: Record) -> Prompt | list[Fault]:
    """The prompt of a row, or what is wrong with it."""
    fields, where = record.fields, record.where
    row = Row(fields, columns_of(None), where)
    messages: list[Message] | None = None
    if "messages" in fields and "prompt" in fields:
        row.fault("prompt", "the row has both 'prompt' and 'messages'", REMEDY)
    elif "prompt" in fields:
        messages = [Message("user", row.text("prompt"))]
    elif "messages" in fields:
        messages = read_turns(row, fields["messages"], "'messages'", "messages")
        if messages and messages[-1].role == "assistant":
            row.fault("prompt", "the last turn is the assistant's: there is nothing left to answer", REMEDY)
    else:
        row.fault("prompt", "the row has neither 'prompt' nor a list of 'messages'", REMEDY)
    tools = read_tools(row)
    return row.faults if row.faults or messages is None else Prompt(tuple(messages), where, tools)
