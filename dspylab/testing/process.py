"""The fake server as a process of its own, as measurements need it: it shares no lock with its clients."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dspylab.errors import EnvironmentProblem
from dspylab.testing.exchange import RequestRecord

Option = None | bool | int | float | str | list[str] | Mapping[str, str]
STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running ``python -m dspylab.testing``.

    Attributes:
        url: The ``api_base`` for clients; ends in /v1.
        pid: Its process id.
    """

    url: str
    pid: int

    @property
    def requests(self) -> list[RequestRecord]:
        """The records of all requests for completions so far, fetched from the server."""
        return [RequestRecord(**row) for row in self._get("/requests")["requests"]]

    @property
    def health(self) -> dict[str, Any]:
        """Counts, concurrency, and the CPU time that the server has used (``cpu_s``, seconds)."""
        return self._get("/health")

    def _get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.url).netloc)
        try:
            connection.request("GET", path)
            found: dict[str, Any] = json.load(connection.getresponse())
        finally:
            connection.close()
        return found


@contextmanager
def server_process(**options: Option) -> Iterator[ServerProcess]:
    """Start a fake server in a process of its own, and stop it at the end.

    It also stops when this process dies.

    Args:
        **options: What ``python -m dspylab.testing --help`` lists, with underscores: ``ttft_s=0.3``,
            ``tokens=8``, ``keep_bodies=True``, ``models=["a", "b"]``, ``fields={"label": "bug"}``.

    Yields:
        The running server.

    Raises:
        EnvironmentProblem: It did not start; it has said why on stderr.
    """
    command = [sys.executable, "-m", "dspylab.testing", "--until-stdin-closes", *_flags(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            if not ready:
                raise EnvironmentProblem(
                    "the fake server did not start",
                    where="python -m dspylab.testing",
                    remedy="read what it says above; its options are those of --help",
                )
            yield ServerProcess(url=json.loads(ready)["url"], pid=process.pid)
        finally:
            process.stdin.close()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _flags(options: Mapping[str, Option]) -> list[str]:
    flags: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            flags.append(flag)
        elif isinstance(value, Mapping):
            flags += [part for key, text in value.items() for part in (flag, f"{key}={text}")]
        elif isinstance(value, list):
            flags += [part for text in value for part in (flag, text)]
        elif value is not None and value is not False:
            flags += [flag, str(value)]
    return flags
