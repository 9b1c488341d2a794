"""Ctrl-C and SIGTERM: the first stops cleanly, the second leaves at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dspylab.execute.pool import Stop

#: How long calls in flight may take to finish after the first signal, in seconds.
GRACE_S = 5.0


@contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """A `Stop` that SIGINT and SIGTERM request; their usual handlers are back afterwards."""
    stop = Stop(GRACE_S)

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.requested:
            os._exit(128 + signal.SIGINT)
        stop.request()
        # os.write, because a signal may come in the middle of a print.
        message = f"\nstopping: calls in flight get {GRACE_S:g} s; press Ctrl-C again to leave at once\n"
        os.write(sys.stderr.fileno(), message.encode())

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
