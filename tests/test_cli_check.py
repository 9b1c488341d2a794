"""`dspylab check` on a repository with git, DVC and results of a real endpoint."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from conftest import Cli, execute

from dspylab.testing import ChatRequest, FakeServer, Laboratory, answer_key, experiment, tickets

#: How many of the tickets the endpoint can answer, by the setting that says which version this is.
KNOWS = {64: 35, 65: 10, 66: 40}
WHERE = "experiments/triage/experiment.yaml"


def answer(request: ChatRequest) -> str:
    setting = request.body.get("max_tokens") or request.body["max_completion_tokens"]
    # Reasoning makes it worse, so that it is clear which run is the best.
    known = KNOWS[setting] - 4 * ("reasoning" in request.text)
    return answer_key(tickets(known), wrong="bug")(request)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer(answer=answer) as running:
        yield running


@pytest.fixture(scope="module")
def made(server: FakeServer, blank_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """Two runs, of which the best is right in 90%, committed on main."""
    root = tmp_path_factory.mktemp("made") / "lab"
    shutil.copytree(blank_repository, root)
    lab = experiment(
        root,
        server_url=server.url,
        config={
            "program": {"adapter": "json"},
            "matrix": {"model": ["fake"], "program.style": ["predict", "cot"]},
            "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
        },
        examples=tickets(40),
    )
    lab.commit("A laboratory")
    execute(lab, "run", "-q")
    lab.commit("Results")
    return lab


@pytest.fixture
def lab(made: Laboratory, tmp_path: Path) -> Laboratory:
    """A copy in which a test may do what it likes."""
    shutil.copytree(made.root, tmp_path / "lab", symlinks=True)
    return Laboratory(tmp_path / "lab", made.name)


def add_checks(lab: Laboratory, checks: str) -> None:
    text = lab.config.read_text()
    lab.config.write_text(text + "checks:\n" + "".join(f"  {line}\n" for line in checks.splitlines()))


def test_a_file_without_checks_is_no_gate(lab: Laboratory, cli_inside: Cli) -> None:
    done = cli_inside("check", cwd=lab.root)
    assert done.code == 2
    assert done.err == f"{WHERE}: there are no checks: add some, such as checks: {{accuracy: {{min: 0.8}}}}\n"


def test_checks_that_hold(lab: Laboratory, cli_inside: Cli) -> None:
    add_checks(lab, "accuracy: {min: 0.7}\nlatency_s.p95: {max: 60}\nexamples.unscored: {max: 0, runs: all}")
    done = cli_inside("check", cwd=lab.root)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "passed     triage: complete: every run has complete results"
    assert "passed     fake-predict: accuracy at least 0.7: 0.900 [" in done.out
    assert "passed     2 runs: examples.unscored at most 0: all hold" in done.out
    assert done.out.endswith("triage: 5 checks passed\n")


def test_the_outcomes_are_a_document_for_programs_that_follow(lab: Laboratory, cli_inside: Cli) -> None:
    add_checks(lab, "accuracy: {min: 0.7}\ncost_usd: {max: 1}")
    done = cli_inside("check", "--format", "json", cwd=lab.root, GITHUB_ACTIONS="true")
    assert (done.code, done.err) == (1, "triage: 1 of 4 checks failed\n")
    document = json.loads(done.out)
    assert (document["experiment"], document["passed"]) == ("triage", False)
    found = {(one["figure"], one["condition"]): one for one in document["checks"]}
    good, unknown = found["accuracy", "min"], found["cost_usd", "max"]
    assert (good["side"], good["bound"], good["passed"], good["quantity"]["n"]) == (
        "fake-predict",
        0.7,
        True,
        40,
    )
    assert (unknown["passed"], unknown["problem"]) == (False, "there is no such figure")
    lab.config.write_text(lab.config.read_text().replace("cost_usd: {max: 1}", "examples.unscored: {max: 0}"))
    done = cli_inside("check", "--format", "json", cwd=lab.root)
    assert (done.code, done.err, json.loads(done.out)["passed"]) == (0, "", True)


def test_adding_a_check_runs_nothing_again(lab: Laboratory, server: FakeServer, cli_inside: Cli) -> None:
    before = len(server.requests)
    add_checks(lab, "accuracy: {min: 0.7}")
    assert "nothing to do" in cli_inside("run", cwd=lab.root).out
    assert "up to date" in lab.dvc("status")
    assert len(server.requests) == before


def test_a_check_that_fails_says_why_and_where(lab: Laboratory, cli_inside: Cli) -> None:
    add_checks(lab, "accuracy: {min: 0.88}\ncost_usd: {max: 1}")
    line = lab.config.read_text().splitlines().index("  accuracy: {min: 0.88}") + 1
    done = cli_inside(
        *("check", "--junit", "out/check.xml", "--markdown", "out/check.md"),
        cwd=lab.root,
        GITHUB_ACTIONS="true",
    )
    assert done.code == 1
    assert done.err == "triage: 2 of 4 checks failed\n"
    why = "not decided: the interval is too wide; about "
    assert f"FAILED     fake-predict: accuracy at least 0.88: 0.900 [0.769, 0.960]: {why}" in done.out
    assert "FAILED     fake-predict: cost_usd at most $1.00: there is no such figure" in done.out
    place = f"::error file={WHERE},line={line},title=fake-predict%3A accuracy at least 0.88::0.900 [0.769"
    assert place in done.out
    (suite,) = ET.parse(lab.root / "out" / "check.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("4", "2")
    assert (lab.root / "out" / "check.md").read_text().startswith("### triage: 2 of 4 checks failed\n")
    assert "::error" not in cli_inside("check", "--no-github", cwd=lab.root, GITHUB_ACTIONS="true").out


def test_the_same_results_are_no_worse_than_themselves(lab: Laboratory, cli_inside: Cli) -> None:
    add_checks(lab, "accuracy: {no_worse_than: main, runs: all}")
    done = cli_inside("check", cwd=lab.root)
    assert done.code == 0
    assert "passed     2 runs: accuracy no worse than main: all hold" in done.out


@pytest.mark.parametrize(
    ("max_tokens", "code", "said"),
    [
        (65, 1, r"difference -0\.475 \[.*\] over 40 examples: the whole interval is on the wrong side"),
        (66, 0, r"difference 0\.100 \[.*\] over 40 examples: the whole interval holds"),
    ],
)
def test_other_results_are_compared_example_by_example(
    lab: Laboratory, cli_inside: Cli, max_tokens: int, code: int, said: str
) -> None:
    lab.git("checkout", "--quiet", "-b", "feature")
    lab.change({"models": {"fake": {"max_tokens": max_tokens}}})
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    lab.commit("Another setting")
    add_checks(lab, "accuracy: {no_worse_than: main, margin: 0.05}")
    done = cli_inside("check", cwd=lab.root)
    assert done.code == code
    assert "accuracy no worse than main by more than 0.05: difference" in done.out
    assert re.search(said, done.out)


def test_a_branch_that_is_only_a_remote_one_is_found(lab: Laboratory, cli_inside: Cli) -> None:
    lab.git("update-ref", "refs/remotes/origin/main", "main")
    lab.git("branch", "--quiet", "--move", "main", "work")
    add_checks(lab, "accuracy: {no_worse_than: main}")
    assert cli_inside("check", cwd=lab.root).code == 0


def test_a_comparison_that_can_not_be_made_fails(lab: Laboratory, cli_inside: Cli) -> None:
    lab.change({"models": {"fake": {"max_tokens": 66}}})
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    add_checks(lab, "accuracy: {no_worse_than: nowhere}")
    done = cli_inside("check", cwd=lab.root)
    assert done.code == 1
    assert "git knows no nowhere here: fetch it (actions/checkout: fetch-depth: 0)" in done.out

    lab.config.write_text(lab.config.read_text().replace("nowhere", "HEAD~1"))
    assert "summary.json at HEAD~1: no such file" in cli_inside("check", cwd=lab.root).out

    lab.config.write_text(lab.config.read_text().replace("HEAD~1", "main"))
    assert cli_inside("check", cwd=lab.root).code == 0
    shutil.rmtree(lab.root / ".dvc" / "cache")
    done = cli_inside("check", cwd=lab.root)
    assert done.code == 1
    assert "the rows of fake-predict of main are not here: `dvc fetch --all-branches` gets them" in done.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"models": {"fake": {"max_tokens": 65}}},
            "FAILED     fake-predict: complete: its results were made with other settings, code or data",
        ),
        (
            {"matrix": {"lm.top_p": [0.5]}},
            "FAILED     fake-predict-top_p0.5: complete: has no results: `dspylab run`",
        ),
    ],
)
def test_results_of_another_experiment_do_not_count(
    lab: Laboratory, cli_inside: Cli, change: dict[str, Any], said: str
) -> None:
    lab.change(change)
    add_checks(lab, "accuracy: {min: 0.1}")
    done = cli_inside("check", cwd=lab.root)
    assert done.code == 1
    assert said in done.out


def test_rows_that_were_changed_by_hand_are_not_judged(lab: Laboratory, cli_inside: Cli) -> None:
    add_checks(lab, "accuracy: {min: 0.1}")
    rows = lab.raw("fake-predict")
    recorded = rows.read_text()
    rows.unlink()  # it may be a link into DVC's cache
    rows.write_text(recorded.replace('"accuracy":0.0', '"accuracy":1.0', 1))
    assert rows.read_text() != recorded
    done = cli_inside("check", cwd=lab.root)
    assert done.code == 1
    said = "its rows are not those that dvc.lock names: `dvc checkout` brings those back"
    assert f"FAILED     fake-predict: complete: {said}\n" in done.out
    # Rows that are not here were not changed: continuous integration need not have them.
    rows.unlink()
    assert cli_inside("check", cwd=lab.root).code == 0
    lab.dvc("checkout", "--force")
    assert rows.read_text() == recorded
    assert cli_inside("check", cwd=lab.root).code == 0


def test_results_that_dvc_has_not_recorded_are_judged(lab: Laboratory, cli_inside: Cli) -> None:
    add_checks(lab, "accuracy: {min: 0.1}")
    lab.change({"models": {"fake": {"max_tokens": 66}}, "matrix": {"program.style": ["predict"]}})
    assert cli_inside("run-one", "model=fake", "program.style=predict", cwd=lab.root).code == 0
    assert cli_inside("aggregate", cwd=lab.root).code == 0
    done = cli_inside("check", cwd=lab.root)
    assert (done.code, done.err) == (0, ""), done.out


def test_why_the_summary_has_no_such_run_is_said(lab: Laboratory, cli_inside: Cli) -> None:
    """As after Ctrl-C in a run whose settings had changed."""
    add_checks(lab, "accuracy: {min: 0.1}")
    lab.change({"models": {"fake": {"max_tokens": 66}}})
    assert cli_inside("aggregate", cwd=lab.root).code == 1
    assert cli_inside("run-one", "model=fake", "program.style=predict", cwd=lab.root).code == 0

    def said() -> list[str]:
        lines = cli_inside("check", cwd=lab.root).out.splitlines()
        return [line.partition(": complete: ")[2] for line in lines if ": complete: " in line]

    outdated = "its results were made with other settings, code or data: `dspylab run`"
    assert said() == ["its results are newer than the summary: `dspylab aggregate`", outdated]
    assert cli_inside("plan", "--pilot", "2", cwd=lab.root).code == 0
    assert said()[1] == "is not finished: `dspylab run` goes on with it"
    shutil.rmtree(lab.root / ".dspylab")
    lab.raw("fake-cot").with_name("run.json").write_text("{")
    assert "experiments/triage/results/fake-cot/run.json: is not JSON" in said()[1]


def test_without_results_there_is_nothing_to_judge(lab: Laboratory, cli_inside: Cli) -> None:
    add_checks(lab, "accuracy: {min: 0.1}")
    lab.summary.unlink()
    done = cli_inside("check", cwd=lab.root)
    assert done.code == 2
    assert (
        done.err == "experiments/triage/summary.json: no such file: run the experiment with `dspylab run`\n"
    )


#: A `gh` that knows of no comment and keeps the body of the one that it is to write.
GH = f"""#!{sys.executable}
import shutil, sys
for argument in sys.argv:
    if argument.startswith("body=@"):
        shutil.copy(argument.removeprefix("body=@"), "said.md")
