"""Publish a file whole or not at all, and `raw.jsonl` from a journal."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dspylab.errors import DataError, EnvironmentProblem
from dspylab.places import shown_path

_TEMPORARY = ".tmp"
_RESTORE = "restore it (`git checkout` or `dvc checkout`), or run the experiment again"
_NO_FILE = "run the experiment with `dspylab run`"


def write_atomically(path: Path, chunks: Iterable[bytes]) -> str:
    """Writes a file beside its place, syncs it and moves it there.

    A reader sees the old file or the new one, never a part, whatever happens meanwhile. A link is replaced,
    not followed: it may lead into DVC's cache, which must not change.

    Args:
        path: Where it goes; its folder is made. The file gets the mode that the user's umask gives.
        chunks: Its content.

    Returns:
        MD5 of the content in hexadecimal, which is how DVC names it.

    Raises:
        EnvironmentProblem: If the disk is full or the folder is not writable. The old file stays.
    """
    digest = hashlib.md5(usedforsecurity=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{_TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        # Opened with the usual mode: the kernel applies the user's umask.
        with temporary.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot be written: {error.strerror}",
            where=shown_path(path),
            remedy="free disk space or make it writable",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return digest.hexdigest()


def _sweep(path: Path) -> None:
    """Removes what processes that were killed while they wrote this file have left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_TEMPORARY}"):
        pid = left.name.removeprefix(f".{path.name}.").partition("-")[0]
        if pid.isdecimal() and not _is_alive(int(pid)):
            left.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Makes a rename outlast a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON document for people to read and git to compare.

    Raises:
        EnvironmentProblem: As `write_atomically`.
    """
    write_atomically(path, [json_text(value).encode()])


def json_text(value: Mapping[str, Any]) -> str:
    """The text of a JSON document as `write_json` writes it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def write_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    """Writes a JSON list with one object a line, so that git compares line by line.

    Raises:
        EnvironmentProblem: As `write_atomically`.
    """
    lines = ",\n".join(json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values)
    write_atomically(path, [f"[\n{lines}\n]\n".encode("utf-8", "backslashreplace")])


def file_md5(path: Path) -> str | None:
    """MD5 of a file as DVC names it; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return None


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON document that dspylab wrote.

    Raises:
        DataError: If it is absent or was changed into something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError("no such file", where=shown_path(path), remedy=_NO_FILE) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON: {error}", where=shown_path(path), remedy=_RESTORE) from error
    if not isinstance(value, dict):
        raise DataError("is not a JSON object", where=shown_path(path), remedy=_RESTORE)
    return value


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Reads `raw.jsonl` one row at a time.

    Raises:
        DataError: If it is absent or a line is not a row.
    """
    try:
        with path.open("rb") as file:
            shown = shown_path(path)
            for number, line in enumerate(file, start=1):
                yield _row(line, f"{shown}:{number}")
    except FileNotFoundError as error:
        raise DataError("no such file", where=shown_path(path), remedy=_NO_FILE) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _row(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON: {error}", where=place, remedy=_RESTORE) from error
    if not isinstance(row, dict):
        raise DataError("is not a JSON object", where=place, remedy=_RESTORE)
    return row


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot be read: {error.strerror}", where=shown_path(path), remedy="make it a readable file"
    )
