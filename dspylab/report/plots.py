"""The plots of a report as SVG, drawn by Vega-Altair without a browser and without the network. Pure.

Colours are CSS variables of the page, so that one picture serves the light and the dark theme.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dspylab.aggregate.pareto import Figure, Point, pareto
from dspylab.aggregate.stats import percentile
from dspylab.errors import EnvironmentProblem
from dspylab.extras import install_command
from dspylab.printable import printable
from dspylab.redact import redact
from dspylab.report.entries import metric_of
from dspylab.report.material import Material, Objective, RunMaterial
from dspylab.report.numbers import cost, duration, estimate
from dspylab.report.standing import WORDS, standing_of

if TYPE_CHECKING:
    import altair as alt

#: What has to be installed, by the names under which it is imported.
_PACKAGES = ("altair", "vl_convert")
#: Width of a picture, and height of a row for a run where there are many and where there are few, in pixels.
_WIDTH, _ROW, _WIDE_ROW = 610, 24, 44
#: Height of a plane, in pixels: at least, and what a list of runs has less than it for titles.
_LEAST_HEIGHT, _TITLES = 240, 24
_MOST_NAME = 34
#: Runs up to which each has its name in a plane; of more, those on the front.
_MOST_NAMES = 8
#: Height of a name as a share of a plane.
_NAME_HEIGHT = 0.07
#: Widest name beside an axis, and a wide character, in pixels.
_NAME_LIMIT, _CHARACTER = 250, 7.4
#: Ratio of the greatest to the least figure above which an axis is logarithmic.
_LOGARITHMIC = 30
_SHARES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
_STANDINGS = {words: f"var(--{standing})" for standing, words in WORDS.items()}
#: Which end of a name stands at its point, and how far it is moved over it, in pixels.
_LEANINGS: tuple[tuple[Literal["left", "right"], int], ...] = (("left", -4), ("right", 4))
_ROLES = {"task": "var(--task)", "judge": "var(--judge)", "optimizer": "var(--optimizer)"}


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture for the page.

    Attributes:
        title: Heading above it.
        note: How to read it.
        svg: The picture.
    """

    title: str
    note: str
    svg: str


def require_packages() -> None:
    """Makes sure that plots can be drawn.

    Raises:
        EnvironmentProblem: If a package is not installed.
    """
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise EnvironmentProblem(
            f"the plots need {' and '.join(absent)}, not installed here",
            where="dspylab report",
            remedy=f"{install_command('report')}, or take --format md, which has no plots",
        )


def plots(material: Material) -> list[Plot]:
    """The plots for which there are figures.

    Args:
        material: What the report is made from.
    """
    drawn = [
        _quality(material),
        _tradeoff(material, "time"),
        _tradeoff(material, "cost"),
        _cost_by_role(material),
        _spread(material.runs, "latency_s", "Latency of a call"),
        _spread(material.runs, "ttft_s", "Time to first token"),
    ]
    return [plot for plot in drawn if plot is not None]


def _quality(material: Material) -> Plot | None:
    import altair as alt

    values: list[dict[str, Any]] = []
    for run in material.runs:
        metric = metric_of(run.figures, material.primary)
        if metric.get("mean") is None:
            continue
        low, high = metric["ci95"] or (metric["mean"], metric["mean"])
        shown = f"{run.key}: {estimate(metric['mean'], metric['ci95'])}"
        values.append({
            "run": run.key, "mean": metric["mean"], "low": low, "high": high,
            "standing": WORDS[standing_of(material, run)], "shown": shown,
        })  # fmt: skip
    if not values:
        return None
    base = _chart(values).encode(
        y=_names(values), color=_colour("standing", _STANDINGS, values), description="shown:N"
    )
    x = alt.X("low:Q", title=_tame(material.primary), scale=alt.Scale(zero=False, nice=True, padding=6))
    bars = base.mark_rule(strokeWidth=2.5, opacity=0.55).encode(x=x, x2="high:Q")
    dots = base.mark_point(filled=True, size=80, opacity=1).encode(x="mean:Q")
    note = "Mean and 95% interval. Intervals that overlap may still differ: the verdict is from paired tests."
    return Plot(material.primary, note, _svg(bars + dots, height=_height(len(values))))


