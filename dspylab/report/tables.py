"""Tables for the terminal, made from a summary or a plan. They are built here and printed by commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dspylab.config.values import as_text
from dspylab.config.wording import named
from dspylab.jsonable import to_json
from dspylab.printable import printable
from dspylab.records import JSON, Summary
from dspylab.report.entries import (
    estimate_of,
    first_words,
    mean_of,
    metric_of,
    most_frequent_error,
    other_metrics,
    ranked,
)
from dspylab.report.fitting import Column, FittingTable
from dspylab.report.numbers import (
    NOTHING,
    cost,
    count,
    difference,
    duration,
    number,
)  # fmt: skip

#: What the columns of timings mean.
LATENCY_LEGEND = "latency: a call from sending it to its last token."
TOKENS_LEGEND = "tok/s: tokens of a reply by its latency."
#: Runs whose failures are described below the table.
_NAMED_FAILURES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One run of a plan.

    Attributes:
        run: Key of the run.
        coordinates: Axis name to value.
        state: ``done``, ``stale``, ``half done``, ``new`` or whatever the plan calls it.
        done: Examples that are finished and kept.
        total: Examples of the run; None when the dataset was not read.
        reasons: Why it will run.
        model: Id of the model, or LiteLLM's name of it.
        engine: ``native`` or ``litellm``.
    """

    run: str
    coordinates: Mapping[str, JSON]
    state: str
    done: int
    total: int | None
    reasons: Sequence[str]
    model: str
    engine: str


def results_table(summary: Summary | Mapping[str, Any]) -> RenderableType:
    """The results of an experiment, one row a run: the best first, incomplete ones last.

    Below it, if runs differ in their seed alone, their metrics over all seeds.

    Args:
        summary: The summary, or the content of `summary.json`.

    Returns:
        A rich renderable that fits itself to the width of the terminal. Names are shown as they are:
        neither markup nor control characters in them act.
    """
    document: Mapping[str, Any] = to_json(summary)
    primary = document["primary_metric"]
    table = _runs_table(document, primary)
    if not document["over_seeds"]:
        return table
    return Group(table, Text(), seeds_table(document, primary))


def plan_table(rows: Sequence[PlanRow], title: str = "Plan") -> RenderableType:
    """The runs of an experiment and what is to be done for each.

    Args:
        rows: The runs in the order of the matrix.
        title: Above the table.

    Returns:
        A rich renderable that fits itself to the width of the terminal.
    """
    columns = (
        Column("run", lambda row: row.run, text=True),
        Column("coordinates", _coordinates, rank=3, text=True),
        Column("state", _state, text=True, style=lambda row: "" if row.state == "done" else "bold"),
        Column("reasons", lambda row: "; ".join(row.reasons) or NOTHING, text=True),
        Column("model", lambda row: row.model, rank=2, text=True),
        Column("engine", lambda row: row.engine, rank=1, text=True),
    )
    return FittingTable(title, columns, rows)


def _runs_table(document: Mapping[str, Any], primary: str) -> FittingTable:
    rows = ranked([{"key": key, **run} for key, run in document["runs"].items()], primary)
    columns = (
        Column("run", name_of, text=True),
        _primary_column(rows, primary),
        Column("scored", scored, rank=1, legend="scored: of those attempted."),
        Column("failed", lambda run: count(run["examples"]["failed"]), rank=4, style=alarm),
        Column(
            "latency\np50",
            lambda run: duration(run["latency_s"]["p50"]),
            rank=2,
            legend=LATENCY_LEGEND,
        ),
        Column("latency\np95", lambda run: duration(run["latency_s"]["p95"]), rank=5),
        Column("TTFT\np50", lambda run: duration(run["ttft_s"]["p50"]), rank=6),
        Column(
            "tok/s\np50",
            lambda run: number(run["output_tokens_per_s"]["p50"]),
            rank=7,
            legend=TOKENS_LEGEND,
        ),
        Column("cost", lambda run: cost(run["cost_usd"]["total"]), rank=3),
        *_compile_columns(rows),
        *_other_metrics(rows, primary),
    )
    return FittingTable(table_title(document), columns, rows, run_notes(rows, primary))


def seeds_table(document: Mapping[str, Any], primary: str) -> FittingTable:
    """The metrics of runs that differ in their seed alone, one row for all seeds."""
    runs = document["runs"]
    groups = [
        {
            "key": key,
            "complete": all(runs[run]["complete"] for run in group["runs"]),
            **group,
        }
        for key, group in document["over_seeds"].items()
    ]
    rows = ranked(groups, primary)
    columns = (
        Column("runs", name_of, text=True),
        _primary_column(rows, primary),
        Column("seeds", lambda group: count(len(group["runs"])), rank=1),
        Column(
            "examples",
            lambda group: count(metric_of(group, primary).get("examples")),
            rank=2,
            legend="examples: distinct; each is one unit of the interval, whatever the number of seeds.",
        ),
        *_other_metrics(rows, primary),
    )
    return FittingTable("over seeds", columns, rows)


