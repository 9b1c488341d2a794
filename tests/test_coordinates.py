"""How coordinates are shown and typed: as the experiment file writes them, in every format."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from experiment_text import changed, findings
from hypothesis import given
from hypothesis import strategies as st
from made_summaries import metric, run_summary
from made_summaries import summary_of as made_summary
from report_pages import material_of, scored
from rich.console import Console

from dspylab.commands.select import select
from dspylab.commands.show import select_runs
from dspylab.config.models import Experiment
from dspylab.config.values import as_text
from dspylab.errors import UsageError
from dspylab.jsonable import to_json
from dspylab.pipeline.stages import parse_coordinate
from dspylab.plan.matrix import expand
from dspylab.records import JSON, RunSpec
from dspylab.report.formats import csv_text
from dspylab.report.ranking import Figures
from dspylab.report.runs_table import runs_table
from dspylab.report.tables import PlanRow, plan_table

json_values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(value=json_values | st.lists(json_values, max_size=2))
def test_what_is_shown_can_be_typed(value: JSON) -> None:
    assert parse_coordinate(f"program.style={as_text(value)}") == ("program.style", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (False, "false"),
        ("false", '"false"'),
        ("False", '"False"'),
        (None, "null"),
        ("null", '"null"'),
        ("~", '"~"'),
        ("", '""'),
        ("none", "none"),
        (0.5, "0.5"),
        ("0.5", '"0.5"'),
        ("größer", "größer"),
        (["ä", 1], '["ä", 1]'),
    ],
)
def test_text_is_in_quotes_where_it_would_be_something_else(value: JSON, text: str) -> None:
    assert as_text(value) == text


# --- shown


def plan_row(coordinates: dict[str, JSON]) -> PlanRow:
    return PlanRow(
        run="tiny", coordinates=coordinates, state="new", done=0, total=None, reasons=[], model="m",
        engine="native",
    )  # fmt: skip


def test_a_plan_shows_coordinates_as_the_file_writes_them() -> None:
    out = io.StringIO()
    rows = [plan_row({"model": "tiny", "program.think": False, "program.style": None, "lm.temperature": 0.0})]
    Console(file=out, width=200).print(plan_table(rows))
    assert "model=tiny program.think=false program.style=null lm.temperature=0.0" in out.getvalue()


def thinking() -> dict[str, Any]:
    """A summary with a run that thinks, one that does not, one that has no say, and one without the axis."""
    coordinates: dict[str, dict[str, JSON]] = {
        "on": {"model": "mini", "program.think": True, "seed": 1234},
        "off": {"model": "mini", "program.think": False, "seed": 1234},
        "unsaid": {"model": "mini", "program.think": None, "seed": 1234},
        "plain": {"model": "mini", "seed": 1234},
    }
    runs = {
        key: run_summary(coordinates=one, metrics={"accuracy": metric(0.5)})
        for key, one in coordinates.items()
    }
    return dict(to_json(made_summary(runs)))


def test_tables_and_csv_show_coordinates_as_the_file_writes_them() -> None:
    rows = [{"key": key, "verdict": None, "pareto": None, **run} for key, run in thinking()["runs"].items()]
    figures = Figures(rows, "accuracy")
    names = ["run", "program.think", "seed"]
    shown = csv.DictReader(io.StringIO(csv_text([figures.flat(row, names) for row in rows])))
    assert [row["program.think"] for row in shown] == ["true", "false", "null", ""]
    think, seed = (figures.column(name, 0) for name in names[1:])
    assert [think.cell(row) for row in rows] == ["true", "false", "null", "–"]  # noqa: RUF001
    assert seed.cell(rows[0]) == "1234"


def test_the_page_shows_coordinates_as_the_file_writes_them() -> None:
    material = material_of({key: scored(1.0) for key in ("on", "off", "unsaid", "bare")})
    axes: dict[str, dict[str, JSON]] = {
        "on": {"program.think": True, "program.style": "cot"},
        "off": {"program.think": False, "program.style": "true"},
        "unsaid": {"program.think": None, "program.style": "cot"},
        "bare": {"program.style": "cot"},
    }
    runs = [replace(run, figures={**run.figures, "coordinates": axes[run.key]}) for run in material.runs]
    page = runs_table(replace(material, runs=runs))
    for text in (">true<", ">false<", ">null<", ">–<", ">&quot;true&quot;<"):  # noqa: RUF001
        assert f'<td class="text" data-value="{text[1:-1]}"{text}/td>' in page
    assert "False" not in page


# --- typed


def specs(values: list[JSON]) -> tuple[RunSpec, ...]:
    return expand(
        Experiment.model_validate(
            {
                "name": "triage",
                "program": {"path": "program.py"},
                "dataset": {"path": "data.jsonl", "inputs": ["text"]},
                "models": {"mini": {"model": "openai/mini"}},
                "matrix": {"program.think": values},
                "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
            }
        )
    )


@pytest.mark.parametrize(
    ("typed", "axis", "meant"),
    [
        ("false", [False, True], False),
        ("False", [False, True], False),
        ("True", [False, True], True),
        ("None", [None, "cot"], None),
        ("False", [False, "False"], "False"),
        ("false", [False, "false"], False),
        ('"false"', [False, "false"], "false"),
    ],
)
def test_a_value_may_be_typed_as_python_writes_it(typed: str, axis: list[JSON], meant: JSON) -> None:
    runs = specs(axis)
    assert select(runs, [f"program.think={typed}"], "run-one", "run").coordinates["program.think"] is meant
    summary = {"runs": {run.key: {"coordinates": dict(run.coordinates)} for run in runs}}
    (key,) = select_runs(summary, [f"program.think={typed}"])
    assert summary["runs"][key]["coordinates"]["program.think"] is meant


@pytest.mark.parametrize("typed", ["False", "false", "0"])
def test_a_value_that_is_none_of_an_axis_stays_refused(typed: str) -> None:
    runs = specs(["false", "true", 1])
    with pytest.raises(UsageError, match="names no run"):
        select(runs, [f"program.think={typed}"], "run-one", "run")
    summary = {"runs": {run.key: {"coordinates": run.coordinates} for run in runs}}
    with pytest.raises(UsageError) as caught:
        select_runs(summary, [f"program.think={typed}"])
    assert 'there is: "false", "true", 1' in str(caught.value)


def test_a_finding_does_not_contradict_itself(tmp_path: Path) -> None:
    axis = '  program.think: ["false", "true"]\n'
    text = changed("  exclude: [{", f"{axis}  exclude: [{{program.think: true}}, {{")
    found = "\n".join(findings(tmp_path, text))
    assert 'the axis has no value true: there is: "false", "true"' in found


def test_names_of_runs_are_as_ever() -> None:
    runs = specs([False, "cot", None])
    assert [run.key for run in runs] == ["mini-think-false", "mini-cot", "mini-think-null"]
