"""What lm-evaluation-harness asks of a model, answered by a network: likelihoods of texts, and texts.

The three questions are the harness's, and so are the conventions, those of its own model for transformers (`HFLM`, in
its models/huggingface.py), so that a figure means here what it means in its tables: how a context is cut from what
follows it, where a long one is shortened, what stands before the first token, when an answer is over. Knows token ids
and networks; nothing of the harness, whose questions harness.py hands over. What the rows of a question share goes
through the network once: one with four choices (150 tokens, SmolLM2-135M, a CPU) takes 1.3 to 1.6 times as long as one
with a single choice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from mlxtune.data.batch import READING_TOKENS, count_positions
from mlxtune.data.example import Message
from mlxtune.data.render import Rendered
from mlxtune.data.rendering.chat_text import ChatTemplate
from mlxtune.errors import DataError
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.inference.generate import generate, text_before
from mlxtune.inference.likelihood import Reader, make_reader
from mlxtune.models.load import Model
from mlxtune.progress import Progress, silent

LONGEST = 2048
"""Tokens of context and continuation, where neither config nor tokenizer says how many a model takes."""
LENGTHS = ("n_positions", "max_position_embeddings", "n_ctx")
"""How configs name it."""
NO_LENGTH = 10**29
"""Tokenizers whose files name none say 10^30."""
ANSWER_TOKENS = 256
"""Of an answer, where a task does not say."""
MAX_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""How tasks name that limit; the first that is there counts."""
GREEDY_LEAVES = ("top_p", "top_k", "min_p", "typical_p")
"""What only changes how an answer is drawn, where it is drawn."""
CALL_POSITIONS = 64
"""What a batch costs beside its positions, in positions: with less to win, questions are read together."""


@dataclass(frozen=True)
class Answers:
    """A model, made ready to be asked."""

    model: Model
    reader: Reader
    chat: ChatTemplate
    max_length: int
    progress: Progress = silent

    @property
    def prefix_id(self) -> int:
        """What stands before a text that nothing stands before: BOS, in a tokenizer without one EOS."""
        tokenizer = self.model.tokenizer
        return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id

    def encode(self, text: str) -> list[int]:
        """A text's tokens, with what the tokenizer puts around it, but for a second BOS."""
        tokenizer = self.model.tokenizer
        if text.startswith(tokenizer.decode([self.prefix_id])):
            return tokenizer.encode(text, add_special_tokens=False)
        return tokenizer.encode(text)


def make_answers(model: Model, *, progress: Progress = silent) -> Answers:
    """Look at a model once: where its head is, whether prefixes can be shared, how long a text it takes."""
    return Answers(
        model, make_reader(model.network), ChatTemplate(model.tokenizer), max_length_of(model), progress=progress
    )


def max_length_of(model: Model) -> int:
    """Tokens that a model takes: its config says, else its tokenizer, else `LONGEST`."""
    config = model.config.get("text_config") or model.config
    for name in LENGTHS:
        if config.get(name) is not None:
            return int(config[name])
    length = model.tokenizer.model_max_length
    return int(length) if length is not None and length < NO_LENGTH else LONGEST


