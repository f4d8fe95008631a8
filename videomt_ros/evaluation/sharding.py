"""Splits one evaluation over several processes, as torchrun and other launchers start them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from videomt_ros.errors import one_line
from videomt_ros.evaluation.launchers import check_world
from videomt_ros.evaluation.run_folder import ShardNumber

PATIENCE = timedelta(days=30)
"""Time that a process waits for the others, one of which may have all the long videos. If one
dies, the launcher ends all of them."""

MEETING_TIME = timedelta(minutes=10)
"""Time that a process waits at its start for the others, which load the same model meanwhile."""

_SILENCE_S = 3.0
"""Seconds after which a process that waits at its start says for what."""

Result = TypeVar('Result')
"""Type of the result of work that a process does."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """The share of one process in an evaluation."""

    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None
    """Group through which the processes communicate; None for the default group."""
    number: ShardNumber | None = None
    """Shard of the data set that all of these processes evaluate; None for the whole."""

    @property
    def is_first(self) -> bool:
        """Whether this process starts the folder and writes the report."""
        return self.rank == 0

    def positions(self, num_videos: int) -> range:
        """Return the positions of the videos that this process predicts."""
        whole = self.number.positions(num_videos) if self.number else range(num_videos)
        return whole[self.rank :: self.world_size]

    def first_does(self, work: Callable[[], Result]) -> Result:
        """Let the first process do something while the others wait.

        Returns:
            What the work returned, in all processes.

        Raises:
            Exception: what the work raised; in the other processes a ValueError that says so.
        """
        error: Exception | None = None
        shared: list[Any] = [None, None]
        if self.is_first:
            try:
                shared[1] = work()
            except Exception as caught:
                error, shared[0] = caught, _described(caught)
        if self.world_size > 1:
            dist.broadcast_object_list(shared, src=0, group=self.group)
        if error is not None:
            raise error
        reason, result = shared
        if reason is not None:
            raise ValueError(f'The first process gave up: {reason}')
        return cast(Result, result)

    def all_do(self, work: Callable[[], Result]) -> Result:
        """Let every process do something, and wait until all are done.

        Returns:
            What the work returned in this process.

        Raises:
            Exception: what the work raised, in the first process if it failed there; in all other
                cases a ValueError that says which process failed.
        """
        error: Exception | None = None
        result: Result | None = None
        try:
            result = work()
        except Exception as caught:
            error = caught
        if self.world_size > 1:
            if error is not None:  # logged at once, since the others may work on for a long time
                _logger.error(
                    'Process %d gave up: %s', self.rank, _described(error),
                    exc_info=None if _is_usual(error) else error,
                )  # fmt: skip
            reasons: list[str | None] = [None] * self.world_size
            reason = None if error is None else _described(error)
            dist.all_gather_object(reasons, reason, group=self.group)
            failed = next((rank for rank, why in enumerate(reasons) if why is not None), None)
            if failed is not None and not (self.is_first and error is not None):
                raise ValueError(f'Process {failed} gave up: {reasons[failed]}') from error
        if error is not None:
            raise error
        return cast(Result, result)


def _is_usual(error: Exception) -> bool:
    """Tell whether the message of an error alone tells a user what to do."""
    return isinstance(error, (ValueError, OSError))


def _described(error: Exception) -> str:
    return str(error) if _is_usual(error) else f'{type(error).__name__}: {error}'


@contextmanager
def joined_group(number: ShardNumber | None = None) -> Iterator[Shard]:
    """Join the other processes, which launchers announce by environment variables.

    Args:
        number: shard of the data set for all of these processes; None for the whole.

    Yields:
        The share of this process; the whole evaluation if no launcher has started it.
    """
    world_size = check_world()
    if world_size == 1:
        yield Shard(number=number)
        return
    store = _meet(world_size)
    dist.init_process_group(
        'gloo',
        timeout=PATIENCE,
        store=store,
        rank=int(os.environ['RANK']),
        world_size=world_size,
    )
    try:
        yield Shard(dist.get_rank(), dist.get_world_size(), number=number)
    finally:
        dist.destroy_process_group()


def _meet(world_size: int) -> dist.Store:
    """Wait for the other processes of the run.

    Raises:
        ValueError: they did not come.
    """
    where = f'{os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]}'
    reminder = threading.Timer(
        _SILENCE_S,
        _logger.warning,
        (
            'WORLD_SIZE=%d: waiting for %d other processes at %s. If nobody started them, stop '
            'this one and `unset WORLD_SIZE RANK LOCAL_RANK`.', world_size, world_size - 1, where,
        ),
    )  # fmt: skip
    reminder.daemon = True
    reminder.start()
    try:
        store, _, _ = next(iter(dist.rendezvous('env://', timeout=MEETING_TIME)))
    except (dist.DistError, ValueError) as error:
        raise ValueError(
            f'WORLD_SIZE={world_size} asks for {world_size} processes, but they did not meet at '
            f'{where} ({one_line(error)}). Start them with torchrun, or run one process after '
            '`unset WORLD_SIZE RANK LOCAL_RANK`.'
        ) from error
    finally:
        reminder.cancel()
    store.set_timeout(PATIENCE)
    return store


def own_device(device: torch.device) -> torch.device:
    """Choose a GPU for each process of a machine, unless the user named one."""
    rank = int(os.environ.get('LOCAL_RANK') or '0')
    if device.type != 'cuda' or device.index is not None or not rank:
        return device
    return torch.device('cuda', rank % torch.cuda.device_count())
