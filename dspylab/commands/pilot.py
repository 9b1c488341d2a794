"""`dspylab plan --pilot K`: execute K examples of each run, keep them, say what the rest will take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dspylab.aggregate.forecast import Estimate, PilotRun, forecast
from dspylab.commands.console import note
from dspylab.commands.interrupt import stopping_on_signals
from dspylab.commands.outcome import raise_unless_complete
from dspylab.commands.progress import observing
from dspylab.config.wording import counted
from dspylab.execute.active import RunReport
from dspylab.execute.runs import execute_runs
from dspylab.execute.underway import pilot_indexes
from dspylab.laboratory import Laboratory
from dspylab.lm.build import width_of
from dspylab.record.journal import finished, stored_rows
from dspylab.report.numbers import cost, duration


def run_pilot(laboratory: Laboratory, keys: Sequence[str], size: int, beyond: Sequence[str] = ()) -> None:
    """Executes the pilots and prints what the rest of the runs will cost and how long it will take.

    Args:
        laboratory: The experiment.
        keys: The runs that have a pilot.
        size: Examples of each.
        beyond: What else is to be done and is not in the estimate, in words.

    Raises:
        DspylabError: As an execution; what the pilot finished is kept in any case.
    """
    experiment = laboratory.experiment
    with stopping_on_signals() as stop, observing(experiment.ranked_by, quiet=True) as observer:
        execution = execute_runs(laboratory, keys, observer, stop, pilot=size, takes_recorded=True)
    if stop.requested or execution.exhausted or any(report.refused for report in execution.reports):
        raise_unless_complete(execution, stop)
    rows = {report.run: _rows(laboratory, report.run) for report in execution.reports}
    failed = _failed(rows.values(), pilot_indexes(len(laboratory.splits.test), size))
    pilots = [
        pilot for report in execution.reports for pilot in _pilots(laboratory, report, rows[report.run])
    ]
    known = [pilot for pilot in pilots if pilot.durations_s]
    if not known:
        raise_unless_complete(execution, stop)
        return
    widths = {pilot.model: width_of(experiment, pilot.model) for pilot in known}
    rest = forecast(known, widths, experiment.execution.max_concurrency)
    if unknown := sum(pilot.remaining for pilot in pilots if not pilot.durations_s):
        beyond = [*beyond, f"{counted(unknown, 'example')} that no pilot stands for"]
    again = sum(pilot.remaining for pilot in known if pilot.is_rescored)
    price = "no known price" if rest.cost_usd is None else _words(rest.cost_usd, cost)
    note(
        f"pilot of {size} examples a run, kept for `dspylab run`. The other {rest.examples} examples"
        + (f", {again} of them only scored again" if again else "")
        + f": about {_words(rest.wall_s, duration)} and {price}"
        + (f"; not in it: {'; '.join(beyond)}" if beyond else "")
    )
    if failed:
        note(f"{failed} examples of the pilot failed; the estimate is from the others")
    for reason in dict.fromkeys(report.unscored for report in execution.reports if report.unscored):
        note(f"{reason}: mend that first; the answers are kept")


def _rows(laboratory: Laboratory, run: str) -> dict[int, Mapping[str, Any]]:
    """The last outcome of each example, by its index; a failure after a result is none."""
    found: dict[int, Mapping[str, Any]] = {}
    for row in stored_rows(laboratory.journal(laboratory.run(run))):
        if "index" in row and (row["error"] is None or found.get(row["index"], row)["error"] is not None):
            found[row["index"]] = row
    return found


def _failed(runs: Iterable[Mapping[int, Mapping[str, Any]]], chosen: Collection[int]) -> int:
    """Examples of the pilot that failed. What failed in an earlier session is not the pilot's."""
    return sum(rows[index]["error"] is not None for rows in runs for index in chosen if index in rows)


def _pilots(
    laboratory: Laboratory, report: RunReport, outcomes: Mapping[int, Mapping[str, Any]]
) -> Iterator[PilotRun]:
    """Examples of a run that are called, and those only scored again: neither tells of the others."""
    spec = laboratory.run(report.run)
    answered = laboratory.earlier_rows(spec).indexes - finished(laboratory.journal(spec))
    called = report.total - report.done - len(answered)
    for is_rescored, remaining in ((False, called), (True, len(answered))):
        rows = [row for row in outcomes.values() if row["error"] is None and row["rescored"] is is_rescored]
        costs = [_cost(_new_calls(row)) for row in rows]
        known = [value for value in costs if value is not None]
        yield PilotRun(
            model=spec.model,
            remaining=remaining,
            costs_usd=tuple(known) if len(known) == len(costs) else None,
            durations_s=tuple(float(row["metric_s" if is_rescored else "example_s"]) for row in rows),
            is_rescored=is_rescored,
        )


def _new_calls(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The calls that the rest will make, too: of answers that are only scored again, the judges'."""
    return [call for call in row["calls"] if not row["rescored"] or call["role"] != "task"]


def _cost(calls: Iterable[Mapping[str, Any]]) -> float | None:
    prices = [call["cost_usd"] for call in calls if call["error"] is None]
    return None if None in prices else sum(prices)


def _words(estimate: Estimate, shown: Callable[[float], str]) -> str:
    if estimate.ends is None:
        return shown(estimate.total)
    low, high = estimate.ends
    return f"{shown(estimate.total)} [{shown(low)}, {shown(high)}]"
