"""The journal of a run: finished examples, appended as they finish, so that a killed run loses none.

A journal is a JSON-lines file. Each line is one whole row and is written with a single append, so what a
dying process leaves is at most one torn last line; opening the journal drops and counts it. Only one
process holds a journal at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from dspylab.errors import EnvironmentProblem, RepositoryError

_PUBLISHED = "published"


class Journal:
    """Finished rows of one run, by example index. Use as a context manager.

    Memory: an offset per example, never the rows themselves.

    Attributes:
        path: The file. It is private to the user (mode 600).
        torn_lines: Lines that were cut by a crash and dropped when this journal was opened.
        published: Digest of the `raw.jsonl` that was written from these rows; None if there is none yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn_lines = 0
        self.published: str | None = None
        self._offsets: dict[int, tuple[int, int]] = {}
        self._retryable: set[int] = set()
        self._failed: set[int] = set()
        self._end = 0
        self._file = -1

    def __enter__(self) -> Self:
        """Opens, locks and reads the journal.

        Raises:
            RepositoryError: If another process holds it.
            EnvironmentProblem: If the file cannot be created.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot be written: {error.strerror}",
                where=str(self.path.parent),
                remedy="make the folder writable",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise RepositoryError(
                f"is being executed by {self._holder()}",
                where=f"run {self.path.stem[:12]}",
                remedy="wait until it is done, or stop it; what it finished is kept",
            ) from error
        self._holder_path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            self._holder_path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    @property
    def indexes(self) -> set[int]:
        """Examples that need not be called again."""
        return set(self._offsets) - self._retryable

    @property
    def retryable(self) -> set[int]:
        """Examples whose recorded failure another try may mend."""
        return set(self._retryable)

    @property
    def failures(self) -> int:
        """Examples whose last row is a failure of either kind."""
        return len(self._failed)

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a finished example. A later row of the same example replaces the earlier one.

        Raises:
            EnvironmentProblem: If the disk is full; the journal is left whole.
        """
        line = encode(row) + b"\n"
        self._write(line)
        self._note(row, self._end - len(line), len(line))

    def publish(self, digest: str) -> None:
        """Notes that `raw.jsonl` was written from all rows."""
        self._write(encode({_PUBLISHED: digest}) + b"\n")
        self.published = digest
        os.fsync(self._file)

    def rows(self) -> Iterator[bytes]:
        """The rows as encoded lines, in dataset order, read one at a time."""
        for index in sorted(self._offsets):
            offset, length = self._offsets[index]
            yield os.pread(self._file, length, offset)

    def clear(self) -> None:
        """Empties the journal, so that every example is called again."""
        os.ftruncate(self._file, 0)
        self._offsets.clear()
        self._retryable.clear()
        self._failed.clear()
        self._end = 0
        self.published = None

    @property
    def _holder_path(self) -> Path:
        return self.path.with_suffix(".holder")

    def _holder(self) -> str:
        try:
            return self._holder_path.read_text() or "another process"
        except OSError:
            return "another process"

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError(None, "no space left on device")
        except OSError as error:
            # What got in of the line is taken out again, so that the next line starts on a line of its own.
            os.ftruncate(self._file, self._end)
            raise EnvironmentProblem(
                f"cannot be written: {error.strerror}",
                where=str(self.path),
                remedy="free disk space and run the same command again; everything finished so far is kept",
            ) from error
        self._end += len(line)

    def _read(self) -> None:
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for line in file:
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("torn")
                    row = json.loads(line)
                    if _PUBLISHED in row:
                        self.published = row[_PUBLISHED]
                    else:
                        self._note(row, self._end, len(line))
                except (ValueError, KeyError, TypeError):
                    self.torn_lines += 1
                    break
                self._end += len(line)
        # Whatever follows the first unreadable line was never acknowledged to anybody.
        os.ftruncate(self._file, self._end)

    def _note(self, row: Mapping[str, Any], offset: int, length: int) -> None:
        index = int(row["index"])
        self._offsets[index] = (offset, length)
        error = row.get("error")
        (self._failed.add if error else self._failed.discard)(index)
        (self._retryable.add if error and error["kind"] == "endpoint" else self._retryable.discard)(index)
        self.published = None


def encode(row: Mapping[str, Any]) -> bytes:
    """A row as one line of UTF-8 JSON, without the newline.

    Lone surrogates, which UTF-8 cannot hold, are written as JSON escapes.
    """
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def peek(path: Path) -> tuple[int, int]:
    """How many examples a journal holds, and how many of them would be tried again; without locking it.

    Returns:
        (finished, retryable); (0, 0) when there is no journal.
    """
    state: dict[int, bool] = {}
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                    if _PUBLISHED not in row:
                        state[int(row["index"])] = bool(row["error"]) and row["error"]["kind"] == "endpoint"
                except (ValueError, KeyError, TypeError):
                    break
    except OSError:
        return 0, 0
    return len(state), sum(state.values())


def drop_journal(path: Path) -> None:
    """Removes the journal of a run that DVC has recorded."""
    for file in (path, path.with_suffix(".holder")):
        file.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()
