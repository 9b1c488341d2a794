"""Publish a file whole or not at all, and `raw.jsonl` from a journal."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dspylab.errors import DataError, EnvironmentProblem


def write_atomically(path: Path, chunks: Iterable[bytes]) -> str:
    """Writes a file beside its place, syncs it and moves it there.

    Args:
        path: Where it goes; its folder is made.
        chunks: Its content.

    Returns:
        MD5 of the content in hexadecimal, which is how DVC names it.

    Raises:
        EnvironmentProblem: If the disk is full or the folder is not writable. The old file stays.
    """
    digest = hashlib.md5(usedforsecurity=False)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot be written: {error.strerror}",
            where=str(path),
            remedy="free disk space or make it writable",
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return digest.hexdigest()


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON document for people to read and git to compare.

    Raises:
        EnvironmentProblem: As `write_atomically`.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, [text.encode("utf-8", "backslashreplace"), b"\n"])


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON document that dspylab wrote.

    Raises:
        DataError: If it is absent or was changed into something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            "no such file", where=str(path), remedy="run the experiment with `dspylab run`"
        ) from error
    except ValueError as error:
        raise DataError(
            f"is not JSON: {error}", where=str(path), remedy="restore it: `dvc checkout`"
        ) from error
    if not isinstance(value, dict):
        raise DataError("is not a JSON object", where=str(path), remedy="restore it: `dvc checkout`")
    return value


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Reads `raw.jsonl` one row at a time.

    Raises:
        DataError: If it is absent or a line is not a row.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(
                        f"is not JSON: {error}", where=f"{path}:{number}", remedy="restore it: `dvc checkout`"
                    ) from error
    except FileNotFoundError as error:
        raise DataError(
            "no such file", where=str(path), remedy="run the experiment with `dspylab run`"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