def _compile_columns(rows: Sequence[Mapping[str, Any]]) -> Iterator[Column]:
    """What compiling a run's program cost, and what it gained, where there is such a thing."""

    def compiled(run: Mapping[str, Any], name: str) -> Any:
        return (run.get("compile") or {}).get(name)

    def gained(run: Mapping[str, Any]) -> str:
        gain = compiled(run, "gain")
        return NOTHING if gain is None else difference(gain["difference"], gain["ci95"])

    def spent(run: Mapping[str, Any]) -> str:
        return cost(compiled(run, "cost_usd")) if run.get("compile") else NOTHING

    if not any(run.get("compile") for run in rows):
        return
    legend = "gain: over the same run without an optimizer; `dspylab compare` tests it."
    yield Column("gain", gained, rank=1, legend=legend)
    if any(run.get("compile") and compiled(run, "cost_usd") != 0 for run in rows):
        yield Column("compile\ncost", spent, rank=2, legend="compile cost: once for all runs of a program.")
        yield Column("cost/\npoint", lambda run: cost(compiled(run, "cost_per_point_usd")), rank=7)


def _primary_column(rows: Sequence[Mapping[str, Any]], primary: str) -> Column:
    has_interval = any(metric_of(row, primary).get("ci95") for row in rows)
    return Column(
        printable(primary),
        partial(estimate_of, name=primary),
        legend="[…]: 95% interval." if has_interval else "",
    )


def _other_metrics(rows: Sequence[Mapping[str, Any]], primary: str) -> list[Column]:
    """The means of the other metrics."""
    return [
        Column(printable(name), partial(mean_of, name=name), rank=other_rank(place))
        for place, name in enumerate(other_metrics(rows, primary))
    ]


def other_rank(place: int) -> int:
    """Rank of the column of another metric than the primary one: the first stay longer than tails of timings.

    Args:
        place: How many of the others come before it.
    """
    return 4 + 2 * place


def name_of(row: Mapping[str, Any]) -> str:
    """The name of a run, with a star if it is not complete."""
    return str(row["key"]) + ("" if row["complete"] else "*")


def table_title(document: Mapping[str, Any]) -> str:
    """The name of an experiment, and what it is for."""
    description = " ".join(str(document["description"]).split())
    return f"{document['experiment']}: {description}" if description else str(document["experiment"])


def run_notes(rows: Sequence[Mapping[str, Any]], primary: str) -> list[str]:
    """What has to be said below a table of runs: what is incomplete, failed or unknown."""
    notes = []
    if any(not run["complete"] for run in rows):
        notes.append(
            "* not complete: `dspylab run` goes on, or says why not. Its figures are over what is done."
        )
    notes += _failures([run for run in rows if run["examples"]["failed"]])
    notes += _metric_errors(rows)
    if any(run["cost_usd"]["unpriced_calls"] for run in rows):
        notes.append(
            "A cost is missing where a model has no known price (give it pricing: in the file) or is the "
            "program's own."
        )
    several = sorted({name for run in rows for name in run["metrics"] if name.startswith(f"{primary}.")})
    if several and all(metric_of(run, primary).get("mean") is None for run in rows):
        notes.append(f"{primary} gives several numbers; rank by one of them: {', '.join(several)}.")
    return notes


def _metric_errors(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metrics that raised, each with its runs; an example of it, of the run where it did so most often."""
    raised: dict[str, list[Mapping[str, Any]]] = {}
    for run in rows:
        for name in run.get("metric_errors", {}):
            raised.setdefault(name, []).append(run)
    return [_metric_error(name, runs) for name, runs in raised.items()]


def _metric_error(metric: str, runs: Sequence[Mapping[str, Any]]) -> str:
    worst = max(runs, key=lambda run: int(run["metric_errors"][metric]))
    often = {(run["metric_errors"][metric], run["examples"]["attempted"]) for run in runs}
    most = "" if len(often) == 1 else "up to "
    each = " each" if len(runs) > 1 and not most else ""
    return (
        f"{named([run['key'] for run in runs])}: {metric} has no value for {most}"
        f"{count(worst['metric_errors'][metric])} of {count(worst['examples']['attempted'])} examples{each}"
        f"{_such_as(first_words(worst.get('first_metric_errors', {}).get(metric)))}"
    )


def _failures(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """What most often failed the examples of each run, of the first few runs."""
    lines = []
    for run in failed[:_NAMED_FAILURES]:
        kind, often, first = most_frequent_error(run)
        number_failed = run["examples"]["failed"]
        of_them = "" if often == number_failed else f" ({count(often)} of them)"
        lines.append(f"{run['key']}: {count(number_failed)} failed: {kind}{of_them}{_such_as(first)}")
    more = len(failed) - len(lines)
    if more:
        lines.append(f"{count(more)} more {'run has' if more == 1 else 'runs have'} failed examples.")
    return lines


def _such_as(first: str) -> str:
    return f", such as {first}" if first else ""


def scored(run: Mapping[str, Any]) -> str:
    """Examples that have a score, of those attempted."""
    examples = run["examples"]
    of_total = "" if examples["attempted"] == examples["total"] else f" of {count(examples['total'])}"
    return f"{count(examples['scored'])}/{count(examples['attempted'])}{of_total}"


def alarm(run: Mapping[str, Any]) -> str:
    """The style of the number of failures."""
    return "red" if run["examples"]["failed"] else ""


def _coordinates(row: PlanRow) -> str:
    return " ".join(f"{axis}={as_text(value)}" for axis, value in row.coordinates.items())


def _state(row: PlanRow) -> str:
    if row.total is None or not 0 < row.done < row.total:
        return row.state
    return f"{row.state} {row.done} of {row.total}"
