"""The journal of a run: finished examples, appended as they finish, so that a killed run loses none.

A journal is a JSON-lines file. Each line is one whole row and is written with a single append, so what a
dying process leaves is at most one torn last line; opening the journal drops and counts it. Only one
process holds a journal at a time.

What an appended row survives: the death of the process in any way, at once. A power cut, as soon as the
journal was synced to the disk, which happens at the first append after a second, and at the end; what the
system had not written by itself until then is called again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dspylab.errors import EnvironmentProblem, RepositoryError
from dspylab.places import shown_path

_PUBLISHED = "published"
_ABANDONED = "abandoned"
_ANEW = "anew"
#: How often appending waits for the disk, at most.
_SYNC_EVERY_S = 1.0


@dataclass
class _Index:
    """What a journal holds: an offset per example, never the rows themselves.

    Attributes:
        metric: Name of the metric whose values are kept; None for none.
        places: Example index to (offset, length) of its row, in bytes, and the hash of its example id.
        failed: Examples whose row is a failure.
        retryable: Those of them that another try may mend.
        scores: Example index to its value of `metric`, for the examples that have one.
        published: Digest of the `raw.jsonl` that was written from these rows.
        anew: Whether all answers are to be asked for anew, whatever earlier ones there are.
        torn_lines: Lines that could not be read.
        end: Length of the whole lines, in bytes.
    """

    metric: str | None = None
    places: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    retryable: set[int] = field(default_factory=set)
    scores: dict[int, float] = field(default_factory=dict)
    published: str | None = None
    anew: bool = False
    torn_lines: int = 0
    end: int = 0

    def read(self, lines: Iterable[bytes]) -> None:
        """Takes in the lines of a journal."""
        for line in lines:
            if not line.endswith(b"\n"):  # only the last line can be like that
                self.torn_lines += 1
                return
            try:
                self.note(json.loads(line), len(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                # The disk has damaged it. The rows after it are good.
                self.torn_lines += 1
                self.end += len(line)

    def note(self, row: Mapping[str, Any], length: int) -> None:
        """Takes in the next line. The last row of an example counts, but no failure hides a result."""
        if _PUBLISHED in row:
            self.published = row[_PUBLISHED]
        elif _ANEW in row:
            self.anew = True
        elif _ABANDONED in row:
            pass  # it only says what was paid: the example is to be called again
        else:
            index, error = int(row["index"]), row.get("error")
            kind = None if error is None else error["kind"]
            score = row.get("metrics", {}).get(self.metric)
            if error is None or index not in self.places or index in self.failed:
                self.places[index] = (self.end, length, hash(row.get("example_id")))
                (self.failed.discard if error is None else self.failed.add)(index)
                (self.retryable.add if kind == "endpoint" else self.retryable.discard)(index)
                self.scores.pop(index, None)
                if score is not None:
                    self.scores[index] = score
            self.published = None
        self.end += length

    def keep_only(self, examples: Mapping[int, str]) -> None:
        """Forgets the rows of examples that stand at another place now, or nowhere."""
        for index in [*self.places]:
            if index not in examples or hash(examples[index]) != self.places[index][2]:
                del self.places[index]
                self.failed.discard(index)
                self.retryable.discard(index)
                self.scores.pop(index, None)


class Journal:
    """Finished rows of one run, by example index. Use as a context manager.

    Args:
        path: As the attribute.
        metric: Name of the metric whose values `scores` gives; None for none.

    Attributes:
        path: The file. It is private to the user (mode 600).
    """

    def __init__(self, path: Path, metric: str | None = None) -> None:
        self.path = path
        self._index = _Index(metric)
        self._file = -1
        self._synced_at = time.monotonic()

    def __enter__(self) -> Self:
        """Opens, locks and reads the journal.

        Raises:
            RepositoryError: If another process holds it.
            EnvironmentProblem: If the file cannot be read or written.
        """
        self._file = _open_locked(self.path)
        _opened.add(self)
        try:
            with os.fdopen(os.dup(self._file), "rb") as file:
                self._index.read(file)
            os.ftruncate(self._file, self._index.end)
        except OSError as error:
            self._close()
            raise EnvironmentProblem(
                f"cannot be read: {error.strerror}", where=shown_path(self.path), remedy="check the disk"
            ) from error
        # Only another process's message needs it, so a full disk is told about when a row is appended.
        with contextlib.suppress(OSError):
            _holder_path(self.path).write_text(f"process {os.getpid()} on {socket.gethostname()}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
            with contextlib.suppress(OSError):
                _holder_path(self.path).unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        _opened.discard(self)
        os.close(self._file)
        self._file = -1

    @property
    def indexes(self) -> set[int]:
        """Examples that need not be called again."""
        return set(self._index.places) - self._index.retryable

    @property
    def retryable(self) -> set[int]:
        """Examples whose recorded failure another try may mend."""
        return set(self._index.retryable)

    @property
    def failures(self) -> int:
        """Examples whose row is a failure of either kind."""
        return len(self._index.failed)

    @property
    def scores(self) -> Mapping[int, float]:
        """Example index to its value of the metric, for the examples that have one."""
        return self._index.scores

    @property
    def torn_lines(self) -> int:
        """Lines that were cut by a crash or damaged, and dropped when this journal was opened."""
        return self._index.torn_lines

    @property
    def published(self) -> str | None:
        """Digest of the `raw.jsonl` that was written from these rows; None if there is none yet."""
        return self._index.published

    @property
    def is_anew(self) -> bool:
        """Whether `begin_anew` was the beginning of these rows."""
        return self._index.anew

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a finished or an abandoned example. A later row of the same example replaces the earlier one.

        Only a failure does not replace a result: what was answered once stays answered.

        Raises:
            EnvironmentProblem: If the disk is full; the journal is left whole.
        """
        self._write(row, sync=time.monotonic() - self._synced_at >= _SYNC_EVERY_S)

    def publish(self, digest: str) -> None:
        """Notes that `raw.jsonl` was written from all rows.

        Raises:
            EnvironmentProblem: As `append`.
        """
        self._write({_PUBLISHED: digest}, sync=True)

    def keep_only(self, examples: Mapping[int, str]) -> None:
        """Forgets rows that do not belong to the dataset as it is read now.

        A loader may read what nobody tracks, so that the same place holds another example in the next
        session. Its row is not taken for the new example's, which is called.

        Args:
            examples: Index of each example to its id.
        """
        self._index.keep_only(examples)

    def rows(self) -> Iterator[bytes]:
        """The rows as encoded lines, in dataset order, read one at a time."""
        for index in sorted(self._index.places):
            offset, length, _ = self._index.places[index]
            yield os.pread(self._file, length, offset)

    def begin_anew(self) -> None:
        """Empties the journal, and notes that every example is to be called, in later sessions too.

        Raises:
            EnvironmentProblem: As `append`.
        """
        os.ftruncate(self._file, 0)
        self._index = _Index(self._index.metric)
        self._write({_ANEW: True}, sync=True)

    def _write(self, row: Mapping[str, Any], *, sync: bool) -> None:
        line = encode(row) + b"\n"
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(None, "no space left on device")
            if sync:
                os.fsync(self._file)
                self._synced_at = time.monotonic()
        except OSError as error:
            # What got in of the line is taken out again, so that the next line starts on a line of its own.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._index.end)
            raise EnvironmentProblem(
                f"cannot be written: {error.strerror}",
                where=shown_path(self.path),
                remedy="free disk space and run the same command again; everything finished so far is kept",
            ) from error
        self._index.note(row, len(line))


