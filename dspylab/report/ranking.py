"""The table of `dspylab show`: any figure of a run as a column, and how the runs stand to the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dspylab.config.checks import SAID_OF_RUNS, SHORT_NAMES
from dspylab.config.values import as_text
from dspylab.config.wording import choose
from dspylab.errors import UsageError
from dspylab.report.entries import estimate_of, metric_of, other_metrics, ranked
from dspylab.report.fitting import Column, FittingTable
from dspylab.report.numbers import NOTHING, cost, count, in_unit, number
from dspylab.report.tables import (
    LATENCY_LEGEND,
    TOKENS_LEGEND,
    alarm,
    name_of,
    other_rank,
    run_notes,
    scored,
    table_title,
)

#: Parts of an address that say that less is better; of all else, more is.
_LESS_IS_BETTER = ("failed", "errors", "fallback", "truncated", "tokens", "calls")
_PARETO = (
    "Pareto: over quality, time and cost of an example. dominated: another run is at least as good in all "
    "three for sure. dominated?: by the figures alone, which may be chance."
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Finds the figures of the runs of one summary by the names that the user gives columns.

    A name is that of a column, an axis, a metric, or the address of a number in an entry of `runs` of
    `summary.json`, such as ``ttft_s.p95``.

    Attributes:
        rows: The runs, each an entry of `runs` with its ``key``, ``verdict`` and ``pareto``.
        primary: Name of the primary metric.
    """

    rows: Sequence[Mapping[str, Any]]
    primary: str

    def names(self) -> list[str]:
        """The columns that a table has unless others are asked for, the most important first."""
        return [
            "run",
            "verdict",
            self.primary,
            *SHORT_NAMES,
            "pareto",
            *other_metrics(self.rows, self.primary),
        ]

    def check(self, name: str) -> None:
        """Refuses a name that no run has a figure of.

        Raises:
            UsageError: With the near miss, or all short names.
        """
        axes = dict.fromkeys(axis for row in self.rows for axis in row["coordinates"])
        known = [*self.names(), *axes]
        if name not in known and all(self._at(row, name) is None for row in self.rows):
            raise UsageError(
                f"there is no column {name}",
                remedy=f"{choose(name, known)}; or give the address of a number in summary.json, "
                "such as ttft_s.p95",
            )

    def value(self, row: Mapping[str, Any], name: str) -> Any:
        """A figure of a run as it is: the mean of a metric, a number, a text; None if it has none."""
        if name == "run":
            return row["key"]
        if name in SAID_OF_RUNS:
            return row[name]
        if name in row["coordinates"]:
            return row["coordinates"][name]
        if name in row["metrics"]:
            return row["metrics"][name]["mean"]
        if name in row["run_metrics"]:
            return row["run_metrics"][name]
        return self._at(row, name)

    def flat(self, row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """The figures of a run for CSV: a metric with an interval has three columns."""
        cells: dict[str, Any] = {}
        for name in names:
            cells[name] = self._plain(row, name)
            if any(name in other["metrics"] for other in self.rows):
                ends = metric_of(row, name).get("ci95") or (None, None)
                cells[f"{name}_low"], cells[f"{name}_high"] = ends
        return cells

    def _plain(self, row: Mapping[str, Any], name: str) -> Any:
        """A figure of a run for CSV: a coordinate that is no text as the experiment file writes it."""
        value = self.value(row, name)
        is_other = name in row["coordinates"] and not isinstance(value, str)
        return as_text(value) if is_other else value

    def sorted(self, name: str | None) -> list[Mapping[str, Any]]:
        """The rows, the best first; those without the figure last.

        Args:
            name: Column to sort by, with a minus in front of it for the worst first; None for the primary
                metric, with runs that are not complete last.
        """
        if name is None:
            return ranked(self.rows, self.primary)
        column = name.removeprefix("-")
        self.check(column)
        known = [row for row in self.rows if self.value(row, column) is not None]
        best_first = sorted(known, key=lambda row: _order(self.value(row, column)))
        is_less_better = _less(column) and not self._is_metric(column)
        if any(isinstance(self.value(row, column), int | float) for row in known) and not is_less_better:
            best_first.reverse()
        if name.startswith("-"):
            best_first.reverse()
        return [*best_first, *(row for row in self.rows if self.value(row, column) is None)]

    def column(self, name: str, rank: int) -> Column:
        """A column for the terminal."""
        known = self._known(name)
        if known is not None:
            return known
        cell: Callable[[Any], str] = partial(estimate_of if self._is_metric(name) else self._cell, name=name)
        values = [self.value(row, name) for row in self.rows]
        return Column(name, cell, rank=rank, text=any(isinstance(value, str) for value in values))

    def _is_metric(self, name: str) -> bool:
        return any(name in row["metrics"] or name in row["run_metrics"] for row in self.rows)

    def _known(self, name: str) -> Column | None:
        """The columns with headings of their own; less important ones have a higher rank."""
        columns = {
            "run": Column("run", name_of, text=True),
            "verdict": Column(
                "verdict", lambda row: row["verdict"] or NOTHING, rank=1, text=True, style=_emphasis
            ),
            self.primary: Column(self.primary, partial(estimate_of, name=self.primary)),
            "scored": Column("scored", scored, rank=2, legend="scored: of those attempted."),
            "failed": Column("failed", partial(self._cell, name="examples.failed"), rank=5, style=alarm),
            "latency_p50_s": self._timing("latency\np50", "latency_s.p50", 3, LATENCY_LEGEND),
            "latency_p95_s": self._timing("latency\np95", "latency_s.p95", 6),
            "ttft_p50_s": self._timing("TTFT\np50", "ttft_s.p50", 7),
            "tokens_p50_per_s": self._timing("tok/s\np50", "output_tokens_per_s.p50", 8, TOKENS_LEGEND),
            "cost_usd": Column("cost", lambda row: cost(row["cost_usd"]["total"]), rank=4),
            "pareto": Column(
                "Pareto",
                lambda row: row["pareto"] or NOTHING,
                rank=5,
                text=True,
                legend=_PARETO if any("dominated" in (row["pareto"] or "") for row in self.rows) else "",
            ),
        }
        return columns.get(name)

    def _timing(self, title: str, address: str, rank: int, legend: str = "") -> Column:
        return Column(title, partial(self._cell, name=address), rank=rank, legend=legend)

    def _cell(self, row: Mapping[str, Any], name: str) -> str:
        value = self.value(row, name)
        if name in row["coordinates"]:
            return as_text(value)
        if value is None:
            return NOTHING
        if isinstance(value, bool) or not isinstance(value, int | float):
            return str(value)
        return in_unit(name, value, count if isinstance(value, int) else number)

    def _at(self, row: Mapping[str, Any], name: str) -> Any:
        """What stands at an address of an entry of the summary; None if it is not one figure."""
        found: Any = row
        for part in SHORT_NAMES.get(name, name).split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return None if isinstance(found, Mapping | list) else found


def ranking_table(
    summary: Mapping[str, Any], figures: Figures, columns: Sequence[str] | None, order: str | None
) -> FittingTable:
    """The runs, the best first, with how each stands to it.

    Args:
        summary: The content of `summary.json`.
        figures: The runs that are shown.
        columns: Names of the columns; None for the usual ones, the less important of which are left out
            when it gets narrow.
        order: See `Figures.sorted`.

    Raises:
        UsageError: If a column is not known.
    """
    names = columns or figures.names()
    for name in names:
        figures.check(name)
    ranks = {
        name: other_rank(place) for place, name in enumerate(other_metrics(figures.rows, figures.primary))
    }
    made = [figures.column(name, ranks.get(name, 0)) for name in names]
    if columns is not None:
        # What was asked for is shown, whatever the width.
        made = [
            Column(one.title, one.cell, text=one.text, style=one.style, legend=one.legend) for one in made
        ]
    rows = figures.sorted(order)
    return FittingTable(table_title(summary), made, rows, run_notes(rows, figures.primary))


def _emphasis(row: Mapping[str, Any]) -> str:
    return {"best": "bold green", "cannot tell": "green"}.get(row["verdict"], "")


def _less(name: str) -> bool:
    parts = SHORT_NAMES.get(name, name).split(".")
    if parts[0].endswith("per_s") or parts[0] in ("metrics", "run_metrics"):
        return False
    return parts[0].endswith(("_s", "_usd")) or any(
        word in part for word in _LESS_IS_BETTER for part in parts
    )


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, all else by its text."""
    if isinstance(value, int | float):
        return False, float(value), ""
    return True, 0.0, str(value)
