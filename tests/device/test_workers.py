import threading

import mlx.core as mx
import pytest

from mlxtune.device.workers import ONE_WORKER, start_workers


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(count):
    with start_workers(count) as workers:
        assert workers.count == count
        assert list(workers.map(lambda n: n * n, range(20))) == [n * n for n in range(20)]
        assert list(workers.map(str, "ab")) == ["a", "b"]  # as often as one likes


def test_one_worker_is_the_caller_itself():
    with start_workers(1) as workers:
        assert workers is ONE_WORKER
        assert list(workers.map(lambda _: threading.current_thread(), range(2))) == [threading.current_thread()] * 2


def test_two_workers_work_at_the_same_time():
    both_are_here = threading.Barrier(2)
    with start_workers(2) as workers:
        list(workers.map(lambda _: both_are_here.wait(timeout=5), range(2)))  # BrokenBarrierError if one waits in vain


def test_an_error_in_a_worker_is_the_callers_and_the_threads_end():
    before = threading.active_count()

    def fail(number):
        if number == 3:
            raise ArithmeticError("three")
        return number

    with pytest.raises(ArithmeticError, match="three"), start_workers(2) as workers:
        list(workers.map(fail, range(6)))
    assert threading.active_count() == before


def test_what_a_worker_has_evaluated_can_be_used_elsewhere():
    def work(number):
        result = mx.exp(mx.ones(3) * number)
        mx.eval(result)
        return result

    with start_workers(2) as workers:
        total = sum(workers.map(work, [0.0, 1.0]))
    assert total.tolist() == pytest.approx([1 + 2.718281828] * 3)
