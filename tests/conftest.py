"""What every test stands on: the CPU, a cache of the session's own, and no network.

Set up when this file is imported, since test files import mlx_lm, which has to find the BLAS opened, the device chosen
and the hub switched off. `pytest_configure` is too late: before it pytest imports the conftest.py of each folder that
its command line names. A BLAS opened after mlx goes unused, and last bits differ from those of child processes. Child
processes inherit the environment, not the guard on sockets.
"""

import atexit
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import hypothesis
import pytest


def prepare() -> None:
    folder = tempfile.mkdtemp(prefix="mlxtune-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith("MLXTUNE_")]:
        del os.environ[name]  # the settings of whoever runs the tests are not theirs
    os.environ["MLXTUNE_CACHE"] = str(Path(folder) / "cache")
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

    # A busy machine is no failure: how long something takes is measured elsewhere, never judged here.
    hypothesis.settings.register_profile("mlxtune", deadline=None)
    hypothesis.settings.load_profile("mlxtune")

    assert "mlx.core" not in sys.modules, "something imported mlx before tests/conftest.py: the BLAS is not opened"
    import mlxtune  # noqa: F401 - opens the BLAS
    from mlxtune.device.choose import open_device

    open_device("cpu")


prepare()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "metal: needs a Mac with Apple silicon; skipped elsewhere")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import mlx.core as mx

    if sys.platform != "darwin" or not mx.is_available(mx.gpu):
        for item in items:
            if "metal" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a Mac with Apple silicon"))


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """A socket reaches this machine and no other; else RuntimeError, which nobody takes for a lost connection."""
    originals = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}

    def guarded(name: str) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX and not is_loopback(address[0]):
                raise RuntimeError(f"a test tried to reach {address[0]}; tests stay on this machine")
            return originals[name](self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        for name in originals:
            patch.setattr(socket.socket, name, guarded(name))
        yield


@pytest.fixture(autouse=True)
def no_variables_of_offline_left() -> Iterator[None]:
    """What `close_network` sets for libraries and child processes, and leaves set, ends with the test."""
    from mlxtune.network import CLOSED_BY_US
    from mlxtune.offline import OBEYED

    names = (*OBEYED, CLOSED_BY_US)
    before = {name: os.environ.get(name) for name in names}
    yield
    for name in names:
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in before.items() if value is not None})


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets that lies beside some checkouts; tests that need it skip elsewhere."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the public data sets are not at {folder}")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, where it and playwright are there. Of one module: its event loop would be in the way of others'."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is trained and scored, beside the recipe, model and rows it came from; to be read, not changed."""
    from tiny import tiny_recipe

    from mlxtune.iteration.run import run_recipe

    folder = tmp_path_factory.mktemp("tiny_run")
    return run_recipe(tiny_recipe(folder), device="cpu", run_dir=folder / "run").run_dir


@pytest.fixture
def own_run(tmp_path: Path) -> Path:
    """A run of two steps, not scored, beside the recipe, model and rows it came from, for a test to change."""
    from tiny import tiny_recipe

    from mlxtune.iteration.run import run_recipe

    recipe = tiny_recipe(tmp_path)
    return run_recipe(recipe, ["training.max_steps=2"], device="cpu", run_dir=tmp_path / "run", score=False).run_dir
