"""The runs of an experiment file."""

from __future__ import annotations

from dspylab.config.load import LoadedExperiment
from dspylab.errors import InvalidExperiment
from dspylab.plan.matrix import MatrixProblem, expand
from dspylab.records import RunSpec


def plan_runs(loaded: LoadedExperiment) -> tuple[RunSpec, ...]:
    """Expands the matrix of a file.

    Args:
        loaded: The validated file.

    Returns:
        The runs in file order.

    Raises:
        InvalidExperiment: If the matrix does not describe a set of distinct runs; names the line.
    """
    try:
        return expand(loaded.experiment)
    except MatrixProblem as problem:
        finding = loaded.finding(problem.address, problem.problem, problem.remedy)
        raise InvalidExperiment([finding]) from None
