"""The lock of a run is its process's: it goes with it, however that ends."""

import subprocess
import sys

import pytest

from mlxtune.errors import RunError
from mlxtune.runs.folder import RunFolder, lock

HOLD = """
import sys
from pathlib import Path
from mlxtune.runs.folder import RunFolder, lock
with lock(RunFolder(Path(sys.argv[1]))):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_leaves_no_lock(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            with pytest.raises(RunError, match=f"process {holder.pid}"), lock(RunFolder(tmp_path)):
                pass
        finally:
            holder.kill()
    with lock(RunFolder(tmp_path)):
        pass


def test_who_has_the_lock_clears_what_others_left_half_written(tmp_path):
    (tmp_path / "run.json").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / ".run.json.0123abcd").touch()
    (tmp_path / ".adapter.0123abcd").mkdir()
    (tmp_path / ".adapter.0123abcd" / "adapter_config.json").touch()
    (tmp_path / ".adapter.0123abcd.old").mkdir()
    with lock(RunFolder(tmp_path)):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".lock", "run.json"]