_opened: weakref.WeakSet[Journal] = weakref.WeakSet()


def _close_inherited() -> None:
    for journal in list(_opened):
        journal._close()  # noqa: SLF001


# A process that the user's program forks would hold the lock, too, and go on doing so after we were killed.
os.register_at_fork(after_in_child=_close_inherited)


def encode(row: Mapping[str, Any]) -> bytes:
    """A row as one line of UTF-8 JSON, without the newline.

    Lone surrogates, which UTF-8 cannot hold, are written as JSON escapes.
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def peek(path: Path) -> tuple[int, int]:
    """How many examples a journal holds, and how many of them would be tried again; without locking it.

    Returns:
        (finished, retryable); (0, 0) when there is no journal.
    """
    index = _read_index(path)
    return len(index.places), len(index.retryable)


def finished(path: Path) -> set[int]:
    """Examples of a journal that need not be called again, without locking it; none without a journal."""
    index = _read_index(path)
    return set(index.places) - index.retryable


def is_published(path: Path) -> bool:
    """Whether a journal holds nothing that `raw.jsonl` has not, without locking it."""
    return _read_index(path).published is not None


def _read_index(path: Path) -> _Index:
    """What a journal holds, without locking it; empty when there is none."""
    index = _Index()
    with contextlib.suppress(OSError), path.open("rb") as file:
        index.read(file)
    return index


def begin_anew(path: Path) -> None:
    """Empties a journal and notes that every example is to be called; one that is held is left alone.

    Raises:
        EnvironmentProblem: If it cannot be written.
    """
    with contextlib.suppress(RepositoryError), Journal(path) as journal:
        journal.begin_anew()


def begins_anew(path: Path) -> bool:
    """Whether all examples of a journal are to be called, whatever earlier answers there are."""
    try:
        with path.open("rb") as file:
            return _ANEW in json.loads(file.readline())
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def stored_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """Every whole row that a journal holds, replaced and abandoned ones included, without locking it."""
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and ("index" in row or _ABANDONED in row):
                yield row


def drop_journal(path: Path) -> None:
    """Removes the journal of a run that DVC has recorded. One that another process holds is left to it."""
    if not path.exists():
        return
    with contextlib.suppress(RepositoryError):
        file = _open_locked(path)
        try:
            # While it is locked: whoever waits for it then sees that it is gone, and begins a new one.
            path.unlink(missing_ok=True)
            _holder_path(path).unlink(missing_ok=True)
        finally:
            os.close(file)


def _open_locked(path: Path) -> int:
    """Opens a journal, makes it if need be, and locks it.

    Raises:
        RepositoryError: If another process holds it.
        EnvironmentProblem: If it cannot be opened or locked.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot be written: {error.strerror}",
                where=shown_path(path.parent),
                remedy="make the folder writable",
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
            os.close(file)  # it was dropped between the two calls
        except BlockingIOError as error:
            os.close(file)
            raise RepositoryError(
                f"is being executed by {_holder(path)}",
                where=f"run {path.stem[:12]}",
                remedy="wait until it is done, or stop it; what it finished is kept",
            ) from error
        except OSError as error:
            os.close(file)
            raise EnvironmentProblem(
                f"cannot be locked: {error.strerror}",
                where=shown_path(path),
                remedy="keep the repository on a file system that has locks",
            ) from error


def _holder_path(path: Path) -> Path:
    return path.with_suffix(".holder")


def _holder(path: Path) -> str:
    try:
        return _holder_path(path).read_text() or "another process"
    except OSError:
        return "another process"
