"""A Dask scheduler and workers as processes of their own on the loopback."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

from conftest import API_KEY

#: Long enough for a machine that does other things as well.
PATIENCE_S = 60.0
#: Schedulers and workers are forked off a process that has imported what all of them import, which takes
#: seconds for each.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["distributed.cli.dask_scheduler", "distributed.cli.dask_worker", "dspy"])


class DaskCluster:
    """Use as a context manager. It begins with a scheduler and no worker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "scheduler.json"
        self.workers: list[ForkServerProcess] = []

    def __enter__(self) -> Self:
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file)]
        self.scheduler = self._start("scheduler", options, {})
        deadline = time.monotonic() + PATIENCE_S
        while not self.file.is_file() or not self.file.read_text():
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.join()

    def add_worker(self, *options: str, threads: int = 2, **variables: str | None) -> int:
        """Starts a worker and returns its process id. A variable that is None is taken away."""
        place = ["--scheduler-file", str(self.file), "--local-directory", str(self.folder)]
        fixed = ["--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--host", "127.0.0.1"]
        worker = self._start("worker", [*place, *fixed, *options], variables)
        self.workers.append(worker)
        assert worker.pid is not None
        return worker.pid

    def wait_for(self, count: int) -> None:
        """Waits until so many workers have joined."""
        from distributed import Client  # by one of the processes that run tests

        with Client(scheduler_file=str(self.file), set_as_default=False, timeout=PATIENCE_S) as client:
            client.wait_for_workers(count, timeout=PATIENCE_S)

    def _start(
        self, command: str, options: Sequence[str], variables: Mapping[str, str | None]
    ) -> ForkServerProcess:
        changed = {**os.environ, "FAKE_API_KEY": API_KEY, **variables}
        environment = {name: value for name, value in changed.items() if value is not None}
        process = _FORKS.Process(
            target=_become_dask, args=(command, options, environment, self.folder), daemon=True
        )
        process.start()
        return process


def _become_dask(command: str, options: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
    """In the new process: `dask scheduler` or `dask worker`."""
    os.chdir(folder)
    with (folder / f"{command}.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if "PYTHONPATH" in environment:  # which Python reads when it starts
        dask = Path(sys.executable).with_name("dask")
        os.execve(dask, [str(dask), command, *options], dict(environment))
    os.environ.clear()
    os.environ.update(environment)
    importlib.import_module(f"distributed.cli.dask_{command}").main(options)
