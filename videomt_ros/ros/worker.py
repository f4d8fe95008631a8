"""A worker thread with a mailbox for one item, in which a new item replaces the one that waits.

A camera is faster than a network. A queue would cause a growing delay; a mailbox for one item
causes skipped images instead, which the caller counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Worker(Generic[Item]):
    """Calls `process` with the newest item, in a thread of its own.

    `put` never waits for `process`. An exception in `process` does not end the thread, but is
    passed to `failed`.
    """

    def __init__(
        self,
        process: Callable[[Item], None],
        failed: Callable[[Item, Exception], None],
        name: str = 'worker',
    ) -> None:
        """Start the thread.

        Args:
            process: called in the thread, with one item at a time.
            failed: called in the thread with the item and the exception that `process` raised.
            name: name of the thread, as a debugger shows it.
        """
        self._process = process
        self._failed = failed
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._stopping = False
        # A daemon, so that the interpreter can exit even if `process` hangs.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> Item | None:
        """Put an item into the mailbox.

        Returns:
            The item that will not be processed: the one that was replaced, or this one if the
            worker was stopped; None if there is none.
        """
        with self._changed:
            if self._stopping:
                return item
            replaced, self._item = self._item, item
            self._changed.notify()
            return replaced

    def clear(self) -> Item | None:
        """Remove and return the item that waits, if any."""
        with self._changed:
            item, self._item = self._item, None
            return item

    def stop(self, timeout_s: float | None = None) -> Item | None:
        """Let `process` finish its item, then end the thread.

        Args:
            timeout_s: longest time to wait, after which the thread ends by itself; None: no limit.

        Returns:
            The item that waited and will not be processed, if any.
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
