"""A conversation with a tuned model, its base, or both over one base in memory: what was said, and what comes next.

Each model has a conversation of its own: of every turn what it answered itself, and where it was not asked, what the
other did. So one can go on where the other was, and both can answer side by side without hearing each other. The price
is that a turn to both reads two conversations and writes two answers, one after the other. Knows nothing of terminals.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlxtune.adapters.bank import BASE
from mlxtune.data.example import Message
from mlxtune.data.reading.record import what_is_no_character
from mlxtune.deployment.prompts import Prompt
from mlxtune.deployment.served import Served
from mlxtune.errors import DataError, OutputExistsError, UsageError
from mlxtune.files import new_file
from mlxtune.inference.engine import Engine, Request
from mlxtune.inference.sampling import Sampling

INTERRUPTED = "interrupted"
"""The finish reason of an answer that was stopped from outside."""
SAVED_AS = ".jsonl"


@dataclass(frozen=True)
class Reply:
    """One model's answer to a turn."""

    model: str
    prompt: str
    text: str
    finish_reason: str
    """``stop``: the model ended; ``length``: the limit was reached; ``interrupted``: it was stopped."""
    prompt_tokens: int
    completion_tokens: int

    @property
    def is_whole(self) -> bool:
        return self.finish_reason == "stop" and bool(self.text.strip())


@dataclass
class Turn:
    """What was said to the models, and what each of those that were asked answered, by name."""

    text: str
    replies: dict[str, Reply] = field(default_factory=dict)
    attempts: int = 0

    def heard_by(self, name: str) -> Reply | None:
        """The answer that is part of this model's conversation; None, where there is none with words in it."""
        reply = self.replies.get(name) or next(iter(self.replies.values()), None)
        return reply if reply is not None and reply.text.strip() else None


@dataclass(frozen=True)
class Heard:
    """What one step brought to an answer: more of its ``text``; at its end, ``reply`` has all of it."""

    model: str
    text: str
    reply: Reply | None = None


def never() -> bool:
    """Nothing stops the answer."""
    return False


