"""Read the rows of a dataset file, one at a time: jsonl, json, csv, tsv and parquet.

Every row comes with its place, for messages. A row that cannot be read is an error; none is left out, save
blank lines. Values of csv and tsv files are text as it stands there, also where it looks like a number.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dspylab.config.wording import plain
from dspylab.errors import DataError, EnvironmentProblem
from dspylab.extras import install_command
from dspylab.places import shown_path

#: A place for messages (`file:line`) and the row that stands there.
Row = tuple[str, Mapping[str, Any]]

#: Longest field of a csv file, in characters: the csv module's default of 128 KiB is too small for documents.
_CSV_FIELD_LIMIT = 64 * 1024 * 1024
_PARQUET_BATCH_ROWS = 1024
_BOM = b"\xef\xbb\xbf"


def read_file(path: Path) -> Iterator[Row]:
    """Reads the rows of a dataset file.

    Args:
        path: A jsonl, ndjson, json, csv, tsv or parquet file.

    Yields:
        Pairs of a place for messages (`file:line`) and the row.

    Raises:
        DataError: If the file is absent, of an unknown kind, or has a row that cannot be read.
        EnvironmentProblem: If it is a parquet file and pyarrow is not installed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"has an unknown ending {path.suffix!r}",
            where=shown_path(path),
            remedy=f"use one of {', '.join(_READERS)}, or path.py:loader",
        )
    if not path.is_file():
        raise DataError("no such file", where=shown_path(path), remedy="correct the path under `dataset`")
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        place = f"{shown_path(path)}:{_line_that_is_no_text(path)}"
        raise DataError("is not UTF-8", where=place, remedy="save the file as UTF-8") from error
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", where=shown_path(path), remedy="make it readable"
        ) from error


def as_object(value: Any, place: str) -> Mapping[str, Any]:
    """The value as a row.

    Raises:
        DataError: If it is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise DataError(
            f"is {_kind(value)}, not an object", where=place, remedy='write {"field": value, ...}'
        )
    return value


def _read_jsonl(path: Path) -> Iterator[Row]:
    name = shown_path(path)
    # Lines end at b"\n" alone: str.splitlines() also splits at U+2028, which is legal inside a JSON string.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = (line.removeprefix(_BOM) if number == 1 else line).decode().rstrip("\r\n")
            if text.strip():
                place = f"{name}:{number}"
                yield place, as_object(_parse(text, place), place)


def _read_json(path: Path) -> Iterator[Row]:
    name = shown_path(path)
    value = _parse(path.read_text(encoding="utf-8-sig"), name)
    if not isinstance(value, list):
        raise DataError(f"holds {_kind(value)}", where=name, remedy="make it an array of objects")
    for number, row in enumerate(value, start=1):
        place = f"{name}: row {number}"
        yield place, as_object(row, place)


def _read_csv(path: Path) -> Iterator[Row]:
    return _read_table(path, ",")


def _read_tsv(path: Path) -> Iterator[Row]:
    return _read_table(path, "\t")


def _read_table(path: Path, delimiter: str) -> Iterator[Row]:
    name = shown_path(path)
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    header: list[str] | None = None
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        start = 1
        try:
            for record in reader:
                place = f"{name}:{start}"
                # A quoted field may hold line ends: the reader counts where a record ends, not its beginning.
                start = reader.line_num + 1
                if not record:
                    continue
                if header is None:
                    header = _header(record, place)
                elif len(record) == len(header):
                    yield place, dict(zip(header, record, strict=True))
                else:
                    raise DataError(
                        f"has {len(record)} fields, but the header has {len(header)}",
                        where=place,
                        remedy="give each row as many; quote fields that hold the separator or line ends",
                    )
        except csv.Error as error:
            raise DataError(
                str(error), where=f"{name}:{start}", remedy="correct the quotes of the row that begins here"
            ) from error


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise EnvironmentProblem(
            "reading parquet needs pyarrow", where=shown_path(path), remedy=install_command("parquet")
        ) from error
    name = shown_path(path)
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _header(file.schema_arrow.names, name)
            for batch in file.iter_batches(_PARQUET_BATCH_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}: row {number}", row
    except ArrowException as error:
        raise DataError(f"is not a parquet file: {error}", where=name, remedy="write it anew") from error


_READERS = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}


def _header(names: Sequence[str], place: str) -> list[str]:
    """Names of columns, each there and only once: a row could not hold them otherwise."""
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise DataError(
                f"column {position} has no name", where=place, remedy="name it in the header, or take it out"
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"has two columns called {plain(twice[0])!r}", where=place, remedy="give each a name of its own"
        )
    return list(names)


def _parse(text: str, place: str) -> Any:
    def refuse(constant: str) -> Any:
        raise DataError(f"holds {constant}, which is not JSON", where=place, remedy="use null or a number")

    def only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            name = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise DataError(
                f"has two values for {plain(name)!r}", where=place, remedy="leave one of them out"
            )
        return value

    try:
        return json.loads(text, parse_constant=refuse, object_pairs_hook=only_once)
    except json.JSONDecodeError as error:
        where = place if error.lineno == 1 else f"{place}:{error.lineno}"
        raise DataError(
            f"is not JSON: {error.msg} at character {error.colno}", where=where, remedy="correct the line"
        ) from error
    except RecursionError as error:
        raise DataError("is nested too deeply", where=place, remedy="flatten the row") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(
            f"holds a number that is too long: {error}", where=place, remedy="write it as text"
        ) from error


def _line_that_is_no_text(path: Path) -> int:
    """The first line, counted from 1, that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    if isinstance(value, Mapping):
        return "an object"
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")
