"""The owner's own Python: whether it may run, where it is found, and what it is that runs.

A recipe may come from anybody, and code runs with the rights of whoever starts it: so a recipe's word is not enough.
The owner gives leave, for as long as a ``with`` lasts, and is told what is run, with its file's hash. Knows functions
by name; nothing of what they do.
"""

import contextlib
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from mlxtune.errors import UsageError

Tell = Callable[[str], None]


@dataclass(frozen=True)
class _Leave:
    tell: Tell
    found: dict[str, Callable[..., Any]] = field(default_factory=dict)


_LEAVE: ContextVar[_Leave | None] = ContextVar("leave to run the owner's code", default=None)


@contextlib.contextmanager
def python_allowed(tell: Tell = lambda _: None) -> Iterator[None]:
    """Let a recipe run Python code, until the ``with`` ends.

    Args:
        tell: gets a sentence for each function before anything of its module is run: its name, its file and the file's
            hash.
    """
    before = _LEAVE.set(_Leave(tell))
    try:
        yield
    finally:
        _LEAVE.reset(before)


def find_function(name: str) -> Callable[..., Any]:
    """The function ``module.function``, whose module is in the current folder or among installed packages.

    Raises: UsageError, if no code may run, or there is no such function.
    """
    leave = _LEAVE.get()
    if leave is None:
        raise UsageError(
            f"the recipe runs Python code, {name}, which nobody has allowed",
            remedy="look at that code, and give --allow-python if you trust it",
        )
    if name not in leave.found:
        leave.found[name] = _load(name, leave.tell)
    return leave.found[name]


def code_sha256(name: str) -> str | None:
    """The hash of the file that has the function ``name``, which is found without running anything; None where there
    is no such file.
    """
    path = _find_file(name.rpartition(".")[0])
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _load(name: str, tell: Tell) -> Callable[..., Any]:
    """The function, its module imported if it is not yet; what is told before is what is run."""
    module_name, _, function_name = name.rpartition(".")
    file = _find_file(module_name)
    if file is not None:
        tell(f"runs {name} of {file}, sha256 {code_sha256(name)}, with your rights")
    module = _module_of(module_name)
    loaded = _file_of(module)
    if file is not None and loaded is not None and not file.samefile(loaded):
        raise UsageError(
            f"the module {module_name} is another one, {loaded}, which was there first",
            where=file,
            remedy="give your file a name that no other module has",
        )
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(f"there is no function {name}", where=loaded, remedy="correct the task's function")
    return function


def _find_file(module: str) -> Path | None:
    """Where ``module`` would be imported from; its packages' own code is not run, as importlib's `find_spec` would."""
    places: Sequence[str] | None = [str(Path.cwd()), *sys.path]
    spec, whole = None, ""
    for part in module.split("."):
        whole = f"{whole}.{part}" if whole else part
        spec = None if places is None else PathFinder.find_spec(whole, places)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.has_location else None


def _module_of(module: str) -> ModuleType:
    """The module, imported; what it imports is looked for in the current folder too, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(module)
    except Exception as error:  # whatever the owner's code does wrong, it is theirs to hear of
        raise UsageError(
            f"the module {module} cannot be imported: {type(error).__name__}: {error}",
            where=here,
            remedy=f"put {module.partition('.')[0]}.py into the folder from which you start, or install its package",
        ) from error
    finally:
        sys.path.remove(here)


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file)
