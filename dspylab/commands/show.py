"""`dspylab show`: the results in the terminal, and which can not be told from the best. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dspylab.aggregate.decision import Decision, decide
from dspylab.commands.console import console
from dspylab.commands.find import find_layout, refuse_files
from dspylab.commands.stale import Now
from dspylab.config.values import as_text, canonical
from dspylab.config.wording import choose, listed, named
from dspylab.errors import UsageError
from dspylab.jsonable import to_json
from dspylab.pipeline.stages import meant_value, parse_coordinate
from dspylab.record.results import StoredResults
from dspylab.report.standing import (
    all_others,
    all_pairs,
    contradiction,
    failures_in_the_best,
    probably_worse,
    settling,
)

if TYPE_CHECKING:
    from dspylab.report.fitting import FittingTable

Format = Literal["table", "md", "csv", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What to show of the results.

    Attributes:
        filters: ``axis=value`` or patterns of run names, see `select_runs`.
        columns: Names of columns, separated by commas; None for the usual ones.
        order: Column to sort by, the best first; with a minus in front the worst.
        format: How to print it.
    """

    filters: Sequence[str] = ()
    columns: str | None = None
    order: str | None = None
    format: Format = "table"


def show_results(config: Path | None, view: View) -> None:
    """Prints the runs, the best first.

    Args:
        config: The experiment file.
        view: What to show, and how.

    Raises:
        UsageError: If a filter or a column means nothing.
        DataError: If there are no results, or they were damaged.
    """
    from dspylab.report.formats import csv_text, markdown_table, markdown_text
    from dspylab.report.ranking import Figures, ranking_table

    refuse_files(view.filters)
    layout, now = find_layout(config), Now(config)
    results = now.results(layout)
    runs = select_runs(results.summary, view.filters)
    decision = decide(results, runs=runs)
    verdicts, dominance = decision.verdicts(), decision.dominance()
    rows = [
        {
            "key": run,
            "verdict": verdicts.get(run),
            "pareto": dominance.get(run),
            **results.summary["runs"][run],
        }
        for run in runs
    ]
    figures = Figures(rows, results.summary["primary_metric"])
    columns = [name.strip() for name in view.columns.split(",")] if view.columns else None
    table = ranking_table(results.summary, figures, columns, view.order)
    over_seeds = _over_seeds(results.summary, runs)
    findings = [*_findings(results, decision), *_absent(*now.not_in(results.summary, layout))]
    if view.format == "json":
        print(json.dumps(_document(results, decision, table.rows), ensure_ascii=False, indent=2))
    elif view.format == "csv":
        axes = dict.fromkeys(axis for row in rows for axis in row["coordinates"])
        names = columns or ["run", *axes, *figures.names()[1:]]
        print(csv_text([figures.flat(row, names) for row in table.rows]), end="")
    elif view.format == "md":
        print(markdown_table(table), end="")
        if over_seeds is not None:
            print(f"\n{markdown_table(over_seeds)}", end="")
        lines = [*_cautions(decision), *findings]
        print("".join(f"\n{markdown_text(line)}\n" for line in lines), end="")
    else:
        console().print(table)
        if over_seeds is not None:
            console().print()
            console().print(over_seeds)
        for line in _cautions(decision):
            console().print(line, style="bold", markup=False)
        for line in findings:
            console().print(line, style="dim", markup=False)
    now.tell_stale(results.summary)


