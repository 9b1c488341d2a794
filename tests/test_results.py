"""Results for Python: typed records, frames, and the notebook that shows them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import execute

import dspylab
from dspylab.errors import DataError, EnvironmentProblem, UsageError
from dspylab.jsonable import to_json
from dspylab.records import ExampleFailure, ExampleResult, LMCall, Summary
from dspylab.testing import ChatRequest, FakeServer, Laboratory, answer_key, experiment, tickets

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks"
STYLES = ("predict", "cot")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """Results of two runs over eight tickets, one of which can not be answered."""

    right = answer_key(tickets(6))  # of the last two it knows nothing

    def answer(request: ChatRequest) -> str:
        return "no field in this reply" if "Ticket 3" in request.question else right(request)

    with FakeServer(answer=answer) as server:
        config = {
            "matrix": {"model": ["fake"], "program.style": list(STYLES), "seed": [0]},
            "models": {"fake": {"pricing": {"input": 1.0, "output": 2.0}}},
        }
        lab = experiment(tmp_path_factory.mktemp("results"), server_url=server.url, config=config)
        for style in STYLES:
            execute(lab, "run-one", "model=fake", f"program.style={style}", "seed=0")
        execute(lab, "aggregate")
    return lab


@pytest.fixture
def lab(made: Laboratory, tmp_path: Path) -> Laboratory:
    """A copy that a test may damage."""
    shutil.copytree(made.root, tmp_path / "copy")
    return Laboratory(tmp_path / "copy", made.name)


@pytest.mark.parametrize("name", [".", "experiment.yaml", "summary.json"])
def test_an_experiment_is_found_by_its_folder_or_a_file_in_it(made: Laboratory, name: str) -> None:
    assert list(dspylab.load_results(made.folder / name).runs) == ["fake-predict-seed0", "fake-cot-seed0"]


def test_the_summary_is_the_file_as_typed_records(made: Laboratory) -> None:
    summary = dspylab.load_results(made.folder).summary
    assert isinstance(summary, Summary)
    assert summary.runs["fake-cot-seed0"].metrics["accuracy"].ci95 is not None
    assert to_json(summary) == json.loads(made.summary.read_text())


def test_rows_are_typed_and_say_what_the_file_says(made: Laboratory) -> None:
    results = dspylab.load_results(str(made.folder))
    rows = list(results.rows("fake-predict-seed0"))
    assert [type(row) for row in rows] == [ExampleResult] * 3 + [ExampleFailure] + [ExampleResult] * 4
    assert isinstance(rows[0].calls[0], LMCall)
    assert [message.role for message in rows[0].calls[0].prompt or ()] == ["system", "user"]
    assert rows[3].error is not None
    assert rows[3].error.kind == "program"
    lines = made.raw("fake-predict-seed0").read_text().splitlines()
    assert [to_json(row) for row in rows] == [json.loads(line) for line in lines]
    assert len(list(results.rows())) == 16


def test_rows_are_read_one_at_a_time(lab: Laboratory) -> None:
    path = lab.raw("fake-predict-seed0")
    first, *_ = path.read_text().splitlines(keepends=True)
    path.write_text(first + "{ this is no row\n")
    rows = dspylab.load_results(lab.folder).rows("fake-predict-seed0")
    assert next(rows).index == 0
    with pytest.raises(DataError, match=r"raw\.jsonl:2: is not JSON"):
        next(rows)


def test_what_can_not_be_read_is_explained(lab: Laboratory) -> None:
    results = dspylab.load_results(lab.folder)
    with pytest.raises(UsageError, match="no run 'fake': one of: fake-predict-seed0, fake-cot-seed0"):
        results.rows("fake")
    with pytest.raises(UsageError, match="no table 'rows': one of: examples, runs, calls"):
        results.records("rows")  # type: ignore[arg-type]
    raw = lab.raw("fake-cot-seed0")
    for row in ({"run": "fake-cot-seed0"}, {"error": None, "calls": ["no call"]}):
        raw.write_text(json.dumps(row) + "\n")
        with pytest.raises(DataError, match=r"raw\.jsonl:1: is not a row of this version"):
            list(results.rows("fake-cot-seed0"))
    info = raw.with_name("run.json")
    changed = json.loads(info.read_text()) | {"config_hash": "other"}
    info.write_text(json.dumps(changed))
    with pytest.raises(DataError, match=r"of other results than the summary: .*dspylab aggregate"):
        results.rows("fake-cot-seed0")
    info.unlink()
    with pytest.raises(DataError, match=r"no such file: .*dvc pull"):
        results.rows()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "has schema_version 99, and this version .* reads 1: update dspylab"),
        ({"schema_version": 0}, "has schema_version 0, .*: build it anew"),
        ({"schema_version": None}, "has no schema_version, so it is no file of results"),
        ({"runs": {"a": {}}}, r"is not a summary: runs\.a\.coordinates: Field required: build it anew"),
    ],
)
def test_a_summary_of_another_version_is_refused(
    lab: Laboratory, change: dict[str, Any], message: str
) -> None:
    lab.summary.write_text(json.dumps(json.loads(lab.summary.read_text()) | change))
    with pytest.raises(DataError, match=message):
        dspylab.load_results(lab.folder)


def test_no_results_are_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"summary\.json: no such file: run the experiment"):
        dspylab.load_results(tmp_path)


def test_a_table_has_the_same_columns_in_every_line(made: Laboratory) -> None:
    lines = list(dspylab.load_results(made.folder).records())
    assert len(lines) == 16
    assert {tuple(line) for line in lines} == {tuple(lines[0])}
    assert list(lines[0]) == [
        *("run", "model", "program.style", "seed", "index", "example_id", "inputs.text", "labels.label"),
        *("prediction.label", "prediction.reasoning", "metrics.accuracy", "failed", "error", "error_kind"),
        *("example_s", "metric_s", "cost_usd", "calls"),
    ]
    failed = next(line for line in lines if line["failed"])
    assert failed["metrics.accuracy"] is None
    assert str(failed["error"]).startswith("AdapterParseError: ")
    assert (failed["error_kind"], failed["calls"]) == ("program", 2)


def test_pandas_frames(made: Laboratory) -> None:
    results = dspylab.load_results(made.folder)
    examples, runs, calls = (results.to_pandas(table) for table in ("examples", "runs", "calls"))
    assert examples.groupby("program.style")["metrics.accuracy"].count().to_dict() == {"cot": 7, "predict": 7}
    assert runs["metrics.accuracy"].tolist() == [5 / 7, 5 / 7]
    assert (runs["metrics.accuracy.ci95_low"] < 1).all()
    assert runs["examples.failed"].tolist() == [1, 1]
    assert calls["cost_usd"].sum() == pytest.approx(runs["cost_usd"].sum())
    # No call of this server has a gap between tokens: a column of numbers all the same.
    assert calls["saved_usd"].dtype == float


def test_polars_frames(made: Laboratory) -> None:
    results = dspylab.load_results(made.folder)
    examples, runs, calls = (results.to_polars(table) for table in ("examples", "runs", "calls"))
    assert examples.shape == (16, 18)
    assert examples["metrics.accuracy"].sum() == 10
    assert runs["run"].to_list() == ["fake-predict-seed0", "fake-cot-seed0"]
    assert calls["cost_usd"].sum() == pytest.approx(runs["cost_usd"].sum())
    assert str(calls["saved_usd"].dtype) == "Float64"


def test_values_of_several_kinds_are_text_in_polars(lab: Laboratory) -> None:
    path = lab.raw("fake-cot-seed0")
    first, *others = path.read_text().splitlines(keepends=True)
    row = json.loads(first)
    row["prediction"]["reasoning"] = 7
    path.write_text("".join([json.dumps(row) + "\n", *others]))
    frame = dspylab.load_results(lab.folder).to_polars()
    assert frame["prediction.reasoning"].to_list()[8] == "7"


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_missing_package_is_said(made: Laboratory, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    results = dspylab.load_results(made.folder)
    with pytest.raises(EnvironmentProblem, match=f"{package} is not installed: `pip install {package}`"):
        getattr(results, f"to_{package}")()


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = (
        "import sys, dspylab; before = set(sys.modules); dspylab.load_results; "
        "print(sorted(m for m in before if m.startswith('dspylab')), 'pydantic' in before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['dspylab'] False\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dspylab.nothing


def test_the_notebook_runs(made: Laboratory, tmp_path: Path) -> None:
    """Every cell is executed, in the place that the notebook has in the repository."""
    folder = tmp_path / "docs" / "notebooks"
    shutil.copytree(NOTEBOOKS, folder)
    shutil.copytree(made.root / "experiments", tmp_path / "experiments")
    notebook = folder / "results.ipynb"
    done = subprocess.run(
        [sys.executable, folder / "execute.py", notebook],
        env=os.environ | {"PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    executed = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in executed)
    shown = "".join("".join(output.get("text", [])) for cell in executed for output in cell["outputs"])
    assert "fake-cot-seed0: 0.714 over 7, 95% interval" in shown


def test_the_notebook_is_published_with_its_outputs() -> None:
    text = (NOTEBOOKS / "results.ipynb").read_text()
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code)
    assert "/home/" not in text
    assert "/tmp/" not in text
    assert str(Path(__file__).parent.parent) not in text