def _tradeoff(material: Material, objective: Objective) -> Plot | None:
    """Quality against what is paid for it. The front joins what nothing beats in both."""
    import altair as alt

    values = _tradeoffs(material, objective)
    if len(values) < 2 or not any(value["paid"] for value in values):
        return None
    is_cost = objective == "cost"
    front = sorted((value for value in values if value["front"]), key=lambda value: float(value["paid"]))
    title = "cost of 1,000 examples (USD)" if is_cost else "median time of an example (s)"
    x = alt.X("paid:Q", title=title, scale=_scale([value["paid"] for value in values]))
    y = alt.Y("quality:Q", title=_tame(material.primary), scale=alt.Scale(zero=False, nice=True, padding=14))
    line = _chart(front).mark_line(
        interpolate="step-after", color="var(--faint)", strokeDash=[4, 3], strokeWidth=1.5
    ).encode(x=x, y=y)  # fmt: skip
    dots = (
        _chart(values)
        .mark_point(filled=True, size=90, opacity=1)
        .encode(x=x, y=y, color=_colour("standing", _STANDINGS, values), description="shown:N")
    )
    chart = line + dots
    named = values if len(values) <= _MOST_NAMES else front
    placed = _placed(named, logarithmic=_is_wide([value["paid"] for value in values]))
    for leaning, shift in _LEANINGS:
        text = _chart([value for value in placed if value["align"] == leaning]).mark_text(
            dy=-11, dx=shift, align=leaning, fontSize=10.5, color="currentColor"
        )
        chart += text.encode(x=x, y=y, text="name:N")
    what = "Cost" if is_cost else "Time"
    note = "Up and to the left is better. The dashed front joins the runs that none beats in both."
    return Plot(
        f"{what} against {material.primary}",
        note,
        _svg(chart, height=max(_LEAST_HEIGHT, _height(len(values)) - _TITLES)),
    )


def _tradeoffs(material: Material, objective: Objective) -> list[dict[str, Any]]:
    """The complete runs with their quality, what is paid for it, and whether they are on the front."""
    shown, examples = (cost, 1000) if objective == "cost" else (duration, 1)
    values: list[dict[str, Any]] = []
    for run in material.runs:
        quality = metric_of(run.figures, material.primary).get("mean")
        of_example = material.figure([run.key], objective)
        if quality is None or of_example is None or not run.figures["complete"]:
            continue
        paid = of_example * examples
        values.append({
            "run": run.key, "paid": paid, "quality": quality, "standing": WORDS[standing_of(material, run)],
            "shown": f"{run.key}: {material.primary} {estimate(quality, None)}, {shown(paid)}",
        })  # fmt: skip
    points = [
        Point(
            name=value["run"],
            quality=Figure(value=value["quality"]),
            costs={"paid": Figure(value=value["paid"])},
        )
        for value in values
    ]
    for value, place in zip(values, pareto(points), strict=True):
        value["front"] = place.on_front
    return values


def _placed(points: Sequence[Mapping[str, Any]], *, logarithmic: bool) -> list[dict[str, Any]]:
    """The points that have room for their names, which lean away from the nearer edge."""
    across = [math.log(value["paid"]) if logarithmic else float(value["paid"]) for value in points]
    up = [float(value["quality"]) for value in points]
    boxes: list[tuple[float, float, float]] = []
    placed = []
    # The best first, so that it has its name in any case.
    for value, x, y in sorted(
        zip(points, _stretched(across), _stretched(up), strict=True), key=lambda e: -e[2]
    ):
        name, align = _short(value["run"]), "right" if x > 0.5 else "left"
        width = _CHARACTER * len(name) / _WIDTH
        left = x - width if align == "right" else x
        if all(left > end or left + width < start or abs(y - at) > _NAME_HEIGHT for start, end, at in boxes):
            boxes.append((left, left + width, y))
            placed.append({**value, "name": name, "align": align})
    return placed


def _stretched(figures: Sequence[float]) -> list[float]:
    """Figures moved and scaled to lie between 0 and 1."""
    least, most = min(figures), max(figures)
    return [(figure - least) / (most - least) if most > least else 0.0 for figure in figures]


def _spread(runs: Sequence[RunMaterial], figure: str, title: str) -> Plot | None:
    """A box a run: half of the calls in the box, 90% between the ends."""
    import altair as alt

    values: list[dict[str, Any]] = []
    for run in runs:
        ordered = getattr(run, figure)
        if ordered:
            at = {name: percentile(ordered, share) for name, share in _SHARES.items()}
            said = ", ".join(f"{name} {duration(value)}" for name, value in at.items())
            values.append({"run": run.key, **at, "shown": f"{run.key}: {said}, {len(ordered)} calls"})
    if not values:
        return None
    scale = _scale([value[name] for value in values for name in _SHARES])
    base = _chart(values).encode(y=_names(values), description="shown:N")
    x = alt.X("p5:Q", title="seconds", scale=scale)
    ends = base.mark_rule(color="var(--box)", strokeWidth=1.5).encode(x=x, x2="p95:Q")
    box = base.mark_bar(color="var(--box)", height=11, cornerRadius=2, opacity=0.55).encode(
        x=alt.X("p25:Q", title="seconds", scale=scale), x2="p75:Q"
    )
    middle = base.mark_tick(color="currentColor", thickness=2, size=15).encode(x="p50:Q")
    note = "Half of the calls lie in the box, 90% between the ends; the line is the median."
    return Plot(title, note, _svg(ends + box + middle, height=_height(len(values))))


