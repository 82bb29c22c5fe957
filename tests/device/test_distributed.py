"""Several ranks: what the environment says of them, and what they say to each other, with the others played."""

import mlx.core as mx
import numpy as np
import pytest

from mlxtune.device.distributed import ALONE, Ranks, backend_of, open_ranks, rank_of
from mlxtune.errors import UsageError


@pytest.fixture
def hostfile(tmp_path):
    path = tmp_path / "hosts.json"
    path.write_text('[["127.0.0.1:5000"], ["127.0.0.1:5001"]]')
    return str(path)


def test_a_process_that_is_alone_meets_nobody(tmp_path):
    (tmp_path / "empty.json").write_text("\n")  # as mlx.launch -n 1 leaves it
    (tmp_path / "one.json").write_text('[["127.0.0.1:5000"]]')
    for environment in (
        {},
        {"MLX_HOSTFILE": str(tmp_path / "absent.json")},
        {"MLX_RANK": "0", "MLX_HOSTFILE": str(tmp_path / "empty.json")},
        {"MLX_RANK": "0", "MLX_HOSTFILE": str(tmp_path / "one.json")},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    ):
        assert backend_of(environment) is None
        assert rank_of(environment) == 0
        assert open_ranks(environment) is ALONE


def test_the_environment_says_which_engine_and_which_rank(hostfile):
    jaccl = {"MLX_IBV_DEVICES": "devices.json", "MLX_JACCL_COORDINATOR": "10.0.0.1:5000"}
    for environment, backend in (
        ({"MLX_RANK": "1", "MLX_HOSTFILE": hostfile}, "ring"),
        ({"MLX_RANK": "1", **jaccl}, "jaccl"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, "mpi"),
    ):
        assert backend_of(environment) == backend
        assert rank_of(environment) == 1


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"MLX_RANK": "0", "MLX_WORLD_SIZE": "2"}, "nothing says how to reach the others"),
        ({"MLX_RANK": "0", "MLX_HOSTFILE": "/nowhere/hosts.json"}, "/nowhere/hosts.json: MLX_HOSTFILE cannot be read"),
        ({"MLX_RANK": "first", "MLX_HOSTFILE": "HOSTS"}, "MLX_RANK=first is no rank"),
        ({"MLX_RANK": "2", "MLX_HOSTFILE": "HOSTS"}, "MLX_RANK=2 is no rank of 2"),
        ({"MLX_RANK": "0", "MLX_HOSTFILE": "HOSTS", "MLXTUNE_RANK_TIMEOUT": "soon"}, "MLXTUNE_RANK_TIMEOUT=soon is no"),
        ({"MLX_RANK": "0", "MLX_HOSTFILE": "HOSTS", "MLXTUNE_RANK_TIMEOUT": "0"}, "MLXTUNE_RANK_TIMEOUT=0 is no time"),
    ],
)
def test_an_environment_that_does_not_fit_together_is_refused(hostfile, environment, told):
    environment = {name: hostfile if value == "HOSTS" else value for name, value in environment.items()}
    with pytest.raises(UsageError) as caught:
        open_ranks(environment)
    assert told in str(caught.value)


def second_of_two(other):
    """Rank 1, of whose messages rank 0 says ``other``, one after the other."""
    said = iter(other)
    return Ranks(
        rank=1,
        size=2,
        all_gather=lambda own: mx.concatenate([mx.array([next(said)], own.dtype), own]),
        all_sum=lambda own: mx.array(next(said), own.dtype) + own,
    )


def test_rows_are_spread_evenly_and_each_goes_to_one_rank():
    rows = list(range(11))
    shares = [Ranks(rank=rank, size=3).share(rows) for rank in range(3)]
    assert shares == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8]]
    assert [list(Ranks(rank=rank, size=3).share([7])) for rank in range(3)] == [[7], [], []]
    assert ALONE.share(rows) == rows


def test_numbers_are_gathered_as_they_are():
    numbers = [0.1, 2.0**53 - 1, float("inf")]
    table = second_of_two([[1.5, -2.0, 3.0]]).gather(numbers)
    assert table.tolist() == [[1.5, -2.0, 3.0], numbers]
    assert ALONE.gather(numbers).tolist() == [numbers]
    assert second_of_two([[1.0]]).any(False)
    assert not second_of_two([[0.0]]).any(False)


def test_arrays_are_summed_those_of_a_type_at_once():
    own = [mx.array([[1.0, 2.0]]), mx.array([3], mx.int32), mx.array(4.0)]
    sums = second_of_two([[10.0, 20.0, 40.0], [30]]).sum_arrays(own)
    assert [array.tolist() for array in sums] == [[[11.0, 22.0]], [33], 44.0]
    assert [array.dtype for array in sums] == [array.dtype for array in own]


def test_what_the_first_gives_arrives_to_the_last_bit():
    first = np.array([-0.0, np.nan, 1 / 3], np.float32)
    (got,) = second_of_two([first.view(np.uint8).tolist()]).arrays_of_first([mx.zeros((3,))])
    assert np.array_equal(np.array(got).view(np.uint32), first.view(np.uint32))
    text = "Größe\n"
    assert second_of_two([[len(text.encode())], list(text.encode())]).text_of_first() == text
    assert second_of_two([[0]]).text_of_first() == ""
    assert ALONE.text_of_first(text) == text
