"""The table of runs in HTML, as it stands before the page's script makes it sortable. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspylab.config.values import as_text
from dspylab.report.entries import estimate_of, metric_of, most_frequent_error, other_metrics, value_of
from dspylab.report.formats import html_text
from dspylab.report.material import Material, RunMaterial
from dspylab.report.numbers import (
    NOTHING,
    cost,
    count,
    difference,
    duration,
    number,
    p_value,
)
from dspylab.report.standing import WORDS, all_pairs, standing_of

#: Axes whose values get a column; with more of them the name of the run says it well enough.
_MOST_AXES = 5
#: Size of the picture of an interval, in pixels.
_BAR_WIDTH, _BAR_HEIGHT, _DOT = 90, 12, 4


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table.

    Attributes:
        title: Heading.
        cell: From a run to what is shown, as HTML.
        value: From a run to what it is sorted by; None sorts last.
        hint: What it means.
        numeric: Whether it is sorted and set as figures; the first click then puts the best first.
        less_is_better: Whether the least is the best.
    """

    title: str
    cell: Callable[[RunMaterial], str]
    value: Callable[[RunMaterial], float | str | None]
    hint: str = ""
    numeric: bool = True
    less_is_better: bool = True


def runs_table(material: Material) -> str:
    """The table of runs, the best first, as HTML.

    Args:
        material: What the report is made from.
    """
    columns = _columns(material)
    head = "".join(_heading(column) for column in columns)
    body = "".join(_row(run, columns, material) for run in material.runs)
    parts = [
        '<div class="scroll"><table class="runs" id="runs"><thead><tr>',
        f'<th scope="col"><span title="Shown among the examples below">show</span></th>{head}</tr></thead>',
        f"<tbody>{body}</tbody></table></div>",
        '<p class="note">[…]: 95% interval. Latency and TTFT: of one call, from sending it. ',
        "Tokens/s: those of a reply by its latency. ",
        f"{NOTHING}: no such figure. Click a heading to sort.</p>",
    ]
    return "".join(parts) + _over_seeds(material)


def _columns(material: Material) -> list[_Column]:
    ranks = {run.key: rank for rank, run in enumerate(material.runs, start=1)}
    low, high = _range(material)
    dominance = material.decision.dominance()
    columns = [
        _Column("#", lambda run: str(ranks[run.key]), lambda run: ranks[run.key], "rank by the metric"),
        _Column("run", _name, lambda run: run.key, numeric=False),
        *_axes(material),
        _Column(
            material.primary,
            lambda run: (
                _bar(metric_of(run.figures, material.primary), low, high, standing_of(material, run))
                + html_text(estimate_of(run.figures, material.primary))
            ),
            lambda run: value_of(run.figures, material.primary),
            "mean and 95% interval",
            less_is_better=False,
        ),
        _Column(
            "against the best",
            lambda run: _against(material, run),
            lambda run: list(WORDS).index(standing_of(material, run)),
            "paired by example, corrected for the number of runs (Holm)",
            numeric=False,
        ),
        _Column(
            "failed", _failed, lambda run: run.figures["examples"]["failed"], "examples without a result"
        ),
        _timing("latency p50", "latency_s", "p50"),
        _timing("latency p95", "latency_s", "p95"),
        _timing("TTFT p50", "ttft_s", "p50"),
        _figure("tokens/s p50", lambda run: run.figures["output_tokens_per_s"]["p50"], number, better="more"),
        _figure("tokens out", lambda run: run.figures["tokens"]["completion"], count),
        _figure("cost", lambda run: run.figures["cost_usd"]["total"], cost),
        _Column(
            "Pareto",
            lambda run: html_text(dominance.get(run.key, NOTHING)),
            lambda run: dominance.get(run.key),
            "front: no other run is at least as good in quality, time and cost; dominated?: by the figures "
            "alone, which may be chance",
            numeric=False,
        ),
    ]
    others = other_metrics([run.figures for run in material.runs], material.primary)
    return columns + [_other_metric(name) for name in others]


def _timing(title: str, name: str, statistic: str) -> _Column:
    return _figure(title, lambda run: run.figures[name][statistic], duration)


def _figure(
    title: str,
    value: Callable[[RunMaterial], float | None],
    shown: Callable[[float | None], str],
    better: str = "less",
) -> _Column:
    return _Column(title, lambda run: html_text(shown(value(run))), value, less_is_better=better == "less")


def _other_metric(name: str) -> _Column:
    return _Column(
        name,
        lambda run: html_text(estimate_of(run.figures, name)),
        lambda run: value_of(run.figures, name),
        less_is_better=False,
    )


def _axes(material: Material) -> list[_Column]:
    """The axes in which runs differ."""
    names = dict.fromkeys(axis for run in material.runs for axis in run.figures["coordinates"])
    varying = [axis for axis in names if len({_coordinate(run, axis) for run in material.runs}) > 1]
    return [_axis(axis) for axis in varying] if 1 < len(varying) <= _MOST_AXES else []


