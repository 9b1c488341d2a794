"""Two sides in full: their difference, what was lost, what it costs, the examples that flipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspylab.aggregate.compare import Comparison, InExperiment, compare, needed_examples
from dspylab.aggregate.pairs import pair
from dspylab.aggregate.sides import (
    Pairing,
    RunNumbers,
    aligned,
    pairing,
    renamed_examples,
    run_numbers,
    side_values,
    with_failures_as_0,
)
from dspylab.aggregate.stats import sum_if_known
from dspylab.record.results import StoredResults
from dspylab.records import JSON

#: Figures that stand beside a difference: name to its address in an entry of `runs` of `summary.json`.
_FIGURES = {
    "failed": ("examples", "failed"),
    "latency_p50_s": ("latency_s", "p50"),
    "latency_p95_s": ("latency_s", "p95"),
    "ttft_p50_s": ("ttft_s", "p50"),
    "tokens_p50_per_s": ("output_tokens_per_s", "p50"),
    "cost_usd": ("cost_usd", "total"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SideOf:
    """A side of a comparison, and where its rows lie.

    Attributes:
        name: What it is called.
        results: The results that it is of.
        runs: Keys of its runs, whose rows are all there.
    """

    name: str
    results: StoredResults
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """An example on which the sides differ.

    Attributes:
        example_id: Its id, on side b.
        inputs: What the program was called with.
        labels: What the metric compared with, on side b.
        labels_a: What it compared with on side a, where that was something else; None where it was not.
        value_a: The metric on side a, the mean over its seeds.
        value_b: As `value_a`.
        outputs_a: What side a answered, one a seed; None where the example failed.
        outputs_b: As `outputs_a`.
    """

    example_id: str
    inputs: Mapping[str, JSON]
    labels: Mapping[str, JSON]
    labels_a: Mapping[str, JSON] | None = None
    value_a: float
    value_b: float
    outputs_a: tuple[JSON, ...]
    outputs_b: tuple[JSON, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """Examples on which the sides differ, the greatest differences first, then in dataset order.

    Attributes:
        wins: Those on which b is better.
        losses: Those on which a is better.
    """

    wins: tuple[Flip, ...]
    losses: tuple[Flip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A comparison with all that is said about it.

    Attributes:
        comparison: The difference, and whether it is real.
        pairing: How many examples it is over, and why others are not in it.
        failures_as_0: The same as if an example that failed had not passed; None when no example was lost to
            a failure, or the metric is more than pass or fail.
        figures_a: Name to figure, in the order of a table; of several seeds the mean over the runs.
        figures_b: As `figures_a`.
        needed: How many examples it takes to see a difference of this size (the key, as text) with 80%
            power; None if no number is enough.
        in_experiment: What the comparison is among all pairs of sides of its experiment, where it was asked
            for by name; None where it was not, or there is no other pair.
    """

    comparison: Comparison
    pairing: Pairing
    failures_as_0: Comparison | None
    figures_a: Mapping[str, float | None]
    figures_b: Mapping[str, float | None]
    needed: Mapping[str, int | None]
    in_experiment: InExperiment | None = None


def read_side(side: SideOf, metric: str) -> list[RunNumbers]:
    """Reads the numbers of the runs of a side.

    Raises:
        DataError: If a file of rows was damaged.
    """
    return [run_numbers(side.results.rows(run), metric, with_contents=True) for run in side.runs]


def contrast(metric: str, a: SideOf, b: SideOf) -> tuple[Comparison, Pairing, Comparison | None]:
    """Compares two sides, as if it were the only comparison.

    Returns:
        The comparison, its pairing, and the comparison with failures as 0, see `Contrast`.

    Raises:
        DataError: If a file of rows was damaged.
    """
    numbers_b = read_side(b, metric)
    numbers_a = aligned(read_side(a, metric), numbers_b)
    names = (a.name, b.name)
    comparison = compare(metric, side_values(numbers_a), side_values(numbers_b), names)
    found = pairing(numbers_a, numbers_b, comparison)
    as_0 = None
    if comparison.pass_fail and found.failed_a + found.failed_b:
        as_0 = compare(metric, with_failures_as_0(numbers_a), with_failures_as_0(numbers_b), names)
    return comparison, found, as_0


