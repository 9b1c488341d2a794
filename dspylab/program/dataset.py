"""The dataset as examples with inputs, labels and an id, from a file or loader, split into train and test."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dspylab.config.models import Dataset, Split
from dspylab.config.references import is_loader
from dspylab.config.wording import choose, plain
from dspylab.errors import DataError
from dspylab.places import shown_path
from dspylab.plan.identity import digest
from dspylab.printable import printable
from dspylab.program.formats import Row, as_object, read_file
from dspylab.program.modules import own_frame
from dspylab.records import JSON, DataRow

#: How the values begin of rows that only show what a row looks like, as `dspylab init --from` writes them.
PATTERN_ROW = "TODO: "
#: How many lists and objects may stand inside each other in a field.
_MAX_DEPTH = 50
#: How much of an example a message repeats, in characters.
_MAX_SHOWN = 200
#: A place for messages (`file:line`) and the example that stands there.
_Placed = tuple[str, DataRow]


@dataclass(frozen=True, slots=True)
class Splits:
    """The splits of a dataset; `train` and `validation` are empty when the experiment names none."""

    train: tuple[DataRow, ...]
    test: tuple[DataRow, ...]
    validation: tuple[DataRow, ...] = ()


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
            stands in the training or the validation split.
    """

    def examples(reference: str) -> list[_Placed]:
        loader = is_loader(reference)
        rows = _from_loader(reference, resolve, folder) if loader else read_file(folder / reference)
        place = reference if loader else shown_path(folder / reference)
        return _examples(rows, dataset, place)

    train: list[_Placed] = []
    validation: list[_Placed] = []
    if dataset.path is not None:
        test = examples(dataset.path)
        if dataset.split is not None:
            train, validation, test = _split(test, dataset.split, dataset.path)
    else:
        train = examples(dataset.train) if dataset.train else []
        validation = examples(dataset.validation) if dataset.validation else []
        test = examples(str(dataset.test))
    _refuse_leaks(train, test, "training")
    _refuse_leaks(validation, test, "validation")
    if dataset.shuffle is not None:
        test = [test[position] for position in _shuffled(test, f"shuffle {dataset.shuffle}")]
    return Splits(
        train=_numbered(train), validation=_numbered(validation), test=_numbered(test[: dataset.limit])
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}",
            where=shown_path(path),
            remedy="restore it or correct its path",
        ) from error


def _from_loader(reference: str, resolve: Callable[[str], Any], folder: Path) -> Iterator[Row]:
    loader = resolve(reference)
    if not callable(loader) and not isinstance(loader, list | tuple):
        raise DataError(
            "is neither a function nor a list", where=reference, remedy="name a function that returns rows"
        )
    try:
        rows = list(loader() if callable(loader) else loader)
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{reference} raised {type(error).__name__}: {printable(str(error))}",
            where=own_frame(error, folder) or reference,
            remedy="correct the loader: it takes no arguments and returns rows, such as a list of dicts",
        ) from error
    for number, row in enumerate(rows, start=1):
        place = f"{reference}: row {number}"
        yield place, as_object(row.toDict() if hasattr(row, "toDict") else row, place)


def _examples(rows: Iterable[Row], dataset: Dataset, source: str) -> list[_Placed]:
    """Rows as examples, each with an id of its own."""
    examples: list[_Placed] = []
    places: dict[str, str] = {}
    repeats: Counter[str] = Counter()
    for place, row in rows:
        inputs, labels = _fields(row, dataset, place)
        if dataset.id is not None:
            example_id = _given_id(row, dataset.id, place)
        else:
            content = digest([inputs, labels])[:12]
            # Equal rows are told apart by their count, so that an id stays the same when others come or go.
            repeats[content] += 1
            example_id = content if repeats[content] == 1 else f"{content}-{repeats[content]}"
        if example_id in places:
            raise DataError(
                f"has the id {plain(example_id)!r} of {places[example_id]}",
                where=place,
                remedy="give each row an id of its own",
            )
        places[example_id] = place
        examples.append((place, DataRow(index=0, example_id=example_id, inputs=inputs, labels=labels)))
    if not examples:
        raise DataError("has no row", where=source, remedy="add rows, or name another file")
    return examples


