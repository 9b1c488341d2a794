"""From the rows of runs to the sides of a comparison: a run, or all that differ in their seed alone. Pure."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dspylab.aggregate.calls import may_be_from_cache
from dspylab.aggregate.compare import Comparison
from dspylab.aggregate.pairs import SideValues, merged
from dspylab.aggregate.pareto import Figure, Point, median_interval
from dspylab.aggregate.sameness import Content, same_inputs
from dspylab.aggregate.stats import metric_summary, percentile, sum_if_known
from dspylab.config.axes import ADAPTERS, NO_OPTIMIZER
from dspylab.config.values import canonical

#: What leaving an axis out stands for.
_LEFT_OUT = {"optimizer": NO_OPTIMIZER, "adapter": ADAPTERS[0]}


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """What a comparison needs of the rows of a run.

    Attributes:
        values: Values of the metric by example; examples without any are left out, never 0.
        attempted: Ids of all examples that have a row.
        failed: Ids of the examples without a result.
        example_s: Durations of the program on examples that succeeded without DSPy's cache.
        cost_usd: Cost of each row, all roles; None where a call has no price.
        contents: What the examples consist of by their ids, if that was asked for.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    attempted: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    example_s: array[float] = field(default_factory=lambda: array("d"))
    cost_usd: list[float | None] = field(default_factory=list)
    contents: dict[str, Content] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """How many examples a comparison is over, and why others are not in it.

    Attributes:
        examples: Examples that at least one side tried.
        paired: Those with a value on both sides.
        failed_a: Those not paired because they failed on side a.
        failed_b: As `failed_a`; an example may have failed on both sides.
        absent_a: Those that side a never tried, such as those of other data.
        absent_b: As `absent_a`.
        other_labels: Those paired whose labels are others on side b: the difference is partly theirs.
        label_fields: Names of the fields that these labels differ in.
        other_inputs: Those paired whose inputs are others on side b, under the same id.
    """

    examples: int
    paired: int
    failed_a: int
    failed_b: int
    absent_a: int
    absent_b: int
    other_labels: int = 0
    label_fields: tuple[str, ...] = ()
    other_inputs: int = 0

    @property
    def lost(self) -> int:
        """Examples that are not compared."""
        return self.examples - self.paired


def run_numbers(rows: Iterable[Mapping[str, Any]], metric: str, *, with_contents: bool = False) -> RunNumbers:
    """Reads what a comparison needs; one pass.

    Args:
        rows: The rows of one `raw.jsonl`.
        metric: Name of the metric.
        with_contents: Whether the examples may be others on the other side, so that `aligned` and `pairing`
            need to know what they consist of.
    """
    numbers = RunNumbers()
    for row in rows:
        example = row["example_id"]
        numbers.attempted.add(example)
        if with_contents:
            numbers.contents[example] = Content.of(row)
        numbers.cost_usd.append(sum_if_known([call["cost_usd"] for call in row["calls"]]))
        if row["error"] is not None:
            numbers.failed.add(example)
            continue
        if not any(map(may_be_from_cache, row["calls"])):
            numbers.example_s.append(row["example_s"])
        value = row["metrics"].get(metric)
        if value is not None:
            numbers.values.setdefault(example, []).append(float(value))
    return numbers


