"""The one-slot mailbox and its thread."""

from __future__ import annotations

import threading

import pytest

from videomt_ros.ros.worker import Worker

PATIENCE_S = 10.0


class Bench:
    """A worker whose work waits until it is let through, one item at a time."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.done: list[int] = []
        self.failures: list[tuple[int, str]] = []
        self.begins = threading.Semaphore(0)
        self.ends = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.worker: Worker[int] = Worker(self.process, self.failed)

    def process(self, item: int) -> None:
        self.begun.append(item)
        self.begins.release()
        assert self.gate.acquire(timeout=PATIENCE_S)
        if item < 0:
            raise RuntimeError(f'no {item}')
        self.done.append(item)
        self.ends.release()

    def failed(self, item: int, error: Exception) -> None:
        self.failures.append((item, str(error)))
        self.ends.release()

    def finish_one(self) -> None:
        self.gate.release()
        assert self.ends.acquire(timeout=PATIENCE_S)

    def wait_until_begun(self) -> None:
        assert self.begins.acquire(timeout=PATIENCE_S)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    for _ in range(10):
        bench.gate.release()
    bench.worker.stop()


def test_the_newest_wins_and_the_replaced_is_told(bench):
    assert bench.worker.put(1) is None
    bench.wait_until_begun()
    assert bench.worker.put(2) is None
    assert bench.worker.put(3) == 2
    assert bench.worker.put(4) == 3
    bench.finish_one()
    bench.wait_until_begun()
    bench.finish_one()
    assert bench.begun == bench.done == [1, 4]


def test_an_error_is_told_and_the_work_goes_on(bench):
    for item in (-1, 2):
        bench.worker.put(item)
        bench.wait_until_begun()
        bench.finish_one()
    assert bench.failures == [(-1, 'no -1')]
    assert bench.done == [2]


def test_clear_takes_the_waiting_item_back(bench):
    bench.worker.put(1)
    bench.wait_until_begun()
    bench.worker.put(2)
    assert bench.worker.clear() == 2
    assert bench.worker.clear() is None
    bench.finish_one()
    bench.worker.put(3)
    bench.wait_until_begun()
    bench.finish_one()
    assert bench.done == [1, 3]


def test_stop_lets_the_work_end_and_gives_back_what_waits(bench):
    bench.worker.put(1)
    bench.wait_until_begun()
    bench.worker.put(2)
    bench.gate.release()
    # Either was still waiting when the stop came, or had begun; nothing is lost in silence.
    waited = bench.worker.stop()
    assert 1 in bench.done
    assert waited in (2, None)
    assert bench.worker.put(3) == 3


def test_stop_waits_no_longer_than_it_is_told(bench):
    bench.worker.put(1)
    bench.wait_until_begun()
    bench.worker.put(2)
    assert bench.worker.stop(timeout_s=0.01) == 2
    assert bench.done == []  # still at work: the gate is shut
    bench.finish_one()
    assert bench.done == [1]


def test_an_idle_worker_stops(bench):
    before = threading.active_count()
    assert bench.worker.stop() is None
    assert threading.active_count() == before - 1
