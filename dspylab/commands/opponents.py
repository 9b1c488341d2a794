"""What the names on the command line of `dspylab compare` stand for: runs, or revisions of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspylab.aggregate.compare import Family, Standing
from dspylab.aggregate.contrast import SideOf
from dspylab.aggregate.decision import decide
from dspylab.aggregate.sides import axes_of, same_sides, side_runs
from dspylab.config.wording import choose
from dspylab.errors import DataError, UsageError
from dspylab.pipeline.git import find_revision
from dspylab.pipeline.revisions import results_at, workspace_digests
from dspylab.record.layout import Layout
from dspylab.record.results import WORKSPACE, StoredResults, workspace_results
from dspylab.report.standing import contradiction, failures_in_the_best
from dspylab.unscored import parts_of, unscored_entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Opponents:
    """What is compared with what.

    Attributes:
        title: Above the table.
        metric: Name of the metric that they are compared on.
        pairs: The baseline and what is compared with it.
        against: Name of the baseline if it is one for all pairs; None otherwise.
        family: What these comparisons were chosen from, for Holm's correction; None for just these.
        among: How all runs of the experiment stand, where some were named; None where none was.
        only_a: Names of runs that only the first of two revisions has.
        only_b: As `only_a`, of the second.
        same: Names of runs that have the very same rows at both revisions.
        remarks: What is to be said of what is not compared.
    """

    title: str
    metric: str
    pairs: tuple[tuple[SideOf, SideOf], ...]
    against: str | None = None
    family: Family | None = None
    among: Standing | None = None
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def find_opponents(
    layout: Layout, workspace: StoredResults | None, names: Sequence[str], metric: str | None
) -> Opponents:
    """Finds what the names stand for.

    Args:
        layout: Where the experiment lies.
        workspace: The results that lie in the workspace; None without any, where something is named.
        names: None: all runs against the best. One run: all others against it. One revision: the workspace
            against it. Two runs: the second against the first. Two revisions: all runs of the second, each
            against the same run of the first. ``workspace`` is a revision too. A run may be named without
            its seed, for all its seeds together. Of a run and a revision of one name, the run is meant.
        metric: Name of the metric; None for the primary one.

    Raises:
        UsageError: If a name means nothing, or there is nothing to compare.
        DataError: If there are no results, or their rows are elsewhere.
    """
    known = _known(workspace)
    if all(name in known for name in names) and workspace is not None:
        if len(names) == 2:
            return _two_runs(workspace, known, (names[0], names[1]), _metric([workspace], metric))
        chosen = _metric([workspace], metric)
        return _all_runs(workspace, known, names[0] if names else None, chosen)
    if len(names) == 2 and any(name in known for name in names):
        unknown = next(name for name in names if name not in known)
        raise UsageError(
            "is no run of the workspace, and a run is compared with a run",
            where=unknown,
            remedy=f"name two runs or two revisions; {choose(unknown, known)}",
        )
    first, second = names if len(names) == 2 else (names[0], WORKSPACE)
    results = [_at(layout, name, workspace, known) for name in (first, second)]
    return _two_revisions(results[0], results[1], _metric(results, metric))


def _known(workspace: StoredResults | None) -> dict[str, tuple[str, ...]]:
    """Names that stand for runs of the workspace: sides, and single runs of a group of seeds."""
    if workspace is None:
        return {}
    runs = {run: (run,) for run in workspace.summary["runs"]}
    return runs | side_runs(workspace.summary)


def _metric(results: Sequence[StoredResults], wanted: str | None) -> str:
    """The metric to compare: one that has a value for each example."""
    name = wanted or str(results[-1].summary["primary_metric"])
    entries = [entry for found in results for entry in found.summary["runs"].values()]
    known = dict.fromkeys(metric for entry in entries for metric in entry["metrics"])
    if name in known:
        return name
    if any(name in entry["run_metrics"] for entry in entries):
        raise UsageError(
            "is a metric over all rows: it has no value for an example, so runs can not be paired by it",
            where=name,
            remedy=f"name another one with --metric: {', '.join(known)}",
        )
    if parts := parts_of(name, known):
        raise UsageError(
            f"has no value of its own: it gives {', '.join(parts)}",
            where=name,
            remedy=f"name one of them: --metric {parts[0]}, or primary_metric: {parts[0]} in the file",
        )
    raise UsageError("there is no such metric", where=name, remedy=choose(name, known))


def _at(
    layout: Layout, name: str, workspace: StoredResults | None, known: dict[str, tuple[str, ...]]
) -> StoredResults:
    if name == WORKSPACE:
        return replace(workspace or workspace_results(layout), digests=workspace_digests(layout))
    revision = find_revision(layout.root, name)
    if revision is None:
        raise UsageError(
            "is neither a run, nor a revision of git, nor a DVC experiment",
            where=name,
            remedy=choose(name, known) if known else "name two revisions that have results",
        )
    return results_at(layout, revision)


def _two_runs(
    workspace: StoredResults, known: dict[str, tuple[str, ...]], names: tuple[str, str], metric: str
) -> Opponents:
    if names[0] == names[1]:
        raise UsageError("is compared with itself", where=names[0], remedy="name two runs")
    sides = [SideOf(name=name, results=workspace, runs=known[name]) for name in names]
    _require_rows(sides)
    standing = decide(workspace, metric, [run for side in sides for run in side.runs]).standing
    remarks = [*filter(None, [contradiction(standing)]), *_incomplete(sides)]
    among = _among_all(workspace, metric, remarks)
    return Opponents(
        title="", metric=metric, pairs=((sides[0], sides[1]),), among=among, remarks=tuple(remarks)
    )


def _all_runs(
    workspace: StoredResults, known: dict[str, tuple[str, ...]], baseline: str | None, metric: str
) -> Opponents:
    """All complete sides against one of them, or against the best."""
    remarks: list[str] = []
    among = None
    if baseline is None:
        decision = decide(workspace, metric)
        cautions = [contradiction(decision.standing), failures_in_the_best(decision.failures)]
        remarks += filter(None, cautions)
        names = [*decision.standing.comparisons]
        best = decision.standing.best
        if best is None or not names:
            raise _nothing_to_compare(workspace, metric)
        left_out, family = decision.left_out, decision.standing.family
        title = f"against the best, {best}"
    else:
        best, family = baseline, None
        among = _among_all(workspace, metric, remarks)
        sides = side_runs(workspace.summary)
        others = [name for name in sides if not set(sides[name]) & set(known[baseline])]
        names = [name for name in others if _usable(workspace, sides[name])]
        left_out = tuple(name for name in others if name not in names)
        title = f"against {baseline}"
        if not names:
            raise UsageError(
                "there is no other complete run with rows", where=baseline, remedy=workspace.remedy
            )
    one = SideOf(name=best, results=workspace, runs=known[best])
    _require_rows([one])
    rivals = [SideOf(name=name, results=workspace, runs=known[name]) for name in names]
    if left_out:
        remarks.append(f"Not compared, as not complete or without rows here: {', '.join(left_out)}.")
    return Opponents(
        title=title,
        metric=metric,
        pairs=tuple((one, rival) for rival in rivals),
        against=best,
        family=family,
        among=among,
        remarks=(*remarks, *_incomplete([one])),
    )


def _among_all(workspace: StoredResults, metric: str, remarks: list[str]) -> Standing | None:
    """How all runs stand, for comparisons of some; None, and a remark, if the rows of others are damaged."""
    try:
        return decide(workspace, metric).standing
    except DataError as error:
        remarks.append(f"What they are among all pairs of runs is not known: {error}.")
        return None


def _nothing_to_compare(workspace: StoredResults, metric: str) -> UsageError:
    """Why there are no two runs to compare."""
    experiment, entries = str(workspace.summary["experiment"]), workspace.summary["runs"]
    reasons = {run: unscored_entry(metric, entry) for run, entry in entries.items()}
    unscored = {run: reason for run, reason in reasons.items() if reason is not None}
    if not unscored:
        return UsageError(
            "there are no two complete runs with rows to compare",
            where=experiment,
            remedy=f"see `dspylab show`; {workspace.remedy}",
        )
    first = next(iter(unscored.values()))
    of_whom = "" if len(unscored) == len(entries) else f" of {', '.join(unscored)}"
    return UsageError(
        f"there are no two runs to compare: {first}{of_whom}",
        where=experiment,
        remedy="mend the metric and `dspylab run` scores the kept answers again; "
        "or compare on another one with --metric",
    )


def _two_revisions(a: StoredResults, b: StoredResults, metric: str) -> Opponents:
    """The runs that both revisions have, each against itself."""
    runs_a, runs_b = side_runs(a.summary), side_runs(b.summary)
    common = same_sides(a.summary, b.summary)
    only_a = tuple(name for name in runs_a if name not in common.values())
    only_b = tuple(name for name in runs_b if name not in common)
    same = tuple(name for name, old in common.items() if _same(a, b, runs_a[old], runs_b[name]))
    pairs, without = [], {}
    for name, old in common.items():
        if name in same:
            continue
        sides = [
            SideOf(name=f"{old}@{a.name}", results=a, runs=runs_a[old]),
            SideOf(name=f"{name}@{b.name}", results=b, runs=runs_b[name]),
        ]
        missing = [side.results for side in sides if any(run not in side.results.files for run in side.runs)]
        if missing:
            without[name] = missing[0]
        else:
            pairs.append((sides[0], sides[1]))
    if without and not pairs:
        _refuse(next(iter(without.values())), without)
    renamed = [f"{old} is now {name}" for name, old in common.items() if name != old]
    remarks = [
        *_incomplete([side for pair in pairs for side in pair]),
        *([f"An axis was added or removed: {', '.join(renamed)}."] if renamed else []),
        *([f"The same results at both: {', '.join(same)}."] if same else []),
        *([f"Only in {a.name}: {', '.join(only_a)}."] if only_a else []),
        *([f"Only in {b.name}: {', '.join(only_b)}."] if only_b else []),
        *(
            f"{name}: its rows at {at.name} are not in DVC's cache here: {at.remedy}."
            for name, at in without.items()
        ),
    ]
    if not common:
        remarks.append(f"{a.name} and {b.name} have no run in common.{_other_axes(a, b)}")
    return Opponents(
        title=f"{b.name} against {a.name}",
        metric=metric,
        pairs=tuple(pairs),
        only_a=only_a,
        only_b=only_b,
        same=same,
        remarks=tuple(remarks),
    )


def _other_axes(a: StoredResults, b: StoredResults) -> str:
    """What to do when the runs of two revisions have no name in common since they have other axes."""
    axes = sorted(axes_of(a.summary) ^ axes_of(b.summary))
    return f" An axis was added or removed ({', '.join(axes)}): name two runs." if axes else ""


def _same(a: StoredResults, b: StoredResults, runs_a: Sequence[str], runs_b: Sequence[str]) -> bool:
    """Whether the rows are byte for byte the same."""
    first = [a.digests.get(run) for run in runs_a]
    return None not in first and first == [b.digests.get(run) for run in runs_b]


def _usable(results: StoredResults, runs: Sequence[str]) -> bool:
    return all(run in results.files and results.summary["runs"][run]["complete"] for run in runs)


def _require_rows(sides: Sequence[SideOf]) -> None:
    for side in sides:
        missing = [run for run in side.runs if run not in side.results.files]
        if missing:
            _refuse(side.results, missing)


def _refuse(results: StoredResults, runs: Sequence[str] | dict[str, StoredResults]) -> None:
    raise DataError(
        f"the rows of {', '.join(runs)} are not on this machine", where=results.name, remedy=results.remedy
    )


def _incomplete(sides: Sequence[SideOf]) -> list[str]:
    """A warning for each side whose figures are over part of its examples."""
    entries = [[side.results.summary["runs"][run] for run in side.runs] for side in sides]
    return [
        _remark(side, found)
        for side, found in zip(sides, entries, strict=True)
        if not all(entry["complete"] for entry in found)
    ]


def _remark(side: SideOf, entries: Sequence[Mapping[str, Any]]) -> str:
    """What keeps a side from being complete."""
    metric = str(side.results.summary["primary_metric"])
    unscored = next(filter(None, (unscored_entry(metric, entry) for entry in entries)), None)
    if unscored is not None:
        return f"{side.name}: {unscored}."
    return f"{side.name} is not complete: its figures are over what is done. `dspylab run` goes on."
