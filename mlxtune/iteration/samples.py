"""What the model that is being trained writes to a few validation rows, after each look at the loss on them.

For whoever watches: the loss says how likely the wanted answers have become, and these say what comes instead. They are
asked as evaluation asks, greedily, by the network as it is between two steps; nothing that is learned depends on it,
and whatever goes wrong here is told once and ends no run. The texts are private: they are in one file of the run's
folder, and in no log. The price is the time of a few short answers at each look.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import mlx.core as mx

from mlxtune.data.example import Example
from mlxtune.data.render import Renderer
from mlxtune.device.memory import is_out_of_memory
from mlxtune.errors import DataError, MlxtuneError
from mlxtune.evaluation.score import prompt_text
from mlxtune.files import write_text
from mlxtune.inference.generate import generate
from mlxtune.iteration.opening import tasks_of
from mlxtune.iteration.prompts import Prompts
from mlxtune.iteration.ready import Ready
from mlxtune.runs.log import Log

LONGEST = 64
"""Tokens of an answer; fewer, where a task allows fewer."""
PASSED_OVER = 100
"""Rows at most, from the first on, that cannot be asked: so many are looked at beyond those that are wanted."""
BEGINNING = 200
"""Characters of a raw text that are its prompt, at most; of a short one it is the first half."""
CONTINUATION = 400
"""Characters of what follows there that are shown beside the answer."""


@dataclass(frozen=True)
class Question:
    """A validation row as it is asked, and what is shown of it."""

    where: str
    prompt: str
    reference: str
    token_ids: Sequence[int]


def questions_of(ready: Ready) -> list[Question]:
    """The first rows of data.valid that can be asked, as many as the recipe wants answered; none without data.valid.

    A row is passed over whose prompt cannot be made, or is longer than a row may be.
    """
    recipe, valid = ready.opened.recipe, ready.opened.datasets.get("valid")
    count = recipe.evaluation.samples
    if valid is None or count == 0:
        return []
    if ready.prompts:
        return _drawn_from(ready.prompts["valid"], count)
    renderer = Renderer(ready.opened.model.tokenizer)
    answer_after = next((task.answer_after for task in tasks_of(recipe.evaluation) if task.answer_after), None)
    found = (_question(renderer, example, answer_after) for example in islice(valid.examples(), count + PASSED_OVER))
    asked = (one for one in found if one is not None and 0 < len(one.token_ids) <= recipe.data.max_seq_length)
    return list(islice(asked, count))


def _drawn_from(prompts: Prompts, count: int) -> list[Question]:
    """The first of those that an objective asks which draws answers."""
    answer_after = prompts.rewards[0].task.answer_after
    rows = zip(prompts.examples, prompts.references, prompts.token_ids, strict=True)
    return [
        Question(example.where, prompt_text(example, answer_after), reference, ids)
        for example, reference, ids in islice(rows, count)
    ]


def _question(renderer: Renderer, example: Example, answer_after: str | None) -> Question | None:
    try:
        ids, reference = renderer.prompt(example, answer_after)
    except DataError:
        return _continuation(renderer, example) if example.kind == "text" else None
    return Question(example.where, prompt_text(example, answer_after), reference, ids)


def _continuation(renderer: Renderer, example: Example) -> Question | None:
    """Of a text that says nowhere where an answer begins: its beginning, to be gone on with."""
    most = min(BEGINNING, len(example.text) // 2)
    cut = max((i for i in range(1, most + 1) if example.text[i].isspace()), default=most)
    beginning, rest = example.text[:cut], example.text[cut:].strip()
    if not (beginning.strip() and rest):
        return None
    shown = rest if len(rest) <= CONTINUATION else f"{rest[:CONTINUATION]}…"
    return Question(example.where, beginning, shown, renderer.encode_text(beginning))


def answers_of(ready: Ready, questions: Sequence[Question]) -> list[str]:
    """What the network as it is writes to each, greedily."""
    model, tasks = ready.opened.model, tasks_of(ready.opened.recipe.evaluation)
    most = min([LONGEST, *(task.max_tokens for task in tasks if task.max_tokens)])
    with ready.computing():
        answers = generate(model.network, model.tokenizer, [one.token_ids for one in questions], max_tokens=most)
    return [answer.text for answer in answers]


@contextmanager
def forgiven(tell: Callable[[str], None]) -> Iterator[None]:
    """Nothing that goes wrong in the block ends what is around it; ``tell`` is told of it, in no word of any row."""
    why = None
    try:
        yield
    except Exception as error:  # noqa: BLE001 - templates and tokenizers fail in any way, and a run is worth more
        why = _in_short(error)
    if why is not None:
        mx.clear_cache()
        tell(why)


def _in_short(error: Exception) -> str:
    if isinstance(error, RuntimeError) and is_out_of_memory(error):
        return "there is not enough memory for it"
    place = f" at {error.where}" if isinstance(error, MlxtuneError) and error.where else ""
    return f"{type(error).__name__}{place}"


class Samples:
    """Writes them to a file, which has those of the latest look: ``{step, where, prompt, reference, tuned}`` a line."""

    def __init__(self, ready: Ready, path: Path, *, log: Log, warned: Callable[[str], None]) -> None:
        self._ready = ready
        self._path = path
        self._log = log
        self._warned = warned
        self._wanted = ready.opened.recipe.evaluation.samples > 0
        self._questions: list[Question] | None = None
        self._heard: Sequence[str] | None = None

    def hear(self, answers: Sequence[str]) -> None:
        """Take the answers to all validation rows, in their order, from who has them: none is written again."""
        self._heard = answers

    def look(self, step: int) -> dict[str, float]:
        """Have the rows answered, after so many steps; what metrics.jsonl is told of it, which is nothing where none
        is. After a first failure none is tried any more.
        """
        if not self._wanted:
            return {}
        started = time.perf_counter()
        with forgiven(self._give_up):
            self._write(step)
        return {"samples_seconds": time.perf_counter() - started} if self._wanted else {}

    def _write(self, step: int) -> None:
        if self._questions is None:
            self._questions = questions_of(self._ready)
        if not self._questions:
            self._give_up("none of its first rows can be asked")
            return
        answers = answers_of(self._ready, self._questions) if self._heard is None else self._heard
        lines = [
            {"step": step, "where": one.where, "prompt": one.prompt, "reference": one.reference, "tuned": answer}
            for one, answer in zip(self._questions, answers, strict=False)
        ]
        write_text(self._path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def _give_up(self, why: str) -> None:
        self._wanted = False
        told = f"no more answers to rows of data.valid are shown while it trains: {why}"
        self._log(told)
        self._warned(told)
