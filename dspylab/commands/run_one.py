"""`dspylab run-one`: execute one run. Every DVC stage calls it; it touches neither git nor DVC."""

from __future__ import annotations

from pathlib import Path

from dspylab.commands.find import find_config
from dspylab.commands.interrupt import stopping_on_signals
from dspylab.commands.outcome import raise_unless_complete
from dspylab.commands.progress import observing
from dspylab.errors import UsageError
from dspylab.execute.runs import execute_runs
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.pipeline.stages import arguments, parse_coordinate
from dspylab.records import RunSpec


def run_one_run(config: Path | None, coordinates: list[str], *, fresh: bool, quiet: bool) -> None:
    """Executes the one run that the coordinates name.

    Raises:
        UsageError: If they name no run, or more than one.
        RunsIncomplete: If examples are left that another try may mend.
        Interrupted: If the user stopped it.
    """
    laboratory = open_laboratory(find_config(config))
    spec = _select(laboratory, coordinates)
    metric = laboratory.experiment.ranked_by
    with stopping_on_signals() as stop, observing(metric, quiet=quiet, json_events=False) as observer:
        execution = execute_runs(laboratory, [spec.key], observer, stop, fresh=fresh)
    raise_unless_complete(execution, stop)


def _select(laboratory: Laboratory, coordinates: list[str]) -> RunSpec:
    wanted = {}
    for argument in coordinates:
        try:
            axis, value = parse_coordinate(argument)
        except ValueError as error:
            raise UsageError(
                "is no coordinate", where=argument, remedy="write axis=value, such as model=smollm2"
            ) from error
        wanted[axis] = value
    exact = [run for run in laboratory.runs if run.coordinates == wanted]
    fitting = exact or [
        run
        for run in laboratory.runs
        if all(axis in run.coordinates and run.coordinates[axis] == value for axis, value in wanted.items())
    ]
    if len(fitting) == 1:
        return fitting[0]
    listing = "\n".join(f"  {arguments(run)}" for run in (fitting or laboratory.runs)[:20])
    problem = f"names {len(fitting)} runs" if fitting else "names no run of the matrix"
    raise UsageError(problem, where=" ".join(coordinates) or "run-one", remedy=f"name one of:\n{listing}")
