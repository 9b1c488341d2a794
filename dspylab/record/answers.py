"""Answers that were paid for already: what a run scores again whose metrics, labels or examples were changed.

Beside the journals lies, for each run, one file for each configuration whose answers are known, named by what
decides the answers and by what decides the results. It is a hard link: to the journal as long as the run is
not complete, then to `raw.jsonl`. So it takes no room while the results lie in the workspace, and is still
there when DVC has removed them, which it does before it executes a stage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dspylab.errors import DataError
from dspylab.record.layout import Layout
from dspylab.record.publish import file_md5, read_json
from dspylab.records import DataRow


class KeptAnswers:
    """The answers of one run that are kept.

    Args:
        layout: Where files lie.
        run: Key of the run.
        answers_hash: Digest of what decides its answers now.
        config_hash: Digest of what decides its results now.
    """

    def __init__(self, layout: Layout, run: str, answers_hash: str, config_hash: str) -> None:
        self._layout = layout
        self._run = run
        self._answers_hash = answers_hash
        self._config_hash = config_hash

    @property
    def _own(self) -> Path:
        return self._layout.answers(self._run) / f"{self._answers_hash}-{self._config_hash}.jsonl"

    def sources(self) -> list[Path]:
        """Files with rows whose answers are those of the run as it is now, the latest first."""
        kept = list(self._layout.answers(self._run).glob(f"{self._answers_hash}-*.jsonl"))
        # As a time may be the same, the name decides.
        kept.sort(key=lambda path: (_changed_at(path), path.name), reverse=True)
        is_ours = self._published_info().get("answers_hash") == self._answers_hash
        return [*kept, self._layout.raw(self._run)] if is_ours else kept

    def are_recorded(self, is_recorded: Callable[[str], bool]) -> bool:
        """Whether results of this very configuration are recorded: whoever executes it wants new ones."""
        published = [self._layout.raw(self._run)]
        if self._published_info().get("config_hash") != self._config_hash:
            published = []
        return any(
            is_recorded(md5) for path in (self._own, *published) if (md5 := file_md5(path)) is not None
        )

    def are_up_to_date(self, is_recorded: Callable[[str], bool]) -> bool:
        """Whether the published results are of this very configuration, and recorded as they are."""
        if self._published_info().get("config_hash") != self._config_hash:
            return False
        md5 = file_md5(self._layout.raw(self._run))
        return md5 is not None and is_recorded(md5)

    def follow(self, journal: Path, *, anew: bool = False) -> None:
        """Keeps what a journal holds, and what is appended to it, also when it is dropped.

        Args:
            journal: The journal.
            anew: Whether nobody wants what was kept of this very configuration any more. It stays otherwise
                until the results are complete: results that were lost are made from it.
        """
        with contextlib.suppress(OSError):
            if not anew and not self._own.samefile(journal):
                before = self._own.stat().st_mtime_ns
                self._own.rename(self._own.with_stem(f"{self._own.stem}-{before}"))
        self._link(journal)

    def replace(self, raw: Path) -> None:
        """Keeps the complete results, and nothing else: they have all answers that are worth keeping."""
        self._link(raw)
        for other in self._layout.answers(self._run).glob("*.jsonl"):
            if other != self._own:
                other.unlink(missing_ok=True)

    def _link(self, target: Path) -> None:
        # Where there are no hard links, what lies in `results` can still be scored again.
        with contextlib.suppress(OSError):
            self._own.parent.mkdir(parents=True, exist_ok=True)
            self._own.unlink(missing_ok=True)
            os.link(target, self._own)

    def _published_info(self) -> Mapping[str, Any]:
        try:
            return read_json(self._layout.info(self._run))
        except DataError:
            return {}


def retired(layout: Layout, runs: Collection[str]) -> list[Path]:
    """Folders of kept answers of runs that are no longer in the matrix.

    Args:
        layout: Where files lie.
        runs: Keys of all runs of the matrix.
    """
    kept = layout.all_answers
    return [folder for folder in kept.iterdir() if folder.name not in runs] if kept.is_dir() else []


def inheritable(answers_hash: str, folders: Iterable[Path]) -> list[Path]:
    """Files with the answers of a run that runs which are no longer in the matrix have left.

    Args:
        answers_hash: Digest of what decides its answers.
        folders: From `retired`.
    """
    return [path for folder in folders for path in folder.glob(f"{answers_hash}-*.jsonl")]


def inherit(layout: Layout, run: str, answers_hash: str, folders: Iterable[Path]) -> None:
    """Gives a run the answers of runs that are no longer in the matrix, as when an axis was added to it.

    Runs that are in the matrix keep theirs to themselves: two runs that ask the same are meant to ask twice.

    Args:
        layout: Where files lie.
        run: Key of the run.
        answers_hash: Digest of what decides its answers.
        folders: From `retired`.
    """
    own = layout.answers(run)
    for kept in inheritable(answers_hash, folders):
        # Where there are no hard links, or it has them already, there is nothing to do.
        with contextlib.suppress(OSError):
            own.mkdir(exist_ok=True)
            os.link(kept, own / kept.name)
            # It is the heir: another run that asks the same asks for itself.
            kept.unlink()


def holder(layout: Layout, answers_hash: str, config_hash: str, runs: Collection[str]) -> str | None:
    """Which run has taken over the answers of a configuration that is no longer in the matrix.

    Args:
        layout: Where files lie.
        answers_hash: Digest of what decided the answers.
        config_hash: Digest of what decided the results.
        runs: Keys of all runs of the matrix.

    Returns:
        Key of the run; None if nobody has.
    """
    name = f"{answers_hash}-{config_hash}.jsonl"
    return next((run for run in runs if (layout.answers(run) / name).is_file()), None)


def recorded_in(lock: Path) -> Callable[[str], bool]:
    """Tells whether DVC's lock file names a file of an MD5; reads the lock again when it has changed."""
    known: dict[tuple[int, int], str] = {}

    def is_recorded(md5: str) -> bool:
        try:
            status = lock.stat()
            version = (status.st_mtime_ns, status.st_size)
            if version not in known:
                known.clear()
                known[version] = lock.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return md5 in known[version]

    return is_recorded


