"""Several ranks train one run together: real processes on this machine, that meet over MLX's ring.

They are started one by one, as a scheduler would: mlx.launch leaves 0 as its exit code whatever the ranks did.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import tiny_recipe

from mlxtune.iteration.run import resume_run, run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.runs.control import ask, pause_of
from mlxtune.runs.folder import RunFolder
from mlxtune.runs.metrics import read_metrics
from mlxtune.training.checkpoint import newest_checkpoint

SECONDS = 60
PLAIN = ["method.dropout=0.0", "data.test=null"]  # each rank draws its own dropout
COMMAND = ["-m", "mlxtune"]
SCRIPT = """
import json, sys
from mlxtune.iteration.run import run_recipe
from mlxtune.iteration.watch import Watch
from mlxtune.training import together

taken, ready = [], []
follow_tensors = together.follow_tensors
together.follow_tensors = lambda *arguments: (taken.append(1), follow_tensors(*arguments))
told = lambda: print(json.dumps([len(taken), together.digest(ready[0].state.network.trainable_parameters())]))
recipe, run_dir, *overrides = sys.argv[1:]
watch = Watch(started=lambda _, opened: ready.append(opened), trained=told)
run_recipe(recipe, overrides, device="cpu", run_dir=run_dir, watch=watch)
"""


def hostfile(path, size):
    """Free ports on this machine, one a rank."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(size)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        path.write_text(json.dumps([[f"127.0.0.1:{each.getsockname()[1]}"] for each in sockets]))
    return path


@contextlib.contextmanager
def started(hosts, *arguments, ranks=(0, 1), **environment):
    """The processes of some ranks; none is left when the block ends."""
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=os.environ
            | {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts), "MLXTUNE_BLAS_THREADS": "1", "MLXTUNE_DEVICE": "cpu"}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def ended(processes):
    """Of each process: exit code, standard output, standard error."""
    told = [process.communicate(timeout=SECONDS) for process in processes]
    return [(process.returncode, *each) for process, each in zip(processes, told, strict=True)]


def losses(run_dir):
    lines = read_metrics(run_dir / "metrics.jsonl")
    return [line.get("loss", line.get("valid_loss")) for line in lines]


def counts(run_dir):
    return [(line.get("tokens"), line.get("target_tokens")) for line in read_metrics(run_dir / "metrics.jsonl")]


def assert_same_run(run_dir, expected, at_most=1e-5):
    np.testing.assert_allclose(losses(run_dir), losses(expected), rtol=0, atol=at_most)
    one, other = (load_file(path / "adapter/adapters.safetensors") for path in (run_dir, expected))
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=0, atol=at_most, err_msg=name)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny_recipe(tmp_path_factory.mktemp("ranks"))


UNEVEN = [*PLAIN, "training.batch_size=11"]  # the second batch of each epoch has one row, so some rank has none


@pytest.fixture(scope="module")
def alone(recipe):
    """The run that one process makes."""
    return run_recipe(recipe, UNEVEN, device="cpu", run_dir=recipe.parent / "alone").run_dir


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_ranks_together_give_the_adapter_of_one_alone_and_hold_the_same_bits(recipe, alone, tmp_path, size):
    hosts = hostfile(tmp_path / "hosts.json", size)
    with started(hosts, "-c", SCRIPT, recipe, tmp_path / "run", *UNEVEN, ranks=range(size)) as processes:
        results = ended(processes)
    assert [code for code, _, _ in results] == [0] * size, results
    assert_same_run(tmp_path / "run", alone)
    told = [json.loads(out) for _, out, _ in results]
    assert told == [told[0]] * size
    assert told[0][0] == 1  # rank 0's state was taken at the start; since then parameters have not differed in a bit
    assert counts(tmp_path / "run") == counts(alone)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in alone.iterdir()}
    assert [path.name for path in (tmp_path / "run/logs").iterdir()] == ["attempt_1.log"]


def test_the_first_rank_alone_writes_what_is_answered_while_they_train(recipe, tmp_path):
    overrides = [*UNEVEN, "data.test=null", "evaluation.samples=3"]
    expected = run_recipe(recipe, overrides, device="cpu", run_dir=tmp_path / "alone").run_dir
    hosts = hostfile(tmp_path / "hosts.json", 2)
    with started(hosts, "-c", SCRIPT, recipe, tmp_path / "run", *overrides) as processes:
        results = ended(processes)
    assert [code for code, _, _ in results] == [0, 0], results
    assert_same_run(tmp_path / "run", expected)
    found, wanted = (
        [json.loads(line) for line in (path / "valid_samples.jsonl").read_text().splitlines()]
        for path in (tmp_path / "run", expected)
    )
    assert len(found) == 3, "also of rows whose loss the other rank reads"
    for name in ("step", "where", "prompt", "reference"):
        assert [line[name] for line in found] == [line[name] for line in wanted]


