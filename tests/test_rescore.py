"""Answers that were paid for are scored again when only metrics were changed: through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, InitRepository
from jsonschema import Draft202012Validator

from dspylab.record.schema import raw_schema, run_schema
from dspylab.testing import FakeServer, Laboratory, experiment

CONFIG = "experiments/triage/experiment.yaml"
METRICS = "def length(example, prediction):\n    return len(prediction.label)\n"
WITH_PATH: dict[str, Any] = {
    "metrics": {"length": {"type": "path", "ref": "metrics.py:length"}},
    "primary_metric": "accuracy",
}


def rows(lab: Laboratory, run: str = "fake") -> list[dict[str, Any]]:
    return [json.loads(line) for line in lab.raw(run).read_text().splitlines()]


@pytest.fixture
def lab(tmp_path: Path, server: FakeServer, init_repository: InitRepository) -> Laboratory:
    made = experiment(
        tmp_path,
        server_url=server.url,
        config=WITH_PATH,
        files={"experiments/triage/metrics.py": METRICS},
    )
    init_repository(made)
    return made


def test_a_changed_metric_is_computed_without_a_call(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    first = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert first.code == 0, first.err
    before = rows(lab)

    (lab.folder / "metrics.py").write_text(METRICS.replace("len(", "2 * len("))
    lab.change({"metrics": {"accuracy": {"params": {"case_sensitive": True}}}})
    plan = cli_inside("plan", "-c", lab.config, cwd=lab.root, COLUMNS="200")
    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert "8 answers are kept" in plan.out
    assert "8 scored again without calling the program" in done.out
    assert len(server.requests) == 8
    after = rows(lab)
    for old, new in zip(before, after, strict=True):
        assert new["metrics"]["length"] == 2 * old["metrics"]["length"]
        assert (old["rescored"], new["rescored"]) == (False, True)
        for kept in ("prediction", "calls", "example_s", "started_at", "parse_failures", "exact_prediction"):
            assert new[kept] == old[kept], kept
        assert not list(Draft202012Validator(raw_schema()).iter_errors(new))
    info = json.loads((lab.raw("fake").parent / "run.json").read_text())
    assert not list(Draft202012Validator(run_schema()).iter_errors(info))
    assert "nothing to do" in cli_inside("run", "-c", lab.config, cwd=lab.root).out
    assert "up to date" in lab.dvc("status")
