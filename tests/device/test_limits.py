"""Importing mlx_lm through mlxtune leaves the limit of open files alone."""

import resource
import subprocess
import sys

from mlxtune.device.limits import open_file_limit_kept

CHILD = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (700, 1024))
from mlxtune.device.choose import open_device
open_device("cpu")
import mlxtune.evaluation.tasks  # the highest floor whose modules import mlx_lm themselves
import mlx_lm.utils
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_hard_limit_of_1024_survives_the_import_of_mlx_lm():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["700", "1024"]


def test_within_the_block_other_limits_can_still_be_set_and_after_it_all_can():
    core = resource.getrlimit(resource.RLIMIT_CORE)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    original = resource.setrlimit
    try:
        with open_file_limit_kept():
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))
            resource.setrlimit(resource.RLIMIT_CORE, (0, core[1]))
            assert resource.getrlimit(resource.RLIMIT_CORE) == (0, core[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == files
        assert resource.setrlimit is original
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, core)
