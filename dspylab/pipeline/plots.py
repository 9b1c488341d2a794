"""How DVC draws what the summary stage leaves: its plots, and the Vega-Lite templates that they use. Pure.

DVC has no template with intervals, so there are two of our own. DVC looks for templates in `.dvc/plots`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

#: Folder of the templates, relative to the root of the repository.
TEMPLATES_FOLDER = PurePosixPath(".dvc/plots")
_RANGE, _PARETO = "dspylab_range", "dspylab_pareto"


def plots(name: str, metric: str) -> dict[str, dict[str, Any]]:
    """The plots of an experiment.

    Args:
        name: Name of the experiment.
        metric: Name of the metric that ranks the runs.

    Returns:
        Name of the plot, and of its file, to what `dvc.yaml` says about it.
    """
    return {
        "score": {
            "template": _RANGE,
            "x": "score",
            "y": "run",
            "title": f"{name}: {metric} by run, with 95% interval",
            "x_label": metric,
            "y_label": "run",
        },
        "pareto": {
            "template": _PARETO,
            "x": "example_s",
            "y": "score",
            "title": f"{name}: {metric} against time and cost",
            "x_label": "median time of an example (s)",
            "y_label": metric,
        },
        "latency": {
            "template": _RANGE,
            "x": "latency_s",
            "y": "run",
            "title": f"{name}: latency of a call by run, median to 95th percentile",
            "x_label": "latency (s)",
            "y_label": "run",
        },
    }


def template_files() -> dict[str, str]:
    """The templates: file, relative to the root of the repository, to text."""
    return {
        str(TEMPLATES_FOLDER / f"{name}.json"): json.dumps(template, indent=2) + "\n"
        for name, template in ((_RANGE, _range_template()), (_PARETO, _pareto_template()))
    }


def _anchor(name: str) -> str:
    """What DVC replaces in a template."""
    return f"<DVC_METRIC_{name}>"


def _range_template() -> dict[str, Any]:
    """A line from `low` to `high` and a point, one row for each run, the revisions one below the other."""
    run = {
        "field": _anchor("Y"),
        "type": "nominal",
        "title": None,
        "sort": {"field": _anchor("X"), "order": "descending"},
        "axis": {"labelLimit": 400},
    }
    value = {"type": "quantitative", "title": _anchor("X_LABEL"), "scale": {"zero": False}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": _anchor("DATA")},
        "title": {"text": _anchor("TITLE"), "anchor": "start"},
        "width": 600,
        "height": {"step": 22},
        "encoding": {"y": run, "yOffset": {"field": "rev", "sort": []}, "color": _anchor("COLOR")},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6},
                "encoding": {"x": {"field": "low", **value}, "x2": {"field": "high"}},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70},
                "encoding": {
                    "x": {"field": _anchor("X"), **value},
                    "tooltip": _tooltip(_anchor("Y"), _anchor("X"), "low", "high"),
                },
            },
        ],
    }


def _pareto_template() -> dict[str, Any]:
    """Score against time and against cost; runs that none beats in everything are filled and named."""
    score = {
        "field": _anchor("Y"),
        "type": "quantitative",
        "title": _anchor("Y_LABEL"),
        "scale": {"zero": False},
    }
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": _anchor("DATA")},
        "title": {"text": _anchor("TITLE"), "anchor": "start"},
        "hconcat": [
            _panel(_anchor("X"), _anchor("X_LABEL"), score),
            _panel("cost_usd", "cost of the run (US dollars)", score),
        ],
    }


def _panel(field: str, label: str, score: Mapping[str, Any]) -> dict[str, Any]:
    on_front = {"test": "datum.front == 'yes'"}
    return {
        "width": 420,
        "height": 320,
        "encoding": {
            "x": {"field": field, "type": "quantitative", "title": label, "scale": {"zero": False}},
            "y": score,
        },
        "layer": [
            {
                "mark": {"type": "point", "size": 80, "strokeWidth": 2},
                "encoding": {
                    "color": _anchor("COLOR"),
                    "fillOpacity": {"condition": {**on_front, "value": 1}, "value": 0},
                    "fill": _anchor("COLOR"),
                    "tooltip": _tooltip("run", _anchor("Y"), _anchor("X"), "cost_usd", "front"),
                },
            },
            {
                "transform": [{"filter": "datum.front == 'yes'"}],
                "mark": {"type": "text", "align": "left", "dx": 8, "dy": -6, "fontSize": 10, "limit": 200},
                "encoding": {"text": {"field": "run"}},
            },
        ],
    }


def _tooltip(*fields: str) -> list[dict[str, str]]:
    return [{"field": "rev"}, *({"field": field} for field in fields)]