def loglikelihoods(answers: Answers, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
    """How likely each text is to follow its context.

    Args:
        pairs: context and continuation; a context may be empty.

    Returns: the natural logarithm of the probability, and whether each of its tokens is the likeliest one.
    Raises: DataError, for a continuation without tokens, or longer than the model takes.
    """
    rows = [_row(answers, *_encode_pair(answers, *pair), f"request {number}") for number, pair in enumerate(pairs, 1)]
    found: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
    done = 0
    for batch in _batches(rows, share_prefix=answers.reader.shares_prefixes):
        read = read_heldout(answers.reader, answers.model.tokenizer, [rows[i] for i in batch])
        is_greedy = read.hit_count == read.target_count
        for i, nats, hit in zip(batch, read.loss_sum.tolist(), is_greedy.tolist(), strict=True):
            found[i] = (-nats, hit)
        done += len(batch)
        answers.progress("choices: rows", done, len(rows))
    return found


def rolling_loglikelihoods(answers: Answers, texts: Sequence[str]) -> list[float]:
    """How likely each text is as a whole, each of its tokens predicted once, with as much before it as the model takes
    (where a text is longer than that, the windows after the first predict as many as they can).

    Returns: the natural logarithms of the probabilities; 0 for a text without tokens.
    """
    windows = [_windows(answers, text, f"text {number}") for number, text in enumerate(texts, 1)]
    with_tokens = [number for number, own in enumerate(windows) if own]
    found = [0.0] * len(texts)
    if with_tokens:
        rows = [row for own in windows for row in own]
        row_of = np.repeat(np.arange(len(with_tokens)), [len(windows[number]) for number in with_tokens])
        read = read_heldout(answers.reader, answers.model.tokenizer, rows, row_of=row_of, progress=answers.progress)
        for number, nats in zip(with_tokens, read.loss_sum.tolist(), strict=True):
            found[number] = -nats
    return found


def answers_until(answers: Answers, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """What the model writes after each context, up to one of the texts that end an answer.

    Args:
        requests: a context, and how its answer is to be made, in the words of the harness's tasks.

    Raises: DataError, for a way that is not known here, or an answer for which the model has no room.
    """
    found = [""] * len(requests)
    ways = [_way(settings) for _, settings in requests]
    order = sorted(range(len(requests)), key=lambda i: repr(ways[i]))
    for way, numbers in groupby(order, key=lambda i: ways[i]):
        own = list(numbers)
        texts = _generate(answers, [requests[i][0] for i in own], way)
        for i, text in zip(own, texts, strict=True):
            found[i] = text
    return found


def chat_text(answers: Answers, history: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
    """A conversation as the text that the model's chat template makes of it.

    A template that takes no system message gets the conversation without it, as in the harness.

    Args:
        add_generation_prompt: false for one whose last turn is the beginning of an answer: the text ends with it.

    Raises: DataError, if the model has no template, or it refuses the conversation.
    """
    turns = [Message(turn["role"], turn["content"]) for turn in history]  # pyright: ignore[reportArgumentType] - a role the template knows
    try:
        text = answers.chat.text(turns, "the task's prompt", generation_prompt=add_generation_prompt)
    except DataError:
        turns = [turn for turn in turns if turn.role != "system"]
        if len(turns) == len(history):
            raise
        text = answers.chat.text(turns, "the task's prompt", generation_prompt=add_generation_prompt)
    if add_generation_prompt:
        return text
    begun = turns[-1].content
    words = begun if begun in text else begun.strip()
    return text[: text.rindex(words) + len(words)]


def _encode_pair(answers: Answers, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """The tokens of a context and of what follows it. White space between them belongs to what follows."""
    if not context:
        ids = answers.model.tokenizer.encode(continuation, add_special_tokens=False)
        return (ids[:1], ids[1:]) if ids[:1] == [answers.prefix_id] else ([answers.prefix_id], ids)
    kept = context.rstrip()
    before = answers.encode(kept)
    return before, answers.encode(context + continuation)[len(before) :]


def _row(answers: Answers, before: list[int], after: list[int], where: str) -> Rendered:
    """The last tokens of ``before``, as many as there is room for, and ``after``, whose tokens are the targets."""
    if not before or not after or len(after) > answers.max_length:
        raise DataError(
            f"a continuation of {len(after)} tokens is asked for; the model takes 1 to {answers.max_length}",
            where=where,
            remedy="leave this task out, or choose a model with a longer context",
        )
    ids = (before + after)[-(answers.max_length + 1) :]
    return Rendered(np.array(ids, np.int32), np.arange(len(ids)) >= len(ids) - len(after), where)


def _windows(answers: Answers, text: str, where: str) -> list[Rendered]:
    """A text's tokens in rows that the model takes, each token a target of one of them."""
    longest = answers.max_length
    ids = [answers.prefix_id, *answers.encode(text)]
    rows, done = [], 1
    while done < len(ids):
        end = min(done + longest, len(ids))
        first = 0 if done == 1 else end - longest - 1
        rows.append(_row(answers, ids[first:done], ids[done:end], where))
        done = end
    return rows


def _batches(rows: Sequence[Rendered], *, share_prefix: bool) -> Iterator[list[int]]:
    """All rows, by number: neighbours that begin alike together, as long as that saves positions of the network."""
    if not share_prefix:
        yield list(range(len(rows)))
        return
    order = sorted(range(len(rows)), key=lambda i: _context(rows[i]))
    batch: list[int] = []
    positions = 0
    for _, alike in groupby(order, key=lambda i: _context(rows[i])):
        group = list(alike)
        alone = count_positions(rows, group, share_prefix=True)
        together = count_positions(rows, batch + group, share_prefix=True)
        if batch and (together > positions + alone + CALL_POSITIONS or together > READING_TOKENS):
            yield batch
            batch, together = [], alone
        batch, positions = batch + group, together
    if batch:
        yield batch


def _context(row: Rendered) -> list[int]:
    return row.token_ids[: int(np.argmax(row.is_target))].tolist()


@dataclass(frozen=True)
class _Way:
    """How an answer is made."""

    until: tuple[str, ...]
    max_tokens: int
    temperature: float


def _way(settings: Mapping[str, Any]) -> _Way:
    """A task's words for it. Raises: DataError, for what is not known here."""
    given = {name: value for name, value in settings.items() if value is not None}
    until = given.pop("until", ())
    limits = [given.pop(name) for name in MAX_TOKENS if name in given]
    temperature, draws = given.pop("temperature", None), given.pop("do_sample", None)
    draws = bool(temperature) if draws is None else draws
    beams = given.pop("num_beams", 1)
    if not draws:
        given = {name: value for name, value in given.items() if name not in GREEDY_LEAVES}
    if given or beams != 1:
        names = ", ".join([*given, *(["num_beams"] if beams != 1 else [])])
        raise DataError(
            f"a task asks for answers in a way that is not known here: {names}",
            remedy="leave this task out, or take these keys out of its generation_kwargs",
        )
    return _Way(
        (until,) if isinstance(until, str) else tuple(until),
        int(limits[0]) if limits else ANSWER_TOKENS,
        (1.0 if temperature is None else float(temperature)) if draws else 0.0,
    )


def _generate(answers: Answers, contexts: Sequence[str], way: _Way) -> list[str]:
    tokenizer = answers.model.tokenizer
    room = answers.max_length - way.max_tokens
    if room < 1:
        raise DataError(
            f"a task asks for answers of up to {way.max_tokens} tokens; the model takes {answers.max_length} with "
            "the question",
            remedy="leave this task out, or choose a model with a longer context",
        )
    stop = [*way.until, tokenizer.decode([tokenizer.eos_token_id])]
    found = generate(
        answers.model.network,
        tokenizer,
        [(answers.encode(context) or [answers.prefix_id])[-room:] for context in contexts],
        max_tokens=way.max_tokens,
        temperature=way.temperature,
        stop=stop,
        progress=answers.progress,
    )
    # As the harness decodes: without special tokens, and before it looks for what ends the answer.
    return [text_before(tokenizer.decode(one.token_ids, skip_special_tokens=True), stop) for one in found]
