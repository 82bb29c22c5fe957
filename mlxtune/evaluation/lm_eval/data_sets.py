"""Where the rows of lm-eval's tasks come from: this machine first, and the hub only where they are not on it.

The harness loads rows through ``datasets``, which keeps a copy of all that it reads, of the owner's own files too: here
it keeps them in mlxtune's cache, which is the owner's alone and which `mlxtune cache` lists. What other programs have
left in Hugging Face's cache is found as well. ``evaluate``, which would fetch metrics as code and run it, stays shut.
The settings are those of the whole process, so they are put back.
"""

import contextlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, TypeVar

from mlxtune.cache import cache_folder, make_room
from mlxtune.network import open_hub

T = TypeVar("T")
KIND = "lm_eval"
LIMIT_BYTES = 4 << 30
"""Of rows that are kept."""


def with_data_sets(load: Callable[[], T], *, what: str) -> T:
    """What ``load`` gives, which may ask ``datasets`` for rows; the hub is open only where it fails without.

    Args:
        what: names the rows, for an error.

    Raises: NetworkError, if the rows are not here and the network or the hub is forbidden; whatever ``load`` raises.
    """
    theirs = import_module("datasets.config").HF_DATASETS_CACHE
    make_room(KIND, LIMIT_BYTES)
    ours = cache_folder(KIND)
    for place in (ours, theirs):
        with _settings(place, shut=True), contextlib.suppress(ConnectionError):
            return load()
    with open_hub(what), _settings(ours, shut=False):
        return load()


@contextlib.contextmanager
def _settings(place: Any, *, shut: bool) -> Iterator[None]:
    counts = {"HF_UPDATE_DOWNLOAD_COUNTS": False}
    wanted = {
        "datasets.config": {"HF_DATASETS_CACHE": place, "HF_HUB_OFFLINE": shut, **counts},
        "evaluate.config": {"HF_EVALUATE_OFFLINE": True, **counts},
    }
    before = {module: {name: vars(import_module(module))[name] for name in values} for module, values in wanted.items()}
    try:
        for module, values in wanted.items():
            vars(import_module(module)).update(values)
        yield
    finally:
        for module, values in before.items():
            vars(import_module(module)).update(values)
