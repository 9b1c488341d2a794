"""Ctrl-C and SIGTERM: the first stops cleanly, the second leaves at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dspylab.errors import Interrupted
from dspylab.execute.pool import Stop

#: How long calls in flight may take to finish after the first signal, in seconds.
GRACE_S = 5.0
#: A launcher may pass on the signal that the terminal has sent already; nobody presses twice this fast.
_SAME_PRESS_S = 0.1
_SHOW_CURSOR = b"\x1b[?25h\n"


@contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """A `Stop` that SIGINT and SIGTERM request; their usual handlers are back afterwards.

    Raises:
        KeyboardInterrupt: In the main thread, if the first signal comes before there is any call to wait for.
    """
    stop = Stop(GRACE_S)
    stop.on_request(_tell)

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.requested_at is not None:
            if time.monotonic() - stop.requested_at > _SAME_PRESS_S:
                _leave()
            return
        stop.request()
        if not stop.is_heeded:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave() -> None:
    if sys.stdout.isatty():
        # The live view has hidden the cursor. Not print(): the signal may have come in the middle of one.
        os.write(sys.stdout.fileno(), _SHOW_CURSOR)
    os._exit(Interrupted.exit_code)


def _tell() -> None:
    text = f"stopping: calls in flight get {GRACE_S:g} s; press Ctrl-C again to leave at once"
    print(text, file=sys.stderr, flush=True)
