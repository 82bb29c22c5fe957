"""Answers that the network draws to the rows' prompts while it trains: what `grpo` learns from.

What is drawn is a function of the parameters, the recipe's seed and the step; it is kept in the training state for as
long as updates are made of it, so that a run that goes on is made of the very same answers. Where training started,
which the objective may compare with, is kept as the parameters that train: no second network. The price of both is a
second adapter in memory, and one more reading of every answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np

from mlxtune.data.batch import make_batch
from mlxtune.data.render import Rendered
from mlxtune.data.store.rows import places_of
from mlxtune.inference.generate import Generation, generate
from mlxtune.inference.likelihood import target_log_probabilities, target_states
from mlxtune.iteration.ready import Ready
from mlxtune.progress import Progress, silent
from mlxtune.training.loop import Rows
from mlxtune.training.objectives.grpo import advantages
from mlxtune.training.objectives.objective import Drawing
from mlxtune.training.state import TrainingState

TOGETHER = 32
"""Answers that are written at once, at most."""
TOLD = 4
"""Numbers of each answer: see `Drawn.told`."""


@dataclass(frozen=True)
class Drawn:
    """Answers as rows to be learned, N of them.

    ``told`` [N, TOLD] float32 is each answer's advantage, reward, the deviation of its group's rewards, and whether it
    was cut. ``log_probabilities`` has, of each kind that the objective needs, a list of [targets] a row.
    """

    rows: Sequence[Rendered]
    told: np.ndarray
    log_probabilities: Sequence[Sequence[np.ndarray]]

    def beside(self, numbers: Sequence[int], targets: int) -> tuple[mx.array, ...]:
        """The arrays of a batch of some rows, which has so many targets, padding included."""
        whole = [np.concatenate([kind[number] for number in numbers]) for kind in self.log_probabilities]
        padded = [mx.array(np.pad(values, (0, targets - len(values)))) for values in whole]
        return (mx.array(self.told[list(numbers)]), *padded)

    def arrays(self) -> dict[str, mx.array]:
        """All of it, to be kept."""
        ids = np.concatenate([row.token_ids for row in self.rows])
        lengths = [[len(row.token_ids), int(row.is_target.argmax())] for row in self.rows]
        kinds = {f"log_probabilities.{i}": np.concatenate(kind) for i, kind in enumerate(self.log_probabilities)}
        kept = {"token_ids": ids, "lengths": np.array(lengths, np.int32), "told": self.told, **kinds}
        return {name: mx.array(array) for name, array in kept.items()}

    @classmethod
    def of_arrays(cls, arrays: dict[str, Any], places: Sequence[str]) -> "Drawn":
        """What `arrays` gave; ``places`` are where each row's prompt came from."""
        lengths = np.array(arrays["lengths"])
        cuts = np.cumsum(lengths[:, 0])[:-1]
        rows = [
            _row(ids, prompt, place)
            for ids, prompt, place in zip(
                np.split(np.array(arrays["token_ids"]), cuts), lengths[:, 1].tolist(), places, strict=True
            )
        ]
        targets = np.cumsum(lengths[:, 0] - lengths[:, 1])[:-1]
        kinds = [name for name in sorted(arrays) if name.startswith("log_probabilities.")]
        return cls(rows, np.array(arrays["told"]), [np.split(np.array(arrays[name]), targets) for name in kinds])


def _row(token_ids: np.ndarray, prompt: int, place: str) -> Rendered:
    """A prompt of so many tokens and an answer to it, which is what is learned."""
    return Rendered(token_ids, np.arange(len(token_ids)) >= prompt, place)


class Rollouts:
    """The answers that updates are made of just now.

    Before any were drawn, and where none are to be, as in a trial, they are ``rows``, which nobody has judged.

    Attributes:
        longest: the same rows as if all answers were as long as they may be: by them a group is parted, so that no part
            takes more than a forecast says.
    """

    def __init__(self, ready: Ready, rows: Sequence[Rendered]) -> None:
        self.ready = ready
        self.rows = self.longest = rows
        self._drawn: Drawn | None = None

    def draw(self, state: TrainingState, own: Sequence[Rows]) -> list[Rows]:
        """Draw answers to a window's prompts, unless more updates are to be made of those that there are; the rows of
        each group.
        """
        units, drawing = [unit for rows in own for unit in rows], drawing_of(self.ready)
        if state.drawn is None:
            state.drawn = draw(self.ready, units, state.step).arrays()
        places = places_of(self.ready.opened.datasets["train"].rows)
        self._drawn = Drawn.of_arrays(state.drawn, [places[unit] for unit in units for _ in range(drawing.group_size)])
        self.rows = self._drawn.rows
        self.longest = Longest([self.ready.prompts["train"].token_ids[unit] for unit in units], drawing)
        return groups(range(len(units)), drawing)

    def beside(self, numbers: Sequence[int], targets: int) -> tuple[mx.array, ...]:
        """Of a batch of some rows, with so many targets, padding included: what `grpo` finds in `Batch.beside`."""
        if self._drawn is not None:
            return self._drawn.beside(numbers, targets)
        kinds = drawing_of(self.ready).remembers + drawing_of(self.ready).compares
        return (mx.zeros((len(numbers), TOLD)), *(mx.zeros((targets,)) for _ in range(kinds)))


