"""DVC's own commands on a matrix of twenty runs: few columns, readable names, plots with data."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from conftest import Cli, MakeLab
from dvc.cli import main as dvc_command_line
from made_summaries import metric, run_summary, summary_of, timing

from dspylab.aggregate.views import plain_metrics, plot_points
from dspylab.pipeline.dvcfile import upsert
from dspylab.pipeline.plots import template_files
from dspylab.pipeline.stages import PipelineEntry
from dspylab.records import CostSummary, ExampleCounts, RunSummary, SeedsSummary
from dspylab.testing import ChatRequest, FakeServer, Laboratory, answer_key, tickets

# --- what is shown ------------------------------------------------------------------------------------------


def test_metrics_are_a_handful_however_many_runs_there_are() -> None:
    runs = {
        f"run-{number}": run_summary(metrics={"accuracy": metric(number / 3)}, cost_usd=0.25, failed=number)
        for number in range(4)
    }
    assert plain_metrics(summary_of(runs)) == {
        "best": {"run": "run-3", "accuracy": 1.0, "latency_p50_s": 0.5, "cost_usd": 0.25},
        "complete_runs": 4,
        "failed_examples": 6,
        "cost_usd": 1.0,
    }


def test_numbers_have_six_digits() -> None:
    runs = {"a": run_summary(metrics={"accuracy": metric(2 / 3)}, cost_usd=0.123456789)}
    assert plain_metrics(summary_of(runs))["best"]["accuracy"] == 0.666667
    assert plain_metrics(summary_of(runs))["cost_usd"] == 0.123457


def test_the_best_run_is_complete() -> None:
    runs = {
        "part": run_summary(metrics={"accuracy": metric(1.0)}, complete=False),
        "whole": run_summary(metrics={"accuracy": metric(0.5)}),
    }
    assert plain_metrics(summary_of(runs))["best"]["run"] == "whole"
    assert plain_metrics(summary_of(runs))["complete_runs"] == 1


def test_what_does_not_exist_is_left_out() -> None:
    runs = {"a": run_summary(latency_s=timing(None), cost_usd=None)}
    assert plain_metrics(summary_of(runs)) == {
        "best": {"run": "a", "accuracy": 0.8},
        "complete_runs": 1,
        "failed_examples": 0,
    }
    unanswered = CostSummary(total=None, by_role={"task": None}, saved=0.0, unpriced_calls=0)
    failed = {"a": replace(runs["a"], cost_usd=unanswered)}
    assert "cost_usd" not in plain_metrics(summary_of(failed))
    assert plain_metrics(summary_of({**failed, "b": run_summary(cost_usd=0.25)}))["cost_usd"] == 0.25
    unscored = {"a": run_summary(metrics={"accuracy": metric(None, n=0)})}
    assert "best" not in plain_metrics(summary_of(unscored))
    assert "best" not in plain_metrics(summary_of(unscored, primary="of_several.numbers"))


def test_points_of_the_plots() -> None:
    runs = {
        "slow": run_summary(metrics={"accuracy": metric(0.9, (0.8, 0.95))}, latency_s=timing(2.0, 3.0)),
        "quick": run_summary(metrics={"accuracy": metric(0.7)}, latency_s=timing(0.5, 1.0)),
        # Its calls are the shortest, but an example takes it many.
        "beaten": run_summary(
            metrics={"accuracy": metric(0.7)}, latency_s=timing(0.25, 0.5), example_s=timing(1.0)
        ),
        "part": run_summary(metrics={"accuracy": metric(1.0)}, complete=False),
    }
    assert plot_points(summary_of(runs)) == {
        "score": [
            {"run": "slow", "score": 0.9, "low": 0.8, "high": 0.95},
            {"run": "quick", "score": 0.7, "low": None, "high": None},
            {"run": "beaten", "score": 0.7, "low": None, "high": None},
        ],
        "latency": [
            {"run": "slow", "latency_s": 2.0, "low": 2.0, "high": 3.0},
            {"run": "quick", "latency_s": 0.5, "low": 0.5, "high": 1.0},
            {"run": "beaten", "latency_s": 0.25, "low": 0.25, "high": 0.5},
        ],
        "pareto": [
            {"run": "slow", "score": 0.9, "example_s": 2.0, "cost_usd": 0.5, "front": "yes"},
            {"run": "quick", "score": 0.7, "example_s": 0.5, "cost_usd": 0.5, "front": "yes"},
            {"run": "beaten", "score": 0.7, "example_s": 1.0, "cost_usd": 0.5, "front": "no"},
        ],
    }


def test_what_no_run_has_decides_no_front() -> None:
    runs = {
        "good": run_summary(metrics={"accuracy": metric(0.9)}, cost_usd=None),
        "bad": run_summary(metrics={"accuracy": metric(0.5)}, cost_usd=None),
    }
    assert [line["front"] for line in plot_points(summary_of(runs))["pareto"]] == ["yes", "no"]


def test_seeds_are_on_the_front_together() -> None:
    """As `dspylab show` has it: by the median over all their examples, and only when all are complete."""
    runs = {
        f"{name}-{seed}": run_summary(metrics={"accuracy": metric(mean)}, example_s=timing(median_s))
        for name, mean, medians_s in (("quick", 0.7, (0.5, 3.0)), ("slow", 0.7, (1.5, 1.5)))
        for seed, median_s in enumerate(medians_s)
    }
    groups = {
        name: SeedsSummary(
            runs=(f"{name}-0", f"{name}-1"),
            coordinates={"model": name},
            metrics={"accuracy": metric(0.7)},
            example_s=timing(median_s),
        )
        for name, median_s in (("quick", 1.0), ("slow", 1.5))
    }
    fronts = {
        line["run"]: line["front"] for line in plot_points(summary_of(runs, over_seeds=groups))["pareto"]
    }
    assert fronts == {"quick-0": "yes", "quick-1": "yes", "slow-0": "no", "slow-1": "no"}

    runs["quick-1"] = replace(runs["quick-1"], complete=False)
    fronts = {
        line["run"]: line["front"] for line in plot_points(summary_of(runs, over_seeds=groups))["pareto"]
    }
    assert fronts == {"quick-0": "no", "slow-0": "yes", "slow-1": "yes"}


def test_the_front_is_by_the_cost_of_an_example() -> None:
    """A run over more examples costs more in all, and may be the cheaper one."""

    def run(attempted: int, cost_usd: float | None) -> RunSummary:
        counts = ExampleCounts(total=attempted, attempted=attempted, scored=attempted, failed=0)
        return run_summary(metrics={"accuracy": metric(0.5)}, cost_usd=cost_usd, examples=counts)

    runs = {"few": run(10, 0.5), "many": run(40, 1.0), "none": run(0, 0.0)}
    lines = plot_points(summary_of(runs))["pareto"]
    assert [line["front"] for line in lines] == ["no", "yes", "yes"]


def test_seeds_are_on_the_front_without_a_price_or_a_duration() -> None:
    """Summaries of an earlier version have no duration over all seeds."""
    runs = {
        "a-0": run_summary(metrics={"accuracy": metric(0.5)}, cost_usd=None),
        "a-1": run_summary(metrics={"accuracy": metric(0.5)}),
        "b": run_summary(metrics={"accuracy": metric(0.9)}),
    }
    group = SeedsSummary(runs=("a-0", "a-1"), coordinates={"model": "a"}, metrics={"accuracy": metric(0.5)})
    lines = plot_points(summary_of(runs, over_seeds={"a": group}))["pareto"]
    assert [line["front"] for line in lines] == ["yes", "yes", "yes"]


def test_a_run_without_a_price_is_beaten_by_none() -> None:
    runs = {
        "good": run_summary(metrics={"accuracy": metric(0.9)}),
        "unpriced": run_summary(metrics={"accuracy": metric(0.5)}, cost_usd=None),
        "bad": run_summary(metrics={"accuracy": metric(0.5)}),
    }
    lines = plot_points(summary_of(runs))["pareto"]
    assert [(line["cost_usd"], line["front"]) for line in lines] == [
        (0.5, "yes"),
        (None, "yes"),
        (0.5, "no"),
    ]


def test_the_best_is_best_by_its_mean_and_points_have_six_digits() -> None:
    runs = {
        "a": run_summary(metrics={"accuracy": metric(2 / 3, (1 / 3, 0.9))}),
        "z": run_summary(metrics={"accuracy": metric(0.5)}),
    }
    summary = summary_of(runs)
    assert plain_metrics(summary)["best"]["run"] == "a"
    assert plot_points(summary)["score"][0] == {"run": "a", "score": 0.666667, "low": 0.333333, "high": 0.9}


PARAMS = {"config": "experiments/x/experiment.yaml", "sections": [], "settings": {}}


def test_templates_are_written_where_dvc_is_and_only_there(tmp_path: Path) -> None:
    entry = PipelineEntry("x", PurePosixPath("experiments/x/experiment.yaml"), {}, PARAMS)
    upsert(tmp_path, entry)
    assert not (tmp_path / ".dvc").exists()
    (tmp_path / ".dvc").mkdir()
    upsert(tmp_path, entry)
    assert {path.name for path in (tmp_path / ".dvc" / "plots").iterdir()} == {
        "dspylab_range.json",
        "dspylab_pareto.json",
    }
    assert not upsert(tmp_path, entry)
    for name in template_files():
        (tmp_path / name).write_text("{}")
    assert upsert(tmp_path, entry)


# --- as DVC shows it ----------------------------------------------------------------------------------------

TEMPERATURES = [number / 10 for number in range(10)]


def answer(request: ChatRequest) -> str:
    """Right for the first examples, for fewer of them at a high temperature."""
    right = answer_key(tickets(4 if request.body["temperature"] < 0.5 else 2))
    return right(request)


@pytest.fixture(scope="module")
def server() -> Any:
    with FakeServer(answer=answer) as running:
        yield running


@pytest.fixture
def lab(server: FakeServer, make_lab: MakeLab, cli_inside: Cli) -> Laboratory:
    """Twenty runs and three metrics, committed; then an experiment with another setting."""
    made = make_lab(
        server.url,
        config={
            "models": {"fake": {"pricing": {"input": 1.0, "output": 1.0}}},
            "matrix": {
                "model": ["fake"],
                "program.style": ["predict", "cot"],
                "lm.temperature": TEMPERATURES,
            },
            "metrics": {
                "f1": {"type": "token_f1", "field": "label"},
                "named": {"type": "contains", "field": "label"},
            },
        },
        examples=tickets(4),
    )
    assert cli_inside("run", "-q", "-c", made.config, cwd=made.root).code == 0
    made.commit("Results")
    made.change({"models": {"fake": {"max_tokens": 80}}, "dataset": {"limit": 3}})
    assert cli_inside("run", "-q", "-c", made.config, cwd=made.root).code == 0
    return made


@pytest.mark.slow
def test_dvc_shows_a_matrix_of_twenty_runs(
    lab: Laboratory, cli_inside: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lab.root)

    def dvc(*arguments: str) -> str:
        """The command line of DVC, inside this process: its start takes longer than what it does here."""
        capfd.readouterr()
        assert dvc_command_line(arguments) == 0
        sys.stdout.flush()
        return capfd.readouterr().out

    assert "up to date" in dvc("status")

    header, line = dvc("metrics", "show").splitlines()
    columns = [
        *("best.accuracy", "best.cost_usd", "best.latency_p50_s", "best.run"),
        *("complete_runs", "cost_usd", "failed_examples"),
    ]
    assert header.split() == ["Path", *columns]
    assert max(len(header), len(line)) < 180

    changed = {line.split()[1] for line in dvc("metrics", "diff").splitlines()[1:]}
    assert {"best.cost_usd", "cost_usd"} <= changed <= set(columns)

    shown = dvc("exp", "show", "--only-changed", "--csv")
    first, *others = csv.reader(io.StringIO(shown))
    assert len(first) < 16
    assert {"best.cost_usd", "models.fake.max_tokens", "dataset.limit"} <= set(first)
    assert [row[1] for row in others] == ["workspace", "main", others[-1][1]]

    plots = json.loads(lab.dvc("plots", "diff", "HEAD", "workspace", "--json"))["data"]
    names = {f"experiments/triage/plots/{name}.json" for name in ("score", "pareto", "latency")}
    assert set(plots) == names
    for name in names:
        (plot,) = plots[name]
        points = plot["content"]["data"]["values"]
        assert Counter(point["rev"] for point in points) == {"HEAD": 20, "workspace": 20}
        assert "<DVC_METRIC" not in json.dumps(plot["content"])

    page = Path(lab.dvc("plots", "show", "--out", "shown").strip().removeprefix("file://")).read_text()
    specs = re.findall(r"var spec = (\{.*\});", page)
    titles = [json.loads(spec)["title"]["text"] for spec in specs]
    assert sorted(titles) == [
        "triage: accuracy against time and cost",
        "triage: accuracy by run, with 95% interval",
        "triage: latency of a call by run, median to 95th percentile",
    ]
    assert all(len(json.loads(spec)["data"]["values"]) == 20 for spec in specs)

    drawn = json.loads((lab.folder / "plots" / "pareto.json").read_text())
    table = json.loads(cli_inside("show", "--format", "json", "-c", lab.config, cwd=lab.root).out)
    on_front = {row["run"]: row["pareto"] == "front" for row in table["runs"]}
    assert {point["run"]: point["front"] == "yes" for point in drawn} == on_front
    assert set(on_front.values()) == {True, False}

    for saved in lab.git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/triage-*").split():
        files = lab.git("ls-tree", "-r", "--name-only", saved).splitlines()
        assert {"experiments/triage/plots/score.json", ".dvc/plots/dspylab_range.json"} <= set(files)
