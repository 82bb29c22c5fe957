"""What a model knows and does in general: the probe asked of it, and how well it foretells general text.

Base and tuned model are asked alike, one question a chat, without the task's system message: in general use it is not
there. A model without a chat template gets question and answer as plain text. Knows a model; nothing of which it is.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mlxtune.data.example import Example, Message
from mlxtune.data.render import Rendered, Renderer
from mlxtune.errors import DataError
from mlxtune.evaluation.forgetting.probe import Passage, Question, passages, questions
from mlxtune.evaluation.heldout import read_heldout
from mlxtune.evaluation.measured import Measured, rates, ratio
from mlxtune.inference.generate import generate
from mlxtune.inference.likelihood import Reader, make_reader
from mlxtune.models.load import Model
from mlxtune.progress import Progress, silent

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

MAX_TOKENS: Mapping[str, int] = {"formatting": 32}
"""Of a written answer, by area; cut short it is judged as far as it goes."""
USUAL_TOKENS = 16
BATCH_SIZE = 64
"""Prompts that are answered together: they are short, and so are the answers."""
PLAIN = "Question: {}\nAnswer:"
"""How a model is asked that has no chat template."""
PLAIN_END = "\nQuestion:"


@dataclass(frozen=True)
class Known:
    """What one model knows: ``right`` of the questions by their number, ``bits_per_byte`` of the passages, what it said
    to each question, and how long it took.
    """

    right: Measured
    bits_per_byte: Measured
    said: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "right": self.right.to_json(),
            "bits_per_byte": self.bits_per_byte.to_json(),
            "said": list(self.said),
            "seconds": self.seconds,
        }

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Known":
        """What `to_json` gave. Raises: KeyError or ValueError, for anything else."""
        right, bits = (Measured.from_json(content[name]) for name in ("right", "bits_per_byte"))
        return Known(right, bits, tuple(content["said"]), float(content["seconds"]))


def ask_all(model: Model, *, progress: Progress = silent) -> Known:
    """Ask the whole probe and read all passages.

    Raises: DataError, if the model's chat template refuses a plain question.
    """
    began = time.perf_counter()
    asked, reader = questions(), make_reader(model.network)
    said = choose(model, reader, asked, progress=progress) | write(model, asked, progress=progress)
    right = {
        i: float(said[i] == question.answers[0] if question.answers else question.rule.allows(said[i]))
        for i, question in enumerate(asked)
    }
    bits = read_passages(model, reader, passages(), progress=progress)
    texts = tuple(said[i] for i in range(len(asked)))
    return Known(rates(right), bits, texts, time.perf_counter() - began)


def check_probe(tokenizer: "TokenizerWrapper") -> None:
    """Find out without a network whether the probe can be asked.

    Raises: DataError, if the chat template refuses a plain question, or a question and its answer.
    """
    renderer = Renderer(tokenizer)
    try:
        for question in questions():
            _prompt(renderer, question)
            _answered(renderer, question)
    except DataError as error:
        raise DataError(
            f"the model cannot be asked general questions: {error.message}",
            where="evaluation.forgetting",
            remedy="give the recipe another data.chat_template, or set evaluation.forgetting: false",
        ) from error


def choose(model: Model, reader: Reader, asked: Sequence[Question], *, progress: Progress = silent) -> dict[int, str]:
    """Of each question that has answers, by its number, the one that is likeliest as a whole, its end included.

    Equally likely ones (a network that says no numbers, too) are no choice: the last of them is taken, never the right
    one, which is the first.
    """
    renderer = Renderer(model.tokenizer)
    rows: list[Rendered] = []
    row_numbers: dict[int, slice] = {}
    for i, question in enumerate(asked):
        if question.answers:
            rows += _answered(renderer, question)
            row_numbers[i] = slice(len(rows) - len(question.answers), len(rows))
    told = partial(_tell, progress, "choices")
    nats = read_heldout(reader, model.tokenizer, rows, progress=told).loss_sum
    found = {}
    for i, numbers in row_numbers.items():
        lowest = np.flatnonzero(nats[numbers] == nats[numbers].min())
        found[i] = asked[i].answers[int(lowest[-1]) if len(lowest) else -1]
    return found


def write(model: Model, asked: Sequence[Question], *, progress: Progress = silent) -> dict[int, str]:
    """What the model writes to each question that has no answers to choose from, by its number: greedily."""
    renderer = Renderer(model.tokenizer)
    by_limit: dict[int, list[int]] = {}
    for i, question in enumerate(asked):
        if not question.answers:
            by_limit.setdefault(MAX_TOKENS.get(question.area, USUAL_TOKENS), []).append(i)
    found: dict[int, str] = {}
    for limit, numbers in by_limit.items():
        answers = generate(
            model.network,
            model.tokenizer,
            [_prompt(renderer, asked[i]) for i in numbers],
            max_tokens=limit,
            stop=() if model.tokenizer.has_chat_template else (PLAIN_END,),
            batch_size=BATCH_SIZE,
            progress=partial(_tell, progress, "answers"),
        )
        found |= {i: answer.text for i, answer in zip(numbers, answers, strict=True)}
    return found


def read_passages(model: Model, reader: Reader, texts: Sequence[Passage], *, progress: Progress = silent) -> Measured:
    """Bits per byte of plain text, without a chat template around it."""
    renderer = Renderer(model.tokenizer)
    rows = [
        renderer.render(Example("text", f"{text.register}:{text.line}", text=text.text), "everything") for text in texts
    ]
    found = read_heldout(reader, model.tokenizer, rows, progress=partial(_tell, progress, "passages"))
    return ratio(np.arange(len(rows)), found.loss_sum / math.log(2), found.byte_count)


def _tell(progress: Progress, part: str, _what: str, done: int, total: int) -> None:
    progress(f"probe for forgetting: {part}", done, total)


def _prompt(renderer: Renderer, question: Question) -> list[int]:
    """The tokens of a question, up to where its answer begins."""
    if renderer.tokenizer.has_chat_template:
        return renderer.encode_prompt([Message("user", question.ask)], f"{question.id}:1")
    return renderer.encode_text(PLAIN.format(question.ask))


def _answered(renderer: Renderer, question: Question) -> list[Rendered]:
    """A question with each of its answers, of which the answer is the target."""
    asked, space = (question.ask, "") if renderer.tokenizer.has_chat_template else (PLAIN.format(question.ask), " ")
    turns = [(Message("user", asked), Message("assistant", space + answer)) for answer in question.answers]
    examples = [Example("prompt_completion", f"{question.id}:1", turn) for turn in turns]
    return [renderer.render(example, "last_completion") for example in examples]