def _fields(row: Mapping[str, Any], dataset: Dataset, place: str) -> tuple[dict[str, JSON], dict[str, JSON]]:
    """Inputs and labels of a row. A field may be both, when the file says so."""
    for name in (*dataset.inputs, *(dataset.labels or ())):
        if name not in row:
            raise DataError(
                f"has no field {plain(name)!r}",
                where=place,
                remedy=f"correct the row, or the fields under `dataset`: {choose(name, map(str, row))}",
            )
    inputs = {name: _json(row[name], place, name) for name in dataset.inputs}
    names = dataset.labels
    if names is None:
        names = [name for name in row if name not in inputs and name != dataset.id]
    return inputs, {name: _json(row[name], place, name) for name in names}


def _given_id(row: Mapping[str, Any], field: str, place: str) -> str:
    value = row.get(field)
    if value is None or value == "":
        raise DataError(
            f"has no id in {plain(field)!r}", where=place, remedy="fill it in, or leave dataset.id out"
        )
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(
            f"has a {type(value).__name__} as its id", where=place, remedy="use text or a whole number"
        )
    return str(value)


def _split(
    examples: list[_Placed], split: Split, where: str
) -> tuple[list[_Placed], list[_Placed], list[_Placed]]:
    """The training, the validation and the test examples."""
    share = split.train + (split.validation or 0.0)
    trained, used = round(len(examples) * split.train), round(len(examples) * share)
    if trained == 0 or used == len(examples) or (split.validation is not None and used == trained):
        shares = f"{split.train:g}" + (f" and {split.validation:g}" if split.validation is not None else "")
        raise DataError(
            f"{len(examples)} rows split at {shares} leave a side empty",
            where=where,
            remedy="add rows or change the share",
        )
    order = _shuffled(examples, f"split {split.seed}")
    # Each side keeps the order of the file, so that a reader finds rows again.
    train, validation, test = (
        [examples[position] for position in sorted(chosen)]
        for chosen in (order[:trained], order[trained:used], order[used:])
    )
    return train, validation, test


def _shuffled(examples: Sequence[_Placed], salt: str) -> list[int]:
    """Positions in an order that looks random and is decided by the salt and each example's id.

    By id rather than by position: when rows come or go, the others hardly change sides.
    """
    keys = [digest([salt, example.example_id]) for _, example in examples]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _refuse_leaks(seen: Iterable[_Placed], test: Iterable[_Placed], split: str) -> None:
    """Refuses test examples among those that an optimizer sees; `split` says which those are."""
    known = {digest(dict(example.inputs)): (place, example) for place, example in seen}
    if not known:
        return
    pairs = [(found, known[key]) for found in test if (key := digest(dict(found[1].inputs))) in known]
    if not pairs:
        return
    (place, example), (twin_place, twin) = pairs[0]
    more = f" (and {len(pairs) - 1} more like it)" if len(pairs) > 1 else ""
    inputs = printable(json.dumps(dict(example.inputs), ensure_ascii=False))
    raise DataError(
        f"test example {plain(example.example_id)} is also {split} example {plain(twin.example_id)} "
        f"of {twin_place}{more}: {inputs if len(inputs) <= _MAX_SHOWN else inputs[:_MAX_SHOWN] + '…'}",
        where=place,
        remedy="keep one of them: a score on examples that were trained on says nothing",
    )


def _numbered(examples: Sequence[_Placed]) -> tuple[DataRow, ...]:
    return tuple(replace(example, index=index) for index, (_, example) in enumerate(examples))


def _json(value: Any, place: str, field: str, depth: int = 0) -> JSON:
    """A field's value as JSON. What a program needs as something richer, it makes from JSON itself."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        raise _no_json(f"is {value}", place, field, "use null or a finite number")
    if depth == _MAX_DEPTH:
        raise _no_json("is nested too deeply", place, field, "flatten it")
    if isinstance(value, Mapping):
        return {str(key): _json(item, place, field, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item, place, field, depth + 1) for item in value]
    # Loaders return what their libraries gave them: pydantic and dspy types, numpy, dates.
    if hasattr(value, "model_dump"):
        return _json(value.model_dump(mode="json"), place, field, depth + 1)
    for method in ("tolist", "isoformat"):
        if hasattr(value, method):
            return _json(getattr(value, method)(), place, field, depth + 1)
    raise _no_json(f"is a {type(value).__name__}, which is not JSON", place, field, "store it as JSON values")


def _no_json(problem: str, place: str, field: str, remedy: str) -> DataError:
    return DataError(f"field {plain(field)!r} {problem}", where=place, remedy=remedy)
