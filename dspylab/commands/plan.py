"""`dspylab plan`: the runs of the matrix, and what would happen to each. Reads only."""

from __future__ import annotations

from pathlib import Path

from dspylab.commands.console import console, note
from dspylab.commands.find import find_config
from dspylab.commands.sync import pipeline_entry
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.lm.routing import engine_for
from dspylab.record.journal import peek
from dspylab.records import RunSpec
from dspylab.report.tables import PlanRow, plan_table


def show_plan(config: Path | None, pilot: int | None) -> None:
    """Prints a line for each run: its coordinates, its state and why, its model and engine.

    Args:
        config: The experiment file.
        pilot: Executes so many examples of each run that is not done and extrapolates.

    Raises:
        DspylabError: If the experiment, its code or the repository is wrong.
    """
    from dspylab.pipeline.repo import open_repository

    laboratory = open_laboratory(find_config(config))
    repository = open_repository(laboratory.layout.root)
    states = repository.states(pipeline_entry(laboratory), [run.key for run in laboratory.runs])
    rows = []
    for run in laboratory.runs:
        state = states[run.key]
        kept = 0 if state.state == "done" else _kept(laboratory, run.key)
        model = laboratory.experiment.models[run.model]
        rows.append(
            PlanRow(
                run=run.key,
                coordinates=run.coordinates,
                state="half done" if kept else state.state,
                done=kept,
                total=len(laboratory.splits.test) if kept else None,
                reasons=state.reasons
                if kept or state.state == "done"
                else [*state.reasons, *_answered(laboratory, run)],
                model=model.model,
                engine=engine_for(run.model, model),
            )
        )
    console().print(plan_table(rows, laboratory.experiment.name))
    todo = sum(row.state != "done" for row in rows)
    note(f"{len(rows)} runs, {todo} to execute" if todo else f"{len(rows)} runs, nothing to do")
    if pilot is not None and todo:
        from dspylab.commands.pilot import run_pilot

        run_pilot(laboratory, [row.run for row in rows if row.state != "done"], pilot)


def _answered(laboratory: Laboratory, run: RunSpec) -> list[str]:
    """Says for how many examples the program need not be called, if for any."""
    answered = len(laboratory.earlier_rows(run).indexes)
    return [f"{answered} answers are kept, to be scored again"] if answered else []


def _kept(laboratory: Laboratory, key: str) -> int:
    """Examples of an interrupted session that will not be called again."""
    finished, retryable = peek(laboratory.layout.journal(laboratory.config_hash(laboratory.run(key))))
    return finished - retryable
