"""The one-slot mailboxes and their thread."""

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
        self.rounds: list[list[int]] = []
        self.worker: Worker[int] = Worker(self.process, self.failed, max_items=2)
        self.box = self.worker.open()

    def process(self, items: list[int]) -> bool:
        self.rounds.append(items)
        item = items[0]
        self.begun.append(item)
        self.begins.release()
        assert self.gate.acquire(timeout=PATIENCE_S)
        if item < 0:
            raise RuntimeError(f'no {item}')
        self.done.append(item)
        self.ends.release()
        return False

    def failed(self, items: list[int], error: Exception) -> None:
        self.failures.append((items[0], str(error)))
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
    assert bench.box.put(1) is None
    bench.wait_until_begun()
    assert bench.box.put(2) is None
    assert bench.box.put(3) == 2
    assert bench.box.put(4) == 3
    bench.finish_one()
    bench.wait_until_begun()
    bench.finish_one()
    assert bench.begun == bench.done == [1, 4]


def test_an_error_is_told_and_the_work_goes_on(bench):
    for item in (-1, 2):
        bench.box.put(item)
        bench.wait_until_begun()
        bench.finish_one()
    assert bench.failures == [(-1, 'no -1')]
    assert bench.done == [2]


def test_clear_takes_the_waiting_item_back(bench):
    bench.box.put(1)
    bench.wait_until_begun()
    bench.box.put(2)
    assert bench.box.clear() == 2
    assert bench.box.clear() is None
    bench.finish_one()
    bench.box.put(3)
    bench.wait_until_begun()
    bench.finish_one()
    assert bench.done == [1, 3]


def test_stop_lets_the_work_end_and_close_gives_back_what_waits(bench):
    bench.box.put(1)
    bench.wait_until_begun()
    bench.box.put(2)
    assert bench.box.close() == 2
    assert bench.box.put(3) == 3
    bench.gate.release()
    bench.worker.stop()
    assert bench.done == [1]


def test_stop_waits_no_longer_than_it_is_told(bench):
    bench.box.put(1)
    bench.wait_until_begun()
    bench.worker.stop(timeout_s=0.01)
    assert bench.done == []  # still at work: the gate is shut
    bench.finish_one()
    assert bench.done == [1]


def test_a_round_takes_one_item_of_each_mailbox_and_the_longest_unserved_first(bench):
    fast, second, third = bench.box, bench.worker.open(), bench.worker.open()
    fast.put(1)
    bench.wait_until_begun()
    fast.put(2)
    second.put(20)
    third.put(30)
    bench.finish_one()
    bench.wait_until_begun()
    fast.put(3)
    second.put(21)
    third.put(31)
    bench.finish_one()
    bench.wait_until_begun()
    bench.finish_one()
    bench.wait_until_begun()
    bench.finish_one()
    # The fast one waited for the others once, and the others for it once.
    assert bench.rounds == [[1], [20, 30], [3, 21], [31]]


def test_a_closed_mailbox_no_longer_counts(bench):
    other = bench.worker.open()
    other.put(5)
    bench.wait_until_begun()
    assert other.close() is None
    bench.finish_one()
    bench.box.put(1)
    bench.wait_until_begun()
    bench.finish_one()
    assert bench.done == [5, 1]


def test_an_idle_worker_stops(bench):
    before = threading.active_count()
    bench.worker.stop()
    assert threading.active_count() == before - 1


class Pipe:
    """Completes each round when it is called again, and lets a test say when rounds may begin."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.pending: list[int] = []
        self.gate = threading.Semaphore(0)
        self.completed = threading.Semaphore(0)
        self.worker: Worker[int] = Worker(self.process, self.failed)
        self.box = self.worker.open()

    def process(self, items: list[int]) -> bool:
        if items:
            self.told.append(f'begin {items[0]}')
            assert self.gate.acquire(timeout=PATIENCE_S)
        if items and items[0] < 0:
            raise RuntimeError(f'no {items[0]}')
        for item in self.pending:
            self.told.append(f'complete {item}')
            self.completed.release()
        self.pending = items
        return bool(items)

    def failed(self, items: list[int], error: Exception) -> None:
        self.told.append(str(error))

    def wait(self) -> None:
        assert self.completed.acquire(timeout=PATIENCE_S)


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    for _ in range(10):
        pipe.gate.release()
    pipe.worker.stop()


def test_what_is_pending_is_completed_at_once_where_nothing_waits(pipe):
    for item in (1, 2):
        pipe.box.put(item)
        pipe.gate.release()
        pipe.wait()
    assert pipe.told == ['begin 1', 'complete 1', 'begin 2', 'complete 2']


def test_what_waits_begins_before_what_is_pending_is_completed(pipe):
    pipe.box.put(1)
    while not pipe.told:
        threading.Event().wait(0.001)
    pipe.box.put(2)
    pipe.gate.release()
    pipe.gate.release()
    pipe.wait()
    pipe.wait()
    assert pipe.told == ['begin 1', 'begin 2', 'complete 1', 'complete 2']


def test_what_is_pending_is_completed_after_an_error_and_before_the_end(pipe):
    pipe.box.put(1)
    while not pipe.told:
        threading.Event().wait(0.001)
    pipe.box.put(-1)
    pipe.gate.release()
    pipe.gate.release()
    pipe.wait()
    assert pipe.told == ['begin 1', 'begin -1', 'no -1', 'complete 1']
    pipe.box.put(2)
    while pipe.told[-1] != 'begin 2':
        threading.Event().wait(0.001)
    stop = threading.Thread(target=pipe.worker.stop)
    stop.start()
    pipe.gate.release()
    stop.join(PATIENCE_S)
    assert pipe.told[-1] == 'complete 2'
