"""`dspylab run-one`: execute one run. Every DVC stage calls it; it touches neither git nor DVC."""

from __future__ import annotations

from pathlib import Path

from dspylab.commands.find import find_config, refuse_files
from dspylab.commands.interrupt import stopping_on_signals
from dspylab.commands.outcome import raise_unless_complete
from dspylab.commands.progress import observing
from dspylab.commands.select import select
from dspylab.execute.runs import execute_runs
from dspylab.laboratory import open_laboratory


def run_one_run(config: Path | None, coordinates: list[str], *, fresh: bool, quiet: bool) -> None:
    """Executes the one run that the coordinates name.

    Raises:
        UsageError: If they name no run, or more than one.
        RunsIncomplete: If examples are left that another try may mend.
        Interrupted: If the user stopped it.
    """
    refuse_files(coordinates)
    laboratory = open_laboratory(find_config(config))
    spec = select(laboratory.runs, coordinates, "run-one", "run")
    metric = laboratory.experiment.ranked_by
    with stopping_on_signals() as stop, observing(metric, quiet=quiet) as observer:
        execution = execute_runs(laboratory, [spec.key], observer, stop, fresh=fresh)
    raise_unless_complete(execution, stop)
