"""What `--json` prints: one JSON object an event, and nothing else."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any, TextIO

from dspylab.streams import standard_output_apart


class EventLog:
    """Events for programs that follow, one a line.

    Args:
        stream: Where they go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, event: str, **fields: Any) -> None:
        """Writes an event at once.

        Args:
            event: Its name.
            fields: What else it says.
        """
        line = json.dumps({"event": event, "time": time.time(), **fields})
        # In one piece: the program may use threads and processes that write, too.
        self._stream.write(f"{line}\n")
        self._stream.flush()


@contextlib.contextmanager
def event_log(wanted: bool) -> Iterator[EventLog | None]:
    """The log of events, to which standard output belongs alone; None unless it is wanted."""
    if not wanted:
        yield None
        return
    with standard_output_apart() as stream:
        yield EventLog(stream)
