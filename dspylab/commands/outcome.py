"""From how the runs ended to what the process says and exits with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspylab.config.wording import counted, named
from dspylab.errors import (
    BudgetExhausted,
    DspylabError,
    EndpointError,
    Interrupted,
    RepositoryError,
    RunsIncomplete,
)
from dspylab.report.numbers import cost, count
from dspylab.unscored import unscored_entry

if TYPE_CHECKING:
    # Heavy: they import dspy, which whoever has nothing to execute does not need.
    from dspylab.execute.active import RunReport
    from dspylab.execute.pool import Stop
    from dspylab.execute.runs import Execution
    from dspylab.lm.budget import Reached, Spending

#: What to do when a metric has no value for any example.
_SCORED_AGAIN = (
    "mend the metric and run the same command again: the answers are kept, and are scored again without "
    "calling the program once its entry or its code has changed"
)


def raise_unless_complete(execution: Execution, stop: Stop) -> None:
    """Says what is left, if anything is.

    Raises:
        Interrupted: If the user stopped the execution.
        BudgetExhausted: If the budget ended it.
        EndpointError: If every run was left because a model refuses every call.
        RepositoryError: If every run is being executed by another process.
        RunsIncomplete: If examples are left that another try may mend.
    """
    reports = execution.reports
    left = [report for report in reports if not report.complete]
    if not left:
        return
    kept = sum(report.done for report in reports)
    total = sum(report.total for report in reports)
    progress = f"{kept} of {total} examples are finished and kept"
    if stop.requested:
        raise Interrupted(
            f"stopped: {progress}", remedy="`dspylab run` (without --fresh) goes on where it stopped"
        )
    if execution.exhausted is not None:
        remedy = _raise_budget(execution)
        # What is free went on under a bound of no dollars, and may have failed for a reason of its own.
        others = [one for one in left if one.stopped and str(execution.exhausted) not in one.stopped]
        if others and not execution.exhausted.limit:
            remedy += "\n" + "\n".join(_reasons(others))
        raise BudgetExhausted(f"{_reached(execution.exhausted, execution.spent)}; {progress}", remedy=remedy)
    problem = _kind(
        refused=all(report.refused for report in reports), held=all(report.held for report in reports)
    )
    advice = "mend the cause and run the same command again: only what is missing is called"
    if all(report.done == report.total for report in left):
        # Answers that the program itself fails on would be the same again, so they count as finished.
        advice = "mend the program or the file and run again; if the cause is elsewhere: use --fresh"
        if all(report.unscored for report in left):
            advice = _SCORED_AGAIN
    which = f"{len(left)} of {counted(len(reports), 'run')} {'is' if len(left) == 1 else 'are'}"
    raise problem(
        f"{which} incomplete; {progress}",
        remedy=f"{advice}\n" + "\n".join(_reasons(left)),
    )


def raise_if_unscored(metric: str, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Says which runs that stand have no score, such as those of before another metric was the primary one.

    Args:
        metric: Name of the primary metric.
        runs: Run key to what the summary says of it.

    Raises:
        RunsIncomplete: If there are any.
    """
    reasons: dict[str, list[str]] = {}
    for run, entry in runs.items():
        if (reason := unscored_entry(metric, entry)) is not None:
            reasons.setdefault(reason, []).append(run)
    if reasons:
        lines = [f"  {named(keys)}: {reason}" for reason, keys in reasons.items()]
        unscored = sum(map(len, reasons.values()))
        raise RunsIncomplete(
            f"{unscored} of {counted(len(runs), 'run')} {'has' if unscored == 1 else 'have'} no score",
            remedy=_SCORED_AGAIN + "\n" + "\n".join(lines),
        )


def raise_unless_compiled(execution: Execution, stop: Stop) -> None:
    """Says why a program is not compiled, if one is not. Of the errors of `raise_unless_complete`."""
    left = [report for report in execution.compiles if report.record is None]
    if not left:
        return
    kept = "what it paid for is kept"
    if stop.requested:
        raise Interrupted(f"stopped: {kept}", remedy="the same command goes on where it stopped")
    if execution.exhausted is not None:
        remedy = "raise it and run the same command again: only what is missing is called"
        raise BudgetExhausted(f"{_reached(execution.exhausted, execution.spent)}; {kept}", remedy=remedy)
    raise _kind(refused=left[0].refused, held=left[0].held)(
        f"is not compiled: {left[0].stopped}",
        where=left[0].program,
        remedy=f"mend the cause and run the same command again; {kept}",
    )


def _kind(*, refused: bool, held: bool) -> type[DspylabError]:
    """The error that fits what is left: it decides the exit code."""
    if refused:
        return EndpointError
    return RepositoryError if held else RunsIncomplete


def _reached(bound: Reached, spent: Spending) -> str:
    """Which bound is reached, and what was spent of it."""
    name, limit = f"budget.max_{bound.field}", _amount(bound.field, bound.limit)
    if not bound.limit:
        return f"{name} is {limit}, and the next call costs"
    return f"{name} of {limit} is reached: {_amount(bound.field, getattr(spent, bound.field))} spent"


def _raise_budget(execution: Execution) -> str:
    """What all would take, as far as what is done tells, and what it does not tell."""
    advice, rest = "raise it and run the same command again: only what is missing is called", execution.rest
    if rest is None or not rest.known:
        return advice
    needed = execution.spent + rest.spending
    amounts = ", ".join(_with_unit(field, getattr(needed, field)) for field in rest.bounds)
    beyond = []
    if rest.unknown:
        runs = counted(rest.unknown_runs, "run")
        beyond.append(f"{counted(rest.unknown, 'example')} of {runs} of which none is done")
    if compiles := sum(report.record is None for report in execution.compiles):
        beyond.append(f"the compiling of {counted(compiles, 'program')}")
    if not beyond:
        return f"{advice} (all of it would take about {amounts})"
    return f"{advice} (all of it would take more than {amounts}: not in it: {' and '.join(beyond)})"


def _with_unit(field: str, value: float) -> str:
    return _amount(field, value) + ("" if field == "cost_usd" else f" {field}")


def _amount(field: str, value: float) -> str:
    return cost(value) if field == "cost_usd" else count(value)


def _reasons(left: Sequence[RunReport]) -> Iterator[str]:
    """A line for each run, but one for all runs that have a reason in common, such as a wrong key."""
    shared: dict[str, list[RunReport]] = {}
    for report in left:
        shared.setdefault(report.stopped or report.unscored or report.run, []).append(report)
    for reports in shared.values():
        names = named([report.run for report in reports])
        done, total = sum(report.done for report in reports), sum(report.total for report in reports)
        parts = [f"{done}/{total} examples"]
        if retryable := sum(report.retryable for report in reports):
            parts.append(f"{retryable} failed at the endpoint")
        if reports[0].stopped or reports[0].unscored:
            parts.append(str(reports[0].stopped or reports[0].unscored))
        if reports[0].error and not reports[0].refused:
            parts.append(f"most often: {reports[0].error}")
        yield f"  {names}: {', '.join(parts)}"