def test_pairs_are_shared_as_wholes_and_measured_from_one_point(tmp_path):
    recipe = tiny_recipe(tmp_path)
    pairs = [{"prompt": f"Is {n}?", "chosen": "yes", "rejected": f"no {n}"} for n in range(9)]
    for split in ("train", "valid"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    kto = [
        *UNEVEN,
        "objective={type: kto, beta: 0.5}",
        "training.batch_size=4",
        "training.max_steps=4",
        "evaluation.tasks=[]",
    ]
    expected = run_recipe(recipe, kto, device="cpu", run_dir=tmp_path / "alone").run_dir
    with started(hostfile(tmp_path / "hosts.json", 2), "-c", SCRIPT, recipe, tmp_path / "run", *kto) as processes:
        results = ended(processes)
    assert [code for code, _, _ in results] == [0, 0], results
    assert_same_run(tmp_path / "run", expected, at_most=1e-4)
    points = [
        [line["kl"] for line in read_metrics(run_dir / "metrics.jsonl") if "kl" in line]
        for run_dir in (tmp_path / "run", expected)
    ]
    np.testing.assert_allclose(*points, rtol=0, atol=1e-4)
    assert max(points[0]) > 1e-3


LONG = [*PLAIN, "data.valid=null", "training.epochs=null", "training.max_steps=60", "training.learning_rate=1.0e-3"]
LONG += ["checkpoint.every_steps=2"]


def wait_for_steps(run_dir, count, process):
    while len(read_metrics(run_dir / "metrics.jsonl")) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def test_one_rank_s_death_ends_all_and_the_run_goes_on_from_its_checkpoint(recipe, tmp_path):
    run_dir = tmp_path / "run"
    hosts = hostfile(tmp_path / "hosts.json", 2)
    with started(hosts, *COMMAND, "train", recipe, *LONG, "--run-dir", run_dir) as processes:
        wait_for_steps(run_dir, 5, processes[0])
        processes[1].kill()
        (code, out, err), killed = ended(processes)
    assert (code, out) == (1, "")
    assert "error: a rank was lost, and the others cannot go on without it" in err
    assert "--resume RUN" in err
    assert killed == (-signal.SIGKILL, "", "")
    assert newest_checkpoint(run_dir / "checkpoints") is not None
    steps = len(read_metrics(run_dir / "metrics.jsonl"))
    assert 5 <= steps < 60

    with started(hostfile(tmp_path / "hosts.json", 2), *COMMAND, "train", "--resume", run_dir, "--json") as processes:
        (code, out, _), second = ended(processes)
    assert code == 0
    assert json.loads(out)["steps"] == 60
    assert second == (0, "", "")
    undisturbed = run_recipe(recipe, LONG, device="cpu", run_dir=tmp_path / "undisturbed").run_dir
    assert_same_run(run_dir, undisturbed)


def test_a_signal_to_any_rank_stops_all_and_one_process_alone_can_go_on(recipe, tmp_path):
    run_dir = tmp_path / "run"
    endless = [name.replace("max_steps=60", "max_steps=1000000") for name in LONG]
    hosts = hostfile(tmp_path / "hosts.json", 2)
    with started(hosts, *COMMAND, "train", recipe, *endless, "--run-dir", run_dir) as processes:
        wait_for_steps(run_dir, 3, processes[0])
        processes[1].send_signal(signal.SIGTERM)
        (code, out, _), second = ended(processes)
    assert code == 130
    assert out.startswith("stopped after step ")
    assert second == (143, "", "")
    steps = len(read_metrics(run_dir / "metrics.jsonl"))
    went_on = []
    resume_run(run_dir, device="cpu", watch=Watch(measured=went_on.append, should_stop=lambda: bool(went_on)))
    assert went_on[0]["step"] == steps + 1


def test_a_pause_in_the_folder_is_waited_out_by_all(recipe, tmp_path):
    """The waiting ranks are stopped by a signal to the second one, which no file tells of."""
    run = RunFolder(tmp_path / "run")
    endless = [name.replace("max_steps=60", "max_steps=1000000") for name in LONG]
    hosts = hostfile(tmp_path / "hosts.json", 2)
    with started(hosts, *COMMAND, "train", recipe, *endless, "--run-dir", run.path) as processes:
        wait_for_steps(run.path, 3, processes[0])
        ask(run, "pause")
        while (paused := pause_of(run)) is None:
            assert processes[0].poll() is None, processes[0].communicate()
            time.sleep(0.01)
        ask(run, None)
        wait_for_steps(run.path, paused.step + 3, processes[0])
        ask(run, "pause")
        while pause_of(run) is None:
            assert processes[0].poll() is None, processes[0].communicate()
            time.sleep(0.01)
        processes[1].send_signal(signal.SIGTERM)
        (code, out, err), second = ended(processes)
    assert (code, second[0]) == (130, 143)
    assert err.count("paused after step") == 2
    assert out.startswith("stopped after step ")
    assert not run.paused.exists()


def test_a_peer_that_never_comes_is_given_up(recipe, tmp_path):
    command = [*COMMAND, "train", recipe, "--run-dir", tmp_path / "run"]
    with contextlib.ExitStack() as stack:
        alone = [
            started(hostfile(tmp_path / f"{rank}.json", 2), *command, ranks=[rank], MLXTUNE_RANK_TIMEOUT="2")
            for rank in (0, 1)  # the one that listens, and the one that calls
        ]
        results = ended([process for each in alone for process in stack.enter_context(each)])
    for rank, (code, out, err) in enumerate(results):
        assert (code, out) == (1, "")
        assert err.startswith(f"error: rank {rank} waited 2 seconds for the other ranks, and not all of them came\n")
    assert not (tmp_path / "run").exists()


def test_what_rank_0_refuses_ends_the_others_too_and_leaves_nothing(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine").touch()
    hosts = hostfile(tmp_path / "hosts.json", 2)
    with started(hosts, *COMMAND, "train", recipe, "--run-dir", tmp_path / "run") as processes:
        (code, _, err), (second, out, said) = ended(processes)
    assert (code, second, out) == (2, 1, "")
    assert "the run folder exists already" in err
    assert "a rank was lost" in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["mine"]
