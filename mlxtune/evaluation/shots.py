"""Few-shot prompts: some rows of the training data, answers and all, before each row that is asked.

The same rows stand before every question, so that a model reads them once. They are drawn by a hash of what they say
and the seed: neither the order of a file nor another split's size changes them. A row that asks what a held-out row
asks is never one of them, wherever else it stands: its answer would be given away. Among those drawn rows with
different answers come first, so that of a few labels none is shown twice before each is shown once. The price is that
one choice of examples is tried, and another might do better.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace

from mlxtune.data.example import Example, Message, content_hash
from mlxtune.data.faults import Fault
from mlxtune.errors import DataError

DRAWN = 32
"""Rows looked at for each one wanted, to find different answers among them."""
BETWEEN = "\n\n"
"""What stands between examples that are plain text."""


def choose_shots(
    train: Iterable[Example | Fault], count: int, *, seed: int, held_out: Sequence[Example], answer_after: str | None
) -> tuple[Example, ...]:
    """The rows to stand before every question.

    Args:
        train: all rows of the training split.
        held_out: the rows that will be asked; what they ask is in none of the rows chosen.
        answer_after: in text rows: what a prompt ends with.

    Raises: DataError, if there are fewer such rows.
    """
    asked = {_asked(example, answer_after) for example in held_out}
    is_text = {example.kind == "text" for example in held_out}
    if len(is_text) > 1:
        raise DataError(
            "some held-out rows are texts and some are chats, which no one set of examples fits",
            where=held_out[0].where,
            remedy="leave out --shots, or score rows of one kind",
        )

    def candidates() -> Iterator[Example]:
        seen = set()
        for row in train:
            if isinstance(row, Fault) or row.kind == "preference" or (row.kind == "text") not in is_text:
                continue
            question = _asked(row, answer_after)
            if question is not None and question not in asked and question not in seen:
                seen.add(question)
                yield row

    drawn = heapq.nsmallest(DRAWN * count, candidates(), key=lambda row: _hash([seed, content_hash(row)]))
    if len(drawn) < count:
        raise DataError(
            f"{count} examples are wanted, and the training data has {len(drawn)} rows that can be one: each question "
            "once, none that is asked in the held-out rows",
            where=held_out[0].where,
            remedy=f"ask for {len(drawn)} or fewer (--shots)",
        )
    new, known, answers = [], [], set()
    for row in drawn:
        answer = _answer(row, answer_after)
        (known if answer in answers else new).append(row)
        answers.add(answer)
    return tuple([*new, *known][:count])


def hash_of_shots(shots: Sequence[Example]) -> str:
    """Of what they say, in their order."""
    return _hash([content_hash(shot) for shot in shots])


def with_shots(example: Example, shots: Sequence[Example], *, is_joined: bool = False) -> Example:
    """The row with ``shots`` before what it asks, after its own system message. Its targets are its own, not theirs.

    Args:
        is_joined: rows of a prompt and its completion go in sequence, as without a chat template.
    """
    if not shots:
        return example
    if example.kind == "text":
        return replace(example, preface="".join(shot.text.rstrip() + BETWEEN for shot in shots))
    if is_joined:
        question, answer = example.messages
        before = "".join("".join(message.content for message in shot.messages) + BETWEEN for shot in shots)
        return replace(example, messages=(replace(question, content=before + question.content), answer))
    first = 1 if example.messages[0].role == "system" else 0
    turns = [_shown(message) for shot in shots for message in shot.messages if message.role != "system"]
    return replace(example, messages=(*example.messages[:first], *turns, *example.messages[first:]))


def _shown(message: Message) -> Message:
    """A turn to be read and not learned. Thoughts are left out, as templates leave out those of earlier turns."""
    return replace(message, weight=0.0 if message.role == "assistant" else message.weight, thinking="")


def _asked(example: Example, answer_after: str | None) -> str | None:
    """What a row asks, as a hash, system messages apart, which no example has; None for a text that asks nothing."""
    if example.kind != "text":
        asked = [message for message in example.messages[:-1] if message.role != "system"]
        return _hash([asdict(replace(message, weight=1.0)) for message in asked])
    before, found, _ = example.text.partition(answer_after or "\0")
    return _hash(before.strip()) if found else None


def _answer(example: Example, answer_after: str | None) -> str:
    if example.kind == "text":
        return example.text.partition(answer_after or "\0")[2].strip()
    return json.dumps(asdict(example.messages[-1]), sort_keys=True)


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
