"""Standard output and error that survive their reader: what cannot be shown any more stops no work."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import TextIO


class LastingStream(io.TextIOWrapper):
    """A text stream whose reader may go away, such as `head`. What is written afterwards is dropped."""

    def __init__(self, stream: io.TextIOWrapper, on_lost: Callable[[], None]) -> None:
        """Takes over the buffer of a stream, which is of no use afterwards.

        Args:
            stream: Standard output or error.
            on_lost: Called once, when the reader has gone.
        """
        settings = (stream.encoding, "replace", None, stream.line_buffering, stream.write_through)
        super().__init__(stream.detach(), *settings)
        self._on_lost = on_lost

    def write(self, text: str, /) -> int:
        """As of any stream."""
        try:
            return super().write(text)
        except BrokenPipeError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        """As of any stream."""
        try:
            super().flush()
        except BrokenPipeError:
            self._lose()

    def _lose(self) -> None:
        # What the buffer still holds goes where everything goes from here on.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        self._on_lost()


def make_streams_safe(on_lost: Callable[[], None]) -> None:
    """A closed stream swallows what is printed, one that is not UTF-8 shows a `?` for what it has not.

    Args:
        on_lost: Called once, when nobody reads standard output any more.
    """
    sys.stdout = _lasting(sys.stdout, on_lost)
    sys.stderr = _lasting(sys.stderr, lambda: None)


def _lasting(stream: TextIO | None, on_lost: Callable[[], None]) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open to the end
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    return LastingStream(stream, on_lost)