def select_runs(summary: Mapping[str, Any], filters: Sequence[str]) -> list[str]:
    """The runs that all filters of an axis, and the patterns, let through.

    Args:
        summary: The content of `summary.json`.
        filters: ``axis=value``: runs with that value; several of one axis: with any of them. Anything else
            is a run's name, in which ``*`` stands for any text; several: any of them.

    Raises:
        UsageError: If a filter lets nothing through, since it is most likely misspelt.
    """
    runs: Mapping[str, Mapping[str, Any]] = summary["runs"]
    wanted: dict[str, set[str]] = {}
    patterns = []
    for text in filters:
        if "=" not in text:
            patterns.append(text)
            if not any(fnmatchcase(run, text) for run in runs):
                raise UsageError("there is no such run", where=text, remedy=choose(text, runs))
            continue
        axis, value = parse_coordinate(text)
        values = {
            canonical(run["coordinates"][axis]): run["coordinates"][axis]
            for run in runs.values()
            if axis in run["coordinates"]
        }
        value = meant_value(value, values.values())
        if not values:
            axes = dict.fromkeys(name for run in runs.values() for name in run["coordinates"])
            raise UsageError("there is no such axis", where=text, remedy=choose(axis, axes))
        if canonical(value) not in values:
            raise UsageError(
                "no run has this value",
                where=text,
                remedy=f"there is: {listed(map(as_text, values.values()))}",
            )
        wanted.setdefault(axis, set()).add(canonical(value))
    chosen = [
        key
        for key, run in runs.items()
        if all(axis in run["coordinates"] for axis in wanted)
        and all(canonical(run["coordinates"][axis]) in values for axis, values in wanted.items())
        and (not patterns or any(fnmatchcase(key, pattern) for pattern in patterns))
    ]
    if not chosen:
        raise UsageError("no run passes all these filters together", where=" ".join(filters))
    return chosen


def _over_seeds(summary: Mapping[str, Any], runs: Sequence[str]) -> FittingTable | None:
    """The metrics of the groups of seeds that are shown whole; None without any."""
    from dspylab.report.tables import seeds_table

    groups = {
        name: group
        for name, group in summary["over_seeds"].items()
        if all(run in runs for run in group["runs"])
    }
    return seeds_table({**summary, "over_seeds": groups}, summary["primary_metric"]) if groups else None


def _cautions(decision: Decision) -> list[str]:
    """What keeps the best from being one, in words."""
    return list(filter(None, [contradiction(decision.standing), failures_in_the_best(decision.failures)]))


def _findings(results: StoredResults, decision: Decision) -> list[str]:
    """What the columns verdict and Pareto say, in words."""
    standing = decision.standing
    lines = []
    if standing.best is not None and standing.comparisons:
        level = [name for name in standing.level[1:] if name not in standing.better]
        told = (
            f"can not be told from it on these examples: {', '.join(level)}"
            if level
            else "no other one is level with it"
            if standing.better
            else f"every other one is {all_others(standing)}"
        )
        highest = "Highest" if standing.better else "Best"
        lines.append(
            f"{highest} on {decision.metric}: {standing.best}; {told} (paired tests at 5% over "
            f"{all_pairs(standing.family)}; seeds are taken together). `dspylab compare` says by how much."
        )
        leaning = [standing.comparisons[name] for name in standing.probably_worse]
        if leaning:
            said = f"{', '.join(standing.probably_worse)}: {probably_worse(leaning, standing)}."
            lines.append(" ".join(filter(None, [said, settling(leaning, standing.family)])))
    if results.without_rows:
        runs = ", ".join(results.without_rows)
        lines.append(f"Without a verdict, as their rows are not here: {runs}: {results.remedy}.")
    return lines


def _absent(without: Sequence[str], newer: Sequence[str]) -> list[str]:
    """The runs of the matrix that are in no row of the table, whatever the filters, in words."""
    lines = []
    if without:
        why = "as they have no results of the experiment as it is"
        lines.append(f"Not in the table, {why}: {named(without)}: `dspylab run`.")
    if newer:
        lines.append(f"Not in the table, as the summary is older: {named(newer)}: `dspylab aggregate`.")
    return lines


def _document(
    results: StoredResults, decision: Decision, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    best = decision.standing.best
    return {
        "experiment": results.summary["experiment"],
        "primary_metric": decision.metric,
        "best": best,
        "not_told_apart": list(decision.standing.not_told_apart),
        "failures_in_best": to_json(decision.failures),
        "dominated_by": {
            name: {"surely": list(place.surely_by), "by_the_figures": list(place.dominated_by)}
            for name, place in decision.places.items()
        },
        "runs": [{"run": row["key"], **{name: row[name] for name in row if name != "key"}} for row in rows],
    }
