"""Which figures a check may be about, and whether the checks of a file make sense. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from dspylab.config.axes import NAMED_AXES, check_coordinates
from dspylab.config.defect import Defect
from dspylab.config.models import Check, Metric
from dspylab.config.scoring import WITH_PARTS
from dspylab.config.sections import MatrixPart, Sections
from dspylab.config.values import by_text
from dspylab.config.wording import Address, choose, listed

Better = Literal["less", "more"]

_STATISTICS = ("mean", "p50", "p90", "p95")
_TIMINGS = ("latency_s", "ttft_s", "ttfot_s", "itl_s", "example_s", "metric_s", "queue_s")
_RATES = ("decode_tokens_per_s", "output_tokens_per_s")
_LESS = (
    "active_s",
    "calls.failed",
    "calls.fallback_rate",
    "calls.parse_failures",
    "calls.total",
    "calls.truncated",
    "cost_usd",
    "cost_usd.judge",
    "cost_usd.optimizer",
    "cost_usd.task",
    "examples.unscored",
    "tokens.completion",
    "tokens.prompt",
    "tokens.reasoning",
)
#: Figures of a run beside its metrics, and whether less or more of them is better. `summary.json` has all
#: but ``examples.unscored``: the examples of the split that have no value of the primary metric.
FIGURES: Final[Mapping[str, Better]] = {
    **dict.fromkeys((f"{name}.{statistic}" for name in _TIMINGS for statistic in _STATISTICS), "less"),
    **dict.fromkeys((f"{name}.{statistic}" for name in _RATES for statistic in _STATISTICS), "more"),
    **dict.fromkeys(_LESS, "less"),
    "throughput_tokens_per_s": "more",
}
#: Short names of figures in `summary.json`, for columns of tables.
SHORT_NAMES: Final[Mapping[str, str]] = {
    "scored": "examples.scored",
    "failed": "examples.failed",
    "latency_p50_s": "latency_s.p50",
    "latency_p95_s": "latency_s.p95",
    "ttft_p50_s": "ttft_s.p50",
    "tokens_p50_per_s": "output_tokens_per_s.p50",
    "cost_usd": "cost_usd.total",
}
#: Columns that are said about a run, not measured in it.
SAID_OF_RUNS: Final = ("run", "verdict", "pareto")
#: What tables and checks would not know a metric of the same name from.
FIGURE_NAMES: Final = frozenset({*FIGURES, *SHORT_NAMES, *SAID_OF_RUNS, *NAMED_AXES})
#: What figures begin with, as `latency_s.p50` does: a number p50 of a metric would be another of that name.
FIGURE_GROUPS: Final = frozenset(
    name.partition(".")[0] for name in (*FIGURES, *SHORT_NAMES.values()) if "." in name
)


def check_checks(sections: Sections) -> Iterator[Defect]:
    """Checks the section `checks`.

    Args:
        sections: The sound parts of the file.

    Yields:
        What is wrong.
    """
    for name, check in (sections.checks or {}).items():
        address: Address = ("checks", name)
        if sections.metrics is not None and not _is_figure(name, sections.metrics):
            yield Defect(address, "there is no such figure", _proposal(name, sections.metrics))
        if check is not None:
            yield from _check_conditions(check, address)
            if isinstance(check.runs, dict) and sections.matrix is not None:
                known_values = _known_values(sections.matrix, sections.models)
                yield from check_coordinates(check.runs, (*address, "runs"), known_values)


def _is_figure(name: str, metrics: Mapping[str, Metric | None]) -> bool:
    if name in metrics or name in FIGURES:
        return True
    metric = metrics.get(name.partition(".")[0])
    return "." in name and metric is not None and metric.type in WITH_PARTS


def _proposal(name: str, metrics: Iterable[str]) -> str:
    if name.startswith("examples"):
        # Who thinks of examples that failed wants those to count that a metric could not score, too.
        return "did you mean examples.unscored?"
    otherwise = (
        f"name a metric ({listed(metrics)}), or a figure such as latency_s.p95, cost_usd or examples.unscored"
    )
    return choose(name, [*metrics, *FIGURES], otherwise)


def _check_conditions(check: Check, address: Address) -> Iterator[Defect]:
    if check.min is None and check.max is None and check.no_worse_than is None:
        yield Defect(address, "demands nothing", "add min, max or no_worse_than")
    if check.no_worse_than is not None and not check.no_worse_than.strip():
        yield Defect((*address, "no_worse_than"), "is empty", "name a branch, such as main")
    if check.runs == {}:
        yield Defect((*address, "runs"), "is empty", "name an axis and a value, or write runs: all")
    if check.min is not None and check.max is not None and check.min > check.max:
        yield Defect((*address, "min"), "is above max, so nothing can hold", "swap the two")
    if check.margin is not None and check.no_worse_than is None:
        remedy = "add no_worse_than: main, or take it out"
        yield Defect((*address, "margin"), "belongs to no_worse_than, which is missing", remedy)


def _known_values(matrix: MatrixPart, models: Mapping[str, Any] | None) -> dict[str, dict[str, Any] | None]:
    """Axis to its values by their canonical text, those of `include` among them; None if not known."""
    values: dict[str, list[Any] | None] = {"model": None if models is None else list(models)}
    values |= {name: matrix.axes.get(name) for name in matrix.named}
    for entry in matrix.include.values():
        for axis, value in entry.items():
            found = values.setdefault(axis, [])
            if found is not None:
                values[axis] = [*found, value]
    return by_text(values)