def side_runs(summary: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What is compared with each other: runs, those that differ in their seed alone taken together.

    Args:
        summary: The content of `summary.json`.

    Returns:
        Name of each side to the keys of its runs. The name of a group is that in `over_seeds`; the name of
        a run that is in no group is its key.
    """
    groups = {name: tuple(group["runs"]) for name, group in summary["over_seeds"].items()}
    grouped = {run for runs in groups.values() for run in runs}
    return groups | {key: (key,) for key in summary["runs"] if key not in grouped}


def same_sides(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str]:
    """Which sides of two summaries are the same runs: of one name, or of one name before an axis was added.

    An axis that only one of them names counts as left out where it has the value that leaving it out stands
    for: no optimizer, and DSPy's own adapter. Others, such as the arguments of a program, have no such value.

    Args:
        a: The content of a `summary.json`.
        b: Of another one.

    Returns:
        Name in b to the name in a, in the order of b. Of sides that two could be, none is taken.
    """
    names_a, names_b = side_runs(a), side_runs(b)
    found = {name: name for name in names_b if name in names_a}
    plain_a, plain_b = ({name: _plain(of, name) for name in side_runs(of)} for of in (a, b))
    count_a, count_b = Counter(plain_a.values()), Counter(plain_b.values())
    by_plain = {plain: name for name, plain in plain_a.items() if name not in found}
    for name, plain in plain_b.items():
        if name not in found and plain in by_plain and count_a[plain] == count_b[plain] == 1:
            found[name] = by_plain[plain]
    return {name: found[name] for name in names_b if name in found}


def axes_of(summary: Mapping[str, Any]) -> set[str]:
    """The axes that the runs of a summary have coordinates of."""
    return {axis for run in summary["runs"].values() for axis in run["coordinates"]}


def _plain(summary: Mapping[str, Any], side: str) -> str:
    """The coordinates of a side, without those that say no more than leaving them out does."""
    of = summary["over_seeds"].get(side) or summary["runs"][side]
    return canonical(
        {axis: value for axis, value in of["coordinates"].items() if _LEFT_OUT.get(axis) != value}
    )


def side_values(runs: Sequence[RunNumbers]) -> SideValues:
    """The side that some runs are, for `compare`."""
    return tuple(run.values for run in runs)


def renamed_examples(a: Sequence[RunNumbers], b: Sequence[RunNumbers]) -> dict[str, str]:
    """Ids on side a to those on side b, of the examples that are the same by their inputs alone."""
    return same_inputs(_contents(a), _contents(b))


def aligned(a: Sequence[RunNumbers], b: Sequence[RunNumbers]) -> list[RunNumbers]:
    """The runs of side a with the ids that side b has, where an example is the same by its inputs alone."""
    names = renamed_examples(a, b)
    return [_renamed(run, names) for run in a] if names else list(a)


def pairing(a: Sequence[RunNumbers], b: Sequence[RunNumbers], comparison: Comparison) -> Pairing:
    """Accounts for every example: the pairs, and what was lost to failures and to other data.

    Args:
        a: The runs of side a, `aligned` with b.
        b: The runs of side b.
        comparison: Of these two.
    """
    tried_a, tried_b = (frozenset().union(*(run.attempted for run in side)) for side in (a, b))
    failed_a, failed_b = (_without_result(side) for side in (a, b))
    contents_a, contents_b = _contents(a), _contents(b)
    paired = merged(side_values(a)).keys() & merged(side_values(b)).keys() & contents_a.keys()
    changed = [contents_a[example].changes(contents_b[example]) for example in paired]
    fields = {name for one in changed for name in one.labels}
    return Pairing(
        examples=len(tried_a | tried_b),
        paired=comparison.n,
        failed_a=len(failed_a),
        failed_b=len(failed_b),
        absent_a=len(tried_b - tried_a),
        absent_b=len(tried_a - tried_b),
        other_labels=sum(bool(one.labels) for one in changed),
        label_fields=tuple(sorted(fields)),
        other_inputs=sum(one.inputs for one in changed),
    )


def with_failures_as_0(runs: Sequence[RunNumbers]) -> SideValues:
    """The side as if an example that failed had not passed: for metrics that are pass or fail alone."""
    return tuple(
        {**run.values, **{example: (0.0,) for example in run.failed if example not in run.values}}
        for run in runs
    )


def point(
    name: str, runs: Sequence[RunNumbers], summaries: Sequence[Mapping[str, Any]], quality: Figure | None
) -> Point:
    """Where a side lies in the plane of quality, cost and latency.

    Args:
        name: What it is called.
        runs: The numbers of its runs.
        summaries: The entries of its runs in `runs` of `summary.json`.
        quality: Mean of the primary metric.

    Returns:
        The point, with the objectives ``latency`` (median duration of the program on an example, seconds)
        and ``cost`` (US dollars an example, all roles).
    """
    durations = sorted(duration for run in runs for duration in run.example_s)
    latency = Figure(value=percentile(durations, 0.5), ci95=median_interval(durations)) if durations else None
    return Point(name=name, quality=quality, costs={"latency": latency, "cost": _cost(runs, summaries)})


def _cost(runs: Sequence[RunNumbers], summaries: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Cost of an example. The summary has the prices of now, the rows those of when they were made."""
    totals = [summary["cost_usd"]["total"] for summary in summaries]
    rows = [cost for run in runs for cost in run.cost_usd]
    if not rows or None in totals:
        return None
    mean = math.fsum(totals) / len(rows)
    known = [cost for cost in rows if cost is not None]
    if len(known) < len(rows) or not math.isclose(math.fsum(known), math.fsum(totals), rel_tol=1e-6):
        return Figure(value=mean)
    found = metric_summary(known)
    ends = (mean, mean) if found.stderr == 0 else found.ci95
    return Figure(value=mean, ci95=(mean, mean) if mean == 0 else ends)


def _without_result(side: Sequence[RunNumbers]) -> set[str]:
    """Examples that failed and have no value from any run of the side."""
    failed = {example for run in side for example in run.failed}
    return {example for example in failed if not any(example in run.values for run in side)}


def _contents(side: Sequence[RunNumbers]) -> dict[str, Content]:
    """What the examples of a side consist of. Its runs differ in their seed alone, so not in that."""
    return {example: content for run in side for example, content in run.contents.items()}


def _renamed(run: RunNumbers, names: Mapping[str, str]) -> RunNumbers:
    return replace(
        run,
        values={names.get(example, example): values for example, values in run.values.items()},
        attempted={names.get(example, example) for example in run.attempted},
        failed={names.get(example, example) for example in run.failed},
        contents={names.get(example, example): content for example, content in run.contents.items()},
    )
