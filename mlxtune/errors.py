"""The one tree of errors that a user may meet; each says what happened, where, and the way out.

    MlxtuneError                exit code 1
    ├── UsageError              exit code 2: the command or a setting is wrong, nothing was started
    │   ├── RecipeError         a recipe, or an override of one of its keys
    │   └── OutputExistsError   the place to write to is taken
    ├── DataError               the user's rows
    ├── ModelError              a model folder, GGUF or tokenizer
    ├── AdapterError            an adapter folder, or one that does not fit its base
    ├── RunError                a run folder
    ├── DeviceError             the machine: BLAS, GPU, limits
    ├── NetworkError            something had to be fetched and could not be
    └── TrainingError           the numbers went wrong: a loss that is not finite

Anything else that escapes is a bug and keeps its traceback. Knows nothing of the command line, which prints these.
"""

from typing import Any


class MlxtuneError(Exception):
    """What happened, in one sentence, with the place and a remedy beside it.

    Args:
        message: the sentence; no full stop, no capital unless a name asks for one.
        where: ``file:line``, a key, a folder: what to open.
        remedy: what to do, as an imperative.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: object = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = None if where is None else str(where)
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.where, self.remedy)

    def __str__(self) -> str:
        return self.message if self.where is None else f"{self.where}: {self.message}"


def _rebuild(kind: type[MlxtuneError], message: str, where: str | None, remedy: str | None) -> MlxtuneError:
    return kind(message, where=where, remedy=remedy)


class UsageError(MlxtuneError):
    """The command or a setting is wrong; nothing was started."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe file or an override cannot be used."""


class OutputExistsError(UsageError):
    """The place to write to is taken; only ``--force`` overwrites."""


class DataError(MlxtuneError):
    """Rows that cannot be trained on or scored."""


class ModelError(MlxtuneError):
    """A model source that cannot be opened."""


class AdapterError(MlxtuneError):
    """An adapter that cannot be opened, or does not fit its base."""


class RunError(MlxtuneError):
    """A run folder that cannot be used as asked."""


class DeviceError(MlxtuneError):
    """The machine cannot do what was asked."""


class NetworkError(MlxtuneError):
    """Something had to be fetched and could not be."""


class TrainingError(MlxtuneError):
    """Training went wrong in its numbers."""