"""


def test_the_scripts_of_the_action_judge_and_comment(lab: Laboratory) -> None:
    """As GitHub would: one step after the other, with what the first one wrote handed to the second."""
    add_checks(lab, "accuracy: {min: 0.99}")
    binaries = lab.root / "bin"
    binaries.mkdir()
    (binaries / "gh").write_text(GH)
    (binaries / "gh").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(binaries), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(lab.root / "output"),
        "GITHUB_REPOSITORY": "owner/name",
        "GITHUB_STEP_SUMMARY": str(lab.root / "summary"),
        "RUNNER_TEMP": str(lab.root),
        "PULL_REQUEST": "7",
        "CONFIG": WHERE,
    }
    scripts = Path(__file__).parent.parent / "action"

    def step(script: str, **variables: str) -> str:
        command = ["bash", str(scripts / script)]
        done = subprocess.run(
            command, cwd=lab.root, env=environment | variables, check=True, capture_output=True, text=True
        )
        return done.stdout

    printed = step("check.sh")
    outputs = dict(line.split("=", 1) for line in (lab.root / "output").read_text().splitlines())
    assert (outputs["code"], outputs["passed"]) == ("1", "false")
    assert f"::error file={WHERE},line=" in printed
    assert ET.parse(outputs["junit"]).getroot().attrib["failures"] == "1"

    step("comment.sh", MARKDOWN=outputs["markdown"])
    said = (lab.root / "said.md").read_text()
    assert said.startswith(f"<!-- dspylab check: {WHERE} -->\n### triage: 1 of 3 checks failed\n")
    assert "| FAILED | fake-predict | accuracy at least 0.99 | 0.900 \\[0.769, 0.960\\]: the whole" in said
