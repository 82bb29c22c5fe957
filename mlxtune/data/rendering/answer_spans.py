"""Where an answer stands in a chat's rendering: from the generation prompt before it to the end of its turn.

Knows messages and the text that a chat template made of them; nothing of tokens. The price is two renderings an answer,
of the turns before it with the generation prompt and of those up to it: only a template itself can say what it would
have written there.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from mlxtune.data.example import Message, ToolCall
from mlxtune.data.rendering.chat_text import OTHER_TEMPLATE, ChatTemplate
from mlxtune.errors import DataError

THOUGHT = re.compile(r"\s*<think>")
"""How an answer begins that has its thoughts in its words."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Where an answer stands in a rendering: characters ``start`` to ``end``, its end of turn included if ``ends``.

    ``stop`` is where the end of turn begins.
    """

    start: int
    stop: int
    end: int
    ends: bool


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that are rendered together, up to the last answer that is learned, and that rendering."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    where: str
    text: str


def thinks(message: Message) -> bool:
    """Whether an answer is one with thoughts, beside its words or at their beginning."""
    return bool(message.thinking) or THOUGHT.match(message.content) is not None


class AnswerFinder:
    """A chat template, and the special tokens that may end a turn.

    Args:
        special: the tokenizer's special tokens, id by spelling.
        eos: those of them that end a generation.
    """

    def __init__(self, template: ChatTemplate, special: Mapping[str, int], eos: set[int]) -> None:
        self.template = template
        self._special = pattern_of(special)
        self._eos = {text for text, i in special.items() if i in eos}
        self._left_out: dict[tuple[Any, ...], int | None] = {}

    def read(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], where: str) -> Conversation:
        """Render ``messages``, the last of which is the last answer that is learned.

        Raises: DataError, if the template refuses them, or leaves out or changes what a turn says, or the tools.
        """
        thinking = thinks(messages[-1])
        text = self.template.text(messages, where, tools=tools, thinking=thinking)
        lost = _find_lost(text, messages)
        if lost is None:
            lost = self._find_left_out(messages, tools, thinking)
        if lost is not None:
            raise DataError(
                f"the chat template leaves out or changes the words of {name_of(messages, lost)}",
                where=where,
                remedy=f"give the row only what the template renders, or {OTHER_TEMPLATE}",
            )
        if tools and self.template.text(messages, where, thinking=thinking) == text:
            raise DataError(
                "the chat template leaves out the tools",
                where=where,
                remedy=f"take them out of the row, or {OTHER_TEMPLATE}",
            )
        return Conversation(tuple(messages), tuple(tools), where, text)

    def _find_left_out(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], thinking: bool
    ) -> int | None:
        """The first turn that the template leaves out of a conversation of this kind; None where it has all.

        Tried once for each order of roles, with words that stand nowhere else: a short word of a turn that is left out
        may well stand in another.
        """
        kind = (bool(tools), thinking, *map(_kind_of, messages))
        if kind not in self._left_out:
            words = [f"Zturn{i}Z" if message.content.strip() else "" for i, message in enumerate(messages)]
            marked = [replace(one, content=own) for one, own in zip(messages, words, strict=True)]
            try:
                text = self.template.text(marked, "", tools=tools, thinking=thinking)
            except DataError:
                self._left_out[kind] = None  # it wants more of the words than that they are there
            else:
                self._left_out[kind] = next((i for i, own in enumerate(words) if own not in text), None)
        return self._left_out[kind]

    def find(self, told: Conversation, i: int) -> Turn:
        """Where the answer ``messages[i]`` and its end of turn stand in the rendering.

        Raises: DataError, if the rendering up to there is not as generation would have it, or there is more or less in
            it than the answer.
        """
        messages, where, text = told.messages, told.where, told.text
        thinking = thinks(messages[i])
        is_last = i == len(messages) - 1
        before = self.template.text(messages[:i], where, tools=told.tools, generation_prompt=True, thinking=thinking)
        done = text if is_last else self.template.text(messages[: i + 1], where, tools=told.tools, thinking=thinking)
        if not done.startswith(before):
            raise _rewritten(messages, i, where)
        start = len(before)
        at = self._end_of_words(done, start, messages, i, where)
        if messages[i].tool_calls:
            at = self._end_of_calls(done, at, messages, i, where)
            turn = self._turn_of_calls(done, start, at)
        else:
            match = self._special.search(done, at)
            if match is not None and not done[at : match.start()].strip():
                turn = Turn(start, match.start(), match.end(), ends=True)
            else:
                turn = Turn(start, at, at, ends=False)
        if not is_last and not text.startswith(done[: turn.end]):
            raise _rewritten(messages, i, where)
        return turn

    def _end_of_words(self, done: str, start: int, messages: Sequence[Message], i: int, where: str) -> int:
        """Where the thoughts and words of an answer end that begins at ``start``."""
        message, at = messages[i], start
        if message.thinking:
            thoughts = message.thinking.strip()
            at = done.find(thoughts, start)
            if at < 0:
                raise DataError(
                    f"the chat template has no place for the thoughts of {name_of(messages, i)}",
                    where=where,
                    remedy="put them into its content, as <think>...</think> before the answer, take them out, or "
                    + OTHER_TEMPLATE,
                )
            at += len(thoughts)
        for words in (message.content, message.content.strip()):
            found = done.find(words, at)
            # the template's own signs stand between thoughts and answer
            if found >= 0 and (message.thinking or not done[at:found].strip()):
                return found + len(words) if words.strip() else at
        raise DataError(
            f"the chat template changes the words of {name_of(messages, i)}, or puts others before them",
            where=where,
            remedy=f"take out of the answer what the template strips (such as thoughts), or {OTHER_TEMPLATE}",
        )

    def _end_of_calls(self, done: str, at: int, messages: Sequence[Message], i: int, where: str) -> int:
        """Where the last thing ends that an answer's calls say, after the words that end at ``at``."""
        for call in messages[i].tool_calls:
            ends = [_end_of(done, at, forms) for forms in _said_by(call)]
            if -1 in ends:
                raise DataError(
                    f"the chat template leaves out or changes a tool call of {name_of(messages, i)}",
                    where=where,
                    remedy=f"take the calls out of the row, or {OTHER_TEMPLATE}",
                )
            at = max(ends)
        return at

    def _turn_of_calls(self, done: str, start: int, at: int) -> Turn:
        """A turn whose calls end soon after ``at``, maybe with special tokens: it ends with one that ends turns."""
        for match in self._special.finditer(done, at):
            if match.group() in self._turn_ends:
                return Turn(start, match.start(), match.end(), ends=True)
        end = max(at, len(done.rstrip()))
        return Turn(start, end, end, ends=False)

    @cached_property
    def _turn_ends(self) -> set[str]:
        """The special tokens that end a plain answer, or a generation."""
        try:
            done = self.template.text([Message("user", "Well?"), Message("assistant", "Certainly")], "")
        except DataError:
            return self._eos
        match = self._special.search(done, done.rfind("Certainly"))
        return self._eos if match is None else self._eos | {match.group()}


