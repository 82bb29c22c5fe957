"""Tasks of lm-evaluation-harness (the extra ``lm-eval``) put to a model: its prompts, filters and metrics, our answers.

The harness loads a task, asks, and scores; here is what it cannot know. Its task files are programs, in Jinja and,
where they name it, in Python: it runs its own, and those of folders that the owner names. What the harness prints goes
nowhere, since a task may print rows. A metric that is the mean of a number a row keeps those numbers, so that two
models can be compared row by row; any other keeps the harness's standard error alone.
"""

import contextlib
import difflib
import logging
import math
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from mlxtune.errors import DataError, DeviceError, MlxtuneError, UsageError
from mlxtune.evaluation.lm_eval.answers import Answers, answers_until, chat_text, loglikelihoods, rolling_loglikelihoods
from mlxtune.evaluation.lm_eval.data_sets import with_data_sets
from mlxtune.evaluation.measured import Measured, rates

SEED = 1234
"""Of few-shot examples and of numpy, as the harness sets it where nobody says otherwise."""
BOOTSTRAPS = 1000
"""Draws for the standard error of a metric that is no mean."""
LONGEST_REASON = 300
"""Characters of the harness's own words in an error."""
NEAR_NAMES = 3
IN_ONE_PROCESS = "DISABLE_MULTIPROC"
"""A variable of the harness: a standard error is worked out here, not by forks of a process that holds a network."""


@dataclass(frozen=True)
class Asked:
    """What is asked of each model, and how.

    ``limit`` rows of each task, the first, or all; ``shots`` examples before each question where the task does not fix
    their number, or as many as it says; ``chat``: questions and examples are turns in the model's chat template.
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    shots: int | None = None
    chat: bool = False
    include: Path | None = None
    """A folder of task files beside the harness's own."""


@dataclass(frozen=True)
class Figure:
    """One metric of one task. ``measured`` is None for one that is no mean of a number a row."""

    value: float
    stderr: float | None
    higher_is_better: bool | None
    measured: Measured | None


@dataclass(frozen=True)
class TaskFigures:
    """A task's figures by metric, its version, and the examples and rows that it had. A group of tasks has no rows."""

    figures: Mapping[str, Figure]
    version: str
    shots: int | None
    rows: int | None


class Harness:
    """The harness's tasks, found once and asked of any number of models.

    Raises: DeviceError, if lm-evaluation-harness is not installed; UsageError, for a task that it does not have, with
        names that are near; DataError, for one that cannot be loaded; NetworkError, if its data are not here and may
        not be fetched.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self._lm_eval = _lm_eval()
        with _silent():
            self._manager = self._find()
            self._load()  # what is wrong with a task is found before a model is opened

    def ask(self, answers: Answers) -> dict[str, TaskFigures]:
        """Every task's figures, of one model.

        Raises: DataError, if a task fails, or asks for what the model cannot answer.
        """
        asked, lm = self.asked, self._as_lm(answers, _aloud(sys.stdout, sys.stderr))
        random.seed(0)
        np.random.seed(SEED)  # noqa: NPY002 - what the harness's own tasks draw from
        with _silent(), _named("lm-eval's tasks failed"):
            found = self._lm_eval.evaluator.evaluate(
                lm=lm,
                task_dict=self._load(),
                limit=asked.limit,
                bootstrap_iters=BOOTSTRAPS,
                apply_chat_template=asked.chat,
                fewshot_as_multiturn=asked.chat,
            )
        assert found is not None  # None is for ranks other than the first
        return {name: _task(name, found) for name in found["results"]}

    @property
    def version(self) -> str:
        return self._lm_eval.__version__

    def _find(self) -> Any:
        """The harness's index of tasks that has all that are asked; its own are read only where they are needed."""
        asked, manager = self.asked, self._lm_eval.tasks.TaskManager
        if asked.include is not None:
            if not asked.include.is_dir():
                raise UsageError(
                    "there is no such folder of tasks", where=asked.include, remedy="name one that is there"
                )
            own = manager(include_path=str(asked.include), include_defaults=False)
            if all(name in own.all_tasks for name in asked.tasks):
                return own
        found = manager(include_path=None if asked.include is None else str(asked.include))
        for name in asked.tasks:
            if name not in found.all_tasks:
                near = difflib.get_close_matches(name, found.all_tasks, NEAR_NAMES)
                remedy = f"do you mean {' or '.join(near)}? " if near else ""
                raise UsageError(
                    "lm-eval has no task of this name",
                    where=name,
                    remedy=f"{remedy}`lm-eval ls tasks` lists its own; --include-path DIR adds yours",
                )
        return found

    def _load(self) -> Any:
        """The tasks with their rows, new each time, since they keep the last model's answers."""
        names = list(self.asked.tasks)
        with _named(f"lm-eval cannot load {', '.join(names)}"):
            loaded = with_data_sets(lambda: self._manager.load(names), what=f"the data of {', '.join(names)}")
        for task in loaded["tasks"].values():
            fixed = task.get_config("num_fewshot")
            if fixed is None or (fixed != 0 and self.asked.shots is not None):
                task.set_config(key="num_fewshot", value=self.asked.shots or 0)
            task.set_fewshot_seed(seed=SEED)
        return loaded

    def _as_lm(self, answers: Answers, aloud: contextlib.ContextDecorator) -> Any:
        """A model as the harness wants one; it tells its progress, which is ours, ``aloud``."""

        class Network(self._lm_eval.api.model.LM):
            tokenizer_name = "mlxtune"

            @aloud
            def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
                return loglikelihoods(answers, [request.args for request in requests])

            @aloud
            def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
                return rolling_loglikelihoods(answers, [request.args[0] for request in requests])

            @aloud
            def generate_until(self, requests: Sequence[Any]) -> list[str]:
                return answers_until(answers, [request.args for request in requests])

            def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
                return chat_text(answers, chat_history, add_generation_prompt=add_generation_prompt)

        return Network()


