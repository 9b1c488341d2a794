"""Keep what optimizers print away from the progress view and the results.

DSPy's optimizers print, draw progress bars and log, from threads of their own. Standard output belongs to the
process, so it is replaced once by a stream that asks who is writing: DSPy's settings, which DSPy hands on to
its threads, tell.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

import dspy

logger = logging.getLogger(__name__)

_SETTING = "dspylab_muted"
_installing = threading.Lock()


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Drops what the body and the DSPy threads that it starts print and log."""
    _install()
    with dspy.context(**{_SETTING: True}):
        yield


def _is_muted() -> bool:
    return bool(dspy.settings.get(_SETTING, False))


class _Stream:
    """A standard stream that drops what muted code writes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return len(text) if _is_muted() else self.stream.write(text)

    def flush(self) -> None:
        if not _is_muted():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _unmuted(_record: logging.LogRecord) -> bool:
    """Errors that an optimizer logs are counted in its record; here they are only shown on request."""
    return not _is_muted() or logger.isEnabledFor(logging.DEBUG)


def _install() -> None:
    with _installing:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if not isinstance(stream, _Stream):
                setattr(sys, name, _Stream(stream))
        for handler in logging.getLogger().handlers:
            if _unmuted not in handler.filters:
                handler.addFilter(_unmuted)