def _cost_by_role(material: Material) -> Plot | None:
    import altair as alt

    values: list[dict[str, Any]] = [
        {"run": run.key, "role": role, "usd": usd, "shown": f"{run.key}, {role}: {cost(usd)}"}
        for run in material.runs
        for role, usd in run.figures["cost_usd"]["by_role"].items()
        if usd
    ]
    if not values:
        return None
    bars = (
        _chart(values)
        .mark_bar(height=13)
        .encode(
            y=_names(values),
            x=alt.X("usd:Q", title="US dollars"),
            color=_colour("role", _ROLES, values),
            order=alt.Order("role:N", sort="descending"),
            description="shown:N",
        )
    )
    rows = len({value["run"] for value in values})
    return Plot("Cost by role", "What the whole run cost, and who asked.", _svg(bars, height=_height(rows)))


def _chart(values: Sequence[Mapping[str, Any]]) -> alt.Chart:
    import altair as alt

    tame = [
        {name: _tame(item) if isinstance(item, str) else item for name, item in value.items()}
        for value in values
    ]
    return alt.Chart(alt.InlineData(values=tame))


def _tame(text: str) -> str:
    """Text without secrets and control characters: at those the renderer ends the whole process."""
    return printable(redact(text))


def _names(values: Sequence[Mapping[str, Any]]) -> alt.Y:
    import altair as alt

    order = list(dict.fromkeys(_tame(value["run"]) for value in values))
    # The reader's font may be wider than the one that text is measured with here.
    extent = min(_NAME_LIMIT, round(_CHARACTER * max(map(len, order))))
    axis = alt.Axis(labelLimit=_NAME_LIMIT, minExtent=extent, maxExtent=_NAME_LIMIT)
    return alt.Y("run:N", sort=order, title=None, axis=axis)


def _colour(field: str, colours: Mapping[str, str], values: Sequence[Mapping[str, Any]]) -> alt.Color:
    """Colours of the page's theme, with a legend of those that occur."""
    import altair as alt

    used = [name for name in colours if any(value[field] == name for value in values)]
    scale = alt.Scale(domain=used, range=[colours[name] for name in used])
    legend = alt.Legend(title=None, orient="top", symbolType="circle", offset=6) if len(used) > 1 else None
    return alt.Color(f"{field}:N", scale=scale, legend=legend)


def _scale(figures: Sequence[float]) -> alt.Scale:
    """From 0 where the figures are of one size, logarithmic where they are not."""
    import altair as alt

    return (
        alt.Scale(type="log", nice=True, padding=10) if _is_wide(figures) else alt.Scale(zero=True, nice=True)
    )


def _is_wide(figures: Sequence[float]) -> bool:
    """Whether figures are of so different sizes that only a logarithmic axis shows them all."""
    return min(figures) > 0 and max(figures) / min(figures) > _LOGARITHMIC


def _height(rows: int) -> int:
    """Height of a plot with a row for each run, in pixels; few runs have more room."""
    return max(_ROW * rows, min(_LEAST_HEIGHT, _WIDE_ROW * rows))


def _short(name: str) -> str:
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 1]}…"


def _svg(chart: alt.LayerChart | alt.Chart, height: int) -> str:
    import vl_convert

    grey = "var(--rule)"
    fitted = {"type": "fit-x", "contains": "padding"}
    dressed = chart.properties(width=_WIDTH, height=height, autosize=fitted).configure(
        background="transparent",
        font="system-ui, sans-serif",
        padding=4,
        axis={
            "labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 11.5,
            "titleFontSize": 11.5, "titleFontWeight": "normal", "domainColor": grey, "tickColor": grey,
            "gridColor": grey, "gridOpacity": 0.6, "tickCount": 6,
        },
        axisY={"titlePadding": 14},
        legend={"labelColor": "currentColor", "labelFontSize": 11.5, "symbolOpacity": 1},
        view={"stroke": None},
    )  # fmt: skip
    svg: str = vl_convert.vegalite_to_svg(dressed.to_dict())
    return svg
