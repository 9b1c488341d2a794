"""Compiled programs, shown and compared: `dspylab show --program` and `dspylab diff-program`."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from conftest import Cli
from made_summaries import metric
from rich.console import Console

from dspylab.records import CompileRecord, ValidationScore
from dspylab.report.programs import program_diff, program_view
from dspylab.testing import FakeServer, Laboratory, experiment

RECORD = CompileRecord(
    program="boot-mini", coordinates={}, compile_hash="0" * 64, program_sha256="1" * 64,
    optimizer="BootstrapFewShot", params={}, metric="accuracy", models={"task": "mini"}, seed=None, train=40,
    validation=8, validation_score=ValidationScore(metric="a", score=metric(0.75, (0.4, 0.9)), failed=0),
    compile_s=12.5, calls=1234, failed_calls=0, prompt_tokens=1, completion_tokens=1, cost_usd=0.25, rates={},
    versions={},
)  # fmt: skip


def predictor(instructions: str, *demos: Mapping[str, Any]) -> dict[str, Any]:
    fields = [{"prefix": "Text:", "description": "${text}"}, {"prefix": "Label:", "description": "${label}"}]
    return {"signature": {"instructions": instructions, "fields": fields}, "demos": list(demos)}


def shown(view: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(view)
    return out.getvalue()


def test_a_program_is_shown_with_what_made_it() -> None:
    state = {
        "route": predictor(
            "Route it.\nBe brief.",
            {"augmented": True, "text": "two\nlines", "label": "bug"},
            {"text": "x\x1b[31m", "label": ["a", 1]},
        ),
        "check": predictor("Check it."),
        "metadata": {"dependency_versions": {}},
    }
    assert shown(program_view("boot-mini", state, RECORD)).splitlines() == [
        "boot-mini",
        (
            "BootstrapFewShot for accuracy on mini, 40 training examples, 1,234 calls, $0.25, 12.5 s, "
            "validation 0.750 [0.400, 0.900] of 8"
        ),
        "",
        "route",
        "instructions:",
        "  Route it.",
        "  Be brief.",
        "fields: Text: ${text}, Label: ${label}",
        "demonstration 1 (bootstrapped):",
        "  text: two",
        "  lines",
        "  label: bug",
        "demonstration 2 (labeled):",
        r"  text: x\x1b[31m",
        '  label: ["a", 1]',
        "",
        "check",
        "instructions:",
        "  Check it.",
        "fields: Text: ${text}, Label: ${label}",
        "no demonstrations",
    ]


def test_fields_of_a_demonstration_come_in_the_order_of_the_signature() -> None:
    from dspy.signatures.signature import infer_prefix

    names = ["ticketText", "first_try", "answer2"]
    state = predictor(
        "Route it.", {"zeta": 1, "answer2": "c", "first_try": "b", "alpha": 0, "ticketText": "a"}
    )
    state["signature"]["fields"] = [{"prefix": f"{infer_prefix(name)}:", "description": ""} for name in names]
    lines = shown(program_view("p", state, None)).splitlines()
    assert lines[-5:] == ["  ticketText: a", "  first_try: b", "  answer2: c", "  alpha: 0", "  zeta: 1"]


def test_a_program_that_is_a_predictor_itself() -> None:
    state = predictor("Route it.")
    assert shown(program_view("p", state, None)).startswith("p\n\nself\ninstructions:\n  Route it.\n")


def test_what_is_different_between_two_programs() -> None:
    first = {"route": predictor("Route it."), "same": predictor("Check it.")}
    second = {
        "route": predictor("Route it well."),
        "same": predictor("Check it."),
        "new": predictor("Think."),
    }
    text = shown(program_diff(("a", first), ("b", second)))
    assert text.startswith("--- a\n+++ b\n\nroute\n")
    assert "-  Route it.\n+  Route it well.\n" in text
    assert "new\n" in text
    assert "+  Think.\n" in text
    assert "same" not in text
    assert program_diff(("a", first), ("a", first)) is None


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    config = {
        "matrix": {"model": ["fake"], "optimizer": ["none", "fewshot"]},
        "optimizers": {"fewshot": {"type": "LabeledFewShot", "params": {"k": 1}}},
        "dataset": {"split": {"train": 0.5}},
    }
    return experiment(tmp_path_factory.mktemp("programs"), server_url="http://127.0.0.1:9", config=config)


def test_programs_on_the_command_line(lab: Laboratory, cli_inside: Cli) -> None:
    with FakeServer():
        assert cli_inside("compile-one", "optimizer=fewshot", cwd=lab.root).code == 0
    for key in ("fewshot-fake", "fake-fewshot"):
        done = cli_inside("show", "--program", key, cwd=lab.root)
        assert done.code == 0, done.err
        assert done.out.startswith(
            "fewshot-fake\nLabeledFewShot for accuracy on fake, 4 training examples, 0 calls"
        )
        assert "demonstration 1 (labeled):" in done.out
    difference = cli_inside("diff-program", "none", "fewshot-fake", cwd=lab.root)
    assert difference.out.startswith("--- none\n+++ fewshot-fake\n")
    assert "+demonstration 1 (labeled):" in difference.out
    same = cli_inside("diff-program", "fake-fewshot", "fewshot-fake", cwd=lab.root)
    assert same.out == "fake-fewshot and fewshot-fake are the same\n"
    path = lab.folder / "programs" / "fewshot-fake.json"
    path.write_text(path.read_text() + "\n")
    edited = cli_inside("show", "--program", "fewshot-fake", cwd=lab.root)
    assert edited.out.startswith("fewshot-fake: was changed since it was compiled\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["show", "--program", "fewshot-fak"],
            "fewshot-fak: there is no such program: did you mean fewshot-fake?",
        ),
        (["diff-program", "none", "none"], "diff-program: names no program: name at least one compiled one"),
    ],
)
def test_what_names_no_program(lab: Laboratory, cli_inside: Cli, arguments: list[str], said: str) -> None:
    done = cli_inside(*arguments, cwd=lab.root)
    assert (done.code, done.err) == (2, said + "\n")
