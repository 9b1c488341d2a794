"""`dspylab compile-one`: compile one program. Its DVC stages call it; it touches neither git nor DVC."""

from __future__ import annotations

from pathlib import Path

from dspylab.commands.console import note
from dspylab.commands.find import find_config, refuse_files
from dspylab.commands.interrupt import stopping_on_signals
from dspylab.commands.outcome import raise_unless_compiled
from dspylab.commands.progress import observing
from dspylab.commands.select import select
from dspylab.compiled import restore, valid_record
from dspylab.execute.compile import drop_compiling
from dspylab.execute.runs import Compiling, execute_runs
from dspylab.laboratory import open_laboratory


def compile_one_program(config: Path | None, coordinates: list[str], *, fresh: bool, quiet: bool) -> None:
    """Compiles the one program that the coordinates name, unless it stands.

    DVC calls this also when a file changed in a part that the program was not made from, such as the test
    examples of a dataset in one file. Then nothing is called.

    Raises:
        UsageError: If they name no compile, or more than one.
        RunsIncomplete: If it could not be compiled.
        Interrupted: If the user stopped it.
    """
    refuse_files(coordinates)
    laboratory = open_laboratory(find_config(config))
    spec = select(laboratory.compiles, coordinates, "compile-one", "compile")
    if not fresh and (valid_record(laboratory, spec) is not None or restore(laboratory, spec)):
        drop_compiling(laboratory.layout, laboratory.compile_hash(spec))
        note(f"{spec.key}: is compiled from what there is now: kept", quiet)
        return
    metric = laboratory.experiment.ranked_by
    with stopping_on_signals() as stop, observing(metric, quiet=quiet) as observer:
        execution = execute_runs(laboratory, [], observer, stop, fresh=fresh, compiling=Compiling([spec.key]))
    raise_unless_compiled(execution, stop)
