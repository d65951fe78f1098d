import threading
import time

import pytest

from stages.lib import decoding


def test_order_is_kept_where_work_ends_out_of_order():
    def work(item: int) -> int:
        time.sleep(0.003 * (item % 3 == 0))
        return item * item

    assert list(decoding.in_order(work, range(60), workers=4)) == [item * item for item in range(60)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_items_than_workers(count):
    assert list(decoding.in_order(str, range(count), workers=4)) == [str(item) for item in range(count)]


def test_zero_workers_means_one_per_core():
    assert decoding.cores() >= 1
    assert list(decoding.in_order(str, range(100))) == [str(item) for item in range(100)]


@pytest.mark.parametrize("workers", [1, 3])
def test_look_ahead_is_bounded(workers):
    taken = []

    def source():
        for item in range(500):
            taken.append(item)
            yield item

    for done, _ in enumerate(decoding.in_order(lambda item: item, source(), workers), start=1):
        assert len(taken) <= done + decoding.AHEAD * workers
    assert done == len(taken) == 500


def test_work_runs_side_by_side():
    met = threading.Barrier(2, timeout=10)  # breaks if the two items never run at the same time
    assert len(list(decoding.in_order(lambda _: met.wait(), range(2), workers=2))) == 2


def test_an_exception_in_a_worker_comes_out_at_its_place():
    def work(item: int) -> int:
        if item == 5:
            raise ValueError("item 5")
        return item

    found = []
    with pytest.raises(ValueError, match="item 5"):
        found.extend(decoding.in_order(work, range(50), workers=2))
    results = decoding.in_order(work, range(50), workers=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="item 5"):
        next(results)


def test_an_exception_in_the_source_comes_out():
    def source():
        yield from range(20)
        raise KeyError("source")

    with pytest.raises(KeyError, match="source"):
        list(decoding.in_order(str, source(), workers=2))


def test_stopping_early_ends_the_threads():
    before = threading.active_count()
    results = decoding.in_order(str, range(1000), workers=3)
    next(results)
    results.close()
    assert threading.active_count() == before
