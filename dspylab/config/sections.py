"""The parts of an experiment file that are sound, so that they can be checked although others are not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from dspylab.config.models import Check, Dataset, Metric, Model, Optimizer, Program, Section
from dspylab.config.wording import Address

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True)
class MatrixPart:
    """What can be read of the matrix.

    Attributes:
        named: Every axis that the file names, also those that are not sound.
        axes: Sound axes to their values.
        exclude: Position to sound entry.
        include: Position to sound entry.
    """

    named: frozenset[str]
    axes: Mapping[str, list[Any]]
    exclude: Mapping[int, Mapping[str, Any]]
    include: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Sections:
    """An experiment in parts; a part that is absent or not sound is None.

    An id is in `models`, `optimizers` and `metrics` even if its entry is not sound, so that what refers
    to it is not called wrong as well.
    """

    program: Program | None
    dataset: Dataset | None
    models: Mapping[str, Model | None] | None
    optimizers: Mapping[str, Optimizer | None] | None
    metrics: Mapping[str, Metric | None] | None
    matrix: MatrixPart | None
    primary_metric: str | None
    checks: Mapping[str, Check | None] | None


def sound_sections(data: Mapping[str, Any], broken: Collection[Address]) -> Sections:
    """Takes apart what a file says.

    Args:
        data: The file as plain data.
        broken: Addresses that something is wrong with.

    Returns:
        The parts that have nothing wrong in them.
    """
    reader = _Reader(data, broken)
    primary = data.get("primary_metric")
    return Sections(
        program=reader.section(Program, "program"),
        dataset=reader.section(Dataset, "dataset"),
        models=reader.entries(Model, "models"),
        optimizers=reader.entries(Optimizer, "optimizers"),
        metrics=reader.entries(Metric, "metrics"),
        matrix=reader.matrix(),
        primary_metric=primary
        if isinstance(primary, str) and not reader.is_broken(("primary_metric",))
        else None,
        checks=reader.entries(Check, "checks"),
    )


class _Reader:
    def __init__(self, data: Mapping[str, Any], broken: Collection[Address]) -> None:
        self._data = data
        self._broken = {address[:depth] for address in broken for depth in range(len(address) + 1)}
        self._unusable = frozenset(broken)

    def is_broken(self, address: Address) -> bool:
        """Whether something at or below an address is wrong."""
        return address in self._broken

    def section(self, kind: type[SectionT], name: str) -> SectionT | None:
        """A section of the file."""
        return None if name not in self._data else self._read(kind, self._data[name], (name,))

    def entries(self, kind: type[SectionT], name: str) -> dict[str, SectionT | None] | None:
        """A section whose entries have ids; None when there is no telling which."""
        entries = self._data.get(name, {})
        if not isinstance(entries, dict) or (name,) in self._unusable:
            return None
        return {key: self._read(kind, value, (name, key)) for key, value in entries.items()}

    def matrix(self) -> MatrixPart | None:
        """The matrix, without those of its axes and entries that are not sound."""
        matrix = self._data.get("matrix", {})
        if not isinstance(matrix, dict):
            return None
        axes = {name: values for name, values in matrix.items() if name not in ("exclude", "include")}
        return MatrixPart(
            named=frozenset(name for name, values in axes.items() if values is not None),
            axes={
                name: values
                for name, values in axes.items()
                if isinstance(values, list) and not self.is_broken(("matrix", name))
            },
            exclude=self._rules(matrix, "exclude"),
            include=self._rules(matrix, "include"),
        )

    def _rules(self, matrix: Mapping[str, Any], name: str) -> dict[int, Mapping[str, Any]]:
        rules = matrix.get(name)
        if not isinstance(rules, list):
            return {}
        return {
            position: rule
            for position, rule in enumerate(rules)
            if isinstance(rule, dict) and not self.is_broken(("matrix", name, position))
        }

    def _read(self, kind: type[SectionT], value: Any, address: Address) -> SectionT | None:
        if self.is_broken(address):
            return None
        try:
            return kind.model_validate(value)
        except ValidationError:
            return None
