"""The runs of an experiment: the product of the axes, less `exclude`, plus `include`."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspylab.config.models import Experiment
from dspylab.records import JSON, RunSpec

NO_OPTIMIZER = "none"
#: Longest run key. A DVC stage item and a folder name are far below their limits with it.
MAX_KEY_LENGTH = 96
_LEADING_AXES = ("model", "compile_model")
_TRAILING_AXES = ("adapter", "optimizer", "seed")
#: Names that Windows does not accept for a folder.
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}
)


@dataclass
class MatrixProblem(Exception):
    """The matrix does not describe a set of distinct runs.

    Attributes:
        address: Path of keys inside the experiment file, such as ``("matrix", "include", 0)``.
        problem: What is wrong.
        remedy: What to do.
    """

    address: tuple[str | int, ...]
    problem: str
    remedy: str


def expand(experiment: Experiment) -> tuple[RunSpec, ...]:
    """Expands the matrix.

    Args:
        experiment: A validated experiment.

    Returns:
        The runs in file order: the product (last axis fastest) less `exclude`, then `include`. Keys are
        unique, also on file systems that ignore case, and depend only on the experiment.

    Raises:
        MatrixProblem: If there is no run, if two runs are the same, or if an `include` entry does not
            say which run it is.
    """
    axes = axis_values(experiment)
    cells: list[dict[str, JSON]] = []
    seen: dict[str, tuple[str | int, ...]] = {}
    product = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    kept = (cell for cell in product if not any(_matches(cell, rule) for rule in experiment.matrix.exclude))
    included = (
        (("matrix", "include", position), _complete(entry, axes, position))
        for position, entry in enumerate(experiment.matrix.include)
    )
    for address, cell in itertools.chain(((("matrix",), cell) for cell in kept), included):
        identity = _canonical(cell)
        if identity in seen:
            raise MatrixProblem(
                address,
                f"the run {_describe(cell)} stands twice",
                "take one of the two out: each run must be distinct",
            )
        seen[identity] = address
        cells.append(cell)
    if not cells:
        raise MatrixProblem(("matrix",), "the matrix has no run", "exclude less, or include a run")
    keys = run_keys(cells)
    return tuple(_spec(experiment, cell, key) for cell, key in zip(cells, keys, strict=True))


def axis_values(experiment: Experiment) -> dict[str, list[JSON]]:
    """The axes in canonical order with their values; axes that the file leaves out have their default.

    Only `model` has a default with a say in the key: an axis that is not named is not a coordinate.
    """
    matrix = experiment.matrix
    named: dict[str, list[JSON]] = {"model": list(matrix.model or experiment.models)}
    for axis in (*_LEADING_AXES[1:], *_TRAILING_AXES):
        values = getattr(matrix, axis)
        if values is not None:
            named[axis] = list(values)
    for axis, values in matrix.free_axes.items():
        named[axis] = list(values)
    return {axis: named[axis] for axis in canonical_order(named)}


def canonical_order(axes: Iterable[str]) -> list[str]:
    """Axis names in the order in which keys and command lines show them."""
    names = set(axes)
    leading = [axis for axis in _LEADING_AXES if axis in names]
    trailing = [axis for axis in _TRAILING_AXES if axis in names]
    free = sorted(
        names - set(leading) - set(trailing), key=lambda axis: (not axis.startswith("program."), axis)
    )
    return [*leading, *free, *trailing]


def run_keys(cells: Sequence[Mapping[str, JSON]]) -> list[str]:
    """Readable, unique names for the runs: the coordinates' values joined by ``-``.

    A value that a file name can not hold as it is, and a name that two runs would share, gets a short
    digest of the coordinates, so that a key does not change when other runs come or go unless it has to.
    """
    plain = [_readable(cell) for cell in cells]
    taken = Counter(name.casefold() for name, _ in plain)
    return [
        name
        if exact and taken[name.casefold()] == 1
        else f"{name[: MAX_KEY_LENGTH - 9].rstrip('-.')}-{_digest(cell)}"
        for cell, (name, exact) in zip(cells, plain, strict=True)
    ]


def _readable(cell: Mapping[str, JSON]) -> tuple[str, bool]:
    """The name of a cell, and whether it says all of it without loss."""
    parts: list[str] = []
    exact = True
    for axis, value in cell.items():
        text = value if isinstance(value, str) else axis.rpartition(".")[2] + _canonical(value)
        slug = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")
        # Hyphens are ours to join with, so a value that has one is still exact: a clash is found later.
        exact = exact and bool(slug) and slug == text
        parts.append(slug or axis.rpartition(".")[2])
    name = "-".join(parts)
    exact = exact and len(name) <= MAX_KEY_LENGTH and name.partition(".")[0].casefold() not in _RESERVED
    return name, exact


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)


def _digest(cell: Mapping[str, JSON]) -> str:
    return hashlib.sha256(_canonical(cell).encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _describe(cell: Mapping[str, JSON]) -> str:
    return " ".join(f"{axis}={value}" for axis, value in cell.items())


def _matches(cell: Mapping[str, JSON], rule: Mapping[str, Any]) -> bool:
    """Whether a cell has every value of a rule; a list in a rule means any of its values."""
    return bool(rule) and all(
        axis in cell
        and any(_same(cell[axis], wanted) for wanted in (value if isinstance(value, list) else [value]))
        for axis, value in rule.items()
    )


def _same(left: object, right: object) -> bool:
    return _canonical(left) == _canonical(right)


def _complete(entry: Mapping[str, Any], axes: Mapping[str, Sequence[JSON]], position: int) -> dict[str, JSON]:
    """The cell of an `include` entry: what it does not say comes from axes that have one value."""
    cell: dict[str, JSON] = {}
    for axis in canonical_order({*axes, *entry}):
        if axis in entry:
            cell[axis] = entry[axis]
        elif len(axes[axis]) == 1:
            cell[axis] = axes[axis][0]
        else:
            raise MatrixProblem(
                ("matrix", "include", position),
                f"does not say its {axis}",
                f"add {axis}: one of {', '.join(str(v) for v in axes[axis])}",
            )
    return cell


def _spec(experiment: Experiment, cell: Mapping[str, JSON], key: str) -> RunSpec:
    def prefixed(prefix: str) -> dict[str, JSON]:
        return {axis.removeprefix(prefix): value for axis, value in cell.items() if axis.startswith(prefix)}

    def text(axis: str, default: str | None) -> str | None:
        value = cell.get(axis, default)
        return None if value is None else str(value)

    seed = cell.get("seed", 0)
    return RunSpec(
        key=key,
        coordinates=dict(cell),
        model=str(cell["model"]),
        optimizer=text("optimizer", NO_OPTIMIZER) or NO_OPTIMIZER,
        compile_model=text("compile_model", None),
        seed=seed if isinstance(seed, int) else 0,
        adapter=text("adapter", experiment.program.adapter),
        program_args={**experiment.program.args, **prefixed("program.")},
        lm_settings=prefixed("lm."),
    )
