"""What becomes of compiled programs that were damaged, that left the matrix, or that are wanted back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, InitRepository, MakeLab

from dspylab.testing import FakeServer, Laboratory, experiment, tickets

FEW = {"type": "LabeledFewShot", "params": {"k": 2}}


@pytest.fixture
def lab(server: FakeServer, make_lab: MakeLab, cli_inside: Cli) -> Laboratory:
    """Runs with and without an optimizer, all done."""
    made = make_lab(
        server.url,
        config={
            "dataset": {"split": {"train": 0.5}},
            "optimizers": {"few": FEW, "more": {"type": "LabeledFewShot", "params": {"k": 3}}},
            "matrix": {"program.style": ["predict", "cot"], "optimizer": ["none", "few"]},
        },
        examples=tickets(8),
    )
    assert cli_inside("run", "-q", cwd=made.root).code == 0
    return made


def programs(lab: Laboratory) -> set[str]:
    return {path.name for path in (lab.folder / "programs").iterdir()}


def record(lab: Laboratory, key: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((lab.folder / "programs" / f"{key}.record.json").read_text())
    return loaded


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


def test_an_earlier_setting_has_its_program_back_without_a_call(
    tmp_path: Path, server: FakeServer, init_repository: InitRepository, cli_inside: Cli
) -> None:
    """Random choices of an optimizer, or a model, would make another program of the same setting."""
    own = """

import uuid

def marked(student, trainset, mark):
    program = student.deepcopy()
    for predictor in program.predictors():
        predictor.signature = predictor.signature.with_instructions(f"{mark} {uuid.uuid4()}")
    return program
"""

    def marked(mark: str) -> dict[str, dict[str, object]]:
        return {"optimizers": {"own": {"path": "program.py:marked", "params": {"mark": mark}}}}

    matrix = {"program.style": ["cot"], "optimizer": ["own"]}
    config = {**marked("a"), "matrix": {"model": ..., **matrix}, "dataset": {"split": {"train": 0.5}}}
    lab = experiment(tmp_path, server_url=server.url, config=config)
    lab.program.write_text(lab.program.read_text() + own)
    init_repository(lab)
    program = lab.folder / "programs" / "own-fake-cot.json"

    def run() -> bytes:
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        return program.read_bytes()

    first = run()
    lab.change(marked("b"))
    second = run()
    calls = len(server.requests)
    lab.change(marked("a"))
    assert "compiled before" in " ".join(cli_inside("plan", cwd=lab.root).out.split())
    assert run() == first != second
    assert len(server.requests) == calls
    assert "nothing to do" in cli_inside("run", cwd=lab.root).out
    lab.change(marked("b"))
    assert cli_inside("compile-one", "-q", cwd=lab.root).code == 0
    assert program.read_bytes() == second

    # What is compiled anew, or was lost, is not what was set aside.
    assert cli_inside("compile-one", "-q", "--fresh", cwd=lab.root).code == 0
    third = program.read_bytes()
    program.unlink()
    assert len({first, second, third, run()}) == 4


def test_programs_that_left_the_matrix_are_moved_out_and_come_back(lab: Laboratory, cli_inside: Cli) -> None:
    (lab.folder / "programs" / "own.json").write_text("{}")
    changed = lab.folder / "programs" / "few-fake-cot.json"
    changed.write_text(changed.read_text() + "\n")
    kept = record(lab, "few-fake-predict")

    lab.change({"matrix": {"optimizer": ["none", "more"]}})
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    names = {"few-fake-cot", "more-fake-cot", "more-fake-predict"}
    files = {f"{name}{ending}" for name in names for ending in (".json", ".record.json")}
    assert programs(lab) == files | {"own.json"}

    # With another axis the same program is called otherwise.
    lab.change({"matrix": {"optimizer": ["none", "few"], "adapter": ["chat"], "program.style": ["predict"]}})
    ended = cli_inside("run", cwd=lab.root)
    assert ended.code == 0
    assert "more-fake-cot, more-fake-predict: programs that no run needs: moved to .dspylab" in ended.out
    again = record(lab, "few-fake-predict-chat")
    assert again["coordinates"] == {**kept["coordinates"], "adapter": "chat"}
    assert {**again, "program": "", "coordinates": {}} == {**kept, "program": "", "coordinates": {}}
    assert "nothing to do" in cli_inside("run", cwd=lab.root).out
