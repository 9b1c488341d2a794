"""What examples that are left would take of the budget, as far as those that are done tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspylab.execute.active import RunReport
from dspylab.execute.spending import spending_of
from dspylab.laboratory import Laboratory
from dspylab.lm.budget import Spending
from dspylab.record.journal import finished, stored_rows
from dspylab.records import RunSpec


@dataclass(frozen=True, slots=True)
class Rest:
    """What examples that are left would take.

    An example takes what those of its own run took that are done: another program or model takes another
    amount.

    Attributes:
        spending: Of those of which others of their run are done, the same way: called, or only scored again.
        known: How many these are.
        unknown: How many others there are.
        unknown_runs: Of how many runs the others are.
        bounds: The fields of `Spending` that the budget bounds.
    """

    spending: Spending
    known: int
    unknown: int
    unknown_runs: int
    bounds: tuple[str, ...]


def foresee_rest(laboratory: Laboratory, reports: Sequence[RunReport]) -> Rest:
    """What the examples that runs have left would take.

    Args:
        laboratory: The experiment.
        reports: How the runs ended. One that another process executes is not asked for.
    """
    spending, known, unknown, unknown_runs = Spending(), 0, 0, 0
    for report in reports:
        parts = list(_parts(laboratory, report)) if report.done < report.total and not report.held else []
        for left, done, spent in parts:
            if done:
                spending += _scaled(spent, left / done)
                known += left
        lost = sum(left for left, done, _ in parts if not done)
        unknown += lost
        unknown_runs += lost > 0
    bounds = tuple(
        name.removeprefix("max_") for name, bound in laboratory.experiment.budget if bound is not None
    )
    return Rest(spending, known, unknown, unknown_runs, bounds)


def _parts(laboratory: Laboratory, report: RunReport) -> Iterator[tuple[int, int, Spending]]:
    """Examples left, examples done and what these took: of those called, and of those only scored again."""
    spec = laboratory.run(report.run)
    kept = finished(laboratory.journal(spec))
    answered = len(laboratory.earlier_rows(spec).indexes - kept)
    for is_rescored, left in ((False, report.total - report.done - answered), (True, answered)):
        if left <= 0:
            continue
        done: set[int] = set()
        spent = Spending()
        for row in _rows(laboratory, spec, kept):
            if row["rescored"] is is_rescored:
                done.add(row["index"])
                spent += spending_of(
                    call for call in row["calls"] if not is_rescored or call["role"] != "task"
                )
        yield left, len(done), spent


def _rows(laboratory: Laboratory, spec: RunSpec, kept: set[int]) -> Iterator[Mapping[str, Any]]:
    """The rows of examples that are done, those that were replaced included: they were paid, too."""
    journal = laboratory.journal(spec)
    rows = stored_rows(journal) if journal.is_file() else iter(())
    return (row for row in rows if row.get("index") in kept)


def _scaled(spent: Spending, factor: float) -> Spending:
    return Spending(spent.cost_usd * factor, round(spent.tokens * factor), round(spent.calls * factor))
