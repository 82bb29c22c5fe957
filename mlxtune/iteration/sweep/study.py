"""The trials of a sweep in optuna's own storage, an SQLite file: their settings, their curves and how each ended.

Other programs that read optuna's studies can open it (optuna-dashboard, for one). Written through the storage and not
through optuna's Study: a trial gets all its settings in one transaction, so a kill leaves it whole or absent, and what
a resumed trial reports again replaces what it reported. The price: the storage's functions are meant for optuna's own
samplers and pruners, so the version has a ceiling (pyproject.toml).
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlxtune.errors import DeviceError
from mlxtune.iteration.sweep.draw import distributions, params_of, point_of
from mlxtune.iteration.sweep.halving import Curve
from mlxtune.iteration.sweep.space import Dimension, Point

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

NAME = "sweep"
WAIT_S = 60
"""For another process that writes."""

State = Literal["running", "complete", "pruned", "failed"]
_STATES: dict[str, State] = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class Trial:
    """One trial: ``running`` until it is told how it ended, whether a process is at it or not."""

    number: int
    state: State
    point: Point
    curve: Curve
    """The validation loss by percent of the run."""
    valid_loss: float | None
    """The best, of a complete trial."""
    facts: dict[str, Any]
    """What is told of it besides: steps, seconds, why it failed."""


@dataclass(frozen=True)
class Study:
    """The trials of one sweep."""

    storage: "RDBStorage"
    id: int
    dimensions: tuple[Dimension, ...]

    def frozen(self) -> list["FrozenTrial"]:
        """All trials as optuna has them, in order."""
        return sorted(self.storage.get_all_trials(self.id, deepcopy=False), key=lambda trial: trial.number)

    def trials(self) -> list[Trial]:
        """All trials, in order."""
        return [self._plain(trial) for trial in self.frozen()]

    def trial(self, number: int) -> Trial:
        """One of them."""
        return self._plain(self.storage.get_trial(self._id_of(number)))

    def add(self, point: Point) -> int:
        """A new trial that runs, with all its settings; its number."""
        from optuna.trial import TrialState, create_trial

        new = create_trial(
            state=TrialState.RUNNING,
            params=params_of(self.dimensions, point),
            distributions=distributions(self.dimensions),
        )
        return self.storage.get_trial(self.storage.create_new_trial(self.id, new)).number

    def report(self, number: int, percent: int, loss: float) -> None:
        """A validation loss of a trial that runs."""
        self.storage.set_trial_intermediate_value(self._id_of(number), percent, loss)

    def finish(self, number: int, state: State, valid_loss: float | None = None, **facts: Any) -> None:
        """How a trial ended."""
        from optuna.trial import TrialState

        trial_id = self._id_of(number)
        for name, value in facts.items():
            self.storage.set_trial_user_attr(trial_id, name, value)
        ended = TrialState[next(name for name, own in _STATES.items() if own == state)]
        self.storage.set_trial_state_values(trial_id, ended, None if valid_loss is None else [valid_loss])

    def close(self) -> None:
        """Let go of the file."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    def _id_of(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.id, number)

    def _plain(self, trial: "FrozenTrial") -> Trial:
        point = point_of(trial)
        return Trial(
            trial.number,
            _STATES[trial.state.name],
            {one.key: point[one.key] for one in self.dimensions},
            dict(sorted(trial.intermediate_values.items())),
            trial.value if trial.state.name == "COMPLETE" else None,
            dict(trial.user_attrs),
        )


def require_optuna() -> None:
    """Raises: DeviceError, if optuna is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise DeviceError(
            "a sweep draws its trials with optuna, which is not installed", remedy="pip install 'mlxtune[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of every study that is made to draw a trial


def open_study(path: Path, dimensions: Sequence[Dimension]) -> Study:
    """The study in a file, which is made where it is missing; to be called by one process at a time."""
    import optuna
    from sqlalchemy.pool import NullPool

    storage = optuna.storages.RDBStorage(
        # The file's name goes past optuna and sqlalchemy, which would read braces, % and ? in it as their own.
        "sqlite://",
        engine_kwargs={
            "creator": lambda: sqlite3.connect(path, timeout=WAIT_S, check_same_thread=False),
            "poolclass": NullPool,
        },
    )
    optuna.create_study(storage=storage, study_name=NAME, direction="minimize", load_if_exists=True)
    return Study(storage, storage.get_study_id_from_name(NAME), tuple(dimensions))
