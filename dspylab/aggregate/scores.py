"""The numbers that metrics gave, of one run or of several that differ in their seed alone. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspylab.aggregate.stats import distribution, metric_summary
from dspylab.config.values import canonical
from dspylab.plan.matrix import run_keys
from dspylab.records import JSON, MetricSummary, SeedsSummary


@dataclass
class Scores:
    """For each metric its values, and the examples that they are of."""

    _values: dict[str, array[float]] = field(default_factory=dict)
    _examples: dict[str, array[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds the metrics of a row."""
        # 64 bits instead of the text: two of 100,000 ids are the same with a chance of 3e-10.
        example = hash(row["example_id"])
        for name, value in row["metrics"].items():
            self._values.setdefault(name, array("d")).append(value)
            self._examples.setdefault(name, array("q")).append(example)

    def extend(self, others: Scores) -> None:
        """Adds the scores of another run."""
        for name, values in others._values.items():
            self._values.setdefault(name, array("d")).extend(values)
            self._examples.setdefault(name, array("q")).extend(others._examples[name])

    def has(self, metric: str) -> bool:
        """Whether any example has a metric of this very name."""
        return metric in self._values

    def having(self, metric: str) -> int:
        """Examples that have a metric, or one of the numbers of a metric that gives several."""
        own = [len(values) for name, values in self._values.items() if _belongs(name, metric)]
        return max(own, default=0)

    def by_example(self, metric: str) -> dict[str, list[float]]:
        """The values of a metric by example; several where the dataset repeats one."""
        found: dict[str, list[float]] = {}
        examples, values = self._examples.get(metric, ()), self._values.get(metric, ())
        for example, value in zip(examples, values, strict=True):
            found.setdefault(str(example), []).append(value)
        return found

    def summaries(self, names: Sequence[str], bounded: Collection[str]) -> dict[str, MetricSummary]:
        """Summaries in the order of the file; a metric of several numbers alone has none of its own.

        Args:
            names: Metrics that are expected, in the order of the file; others that occur follow.
            bounded: Names of metrics between 0 and 1, whose intervals are cut there.

        Returns:
            Name to mean and interval, clustered by example.
        """
        found = {name: [own for own in self._values if _belongs(own, name)] or [name] for name in names}
        expected = [own for name in names for own in found[name]]
        others = [name for name in self._values if name not in expected]
        return {
            name: metric_summary(
                self._values.get(name, array("d")),
                self._examples.get(name),
                (0.0, 1.0) if name in bounded else None,
            )
            for name in [*expected, *others]
        }


@dataclass
class _Group:
    """Runs that differ in their seed alone."""

    coordinates: Mapping[str, JSON]
    runs: list[str] = field(default_factory=list)
    scores: Scores = field(default_factory=Scores)
    example_s: array[float] = field(default_factory=lambda: array("d"))


class OverSeeds:
    """The scores and durations of the runs that differ in their seed alone, taken together.

    Args:
        coordinates: Of all runs. Scores of a run that no other differs from in its seed alone are not kept.
    """

    def __init__(self, coordinates: Iterable[Mapping[str, JSON]]) -> None:
        self._sizes = Counter(canonical(_without_seed(cell)) for cell in coordinates)
        self._groups: dict[str, _Group] = {}

    def add(
        self, key: str, coordinates: Mapping[str, JSON], scores: Scores, example_s: Sequence[float]
    ) -> None:
        """Adds a run, with the durations of its examples in seconds; one without any score is in no group."""
        cell = _without_seed(coordinates)
        name = canonical(cell)
        if scores and self._sizes[name] > 1:
            group = self._groups.setdefault(name, _Group(cell))
            group.runs.append(key)
            group.scores.extend(scores)
            group.example_s.extend(example_s)

    def summaries(self, names: Sequence[str], bounded: Collection[str]) -> dict[str, SeedsSummary]:
        """The groups of at least two runs, each under a readable name of its own.

        Args:
            names: As for `Scores.summaries`.
            bounded: As for `Scores.summaries`.
        """
        groups = [group for group in self._groups.values() if len(group.runs) > 1]
        keys = run_keys([group.coordinates for group in groups])
        return {
            key: SeedsSummary(
                runs=tuple(group.runs),
                coordinates=group.coordinates,
                metrics=group.scores.summaries(names, bounded),
                example_s=distribution(group.example_s),
            )
            for key, group in zip(keys, groups, strict=True)
        }


def _without_seed(coordinates: Mapping[str, JSON]) -> dict[str, JSON]:
    return {axis: value for axis, value in coordinates.items() if axis != "seed"}


def _belongs(name: str, metric: str) -> bool:
    return name == metric or name.startswith(f"{metric}.")
