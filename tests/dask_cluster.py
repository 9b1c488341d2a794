"""A Dask scheduler and workers as processes of their own on the loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from conftest import API_KEY
from distributed import Client

BINARIES = Path(sys.executable).parent
#: Long enough for a machine that does other things as well.
PATIENCE_S = 60.0


class DaskCluster:
    """Use as a context manager. It begins with a scheduler and no worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._environment = {**os.environ, "FAKE_API_KEY": API_KEY, "DASK_LOGGING__DISTRIBUTED": "warning"}

    def __enter__(self) -> Self:
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file)]
        self.scheduler = self._start("scheduler", *options)
        deadline = time.monotonic() + PATIENCE_S
        while not self.file.is_file() or not self.file.read_text():
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    @property
    def client(self) -> Client:
        """A client of its own, for a `with`."""
        return Client(scheduler_file=str(self.file), set_as_default=False, timeout=PATIENCE_S)

    def add_worker(self, *options: str, threads: int = 2, **variables: str | None) -> int:
        """Starts a worker and returns its process id. A variable that is None is taken away."""
        place = ["--scheduler-file", str(self.file), "--local-directory", str(self.folder)]
        fixed = ["--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        self.workers.append(self._start("worker", *place, *fixed, *options, **variables))
        return self.workers[-1].pid

    def wait_for(self, count: int) -> None:
        """Waits until so many workers have joined."""
        with self.client as client:
            client.wait_for_workers(count, timeout=PATIENCE_S)

    def _start(self, command: str, *options: str, **variables: str | None) -> subprocess.Popen[bytes]:
        changed: dict[str, Any] = {**self._environment, **variables}
        environment = {name: value for name, value in changed.items() if value is not None}
        with (self.folder / f"{command}.log").open("ab") as log:
            return subprocess.Popen(
                [BINARIES / "dask", command, *options],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