def pattern_of(special: Mapping[str, Any]) -> re.Pattern[str]:
    """What finds special tokens in a text, the longest first."""
    texts = sorted(special, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


def name_of(messages: Sequence[Message], i: int) -> str:
    return f"messages[{i}] ({messages[i].role})"


def _kind_of(message: Message) -> tuple[Any, ...]:
    """What a template may ask of a turn, but for its words."""
    said = bool(message.content.strip()), bool(message.thinking), len(message.tool_calls)
    return message.role, *said, bool(message.name), bool(message.tool_call_id)


def _find_lost(text: str, messages: Sequence[Message]) -> int | None:
    """The first turn whose words do not follow those of the turns before it; None where all do."""
    at = 0
    for i, message in enumerate(messages):
        found = _find_words(text, message, at)
        if found < 0:
            return i
        at = at if message.role == "system" else found  # some templates put it elsewhere
    return None


def _find_words(text: str, message: Message, at: int) -> int:
    """Where the words of a message end in ``text``; -1, if they are not there.

    A tool's result may be written as JSON writes it.
    """
    words = message.content.strip()
    if message.role == "system":
        at = 0
    if message.role == "tool":
        return _end_of(text, at, [words, *_quoted(words)])
    found = text.find(words, at)
    return found if found < 0 else found + len(words)


def _end_of(text: str, at: int, forms: Sequence[str]) -> int:
    """Where the first of ``forms`` ends that is in ``text``; -1, if none is."""
    for form in forms:
        found = text.find(form, at)
        if found >= 0:
            return found + len(form)
    return -1


def _quoted(text: str) -> Iterator[str]:
    for ensure_ascii in (False, True):
        yield json.dumps(text, ensure_ascii=ensure_ascii)[1:-1]


def _said_by(call: ToolCall) -> list[list[str]]:
    """What a call says: its name and each key and value of its arguments, in the forms in which it may be written."""
    return [[call.name, *_quoted(call.name)], *_forms(call.arguments)]


def _forms(value: Any) -> list[list[str]]:
    if isinstance(value, Mapping):
        return list(itertools.chain.from_iterable([*_forms(key), *_forms(own)] for key, own in value.items()))
    if isinstance(value, list | tuple):
        return list(itertools.chain.from_iterable(map(_forms, value)))
    if isinstance(value, str):
        return [[value, *_quoted(value)]]
    return [[json.dumps(value), str(value)]]


def _rewritten(messages: Sequence[Message], i: int, where: str) -> DataError:
    if i < len(messages) - 1:
        remedy = "set data.train_on to last_completion, or give each answer a row of its own"
    else:
        remedy = f"take thoughts out of the answer or give them in `thinking`, or {OTHER_TEMPLATE}"
    return DataError(
        "the chat template rewrites earlier turns, so no mask of targets is right: "
        f"up to {name_of(messages, i)}, the row does not read as generation would have it",
        where=where,
        remedy=remedy,
    )
