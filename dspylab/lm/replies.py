"""The replies that a compile has paid for: written down as they arrive, given again when they are asked for.

DSPy's optimizers count on a cache: they ask the same of a model again and again. DSPy's own cache is one
object for the whole process and belongs to the user. So a compile has one of its own, one layer below, in
the engine. It is a file of JSON lines, each one call with its reply, appended whole. So it is known of a
compile that was killed what it has cost, and what need not be asked again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dspy import lm15
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict

from dspylab.errors import EnvironmentProblem, RepositoryError
from dspylab.jsonable import to_json
from dspylab.places import shown_path
from dspylab.plan.identity import digest
from dspylab.records import LMCall


@dataclass
class _Asking:
    """What of a call of a `dspy.LM` does not reach its engine.

    Attributes:
        rollout_id: DSPy's mark of calls that want a reply of their own.
        may_repeat: False when the caller wants a new reply, whatever was answered before.
        candidates: Counts the replies that one call wants (`n`).
    """

    rollout_id: Any
    may_repeat: bool
    candidates: Iterator[int] = field(default_factory=itertools.count)


_asking: ContextVar[_Asking | None] = ContextVar("dspylab_asking", default=None)


@contextlib.contextmanager
def asking(rollout_id: Any, *, may_repeat: bool) -> Iterator[None]:
    """Says what the engine is not told of the call that is made meanwhile."""
    token = _asking.set(_Asking(rollout_id, may_repeat))
    try:
        yield
    finally:
        _asking.reset(token)


class Replies:
    """Calls of one compile over all its sessions, and their replies. Thread-safe. Use as a context manager.

    Of two equal calls at the same time the second waits for the first.

    Args:
        path: The file; what an earlier session left in it is read. Private to the user (mode 600).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._lines: dict[str, bytes] = {}
        self._pending: dict[str, threading.Event] = {}
        self._file = -1

    def __enter__(self) -> Self:
        """Opens the file.

        Raises:
            RepositoryError: If another process has it open.
            EnvironmentProblem: If it cannot be read or written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__()
            raise RepositoryError(
                "is being compiled by another process",
                where=f"compile {self._path.parent.name[:12]}",
                remedy="wait until it is done, or stop it; what it paid for is kept",
            ) from error
        except OSError as error:
            raise _unwritable(self._path, error) from error
        try:
            end = 0
            with self._path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # a kill has cut it
                    end += len(line)
                    self._remember(line)
            os.ftruncate(self._file, end)
            self._append({"session": time.time()})
        except OSError as error:
            self.__exit__()
            raise _unwritable(self._path, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def key(self, model: str, request: lm15.Request) -> str | None:
        """What a request has in common with those that get the same reply; None if it wants a new one."""
        asked = _asking.get() or _Asking(None, may_repeat=True)
        if not asked.may_repeat:
            return None
        deciding = [model, request_to_dict(request), asked.rollout_id, next(asked.candidates)]
        return digest(to_json(deciding))

    @contextlib.contextmanager
    def turn(self, key: str | None) -> Iterator[lm15.Response | None]:
        """Gives the known reply of a key; if there is none, the body is the only one that asks for it.

        Args:
            key: From `key`.

        Yields:
            The reply; None if the body has to ask.
        """
        if key is None:
            yield None
            return
        while True:
            with self._lock:
                line = self._lines.get(key)
                pending = self._pending.get(key)
                if line is None and pending is None:
                    mine = self._pending[key] = threading.Event()
                    break
            if line is not None:
                yield response_from_dict(json.loads(line)["reply"])
                return
            assert pending is not None
            pending.wait()
        try:
            yield None
        finally:
            with self._lock:
                del self._pending[key]
            mine.set()

    def note(self, call: LMCall, key: str | None = None, response: lm15.Response | None = None) -> None:
        """Writes down a call that ended, with its reply if it has one.

        Raises:
            EnvironmentProblem: If the disk is full.
        """
        if call.cached:
            return  # nothing was paid, and nothing is new
        row: dict[str, Any] = {"call": to_json(call)}
        if key is not None and response is not None:
            row |= {"key": key, "reply": to_json(response_to_dict(response))}
        with self._lock:
            if self._file < 0:
                return  # it came after the end of a compile that was stopped
            try:
                self._remember(self._append(row))
            except OSError as error:
                raise _unwritable(self._path, error) from error

    def _append(self, row: Mapping[str, Any]) -> bytes:
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        begin = os.fstat(self._file).st_size
        if os.write(self._file, line) != len(line):
            # A full disk: half a line would spoil the next one, too.
            os.ftruncate(self._file, begin)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return line

    def _remember(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):  # the disk has damaged it: the rest is good
            row = json.loads(line)
            if isinstance(row, dict) and "reply" in row:
                self._lines[str(row["key"])] = line


@dataclass
class Noted:
    """What a compile's file says it has taken so far.

    Attributes:
        calls: Calls that were sent, as rows.
        unanswered: Errors of those of the last session that had no reply. What failed in an earlier session
            was asked again, if it was needed.
        duration_s: Time from the beginning of each session to its last reply.
    """

    calls: list[Mapping[str, Any]] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    duration_s: float = 0.0


def noted(path: Path) -> Noted:
    """Reads a compile's file without locking it; nothing if there is none."""
    found = Noted()
    began = ended = 0.0
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                if "session" in row:
                    found.duration_s += ended - began
                    began = ended = row["session"]
                    found.unanswered.clear()
                    continue
                call = row["call"]
                found.calls.append({**call})
                if call["error"] is not None:
                    found.unanswered.append(call["error"])
                    continue  # waiting for an endpoint that is down took no part in the compile
                ended = max(ended, (call["started_at"] or 0.0) + (call["latency_s"] or 0.0))
    found.duration_s += ended - began
    return found


def _unwritable(path: Path, error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"cannot be written: {error.strerror}",
        where=shown_path(path),
        remedy="free disk space or make it writable",
    )
