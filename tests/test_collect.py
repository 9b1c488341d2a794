"""From what runs left on disk to `summary.json` and its companions, and what is said of the rest."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import execute

from dspylab.aggregate.collect import Collected, collect, read_info
from dspylab.errors import DataError
from dspylab.jsonable import to_json
from dspylab.laboratory import open_laboratory
from dspylab.plan.identity import digest
from dspylab.record.results import workspace_results
from dspylab.records import GitState
from dspylab.testing import FakeServer, Laboratory, experiment

GIT = GitState(commit="0" * 40, branch="main", dirty=False)
PLAIN, FEWSHOT, OTHER = "fake-none", "fake-fewshot", "other-none"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """Results of a run as it is and of one with a compiled program; a third has none yet."""
    with FakeServer() as server:
        other = {"model": "openai/other", "api_base": server.url, "api_key_env": "FAKE_API_KEY"}
        config = {
            "matrix": {
                "model": ["fake"],
                "optimizer": ["none", "fewshot"],
                "include": [{"model": "other", "optimizer": "none"}],
            },
            "models": {"fake": {"pricing": {"input": 1.0, "output": 2.0}}, "other": other},
            "optimizers": {"fewshot": {"type": "LabeledFewShot", "params": {"k": 1}}},
            "dataset": {"split": {"train": 0.5}},
            "metrics": {
                "accuracy": {"type": "exact_match", "field": "label"},
                "share": {"type": "run", "ref": "program.py:share"},
            },
        }
        lab = experiment(tmp_path_factory.mktemp("collected"), server_url=server.url, config=config)
        share = "\n\ndef share(rows):\n    return sum(row['error'] is None for row in rows) / len(rows)\n"
        lab.program.write_text(lab.program.read_text() + share)
        execute(lab, "compile-one", "optimizer=fewshot")
        for optimizer in ("none", "fewshot"):
            execute(lab, "run-one", "model=fake", f"optimizer={optimizer}")
    return lab


@pytest.fixture
def lab(made: Laboratory, tmp_path: Path) -> Laboratory:
    """A copy that a test may damage."""
    shutil.copytree(made.root, tmp_path / "copy")
    return Laboratory(tmp_path / "copy", made.name)


def collected(lab: Laboratory) -> Collected:
    return collect(open_laboratory(lab.config), GIT)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_summary_and_what_is_not_in_it(lab: Laboratory) -> None:
    found = collected(lab)
    assert (list(found.summary.runs), found.missing, found.outdated) == ([PLAIN, FEWSHOT], (OTHER,), ())
    plain, optimized = (found.summary.runs[run] for run in (PLAIN, FEWSHOT))
    assert plain.complete
    assert dict(plain.run_metrics) == {"share": 1.0}
    assert plain.compile is None
    assert optimized.compile is not None
    assert optimized.compile.gain is not None
    assert optimized.compile.gain.baseline == PLAIN
    # The rates are those of the models that were called, as the file has them now.
    assert list(found.summary.rates) == ["fake"]
    rates = found.summary.rates["fake"]
    assert rates is not None
    assert (rates.input_usd, rates.output_usd) == (1.0, 2.0)
    assert found.summary.git == GIT
    assert found.summary.config_hash == digest(open_laboratory(lab.config).loaded.document)
    assert found.summary.created_at.endswith("+00:00")
    assert len(found.summary.created_at) == len("2026-01-01T00:00:00+00:00")
    assert {"dspy", "dspylab", "python"} & set(found.summary.versions)


def test_what_is_written_says_what_was_found(lab: Laboratory) -> None:
    found = collected(lab)
    assert json.loads(lab.summary.read_text()) == to_json(found.summary)
    metrics = json.loads((lab.folder / "metrics.json").read_text())
    assert metrics["complete_runs"] == 2
    for plot in ("score", "latency", "pareto"):
        lines = json.loads((lab.folder / "plots" / f"{plot}.json").read_text())
        assert [line["run"] for line in lines] == [PLAIN, FEWSHOT]


def test_a_summary_that_says_the_same_stays_as_it_was(lab: Laboratory) -> None:
    collected(lab)
    text = lab.summary.read_text()
    earlier = text.replace(json.loads(text)["created_at"], "2026-01-01T00:00:00+00:00")
    earlier = earlier.replace('"dspylab": "', '"dspylab": "0.0.', 1)  # that of the runs stays
    committed = earlier.replace("2026-01-01", "2026-01-02").replace("0" * 40, "1" * 40)
    assert text != earlier != committed

    lab.summary.write_text(earlier)
    assert collected(lab).summary.created_at == "2026-01-01T00:00:00+00:00"
    assert lab.summary.read_text() == earlier

    found = collect(open_laboratory(lab.config), GIT, committed)
    assert lab.summary.read_text() == committed
    assert json.loads(committed) == to_json(found.summary)

    lab.summary.unlink()
    assert collect(open_laboratory(lab.config), None, None).summary.git is None


@pytest.mark.parametrize("earlier", ["", "[", "[]", "{}", '{"git": 7}', "[" * 100_000])
def test_a_summary_that_cannot_be_read_is_made_anew(lab: Laboratory, earlier: str) -> None:
    found = collected(lab)
    lab.summary.write_text(earlier)
    assert collect(open_laboratory(lab.config), GIT, earlier).summary.runs == found.summary.runs
    assert json.loads(lab.summary.read_text())["runs"].keys() == {PLAIN, FEWSHOT}


@pytest.mark.parametrize(
    ("mine", "his"),
    [('"complete": true', '"complete": false'), ('"experiment": "triage"', '"experiment": "other"')],
)
def test_a_summary_that_says_something_else_is_replaced(lab: Laboratory, mine: str, his: str) -> None:
    collected(lab)
    text = lab.summary.read_text()
    other = text.replace(mine, his).replace(json.loads(text)["created_at"], "2026-01-01T00:00:00+00:00")
    lab.summary.write_text(other)
    assert mine in text
    assert collected(lab).summary.created_at != "2026-01-01T00:00:00+00:00"


def test_results_of_other_settings_are_outdated(lab: Laboratory) -> None:
    edit(lab.raw(PLAIN).with_name("run.json"), config_hash="of other settings")
    found = collected(lab)
    assert (list(found.summary.runs), found.missing, found.outdated) == ([FEWSHOT], (OTHER,), (PLAIN,))


def test_results_without_their_program_are_outdated(lab: Laboratory) -> None:
    (lab.folder / "programs" / "fewshot-fake.json").unlink()
    found = collected(lab)
    assert (list(found.summary.runs), found.missing, found.outdated) == ([PLAIN], (OTHER,), (FEWSHOT,))


def test_results_of_a_program_that_has_to_be_compiled_anew_are_outdated(lab: Laboratory) -> None:
    """The program is what it was, but not what would be compiled now."""
    edit(lab.folder / "programs" / "fewshot-fake.record.json", compile_hash="of other examples")
    assert collected(lab).outdated == (FEWSHOT,)


def test_results_of_an_earlier_version_of_dspy_hold(lab: Laboratory) -> None:
    laboratory = open_laboratory(lab.config)
    path = lab.raw(PLAIN).with_name("run.json")
    versions = {**json.loads(path.read_text())["versions"], "dspy": "3.4.0"}
    edit(path, versions=versions, config_hash=laboratory.config_hash(laboratory.run(PLAIN), versions))
    found = collected(lab)
    assert found.outdated == ()
    assert found.summary.runs[PLAIN].versions["dspy"] == "3.4.0"


def test_a_damaged_run_json_is_named(lab: Laboratory) -> None:
    path = lab.raw(PLAIN).with_name("run.json")
    edit(path, unknown=1)
    with pytest.raises(DataError) as caught:
        collected(lab)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["raw.jsonl", "run.json"])
def test_without_both_files_a_run_is_missing(lab: Laboratory, name: str) -> None:
    lab.raw(PLAIN).with_name(name).unlink()
    found = collected(lab)
    assert (list(found.summary.runs), found.missing, found.outdated) == ([FEWSHOT], (PLAIN, OTHER), ())


def test_a_model_that_was_taken_out_has_no_rates_any_more(lab: Laboratory) -> None:
    edit(lab.raw(PLAIN).with_name("run.json"), rates={"gone": None, "fake": None})
    assert list(collected(lab).summary.rates) == ["fake"]


def test_a_run_without_a_result_of_a_metric_over_all_rows(
    lab: Laboratory, caplog: pytest.LogCaptureFixture
) -> None:
    lab.raw(PLAIN).write_text("")
    with caplog.at_level(logging.WARNING):
        found = collected(lab)
    assert dict(found.summary.runs[PLAIN].run_metrics) == {"share": None}
    (said,) = (record.getMessage() for record in caplog.records if record.name.startswith("dspylab"))
    assert said == (f"metric share of the run {PLAIN} has no value: ZeroDivisionError: division by zero")


def test_a_damaged_row_is_named(lab: Laboratory) -> None:
    path = lab.raw(FEWSHOT)
    first, second, *others = path.read_text().splitlines(keepends=True)
    for change, said in (
        ({"example_s": None, "metrics": None}, "no list of calls"),
        ({"calls": {}}, "no list of calls"),
    ):
        path.write_text(first + json.dumps({**json.loads(second), **change}) + "\n" + "".join(others))
        with pytest.raises(DataError, match=rf"raw\.jsonl:2: is not a row of this version \({said}\)"):
            collected(lab)
    row = json.loads(second)
    for name in ("started_at", "metrics", "metric_errors", "metric_s", "parse_failures"):
        del row[name]
    path.write_text(first + json.dumps(row) + "\n" + "".join(others))
    said = (
        r"\(no metric_errors, metric_s, metrics, parse_failures, started_at\): "
        r"bring it back with `dvc checkout`, or execute the run anew: --fresh$"
    )
    with pytest.raises(DataError, match=said) as caught:
        collected(lab)
    assert caught.value.where == f"{path}:2"


# --- read again


def test_results_are_the_summary_and_the_rows_that_it_is_of(lab: Laboratory) -> None:
    collected(lab)
    layout = open_laboratory(lab.config).layout
    found = workspace_results(layout)
    assert found.name == "workspace"
    assert found.summary == json.loads(lab.summary.read_text())
    assert found.files == {PLAIN: layout.raw(PLAIN), FEWSHOT: layout.raw(FEWSHOT)}
    assert (found.without_rows, found.digests) == ((), {})
    assert [row["index"] for row in found.rows(PLAIN)] == [0, 1, 2, 3]
    # What another commit left in its place are not the rows of this summary; nor is what is not there.
    edit(layout.info(PLAIN), config_hash="of another commit")
    layout.raw(FEWSHOT).unlink()
    found = workspace_results(layout)
    assert (found.files, found.without_rows) == ({}, (PLAIN, FEWSHOT))
    assert found.remedy == "`dvc checkout` or `dvc pull` gets them, or `dspylab run` executes the runs"
    layout.info(PLAIN).unlink()
    assert workspace_results(layout).without_rows == (PLAIN, FEWSHOT)


def test_a_summary_without_what_every_one_has_is_refused(lab: Laboratory) -> None:
    layout = open_laboratory(lab.config).layout
    with pytest.raises(DataError, match=r"summary\.json: no such file"):
        workspace_results(layout)
    layout.summary.write_text('{"runs": {}, "experiment": "x"}')
    said = (
        r"^.*summary\.json: is not a summary of this version, it lacks: primary_metric, over_seeds: build it"
    )
    with pytest.raises(DataError, match=said):
        workspace_results(layout)


def test_a_run_json_is_read_back_as_it_was_written(made: Laboratory) -> None:
    path = made.raw(PLAIN).with_name("run.json")
    value = json.loads(path.read_text())
    info = read_info(value, "run.json")
    assert to_json(info) == value
    assert dataclasses.is_dataclass(info.rates["fake"])
    assert read_info({**value, "rates": {"a": None}}, "run.json").rates == {"a": None}


@pytest.mark.parametrize(
    "change", [{"rates": None}, {"rates": {"a": {"input": 1}}}, {"unknown": 1}, {"rates": {"a": 3}}]
)
def test_a_run_json_of_another_version_is_refused(made: Laboratory, change: dict[str, Any]) -> None:
    value = json.loads(made.raw(PLAIN).with_name("run.json").read_text())
    said = r"^x/run\.json: is not a run\.json of this version \(.+\): execute the run anew: --fresh$"
    with pytest.raises(DataError, match=said):
        read_info({**value, **change}, "x/run.json")
    del value["rates"]
    with pytest.raises(DataError, match="'rates'"):
        read_info(value, "x/run.json")
