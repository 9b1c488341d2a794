"""Read a dataset: jsonl, json, csv, tsv, parquet files or a loader callable, split into train and test."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspylab.config.models import Dataset
from dspylab.errors import DataError, EnvironmentProblem
from dspylab.plan.identity import digest
from dspylab.records import JSON, DataRow

#: Longest field of a csv file, in characters: the csv module's default of 128 KiB is too small for documents.
_CSV_FIELD_LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Splits:
    """The two splits of a dataset; `train` is empty when the experiment names none."""

    train: tuple[DataRow, ...]
    test: tuple[DataRow, ...]


def is_loader(reference: str) -> bool:
    """Whether a dataset reference names a callable (`program.py:load`) rather than a file."""
    head, _, name = reference.rpartition(":")
    return bool(head) and name.isidentifier()


def load_splits(dataset: Dataset, folder: Path, resolve: Callable[[str], Any]) -> Splits:
    """Reads the dataset and splits it.

    Args:
        dataset: The `dataset` section.
        folder: Folder that file paths are relative to.
        resolve: Turns a `path:name` reference into the loader it names.

    Returns:
        The splits. The same file and settings give the same splits, everywhere.

    Raises:
        DataError: If a file or row cannot be read, if rows lack an input, or if a test example also
            stands in the training split.
    """

    def rows(reference: str) -> list[DataRow]:
        raw = _from_loader(reference, resolve) if is_loader(reference) else read_file(folder / reference)
        return _data_rows(raw, dataset, reference)

    train: list[DataRow] = []
    if dataset.path is not None:
        test = rows(dataset.path)
        if dataset.split is not None:
            train, test = _split(test, dataset.split.train, dataset.split.seed, dataset.path)
    else:
        train = rows(dataset.train) if dataset.train else []
        test = rows(str(dataset.test))
    _refuse_leaks(train, test)
    if dataset.shuffle is not None:
        random.Random(dataset.shuffle).shuffle(test)
    test = test[: dataset.limit]
    if not test:
        raise DataError("has no test example", where=dataset.test or dataset.path, remedy="add rows to it")
    return Splits(train=_numbered(train), test=_numbered(test))


def read_file(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """Reads the rows of a dataset file.

    Args:
        path: A jsonl, ndjson, json, csv, tsv or parquet file.

    Returns:
        Pairs of a place for messages (`file:line`) and the row.

    Raises:
        DataError: If the file is absent, of an unknown kind, or has a row that cannot be read.
    """
    kind = path.suffix.lower()
    if not path.is_file():
        raise DataError("no such file", where=str(path), remedy="correct the path under `dataset`")
    if kind == ".parquet":
        return _read_parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"is not UTF-8 (byte {error.start})", where=str(path), remedy="save the file as UTF-8"
        ) from error
    readers = {".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".json": _read_json}
    if kind in readers:
        return readers[kind](path, text)
    if kind in (".csv", ".tsv"):
        return _read_table(path, text, "," if kind == ".csv" else "\t")
    raise DataError(
        f"has an unknown ending {kind!r}",
        where=str(path),
        remedy="use jsonl, json, csv, tsv, parquet or path.py:loader",
    )


def _read_jsonl(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    rows = []
    # Not splitlines(): it also splits at U+2028 and others that are legal inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append((f"{path}:{number}", _object(_json(line, f"{path}:{number}"), f"{path}:{number}")))
    return rows


def _read_json(path: Path, text: str) -> list[tuple[str, Mapping[str, Any]]]:
    value = _json(text, str(path))
    if not isinstance(value, list):
        raise DataError(f"holds a JSON {_kind(value)}", where=str(path), remedy="make it an array of objects")
    return [
        (f"{path}: row {number}", _object(row, f"{path}: row {number}"))
        for number, row in enumerate(value, start=1)
    ]


def _read_table(path: Path, text: str, delimiter: str) -> list[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[str, Mapping[str, Any]]] = []
    try:
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                width = len(reader.fieldnames or [])
                raise DataError(
                    f"does not have {width} fields",
                    where=place,
                    remedy="give each row as many fields as the header",
                )
            rows.append((place, row))
    except csv.Error as error:
        raise DataError(
            str(error), where=f"{path}:{reader.line_num}", remedy="correct the quotes of the row"
        ) from error
    return rows


def _read_parquet(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise EnvironmentProblem(
            "reading parquet needs pyarrow", where=str(path), remedy="pip install 'dspylab[parquet]'"
        ) from error
    try:
        table = parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"is not a parquet file: {error}", where=str(path), remedy="write it anew") from error
    return [(f"{path}: row {number}", row) for number, row in enumerate(table.to_pylist(), start=1)]


def _from_loader(reference: str, resolve: Callable[[str], Any]) -> list[tuple[str, Mapping[str, Any]]]:
    loader = resolve(reference)
    if not callable(loader):
        raise DataError("is not callable", where=reference, remedy="name a function that returns rows")
    try:
        rows = list(loader())
    except Exception as error:
        raise DataError(
            f"raised {type(error).__name__}: {error}", where=reference, remedy="correct the loader"
        ) from error
    return [
        (f"{reference}: row {number}", _object(_plain(row), f"{reference}: row {number}"))
        for number, row in enumerate(rows, start=1)
    ]


def _plain(row: Any) -> Any:
    """A dspy.Example as a dictionary; anything else as it is."""
    return row.toDict() if hasattr(row, "toDict") else row


def _data_rows(
    rows: Sequence[tuple[str, Mapping[str, Any]]], dataset: Dataset, reference: str
) -> list[DataRow]:
    if not rows:
        raise DataError("has no row", where=reference, remedy="add rows, or name another file")
    result: list[DataRow] = []
    seen: dict[str, str] = {}
    repeats: dict[str, int] = {}
    for place, row in rows:
        missing = [name for name in (*dataset.inputs, *(dataset.labels or ())) if name not in row]
        if missing:
            raise DataError(
                f"has no field {missing[0]!r}",
                where=place,
                remedy=f"its fields are: {', '.join(map(str, row))}",
            )
        inputs = {name: _value(row[name], place, name) for name in dataset.inputs}
        names = dataset.labels if dataset.labels is not None else [
            name for name in row if name not in dataset.inputs and name != dataset.id
        ]  # fmt: skip
        labels = {name: _value(row[name], place, name) for name in names}
        if dataset.id is None:
            content = digest([inputs, labels])[:12]
            # Equal rows are told apart by their count, so that an id stays the same when others come or go.
            repeats[content] = repeats.get(content, 0) + 1
            example_id = content if repeats[content] == 1 else f"{content}-{repeats[content]}"
        else:
            example_id = _given_id(row, dataset.id, place)
        if example_id in seen:
            raise DataError(
                f"has the id {example_id!r} of {seen[example_id]}",
                where=place,
                remedy="give each row an id of its own",
            )
        seen[example_id] = place
        result.append(DataRow(index=0, example_id=example_id, inputs=inputs, labels=labels))
    return result


def _given_id(row: Mapping[str, Any], field: str, place: str) -> str:
    value = row.get(field)
    if value is None or value == "":
        raise DataError(f"has no id in {field!r}", where=place, remedy="fill it in, or leave dataset.id out")
    return str(value)


def _split(rows: list[DataRow], share: float, seed: int, where: str) -> tuple[list[DataRow], list[DataRow]]:
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    count = round(len(rows) * share)
    if count in (0, len(rows)):
        raise DataError(
            f"{len(rows)} rows split at {share:g} leave a side empty",
            where=where,
            remedy="add rows or change the share",
        )
    chosen = set(order[:count])
    # Each side keeps the order of the file, so that a reader finds rows again.
    return (
        [row for position, row in enumerate(rows) if position in chosen],
        [row for position, row in enumerate(rows) if position not in chosen],
    )


def _refuse_leaks(train: Iterable[DataRow], test: Iterable[DataRow]) -> None:
    known = {digest(dict(row.inputs)): row for row in train}
    for row in test:
        twin = known.get(digest(dict(row.inputs)))
        if twin is not None:
            shown = json.dumps(dict(row.inputs), ensure_ascii=False)[:200]
            raise DataError(
                f"test example {row.example_id} is also training example {twin.example_id}: {shown}",
                where="dataset",
                remedy="take it out of one of them: a score on seen examples says nothing",
            )


def _numbered(rows: Sequence[DataRow]) -> tuple[DataRow, ...]:
    return tuple(
        DataRow(index=index, example_id=row.example_id, inputs=row.inputs, labels=row.labels)
        for index, row in enumerate(rows)
    )


def _json(text: str, place: str) -> Any:
    def refuse(constant: str) -> Any:
        raise DataError(f"holds {constant}, which is not JSON", where=place, remedy="use null or a number")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise DataError(
            f"is not JSON: {error.msg} at character {error.pos + 1}", where=place, remedy="correct the line"
        ) from error
    except RecursionError as error:
        raise DataError("is nested too deeply", where=place, remedy="flatten the row") from error


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(
            f"is a {_kind(value)}, not an object", where=place, remedy='write {"field": value, ...}'
        )
    return value


def _kind(value: Any) -> str:
    names = {list: "list", dict: "object", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def _value(value: Any, place: str, field: str) -> JSON:
    """A field's value as JSON. What a program needs as something richer, it makes from JSON itself."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"field {field!r} is {value}", where=place, remedy="use null or a finite number")
        return value
    if isinstance(value, Mapping):
        return {str(key): _value(item, place, field) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(item, place, field) for item in value]
    if hasattr(value, "model_dump"):
        dumped: JSON = value.model_dump(mode="json")
        return dumped
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise DataError(
        f"field {field!r} is a {type(value).__name__}, which is not JSON",
        where=place,
        remedy="store it as JSON values",
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