def _axis(axis: str) -> _Column:
    return _Column(
        axis.rpartition(".")[2],
        lambda run: html_text(_coordinate(run, axis)),
        lambda run: _coordinate(run, axis),
        axis,
        numeric=False,
    )


def _coordinate(run: RunMaterial, axis: str) -> str:
    coordinates = run.figures["coordinates"]
    return as_text(coordinates[axis]) if axis in coordinates else NOTHING


def _heading(column: _Column) -> str:
    first = "ascending" if column.less_is_better else "descending"
    kind = "number" if column.numeric else "text"
    hint = f' title="{html_text(column.hint)}"' if column.hint else ""
    return (
        f'<th scope="col" class="{kind}" data-first="{first}"{hint}>'
        f'<button type="button">{html_text(column.title)}</button></th>'
    )


def _row(run: RunMaterial, columns: Sequence[_Column], material: Material) -> str:
    key = html_text(run.key)
    able = "checked" if run.rows is not None else "disabled"
    box = (
        f'<td><input type="checkbox" {able} data-run="{key}" aria-label="Show {key} among the examples"></td>'
    )
    cells = []
    for column in columns:
        value = column.value(run)
        kind = "number" if column.numeric else "text"
        content = column.cell(run)
        shown = "" if value is None else html_text(value)
        cells.append(f'<td class="{kind}" data-value="{shown}">{content}</td>')
    return f'<tr class="{standing_of(material, run)}">{box}{"".join(cells)}</tr>'


def _name(run: RunMaterial) -> str:
    mark = "" if run.figures["complete"] else ' <span class="mark" title="not complete">incomplete</span>'
    return f"<code>{html_text(run.key)}</code>{mark}"


def _against(material: Material, run: RunMaterial) -> str:
    standing = standing_of(material, run)
    words = f'<span class="chip {standing}">{html_text(WORDS[standing])}</span>'
    found = material.standing.comparisons.get(run.side)
    if found is None or found.difference is None:
        return words
    counted = f"better on {found.wins}, worse on {found.losses} of {found.n} examples"
    title = (
        f"{f'the same on all {found.n} examples' if found.is_the_same else counted}; "
        f"{p_value(found.p_adjusted)} after correction over {all_pairs(material.standing.family)}"
    )
    shown = html_text(difference(found.difference, found.ci95))
    return f'{words} <span class="difference" title="{html_text(title)}">{shown}</span>'


def _failed(run: RunMaterial) -> str:
    failed: int = run.figures["examples"]["failed"]
    if not failed:
        return "0"
    kinds = ", ".join(f"{kind} {often}" for kind, often in run.figures["errors"].items())
    _, _, first = most_frequent_error(run.figures)
    title = f"{kinds}; {first}" if first else kinds
    return f'<span class="alarm" title="{html_text(title)}">{count(failed)}</span>'


def _range(material: Material) -> tuple[float, float]:
    """The least and the greatest end of the intervals."""
    ends = [
        end
        for run in material.runs
        if (metric := metric_of(run.figures, material.primary)).get("mean") is not None
        for end in (metric["ci95"] or (metric["mean"],))
    ]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _bar(metric: Mapping[str, Any], low: float, high: float, standing: str) -> str:
    """A picture of a mean and its interval on the scale of all runs."""
    if metric.get("mean") is None:
        return ""
    room = _BAR_WIDTH - 2 * _DOT

    def x(value: float) -> float:
        share = 0.5 if high == low else (value - low) / (high - low)
        return round(_DOT + room * share, 1)

    left, right = metric["ci95"] or (metric["mean"], metric["mean"])
    middle = _BAR_HEIGHT / 2
    return (
        f'<svg class="bar {standing}" width="{_BAR_WIDTH}" height="{_BAR_HEIGHT}" aria-hidden="true">'
        f'<line x1="{x(left)}" x2="{x(right)}" y1="{middle}" y2="{middle}"/>'
        f'<circle cx="{x(metric["mean"])}" cy="{middle}" r="{_DOT}"/></svg>'
    )


def _over_seeds(material: Material) -> str:
    groups = material.summary["over_seeds"]
    if not groups:
        return ""
    rows = "".join(
        f'<tr><td class="text"><code>{html_text(name)}</code></td>'
        f'<td class="number">{len(group["runs"])}</td>'
        f'<td class="number">{html_text(estimate_of(group, material.primary))}</td></tr>'
        for name, group in groups.items()
    )
    return (
        '<h3>Over seeds</h3><div class="scroll"><table class="runs"><thead><tr><th class="text">runs</th>'
        f'<th class="number">seeds</th><th class="number">{html_text(material.primary)}</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