def groups(numbers: Iterable[int], drawing: Drawing) -> list[Rows]:
    """The rows of some groups, by the groups' numbers. No two groups are read together: each has its prompt once."""
    size = drawing.group_size
    return [tuple(range(size * number, size * (number + 1))) for number in numbers]


def drawing_of(ready: Ready) -> Drawing:
    """Of an objective that draws."""
    assert ready.objective.drawing is not None
    return ready.objective.drawing


def draw(ready: Ready, units: Sequence[int], step: int) -> Drawn:
    """Answers to the prompts of some training rows, a group each, one group after the other."""
    drawing, prompts = drawing_of(ready), ready.prompts["train"]
    asked = [unit for unit in units for _ in range(drawing.group_size)]
    seed = int(np.random.SeedSequence([ready.plan.seed, step]).generate_state(1)[0])
    answers = answers_to(ready, [prompts.token_ids[unit] for unit in asked], temperature=1.0, seed=seed)
    places = places_of(ready.opened.datasets["train"].rows)
    rows, rewards = [], np.zeros(len(asked))
    for number, (unit, answer) in enumerate(zip(asked, answers, strict=True)):
        prompt, end = prompts.token_ids[unit], () if answer.end_token is None else (answer.end_token,)
        ids = np.array([*prompt, *answer.token_ids, *end], np.int32)
        rows.append(_row(ids, len(prompt), places[unit]))
        rewards[number] = prompts.reward(unit, answer.text)
    groups = rewards.reshape(-1, drawing.group_size)
    told = np.stack(
        [
            advantages(groups, by_deviation=drawing.by_deviation).reshape(-1),
            rewards,
            np.repeat(groups.std(axis=1), drawing.group_size),
            [answer.finish_reason == "length" for answer in answers],
        ],
        axis=1,
    )
    kinds = []
    if drawing.remembers:
        with ready.computing():
            kinds.append(log_probabilities(ready, rows))
    if drawing.compares:
        with starting(ready):
            kinds.append(log_probabilities(ready, rows))
    return Drawn(rows, told.astype(np.float32), kinds)


def answers_to(
    ready: Ready, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int = 0, progress: Progress = silent
) -> list[Generation]:
    """What the network as it is writes to each prompt."""
    model = ready.opened.model
    with ready.computing():
        return generate(
            model.network,
            model.tokenizer,
            prompts,
            max_tokens=drawing_of(ready).max_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=TOGETHER,
            progress=progress,
        )


def greedy_answers(ready: Ready, split: str) -> list[str]:
    """To each of a split's prompts."""
    return [answer.text for answer in answers_to(ready, ready.prompts[split].token_ids, temperature=0.0)]


def mean_reward(ready: Ready, split: str, answers: Sequence[str]) -> float:
    """Of the answers to a split's prompts."""
    prompts = ready.prompts[split]
    return float(np.mean([prompts.reward(row, answer) for row, answer in enumerate(answers)]))


@contextmanager
def starting(ready: Ready) -> Iterator[None]:
    """While it lasts the network is the one that training started from."""
    network = ready.state.network
    now = network.trainable_parameters()
    network.update(dict(ready.start))
    try:
        yield
    finally:
        network.update(now)


def log_probabilities(ready: Ready, rows: Sequence[Rendered]) -> list[np.ndarray]:
    """By the network as it is, in nats: [targets] float32 of each row of some groups."""
    drawing, found = drawing_of(ready), []
    for numbers in groups(range(len(rows) // drawing.group_size), drawing):
        batch = make_batch(rows, numbers, share_prefix=ready.reader.shares_prefixes)
        states = target_states(ready.reader, batch.prefix_ids, batch.token_ids, batch.target_index)
        values = np.array(target_log_probabilities(ready.reader, states, batch.target_id))
        found += np.split(values, np.cumsum([int(rows[number].is_target.sum()) for number in numbers])[:-1])
    return found


@dataclass(frozen=True)
class Longest(Sequence[Rendered]):
    """Rows as long as drawn answers may become, in groups."""

    prompts: Sequence[Sequence[int]]
    drawing: Drawing

    def __len__(self) -> int:
        return len(self.prompts) * self.drawing.group_size

    def __getitem__(self, number: Any) -> Any:
        prompt = self.prompts[range(len(self))[number] // self.drawing.group_size]
        ids = np.concatenate([prompt, np.resize(prompt, self.drawing.max_tokens)]).astype(np.int32)
        return _row(ids, len(prompt), "")


def standing_in(ready: Ready) -> Ready:
    """The same run with the longest answers that could be drawn, as if they were there: for a forecast. A run that
    draws none is as it is.
    """
    if not ready.prompts:
        return ready
    drawing, dataset = drawing_of(ready), ready.opened.datasets["train"]
    rows = Longest(ready.prompts["train"].token_ids, drawing)
    targets = len(rows) * drawing.max_tokens
    tokens = targets + drawing.group_size * sum(map(len, rows.prompts))
    report = replace(dataset.report, tokens=tokens, target_tokens=targets)
    train = replace(dataset, rows=rows, report=report)
    opened = replace(ready.opened, datasets={**ready.opened.datasets, "train": train})
    return replace(ready, opened=opened, prompts={})
