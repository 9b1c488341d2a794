"""A program on a terminal of its own, as a person sees it and presses Ctrl-C in it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_CTRL_C = b"\x03"
_DEADLINE_S = 120.0
#: Makes standard input the controlling terminal, as a login does, and becomes the program.
_ON_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


class Terminal:
    """Runs a program on a pseudo-terminal. Use as a context manager.

    Args:
        command: The program and its arguments.
        folder: Its working directory.
        environment: Its environment.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._output: list[bytes] = []
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *command],
            cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        os.close(self._master)

    @property
    def text(self) -> str:
        """All that was shown so far, with the terminal's own control sequences."""
        return b"".join(self._output).decode("utf-8", "replace")

    def press_ctrl_c(self) -> None:
        """As a person does: the terminal sends the signal to everything in the foreground."""
        os.write(self._master, _CTRL_C)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Waits until something happened, or the program ended.

        Raises:
            TimeoutError: If it takes far too long.
        """
        deadline = time.monotonic() + _DEADLINE_S
        while not happened() and self.process.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(self.text)
            time.sleep(0.02)

    def end(self) -> int:
        """Waits for the end; the exit code."""
        code = self.process.wait(_DEADLINE_S)
        self._reader.join()
        return code

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux says so when the last program on the terminal is gone
                return
            if not data:
                return
            self._output.append(data)
