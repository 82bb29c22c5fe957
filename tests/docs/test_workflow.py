"""The workflow runs what the README says, with the least rights, on Linux and on a Mac."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PINNED = re.compile(r"actions/[\w-]+@[0-9a-f]{40}")
NEWEST_THAT_MLX_NEEDS = 14


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def workflow(request):
    return YAML(typ="safe").load(request.param.read_text(encoding="utf-8"))


def steps_of(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def runners_of(job):
    return job.get("strategy", {}).get("matrix", {}).get("os", [job["runs-on"]])


def test_there_is_one():
    assert FILES


def test_it_may_only_read_and_a_newer_push_ends_an_older_one(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())


def test_it_runs_on_linux_and_on_apple_silicon(workflow):
    runners = {runner for job in workflow["jobs"].values() for runner in runners_of(job)}
    assert any(runner.startswith("ubuntu-") for runner in runners)
    macs = [int(runner.removeprefix("macos-")) for runner in runners if runner.startswith("macos-")]
    assert macs
    assert min(macs) >= NEWEST_THAT_MLX_NEEDS


def test_actions_are_githubs_own_pinned_by_commit_and_keep_no_token(workflow):
    used = [step for step in steps_of(workflow) if "uses" in step]
    assert used
    assert all(PINNED.fullmatch(step["uses"]) for step in used)
    checkouts = [step for step in used if "/checkout@" in step["uses"]]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_what_it_makes_is_in_the_readme_and_the_makefile(workflow):
    lines = [line for step in steps_of(workflow) for line in step.get("run", "").splitlines()]
    made = [line.removeprefix("make ") for line in lines if line.startswith("make ")]
    assert {"test", "quickstart"} <= set(made)
    for target in made:
        assert f"make {target}" in README
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)
    others = [line for line in lines if not line.startswith("make ")]
    assert all(line.startswith((".venv/bin/python -m pytest -m metal", ".venv/bin/mlxtune ")) for line in others)


def test_a_job_on_a_mac_runs_the_tests_that_need_one(workflow):
    macs = [job for job in workflow["jobs"].values() if job["runs-on"].startswith("macos-")]
    assert any("pytest -m metal" in step.get("run", "") for job in macs for step in job["steps"])


def test_nothing_that_a_stranger_writes_is_put_into_a_command(workflow):
    assert not any("${{" in step.get("run", "") for step in steps_of(workflow))
