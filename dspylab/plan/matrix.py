"""The runs of an experiment: the product of the axes, less `exclude`, plus `include`."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspylab.config.axes import NO_OPTIMIZER
from dspylab.config.models import Experiment
from dspylab.config.values import as_text, canonical, meant
from dspylab.config.wording import Address, listed, plain
from dspylab.plan.identity import digest
from dspylab.records import JSON, RunSpec

Cell = dict[str, JSON]

#: Longest run key. A DVC stage item and a folder name are far below their limits with it.
MAX_KEY_LENGTH = 96
#: Hexadecimal digits of the digest in a key; twice as many when two runs share them.
_DIGITS = 8
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

    address: Address
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
    specs: list[RunSpec] = []
    seen: set[str] = set()
    for address, cell in itertools.chain(_kept(experiment, axes), _included(experiment, axes)):
        spec = _spec(experiment, cell)
        identity = _identity(spec)
        if identity in seen:
            if spec.optimizer == NO_OPTIMIZER and "compile_model" in axes and address == ("matrix",):
                continue  # nothing is compiled: the values of compile_model make no difference
            raise MatrixProblem(
                address,
                f"the run {_describe(cell)} stands twice",
                "take one of the two out: each run must be distinct",
            )
        seen.add(identity)
        specs.append(spec)
    if not specs:
        raise MatrixProblem(("matrix",), "the matrix has no run", "exclude less, or include a run")
    keys = run_keys([spec.coordinates for spec in specs])
    return tuple(replace(spec, key=key) for spec, key in zip(specs, keys, strict=True))


def axis_values(experiment: Experiment) -> dict[str, list[JSON]]:
    """The axes that the matrix names, and `model`, in canonical order with their values.

    An axis that is not named is no coordinate; only of `model` the default, which is all, stands in the key.
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


def excluded(experiment: Experiment) -> int:
    """How many of the combinations of the axes `exclude` takes out."""
    axes = axis_values(experiment)
    return math.prod(map(len, axes.values())) - sum(1 for _ in _kept(experiment, axes))


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
    keys = _keys(cells, _DIGITS)
    are_distinct = len({key.casefold() for key in keys}) == len(keys)
    return keys if are_distinct else _keys(cells, 2 * _DIGITS)


def _keys(cells: Sequence[Mapping[str, JSON]], digits: int) -> list[str]:
    """Names with digests of so many digits, where they need one."""
    readable = [_readable(cell) for cell in cells]
    taken = Counter(name.casefold() for name, _ in readable)
    stem = MAX_KEY_LENGTH - digits - 1
    return [
        name
        if exact and taken[name.casefold()] == 1
        else f"{name[:stem].rstrip('-.')}-{digest(cell)[:digits]}"
        for cell, (name, exact) in zip(cells, readable, strict=True)
    ]


def _readable(cell: Mapping[str, JSON]) -> tuple[str, bool]:
    """The name of a cell, and whether it says all of it without loss."""
    parts: list[str] = []
    exact = True
    for axis, value in cell.items():
        name = axis.rpartition(".")[2]
        joint = "-" if value is None or isinstance(value, bool) else ""  # temperature0.7, but thinks-true
        text = value if isinstance(value, str) else f"{name}{joint}{canonical(value)}"
        slug = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")
        # Hyphens are ours to join with, so a value that has one is still exact: a clash is found later.
        exact = exact and bool(slug) and slug == text
        parts.append(slug or name)
    key = "-".join(parts)
    exact = exact and len(key) <= MAX_KEY_LENGTH and key.partition(".")[0].casefold() not in _RESERVED
    return key, exact


def _describe(cell: Mapping[str, JSON]) -> str:
    return " ".join(f"{axis}={plain(as_text(value))}" for axis, value in cell.items())


def _kept(experiment: Experiment, axes: Mapping[str, Sequence[JSON]]) -> Iterator[tuple[Address, Cell]]:
    """The product of the axes without what `exclude` matches."""
    rules = [
        {axis: meant(value) for axis, value in rule.items()} for rule in experiment.matrix.exclude if rule
    ]
    # Each value is made comparable once, not once a run.
    choices = [[(value, canonical(value)) for value in values] for values in axes.values()]
    for chosen in itertools.product(*choices):
        texts = {axis: text for axis, (_, text) in zip(axes, chosen, strict=True)}
        if not any(all(texts.get(axis) in wanted for axis, wanted in rule.items()) for rule in rules):
            yield ("matrix",), {axis: value for axis, (value, _) in zip(axes, chosen, strict=True)}


def _included(experiment: Experiment, axes: Mapping[str, Sequence[JSON]]) -> Iterator[tuple[Address, Cell]]:
    for position, entry in enumerate(experiment.matrix.include):
        yield ("matrix", "include", position), _complete(entry, axes, position)


def _complete(entry: Mapping[str, Any], axes: Mapping[str, Sequence[JSON]], position: int) -> Cell:
    """The cell of an `include` entry: what it does not say comes from axes that have one value."""
    cell: Cell = {}
    for axis in canonical_order({*axes, *entry}):
        if axis in entry:
            cell[axis] = entry[axis]
        elif len(axes[axis]) == 1:
            cell[axis] = axes[axis][0]
        else:
            raise MatrixProblem(
                ("matrix", "include", position),
                f"does not say its {axis}",
                f"add {axis}: one of {listed(map(as_text, axes[axis]))}",
            )
    return cell


def _spec(experiment: Experiment, cell: Mapping[str, JSON]) -> RunSpec:
    """The run of a cell, without its key."""

    def prefixed(prefix: str) -> dict[str, JSON]:
        return {axis.removeprefix(prefix): value for axis, value in cell.items() if axis.startswith(prefix)}

    def text(axis: str, default: str | None = None) -> str | None:
        value = cell.get(axis, default)
        return None if value is None else str(value)

    seed = cell.get("seed", 0)
    assert isinstance(seed, int)
    optimizer = text("optimizer") or NO_OPTIMIZER
    if optimizer == NO_OPTIMIZER:
        cell = {axis: value for axis, value in cell.items() if axis != "compile_model"}
    return RunSpec(
        key="",
        coordinates=dict(cell),
        model=str(cell["model"]),
        optimizer=optimizer,
        compile_model=text("compile_model"),
        seed=seed,
        adapter=text("adapter", experiment.program.adapter),
        program_args={**experiment.program.args, **prefixed("program.")},
        lm_settings=prefixed("lm."),
    )


def _identity(spec: RunSpec) -> str:
    """What two runs have in common that are the same, whether they say so or leave it to a default."""
    deciding = [spec.model, spec.optimizer, spec.compile_model, spec.seed, spec.adapter]
    return canonical([*deciding, dict(spec.program_args), dict(spec.lm_settings)])