def completed(
    comparison: Comparison,
    found: Pairing,
    failures_as_0: Comparison | None,
    sides: tuple[SideOf, SideOf],
    *,
    sizes: Sequence[float],
    alpha: float,
) -> Contrast:
    """A comparison, after the correction for others, with its figures and the examples that it takes.

    Args:
        comparison: After `adjusted`.
        found: Its pairing.
        failures_as_0: The comparison with failures as 0, after `adjusted` too.
        sides: a and b.
        sizes: Differences to plan for; empty for the usual ones.
        alpha: Level of the test that is planned.
    """
    a, b = (_figures([side.results.summary["runs"][run] for run in side.runs]) for side in sides)
    return Contrast(
        comparison=comparison,
        pairing=found,
        failures_as_0=failures_as_0,
        figures_a=a,
        figures_b=b,
        needed={
            f"{size:g}": needed_examples(comparison, size, alpha=alpha)
            for size in (sizes or _usual_sizes(comparison))
        },
    )


def flips(metric: str, a: SideOf, b: SideOf, limit: int | None) -> Flips:
    """The examples on which two sides differ, with what went in and what came out.

    Args:
        metric: Name of the metric.
        a: The baseline.
        b: What is compared with it.
        limit: Most examples each way; None for all.

    Raises:
        DataError: If a file of rows was damaged.
    """
    numbers_a, numbers_b = read_side(a, metric), read_side(b, metric)
    names = renamed_examples(numbers_a, numbers_b)
    pairs = pair(side_values(aligned(numbers_a, numbers_b)), side_values(numbers_b))
    rated = list(zip(pairs.examples, pairs.differences, pairs.a, pairs.b, strict=True))
    # Stable: equal differences stay in dataset order.
    ordered = sorted(rated, key=lambda entry: -abs(entry[1]))
    wins = [entry for entry in ordered if entry[1] > 0][:limit]
    losses = [entry for entry in ordered if entry[1] < 0][:limit]
    chosen = {entry[0] for entry in (*wins, *losses)}
    rows_a, rows_b = _rows(a, chosen, names), _rows(b, chosen, {})

    def flip(example: str, value_a: float, value_b: float) -> Flip:
        before, first = rows_a[example][0], rows_b[example][0]
        return Flip(
            example_id=example,
            inputs=first["inputs"],
            labels=first["labels"],
            labels_a=before["labels"] if before["labels"] != first["labels"] else None,
            value_a=value_a,
            value_b=value_b,
            outputs_a=tuple(row["prediction"] for row in rows_a[example]),
            outputs_b=tuple(row["prediction"] for row in rows_b[example]),
        )

    return Flips(
        wins=tuple(flip(example, one, other) for example, _, one, other in wins),
        losses=tuple(flip(example, one, other) for example, _, one, other in losses),
    )


def _rows(side: SideOf, chosen: set[str], names: Mapping[str, str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of some examples, over the runs of a side; `names` says what else some of them are called."""
    found: dict[str, list[dict[str, Any]]] = {example: [] for example in chosen}
    for run in side.runs:
        for row in side.results.rows(run):
            example = names.get(row["example_id"], row["example_id"])
            if example in found:
                found[example].append(row)
    return found


def _figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for name, address in _FIGURES.items():
        total = sum_if_known([_at(run, address) for run in runs])
        figures[name] = None if total is None else total / len(runs)
    return figures


def _at(run: Mapping[str, Any], address: Sequence[str]) -> float | None:
    found: Any = run
    for part in address:
        found = found[part]
    return None if found is None else float(found)


def _usual_sizes(comparison: Comparison) -> list[float]:
    """Five and ten points for what lies between 0 and 1; else what was found, and half of it."""
    means = (comparison.mean_a, comparison.mean_b)
    if comparison.pass_fail or all(mean is not None and 0 <= mean <= 1 for mean in means):
        return [0.05, 0.1]
    found = abs(comparison.difference or 0.0)
    return [found / 2, found] if found else []
