"""Standard output and error that survive their reader: what cannot be shown any more stops no work."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

#: The file descriptor that C code and child processes write to.
_STDOUT = 1


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

    def elsewhere(self, descriptor: int) -> LastingStream:
        """A stream like this one that writes to another file descriptor, which it closes with itself."""
        plain = open(descriptor, "w", encoding=self.encoding)  # noqa: SIM115 - its owner closes it
        return LastingStream(plain, self._on_lost)

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
    # Their buffers are taken over: a program that goes back to what Python began with needs them, too.
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc, assignment]


def _lasting(stream: TextIO | None, on_lost: Callable[[], None]) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open to the end
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    return LastingStream(stream, on_lost)


@contextlib.contextmanager
def standard_output_apart() -> Iterator[TextIO]:
    """Has standard output for oneself: what others print meanwhile goes to standard error.

    That is what any thread prints. In a process whose standard output was made safe it is also what C code
    and child processes write to file descriptor 1.

    Yields:
        Standard output.
    """
    own = sys.stdout
    if isinstance(own, LastingStream) and own.fileno() == _STDOUT:
        own.flush()
        # No child process inherits it: whoever reads the output is not kept waiting by one that goes on.
        own = own.elsewhere(os.dup(_STDOUT))
        # To the end of the process: C code may keep what it prints in a buffer until then.
        os.dup2(sys.stderr.fileno(), _STDOUT)
    with contextlib.redirect_stdout(sys.stderr):
        yield own
