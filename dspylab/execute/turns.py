"""Something that many may use at once, as long as all of them use it for the same."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Lets those in together who come for the same thing, the others in the order in which they came.

    Whoever comes while another waits waits as well, so that nobody is kept out for ever. Thread-safe.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._thing = ""
        self._inside = 0

    @contextmanager
    def of(self, thing: str) -> Iterator[None]:
        """Waits until nobody uses another thing, and keeps it so for the body."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(
                lambda: self._waiting[0] is ticket and (not self._inside or self._thing == thing)
            )
            self._waiting.popleft()
            self._thing = thing
            self._inside += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()