class Chat:
    """A conversation; ``asked`` are the names of the models that answer next."""

    def __init__(self, served: Served, sampling: Sampling, *, system: str | None = None) -> None:
        """Args:
        served: one run or model; its first model is the tuned one.
        system: a system message in place of the one that training had.

        Raises: UsageError, for a system message where the model takes plain text.
        """
        first = next(iter(served.models))
        self.names = (first,) if served.models[first].adapter == BASE else (first, BASE)
        self.asked: tuple[str, ...] = (first,)
        self.turns: list[Turn] = []
        self.sampling = sampling
        self._served = served
        self._saved: set[Path] = set()
        # One answer is written at a time, and each conversation is kept as read, for the turn that follows.
        self._engine = Engine(served.network, served.tokenizer, bank=served.bank, batch_size=1, keeps_answers=True)
        self._system: str | None = None
        if system is not None:
            self.system = system

    @property
    def is_raw(self) -> bool:
        """Whether the first model takes plain text: each turn is then answered by itself."""
        return self._served.models[self.names[0]].asking.raw

    @property
    def system(self) -> str | None:
        """The system message; None: the chat template's own, if it has one."""
        return self._served.models[self.names[0]].asking.system if self._system is None else self._system

    @system.setter
    def system(self, text: str | None) -> None:
        """None: back to the one that training had. Raises: UsageError, where the model takes plain text."""
        if text is not None and self.is_raw:
            raise UsageError(
                "the model takes plain text, without a system message",
                where="the system message",
                remedy="leave it out",
            )
        if text is not None:
            _check_text(text, "the system message")
        self._system = text

    def choose(self, *names: str) -> None:
        """Let these models answer from here on. Raises: UsageError, for one that is not there."""
        for name in names:
            if name not in self.names:
                raise UsageError(
                    f"there is one model here, {self.names[0]}, and no other to compare it with",
                    where=name,
                    remedy="open a run, which has a tuned model and its base",
                )
        self.asked = names

    def ask(self, text: str, is_stopped: Callable[[], bool] = never) -> Iterator[Heard]:
        """Say something to the models that are asked, and hear their answers as they come, one model after the other.

        What is closed early, or stopped, keeps what came until then.

        Args:
            is_stopped: asked between two steps.

        Raises: DataError, if the text is empty or no text, the template refuses the conversation, or it is longer than
            what the model was made for; then nothing was said.
        """
        turn = Turn(text)
        prompts = self._prompts(turn, self.turns)
        self.turns.append(turn)
        yield from self._answer(turn, prompts, is_stopped)

    def retry(self, is_stopped: Callable[[], bool] = never) -> Iterator[Heard]:
        """Let the models that are asked answer the last turn once more, with other draws; as `ask`.

        Raises: UsageError, where nothing was said.
        """
        turn = self._last()
        prompts = self._prompts(turn, self.turns[:-1])
        turn.attempts += 1
        yield from self._answer(turn, prompts, is_stopped)

    def undo(self) -> Turn:
        """Take back the last turn and its answers. Raises: UsageError, where nothing was said."""
        self._last()
        return self.turns.pop()

    def rows(self) -> list[dict[str, Any]]:
        """The conversations as rows to train on: of each model, as far as its last whole answer.

        Answers that were stopped or cut are in them as turns that are not learned. Of a model that takes plain text
        each whole answer is a row. Where one takes text and the other turns, the first one's are given, since a file
        has rows of one form.
        """
        rows: list[dict[str, Any]] = []
        for name in self.names:
            asking = self._served.models[name].asking
            own = [i for i, turn in enumerate(self.turns) if name in turn.replies and turn.replies[name].is_whole]
            if not own or asking.raw != self.is_raw:
                continue
            if asking.raw:
                texts = [self.turns[i].text + self.turns[i].replies[name].text for i in own]
                rows += [{"text": text, "model": name} for text in texts]
                continue
            messages = asking.turns(self._messages(name, self.turns[: own[-1] + 1]))
            rows.append({"messages": [_as_row(message) for message in messages], "model": name})
        return rows

    def save(self, path: Path) -> list[dict[str, Any]]:
        """Write `rows` as JSON Lines, for their owner alone, and return them.

        What this chat saved before is replaced.

        Raises: OutputExistsError, for any other file that is there; UsageError, if its name does not end as JSON Lines
            do, or there is no row.
        """
        path = path.absolute()
        if path.suffix != SAVED_AS:
            remedy = f"name it {path.name}{SAVED_AS}"
            raise UsageError("the file holds JSON Lines, and its name does not say so", where=path, remedy=remedy)
        if path not in self._saved and path.exists():
            raise OutputExistsError("the file exists already", where=path, remedy="name another one")
        rows = self.rows()
        if not rows:
            raise UsageError("there is no whole answer to save", where=path, remedy="let one come to its end")
        with new_file(path, force=path in self._saved) as part:
            part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        self._saved.add(path)
        return rows

    def close(self) -> None:
        """Drop what is kept of what was read."""
        self._engine.close()

    def _last(self) -> Turn:
        if not self.turns:
            raise UsageError("nothing was said yet", where="the chat", remedy="say something first")
        return self.turns[-1]

    def _messages(self, name: str, turns: Sequence[Turn]) -> list[Message]:
        """What a model has heard and said; what got no answer is as if it had not been said."""
        messages = [] if self._system is None else [Message("system", self._system)]
        for turn in turns:
            reply = turn.heard_by(name)
            if reply is not None:
                weight = 1.0 if reply.is_whole else 0.0
                messages += [Message("user", turn.text), Message("assistant", reply.text, weight=weight)]
        return messages

    def _prompts(self, turn: Turn, before: Sequence[Turn]) -> dict[str, list[int]]:
        """The tokens that each model that is asked goes on from, by name."""
        _check_text(turn.text, "the prompt")
        prompts = {}
        for name in self.asked:
            asking = self._served.models[name].asking
            heard = [] if asking.raw else self._messages(name, before)
            tokens = asking.encode(Prompt((*heard, Message("user", turn.text)), "the prompt"))
            context = self._served.context_length
            if context is not None and len(tokens) >= context:
                raise DataError(
                    f"with this the conversation has {len(tokens):,} tokens, and the model was made for {context:,}",
                    where=name,
                    remedy="/undo takes back the last turn, /new begins another conversation",
                )
            prompts[name] = tokens
        return prompts

    def _answer(self, turn: Turn, prompts: dict[str, list[int]], is_stopped: Callable[[], bool]) -> Iterator[Heard]:
        for name, tokens in prompts.items():
            if not is_stopped():
                yield from self._reply(turn, name, tokens, is_stopped)

    def _reply(self, turn: Turn, name: str, tokens: list[int], is_stopped: Callable[[], bool]) -> Iterator[Heard]:
        longest, context = self.sampling.max_tokens, self._served.context_length
        if context is not None:
            longest = min(longest, context - len(tokens))
        adapter = self._served.models[name].adapter
        sampling = replace(self.sampling, max_tokens=longest)
        ticket = self._engine.submit(Request(tokens, sampling, adapter, number=turn.attempts))
        texts: list[str] = []
        reason, count = INTERRUPTED, 0
        try:
            while not (self._engine.is_idle or is_stopped()):
                for piece in self._engine.step():
                    texts.append(piece.text)
                    count += piece.token_id is not None
                    reason = piece.finish_reason or reason
                    yield Heard(name, piece.text)
        finally:
            self._engine.cancel(ticket)
            reply = Reply(name, turn.text, "".join(texts), reason, len(tokens), count)
            if count or reason != INTERRUPTED:  # what was stopped before it began takes no earlier answer's place
                turn.replies[name] = reply
        yield Heard(name, "", reply)


def _check_text(text: str, where: str) -> None:
    if wrong := what_is_no_character(text):
        raise DataError(wrong, where=where, remedy="take it out")


def _as_row(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    return turn if message.weight else {**turn, "train": False}