class EarlierRows:
    """Rows that have an answer which can be scored again, for the examples of a dataset. Thread-safe.

    A row is an example's when the program was called with the same: labels, ids and the order of the dataset
    may have changed since, examples may have come and gone. Of examples with the same inputs each has a row
    of its own: that of its own index if there is one, else one that no other has.

    It knows where they stand and reads them one at a time. The files stay open, so it does not matter what
    becomes of their names.

    Args:
        paths: Files of rows. Of several rows of an example the last one of the first file counts.
        examples: The examples.
    """

    def __init__(self, paths: Iterable[Path], examples: Sequence[DataRow]) -> None:
        files: list[dict[int, _Found]] = []
        for path in paths:
            try:
                handle = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            with os.fdopen(os.dup(handle), "rb") as file:
                rows = {found.example: found for found in _usable(file, handle)}
            if not rows:
                os.close(handle)
                continue
            # A thread may still be reading when the run has ended: closed when nobody can any more.
            weakref.finalize(self, os.close, handle)
            files.append(rows)
        self._rows = _matched(files, examples) if files else {}

    @property
    def indexes(self) -> set[int]:
        """Examples that have such a row."""
        return set(self._rows)

    def row(self, index: int) -> Mapping[str, Any] | None:
        """The row of an example; None if there is none."""
        if index not in self._rows:
            return None
        found = self._rows[index]
        try:
            row = _with_answer(json.loads(os.pread(found.handle, found.length, found.offset)))
            return row if asked_with(row["inputs"]) == found.asked else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # somebody has changed the file


class _Found(NamedTuple):
    """A row that saves a call: where it stands, and what tells it from others.

    Attributes:
        example: Index of the example that it was made for.
        asked: Digest of the inputs.
        answered_at: When the program was called; a row that was scored again has that of the first one.
        handle: Of the file.
        offset: Of the row in it.
        length: Of the row.
    """

    example: int
    asked: bytes
    answered_at: Any
    handle: int
    offset: int
    length: int


def _matched(files: Sequence[Mapping[int, _Found]], examples: Sequence[DataRow]) -> dict[int, _Found]:
    """Index of an example to its row."""
    asking = {row.index: asked_with(row.inputs) for row in examples}
    matched: dict[int, _Found] = {}
    for rows in files:
        for index, found in rows.items():
            if asking.get(index) == found.asked:
                matched.setdefault(index, found)
    taken = {(found.asked, found.answered_at) for found in matched.values()}
    left: dict[bytes, deque[_Found]] = {}
    for rows in files:
        for _, found in sorted(rows.items()):
            if (found.asked, found.answered_at) not in taken:
                taken.add((found.asked, found.answered_at))
                left.setdefault(found.asked, deque()).append(found)
    for index, asked in asking.items():
        if index not in matched and left.get(asked):
            matched[index] = left[asked].popleft()
    return matched


def asked_with(inputs: Mapping[str, Any]) -> bytes:
    """A digest of what the program is called with: the same only for values of the same types."""
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).digest()


def _usable(file: Iterable[bytes], handle: int) -> Iterator[_Found]:
    """The rows that save a call of the program."""
    offset = 0
    for line in file:
        try:
            row = _with_answer(json.loads(line))
            if _saves_the_call(row):
                asked, answered_at = asked_with(row["inputs"]), row.get("started_at")
                hash(answered_at)
                yield _Found(int(row["index"]), asked, answered_at, handle, offset, len(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass  # a line that was cut or damaged
        offset += len(line)


def _with_answer(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of a line; of an example that was abandoned, its answer, which was not scored yet."""
    return line.get("answer") or line


def _saves_the_call(row: Mapping[str, Any]) -> bool:
    """Whether a row has an answer, or the failure of a program that would fail again."""
    if row.get("prediction") is None:
        error = row.get("error")
        return error is not None and error["kind"] == "program"
    return row.get("exact_prediction") is True


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
