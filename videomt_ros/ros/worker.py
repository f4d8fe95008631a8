"""A one-slot mailbox and its thread: the newest item wins, and what it replaces is reported.

A camera is faster than a network. A queue would turn that into growing lag; one slot turns it into
frames that are left out, which the owner of the worker counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Worker(Generic[Item]):
    """Runs `process` on the newest item, in a thread of its own.

    `put` never waits for `process`. An exception ends neither the thread nor the stream: this is
    the one place where it is caught, and `failed` hears of it.
    """

    def __init__(
        self,
        process: Callable[[Item], None],
        failed: Callable[[Item, Exception], None],
        name: str = 'worker',
    ) -> None:
        """Start the thread.

        Args:
            process: called in the thread, one item at a time.
            failed: called in the thread with the item and what `process` raised.
            name: of the thread, as a debugger shows it.
        """
        self._process = process
        self._failed = failed
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._stopping = False
        # A daemon, so that a `process` that hangs can't keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> Item | None:
        """Leave an item for the thread.

        Returns:
            The item that will not be processed because of it: the one that waited, or this one
            if the worker was stopped.
        """
        with self._changed:
            if self._stopping:
                return item
            replaced, self._item = self._item, item
            self._changed.notify()
            return replaced

    def clear(self) -> Item | None:
        """Take back the item that waits, if any."""
        with self._changed:
            item, self._item = self._item, None
            return item

    def stop(self, timeout_s: float | None = None) -> Item | None:
        """Let `process` end, then end the thread.

        Args:
            timeout_s: wait no longer, and leave the thread to end by itself.

        Returns:
            The item that waited and will not be processed.
        """
        with self._changed:
            self._stopping = True
            item, self._item = self._item, None
            self._changed.notify()
        self._thread.join(timeout_s)
        return item

    def _take(self) -> Item | None:
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._stopping)
            item, self._item = self._item, None
            return item

    def _run(self) -> None:
        while (item := self._take()) is not None:
            try:
                self._process(item)
            except Exception as error:
                self._failed(item, error)
