"""Which run or compile the coordinates on a command line mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from dspylab.config.values import canonical
from dspylab.errors import UsageError
from dspylab.pipeline.stages import arguments, meant_value, parse_coordinate
from dspylab.records import CompileSpec, RunSpec

SpecT = TypeVar("SpecT", RunSpec, CompileSpec)
#: Specs that a message lists.
_MOST = 20


def select(specs: Sequence[SpecT], coordinates: Sequence[str], command: str, what: str) -> SpecT:
    """The one of several that has the coordinates, or that alone fits those that are given.

    Args:
        specs: All there are.
        coordinates: Arguments such as `model=smollm2`.
        command: What messages name if there are none.
        what: `run` or `compile`.

    Raises:
        UsageError: If they name none, or more than one.
    """
    wanted = {}
    for argument in coordinates:
        try:
            axis, value = parse_coordinate(argument)
        except ValueError as error:
            raise UsageError(
                "is no coordinate", where=argument, remedy="write axis=value, such as model=smollm2"
            ) from error
        values = [spec.coordinates[axis] for spec in specs if axis in spec.coordinates]
        wanted[axis] = meant_value(value, values)
    # As JSON: Python takes true for 1.
    exact = [spec for spec in specs if canonical(dict(spec.coordinates)) == canonical(wanted)]
    fitting = exact or [
        spec
        for spec in specs
        if all(
            axis in spec.coordinates and canonical(spec.coordinates[axis]) == canonical(value)
            for axis, value in wanted.items()
        )
    ]
    if len(fitting) == 1:
        return fitting[0]
    where = " ".join(coordinates) or command
    if not specs:
        raise UsageError(
            f"names no {what}: no run has an optimizer", where=where, remedy="add the axis optimizer"
        )
    listing = "\n".join(f"  {arguments(spec)}" for spec in (fitting or specs)[:_MOST])
    problem = f"names {len(fitting)} {what}s" if fitting else f"names no {what} of the matrix"
    raise UsageError(problem, where=where, remedy=f"name one of:\n{listing}")