def _lm_eval() -> Any:
    try:
        for name in ("api.model", "evaluator", "tasks"):
            import_module(f"lm_eval.{name}")
        return import_module("lm_eval")
    except ImportError as error:
        raise DeviceError(
            f"lm-evaluation-harness is not installed whole: {error}", remedy="pip install 'mlxtune[lm-eval]'"
        ) from error


def _task(name: str, found: Mapping[str, Any]) -> TaskFigures:
    """What the harness found of one task or group."""
    said, samples = found["results"][name], found.get("samples", {}).get(name, [])
    better = found["higher_is_better"].get(name, {})
    figures = {}
    for key, value in said.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        stderr = said.get(f"{metric}_stderr,{chosen}")
        figures[metric if chosen == "none" else key] = Figure(
            float(value),
            float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None,
            better.get(metric),
            _measured(float(value), metric, [sample for sample in samples if sample["filter"] == chosen]),
        )
    version = found["versions"].get(name)
    return TaskFigures(
        figures, "" if version is None else str(version), found["n-shot"].get(name), said.get("sample_len") or None
    )


def _measured(value: float, metric: str, samples: Sequence[Mapping[str, Any]]) -> Measured | None:
    """A metric's numbers by row, if ``value`` is their mean: what else a metric may be, its numbers do not say."""
    numbers = {sample["doc_id"]: sample.get(metric) for sample in samples}
    if not numbers or not all(isinstance(one, int | float) and math.isfinite(one) for one in numbers.values()):
        return None
    found = rates({row: float(one) for row, one in numbers.items() if one is not None})
    return found if math.isclose(found.value, value, rel_tol=1e-9, abs_tol=1e-12) else None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What the harness prints and draws goes nowhere; so does what it logs, short of errors."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "evaluate")]
    levels = [logger.level for logger in loggers]
    in_one_process = os.environ.get(IN_ONE_PROCESS)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        try:
            os.environ[IN_ONE_PROCESS] = "1"
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        finally:
            del os.environ[IN_ONE_PROCESS]
            if in_one_process is not None:
                os.environ[IN_ONE_PROCESS] = in_one_process
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _aloud(out: TextIO, err: TextIO) -> Iterator[None]:
    """What is printed inside is seen again."""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Raises: DataError, for whatever the harness or a task's own code raises inside."""
    try:
        yield
    except MlxtuneError:
        raise
    except Exception as error:
        raise _failed(what, error) from error


def _failed(what: str, error: Exception) -> DataError:
    said = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
    return DataError(f"{what}: {said}", remedy="look at the task's file and data, or leave the task out")
