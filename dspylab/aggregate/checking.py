"""Judges every check of an experiment on its results, and on those of the revisions that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dspylab.aggregate.compare import compare
from dspylab.aggregate.gate import (
    UNSCORED,
    Outcome,
    Quantity,
    Side,
    against,
    bounds,
    chosen,
    counterpart,
    difference_of,
    impossible,
    is_complete,
    quantity,
)
from dspylab.aggregate.sides import aligned, pairing, run_numbers, side_values
from dspylab.config.models import Check, Experiment
from dspylab.record.publish import file_md5
from dspylab.record.results import StoredResults
from dspylab.records import Summary


@dataclass(frozen=True, slots=True)
class State:
    """The results of an experiment at one state of the repository.

    Attributes:
        summary: Its figures, of runs that the matrix has now or had then.
        results: Where its rows are.
    """

    summary: Summary
    results: StoredResults


def judge(
    experiment: Experiment,
    now: State,
    unfit: Mapping[str, str],
    baselines: Mapping[str, State | str],
) -> list[Outcome]:
    """Judges everything that the file demands, and what every gate demands.

    Args:
        experiment: The experiment.
        now: Its results.
        unfit: Key of each run whose results can not be judged, to the reason.
        baselines: Revision that a check names, to the results there, or to why there are none.

    Returns:
        An outcome for each condition and side, in the order of the file.

    Raises:
        DataError: If a file of rows was damaged.
    """
    outcomes = list(_completeness(experiment, unfit))
    judged: dict[str, Side] = {}
    for figure, check in experiment.checks.items():
        sides = chosen(now.summary, check.runs)
        if not sides:
            problem = "there is no complete run" if check.runs == "best" else "no run has these coordinates"
            outcomes += _all_impossible(figure, check, experiment.name, problem)
        for side in sides:
            judged[side.name] = side
            outcomes += bounds(figure, check, side, quantity(now.summary, side, figure))
            if check.no_worse_than is not None:
                outcomes.append(_compared(figure, check, side, now, baselines[check.no_worse_than]))
    if UNSCORED not in experiment.checks:
        outcomes += _scored(now.summary, judged)
    return outcomes


def _completeness(experiment: Experiment, unfit: Mapping[str, str]) -> Iterator[Outcome]:
    """Every run has to be complete: else the best is not known to be the best."""
    if not unfit:
        yield Outcome(
            figure="complete", condition="complete", side=experiment.name, verdict="passed", passed=True
        )
    for run, reason in unfit.items():
        yield impossible("complete", "complete", run, reason)


def _scored(summary: Summary, judged: Mapping[str, Side]) -> Iterator[Outcome]:
    """No example of what was judged may be without a score, unless the file says how many may."""
    check = Check(max=0)
    for side in judged.values():
        yield from bounds(UNSCORED, check, side, quantity(summary, side, UNSCORED))


def _all_impossible(figure: str, check: Check, side: str, problem: str) -> Iterator[Outcome]:
    if check.min is not None:
        yield impossible(figure, "min", side, problem, bound=check.min)
    if check.max is not None:
        yield impossible(figure, "max", side, problem, bound=check.max)
    if check.no_worse_than is not None:
        yield _no_comparison(figure, check, side, problem)


def _no_comparison(figure: str, check: Check, side: str, problem: str) -> Outcome:
    return impossible(
        figure, "no_worse_than", side, problem, bound=check.margin or 0.0, baseline=check.no_worse_than
    )


def _compared(figure: str, check: Check, side: Side, now: State, then: State | str) -> Outcome:
    """Judges `no_worse_than` of a check on one side."""
    if isinstance(then, str):
        return _no_comparison(figure, check, side.name, then)
    if check.runs == "best":
        best = chosen(then.summary, "best")
        other = best[0] if best else None
    else:
        other = counterpart(now.summary, side, then.summary)
    if other is None or not is_complete(then.summary, other):
        problem = f"{check.no_worse_than} has no complete run to compare with"
        return _no_comparison(figure, check, side.name, problem)
    difference = _difference(figure, side, now, other, then)
    if isinstance(difference, str):
        return _no_comparison(figure, check, side.name, difference)
    name = str(check.no_worse_than)
    return against(
        figure, check, side, name if other.name == side.name else f"{other.name} at {name}", difference
    )


def _difference(figure: str, side: Side, now: State, other: Side, then: State) -> Quantity | str:
    """The figure of a side less that of another; or why it is not known."""
    mine, theirs = quantity(now.summary, side, figure), quantity(then.summary, other, figure)
    if mine.value is None or theirs.value is None:
        return "there is no such figure" if mine.value is None else f"{then.results.name} has no such figure"
    if not mine.sampled:
        return Quantity(mine.value - theirs.value)
    if _same_rows(side, now, other, then):
        return Quantity(0.0, (0.0, 0.0), sampled=True, n=mine.n)
    for state, members in ((now, side.runs), (then, other.runs)):
        absent = [run for run in members if run not in state.results.files]
        if absent:
            return f"the rows of {absent[0]} of {state.results.name} are not here: {state.results.remedy}"
    b = [run_numbers(now.results.rows(run), figure, with_contents=True) for run in side.runs]
    a = [run_numbers(then.results.rows(run), figure, with_contents=True) for run in other.runs]
    a = aligned(a, b)
    comparison = compare(figure, side_values(a), side_values(b))
    if comparison.n == 0:
        return f"no example is in the results here and in those of {then.results.name}"
    return difference_of(comparison, pairing(a, b, comparison))


def _same_rows(side: Side, now: State, other: Side, then: State) -> bool:
    """Whether the results are the very same files, so that there is no difference to be unsure of."""
    if len(side.runs) != len(other.runs):
        return False
    pairs = [
        (_digest(now.results, mine), _digest(then.results, theirs))
        for mine, theirs in zip(side.runs, other.runs, strict=True)
    ]
    return all(mine is not None and mine == theirs for mine, theirs in pairs)


def _digest(results: StoredResults, run: str) -> str | None:
    """MD5 of the rows of a run: of the file that is here, else what `dvc.lock` says."""
    path = results.files.get(run)
    return results.digests.get(run) if path is None else file_md5(path)
