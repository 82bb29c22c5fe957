"""Drafts of training rows from passages: what a local model is asked, and what of its answer becomes a row.

Knows prompts and their answers as texts; who generates them is build.py's business. A row is a prompt and a completion,
marked as a draft, with its source. What is dropped has a reason from a short list, which is counted.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlxtune.data.documents.chunk import Chunk
from mlxtune.data.documents.grounded import NOT_QUOTED, check_grounded, find_quote, nearest_sentence

Task = Literal["continue", "qa", "summarize", "classify"]
TASKS: tuple[Task, ...] = ("continue", "qa", "summarize", "classify")

MODEL = "smollm2-135m-instruct"
"""Who drafts, if nobody is named: its tokens are as good as any to count by, its drafts are poor."""
PAIRS = 3
"""Questions that are asked for about a passage."""
MAX_TOKENS: dict[Task, int] = {"qa": 320, "summarize": 160, "classify": 24}
"""Of an answer."""
LEAST_WORDS = 12
"""Of a passage that is asked about: a heading alone answers nothing."""

NO_PAIR = "no question with an answer was written"
NO_QUESTION = "the question is none"
TOO_LONG = "the summary is not shorter than the passage"
NO_LABEL = "the answer names no label, or several"
EMPTY = "nothing was written"
_FIELD = re.compile(r"(?im)^[\s*#>-]*(?:\d+[.)]\s*)?(question|answer|quote)\s*\d*\s*[:.]\**\s*")
_TOKEN = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Draft:
    """A row's prompt and completion, and where in its passage's body they stand: ``quote``, from where to where."""

    prompt: str
    completion: str
    quote: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Dropped:
    """What became no row, and why."""

    reason: str


def is_asked_about(chunk: Chunk) -> bool:
    """Whether a passage says enough to be asked about."""
    return len(_TOKEN.findall(chunk.body)) >= LEAST_WORDS


def question_for(task: Task, passage: str, labels: Sequence[str], pairs: int) -> str:
    """What the model is asked about a passage."""
    if task == "qa":
        return (
            f"Write {pairs} question{'s' * (pairs != 1)} that the passage below answers. Each must make sense without "
            "the passage. Answer each with what the passage says and nothing else, and copy the sentence that shows "
            "it. Use this form:\nQuestion: ...\nAnswer: ...\nQuote: ...\n\nPassage:\n" + passage
        )
    if task == "summarize":
        return (
            "Summarize the passage below in one to three sentences. Say only what it says, and keep its names and "
            "numbers.\n\nPassage:\n" + passage
        )
    return (
        f"Which of these labels fits the passage below best: {', '.join(labels)}? Answer with one label and nothing "
        "else.\n\nPassage:\n" + passage
    )


def drafts_from(task: Task, answer: str, chunk: Chunk, labels: Sequence[str]) -> Iterator[Draft | Dropped]:
    """The rows that an answer about a passage gives, and what was dropped of it."""
    if not answer.strip():
        yield Dropped(EMPTY)
    elif task == "qa":
        yield from _pairs(answer, chunk)
    elif task == "summarize":
        yield _summary(" ".join(answer.split()), chunk)
    else:
        yield _label(answer, chunk, labels)


def _pairs(answer: str, chunk: Chunk) -> Iterator[Draft | Dropped]:
    found = list(_read_pairs(answer))
    if not found:
        yield Dropped(NO_PAIR)
    for pair in found:
        question, said, quote = (pair.get(name, "") for name in ("question", "answer", "quote"))
        if not question or not said:
            yield Dropped(NO_PAIR)
        elif not question.endswith(("?", "\uff1f", "\u061f")) or question.casefold() == said.casefold():
            yield Dropped(NO_QUESTION)
        elif quote and find_quote(quote, chunk.body) is None:
            yield Dropped(NOT_QUOTED)
        elif reason := check_grounded(said, chunk.text):
            yield Dropped(reason)
        else:
            place = find_quote(quote, chunk.body) if quote else None
            yield Draft(question, said, place or nearest_sentence(said, chunk.body))


def _read_pairs(answer: str) -> Iterator[dict[str, str]]:
    """Fields by their names, a new pair at each question."""
    parts = _FIELD.split(answer)[1:]
    pair: dict[str, str] = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        key = name.lower()
        if key in pair or (key == "question" and pair):
            yield pair
            pair = {}
        pair[key] = " ".join(text.replace("**", "").split()).strip(' "“”')
    if pair:
        yield pair


def _summary(text: str, chunk: Chunk) -> Draft | Dropped:
    text = re.sub(r"(?i)^(?:here is (?:a|the) )?summary[^:]{0,40}:\s*", "", text)
    if not text:
        return Dropped(EMPTY)
    if len(text) >= len(chunk.body):
        return Dropped(TOO_LONG)
    if reason := check_grounded(text, chunk.text):
        return Dropped(reason)
    return Draft(f"Summarize this:\n\n{chunk.text}", text, (0, len(chunk.body)))


def _label(answer: str, chunk: Chunk, labels: Sequence[str]) -> Draft | Dropped:
    named = [label for label in labels if re.search(rf"(?i)(?<!\w){re.escape(label)}(?!\w)", answer)]
    # of "billing" and "billing dispute" the longer one is meant where it stands
    named = [one for one in named if not any(one != other and one.lower() in other.lower() for other in named)]
    if len(named) != 1:
        return Dropped(NO_LABEL)
    prompt = f"Which of these labels fits: {', '.join(labels)}?\n\n{chunk.text}"
    return Draft(prompt, named[0], (0, len(chunk.body)))


def row_of(draft: Draft, chunk: Chunk, source: dict[str, Any]) -> dict[str, Any]:
    """A draft as a row of JSON Lines, for the owner to review: ``draft`` is to be taken out, or the row."""
    start, end = draft.quote
    span = {"quote_start": chunk.start + start, "quote_end": chunk.start + end}
    quote = {} if (start, end) == (0, len(chunk.body)) else {"quote": chunk.body[start:end]} | span
    row = {"prompt": draft.prompt, "completion": draft.completion, "draft": True}
    return row | {"document": source["file"], "source": source | quote}
