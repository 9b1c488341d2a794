"""What becomes of compiled programs that were damaged, that left the matrix, or that are wanted back."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli, InitRepository

from dspylab.testing import FakeServer, Laboratory, experiment, tickets

FEW = {"type": "LabeledFewShot", "params": {"k": 2}}


@pytest.fixture
def lab(tmp_path: Path, server: FakeServer, init_repository: InitRepository, cli_inside: Cli) -> Laboratory:
    """Runs with and without an optimizer, all done."""
    made = experiment(
        tmp_path,
        server_url=server.url,
        config={
            "dataset": {"split": {"train": 0.5}},
            "optimizers": {"few": FEW, "more": {"type": "LabeledFewShot", "params": {"k": 3}}},
            "matrix": {"program.style": ["predict", "cot"], "optimizer": ["none", "few"]},
        },
        examples=tickets(8),
    )
    init_repository(made)
    assert cli_inside("run", "-q", cwd=made.root).code == 0
    return made


def programs(lab: Laboratory) -> set[str]:
    return {path.name for path in (lab.folder / "programs").iterdir()}


def test_a_damaged_program_is_named_in_the_report(lab: Laboratory, cli_inside: Cli) -> None:
    (lab.folder / "programs" / "few-fake-cot.json").write_text('{"predict": {"sign')
    (lab.folder / "programs" / "few-fake-predict.record.json").write_bytes(b"\xff[]")

    ended = cli_inside("report", cwd=lab.root)

    assert ended.code == 0
    page = (lab.folder / "report.html").read_text()
    for name in ("few-fake-cot.json", "few-fake-predict.record.json"):
        assert page.count(f"<p>experiments/triage/programs/{name}: is not JSON: ") == 1


def test_a_run_without_an_optimizer_names_the_program_as_it_is_built(
    lab: Laboratory, cli_inside: Cli
) -> None:
    changed = cli_inside("diff-program", "fake-cot-none", "fake-cot-few", cwd=lab.root)
    assert changed.code == 0
    assert "--- fake-cot-none\n+++ fake-cot-few\n" in changed.out
    assert "-no demonstrations" in changed.out

    unknown = cli_inside("diff-program", "fake-cot-nine", "none", cwd=lab.root)
    assert unknown.code == 2
    assert "did you mean fake-cot-none?" in unknown.err
    assert "are the same" in cli_inside("diff-program", "none", "fake-cot-none", cwd=lab.root).out

    other = cli_inside("diff-program", "fake-predict-none", "fake-cot-none", cwd=lab.root)
    assert "+fields: " in other.out
    shown = cli_inside("show", "--program", "fake-predict-none", cwd=lab.root)
    assert shown.code == 0
    assert "no demonstrations" in shown.out
