"""A worker thread that serves several mailboxes, in each of which a new item replaces the old.

A camera is faster than a network. A queue would cause a growing delay; a mailbox for one item
causes skipped images instead, which the caller counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Worker(Generic[Item]):
    """Calls `process` with the items that wait, in a thread of its own.

    `process` returns whether it has begun something that it will complete when it is called again.
    Then it is called at once, also without items.

    In each round it takes the item that waits in each mailbox, at most `max_items` of them. Those
    mailboxes come first that were served the longest ago, so that each is served once before any
    is served again, however fast the others are filled.

    An exception in `process` does not end the thread, but is passed to `failed`.
    """

    def __init__(
        self,
        process: Callable[[list[Item]], bool],
        failed: Callable[[list[Item], Exception], None],
        max_items: int = 1,
        name: str = 'worker',
    ) -> None:
        """Start the thread.

        Args:
            process: called in the thread with the items of one round; see above.
            failed: called in the thread with the items and the exception that `process` raised.
            max_items: largest number of items of one round.
            name: name of the thread, as a debugger shows it.
        """
        self._process = process
        self._failed = failed
        self._max_items = max_items
        self._changed = threading.Condition()
        self._mailboxes: list[Mailbox[Item]] = []  # the one served the longest ago comes first
        self._stopping = False
        # A daemon, so that the interpreter can exit even if `process` hangs.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def open(self) -> Mailbox[Item]:
        """Open a mailbox, which the thread serves from now on."""
        mailbox = Mailbox[Item](self._changed)
        with self._changed:
            self._mailboxes.append(mailbox)
        return mailbox

    def stop(self, timeout_s: float | None = None) -> None:
        """Let `process` complete its items, then end the thread; close the mailboxes first.

        Args:
            timeout_s: longest time to wait, after which the thread ends by itself; None: no limit.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _take(self, is_pending: bool) -> list[Item]:
        """Wait for the items of the next round, unless something is pending.

        Returns:
            The items; none if something is pending and no item waits, or if the thread is to end.
        """
        with self._changed:
            self._changed.wait_for(lambda: is_pending or self._stopping or self._waiting())
            if self._stopping:
                return []
            served = self._waiting()[: self._max_items]
            others = [m for m in self._mailboxes if m.is_open and m not in served]
            self._mailboxes = others + served
            items = [mailbox.item for mailbox in served if mailbox.item is not None]
            for mailbox in served:
                mailbox.item = None
            return items

    def _waiting(self) -> list[Mailbox[Item]]:
        """List the mailboxes with an item, the one served the longest ago first."""
        return [mailbox for mailbox in self._mailboxes if mailbox.item is not None]

    def _run(self) -> None:
        is_pending = False
        while (items := self._take(is_pending)) or is_pending:
            try:
                is_pending = self._process(items)
            except Exception as error:
                self._failed(items, error)


class Mailbox(Generic[Item]):
    """A place for one item; all methods may be called from any thread and never wait for work."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.item: Item | None = None
        """The item that waits; read and written while the condition is held."""
        self.is_open = True
        """Whether items are still taken."""

    def put(self, item: Item) -> Item | None:
        """Put an item into the mailbox.

        Returns:
            The item that will not be processed: the one that was replaced, or this one if the
            mailbox is closed; None if there is none.
        """
        with self._changed:
            if not self.is_open:
                return item
            replaced, self.item = self.item, item
            self._changed.notify_all()
            return replaced

    def clear(self) -> Item | None:
        """Remove and return the item that waits, if any."""
        with self._changed:
            item, self.item = self.item, None
            return item

    def close(self) -> Item | None:
        """Take no more items, and return the one that waits, if any."""
        with self._changed:
            self.is_open = False
            item, self.item = self.item, None
            return item
