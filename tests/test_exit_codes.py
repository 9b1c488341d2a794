"""Every exit code that docs/reliability.md promises, through the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Cli

from dspylab import errors
from dspylab.testing import ChatRequest, FakeServer, Fault, Laboratory, experiment

ROOT = Path(__file__).parent.parent
BINARIES = Path(sys.executable).parent


class Case(NamedTuple):
    name: str
    code: int
    command: list[str]
    said: str
    change: dict[str, Any] = {}  # noqa: RUF012 - read only
    prepare: Callable[[Laboratory], object] = lambda _: None
    fails: bool = False


def _results_without_calls(lab: Laboratory) -> None:
    """Results of the settings before the change, as an earlier run leaves them."""
    folder = lab.raw("fake").parent
    folder.mkdir(parents=True)
    (folder / "raw.jsonl").write_text("")
    (folder / "run.json").write_text(
        '{"run": "fake", "coordinates": {"model": "fake"}, "total": 8, "config_hash": "other", "model": {},'
        ' "engine": "native", "rates": {}, "versions": {}}'
    )


RUN = ["run-one", "model=fake"]
CASES = [
    Case("all complete", 0, RUN, "fake: done"),
    Case("help", 0, ["--help"], "Usage"),
    Case("some failed", 1, RUN, "7 of 8 examples are finished and kept", fails=True),
    Case(
        "results of other settings", 1, ["aggregate"], "left out", {"models": {"fake": {"temperature": 0.5}}},
        _results_without_calls,
    ),
    Case("no such command", 2, ["nonsense"], "No such command 'nonsense'"),
    Case("no such option", 2, ["run", "--nonsense"], "No such option: --nonsense"),
    Case("option without its value", 2, ["run", "--config"], "requires an argument"),
    Case("no such file", 2, ["run", "--config", "no.yaml"], "no.yaml: is not there"),
    Case("no such run", 2, ["run-one", "model=other"], "names no run of the matrix"),
    Case("an unknown key in the file", 2, ["run"], "experiment.yaml:", {"modles": {}}),
    Case("a wrong program", 2, RUN, "is not valid Python", prepare=lambda lab: lab.program.write_text("(")),
    Case("a wrong dataset", 2, RUN, "tickets.jsonl:1", prepare=lambda lab: lab.dataset.write_text("{\n")),
    Case(
        "a setting that the model does not take", 2, RUN, "models.fake",
        {"models": {"fake": {"model_type": "responses", "engine": "native", "model": "groq/x"}}},
    ),
    Case("no key", 3, RUN, "NO_KEY", {"models": {"fake": {"api_key_env": "NO_KEY"}}}),
    Case("no repository", 3, ["run"], "git init && dvc init"),
    Case(
        "no model file", 3, RUN, "no-such.gguf",
        {"models": {"fake": {"model": "local:no-such.gguf", "api_base": ..., "api_key_env": ...}}},
    ),
    Case("a problem that the doctor finds", 3, ["doctor"], "git init && dvc init"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exit_code(tmp_path: Path, cli_inside: Cli, case: Case) -> None:
    def fail(request: ChatRequest) -> Fault | None:
        return Fault("status", status=500) if case.fails and "Ticket 2" in request.text else None

    with FakeServer(fail=fail) as server:
        lab = experiment(tmp_path, server_url=server.url, config={"models": {"fake": {"num_retries": 0}}})
        lab.change(case.change)
        case.prepare(lab)
        done = cli_inside(*case.command, cwd=lab.root)

    assert done.code == case.code, done.out + done.err
    assert case.said in done.out + done.err
    assert "Traceback" not in done.err
    assert "has a bug" not in done.err


def test_a_bug_is_told_without_a_traceback_and_without_secrets(
    tmp_path: Path, server: FakeServer, cli_inside: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a bug with sk-proj-canary123456789 in it and \x1b[31mred")

    monkeypatch.setattr("dspylab.commands.validate.validate_experiment", broken)
    lab = experiment(tmp_path, server_url=server.url)

    quiet, verbose = (cli_inside("validate", *flags, cwd=lab.root) for flags in ([], ["-v"]))

    assert quiet.code == verbose.code == 70
    assert "dspylab has a bug: RuntimeError: a bug with [secret] in it" in quiet.err
    assert "Traceback" not in quiet.err
    assert "Traceback" in verbose.err
    assert "canary" not in quiet.err + verbose.err
    assert "\x1b" not in quiet.err + verbose.err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" schema experiment | head -c 10', BINARIES / "dspylab"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_codes_are_documented() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.DspylabError)
    }
    assert documented == {0, 70} | raised


def test_data_beside_the_experiment_without_a_repository(tmp_path: Path, cli_inside: Cli) -> None:
    lab = experiment(tmp_path, server_url="http://127.0.0.1:1/v1")
    outside = tmp_path / "outside.jsonl"
    lab.dataset.rename(outside)
    lab.change({"dataset": {"path": os.path.relpath(outside, lab.folder)}})
    done = cli_inside("show", "-c", lab.config, cwd=lab.root)
    assert "not in a git repository" not in done.err
    done = cli_inside("plan", "-c", lab.config, cwd=lab.root)
    assert done.code == 2
    said = f"not in a git repository: `dspylab init`, or git init and dvc init, in a folder around {outside}"
    assert said in " ".join(done.err.split())
