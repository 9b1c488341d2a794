"""The GitHub Action: that its file is sound, and what its scripts do. `gh` only writes down its calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "action").glob("*.sh"))

#: Writes down its arguments and the files that they name, and answers with what GH_ANSWERS says.
GH = f"""#!{sys.executable}
import json, os, sys
arguments = sys.argv[1:]
body = next((a.partition("=@")[2] for a in arguments if a.startswith("body=@")), None)
with open(os.environ["GH_LOG"], "a") as log:
    print(json.dumps([arguments, open(body).read() if body else None, os.environ.get("MARKER")]), file=log)
answers = json.loads(os.environ["GH_ANSWERS"])
sys.stdout.write(answers.pop("list" if "--paginate" in arguments else "write", ""))
sys.exit(int(answers.get("exit", 0)))
"""
#: Stands in for the command line: writes what it is asked to, and ends as CODE says.
DSPYLAB = f"""#!{sys.executable}
import os, sys
with open(os.environ["CALLS"], "a") as log:
    print(*sys.argv[1:], file=log)
def write(option, text):
    if option in sys.argv:
        open(sys.argv[sys.argv.index(option) + 1], "w").write(text)
if sys.argv[1] == "check" and os.environ["CODE"] != "3":
    write("--junit", "<testsuites/>")
    write("--markdown", "### triage: checks\\n")
if sys.argv[1] == "report":
    if "REPORT" not in os.environ:
        sys.exit(2)
    write("--output", os.environ["REPORT"])
sys.exit(int(os.environ["CODE"]) if sys.argv[1] == "check" else 0)
"""


@pytest.fixture(scope="module")
def action() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    return loaded


def run(script: str, folder: Path, *, tools: dict[str, str], **variables: str) -> str:
    """Runs a script with these tools first on PATH and a bare environment; returns what it printed."""
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    for name, text in tools.items():
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    environment = {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder), **variables}
    done = subprocess.run(
        ["bash", ROOT / "action" / script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the file -----------------------------------------------------------------------------------------------


def test_the_action_is_a_composite_one(action: dict[str, Any]) -> None:
    assert action["runs"]["using"] == "composite"
    assert {"name", "description", "inputs", "outputs", "runs"} <= set(action)
    for step in action["runs"]["steps"]:
        assert set(step) <= {"name", "id", "if", "shell", "env", "run"}
        assert step["shell"] == "bash"
    for entry in action["inputs"].values():
        assert set(entry) == {"description", "required", "default"}


def test_inputs_and_outputs_of_steps_are_those_that_exist(action: dict[str, Any]) -> None:
    text = (ROOT / "action.yml").read_text()
    assert set(re.findall(r"inputs\.(\w+)", text)) == set(action["inputs"])
    written = set(re.findall(r'echo "(\w+)=', (ROOT / "action" / "check.sh").read_text()))
    assert set(re.findall(r"steps\.check\.outputs\.(\w+)", text)) == written


def test_nothing_from_outside_becomes_code(action: dict[str, Any]) -> None:
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"]


def test_every_script_is_used_and_gets_what_it_reads(action: dict[str, Any]) -> None:
    given_by_github = {"GITHUB_ACTION_PATH", "GITHUB_OUTPUT", "GITHUB_REPOSITORY", "GITHUB_STEP_SUMMARY"}
    for script in SCRIPTS:
        (step,) = (step for step in action["runs"]["steps"] if f"/action/{script.name}" in step["run"])
        text = script.read_text()
        read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", text)) - {"MARKER"}
        assert read <= given_by_github | {"RUNNER_TEMP"} | set(step.get("env", {})), script.name
        assert set(step["env"]) - {"GH_TOKEN"} <= read, script.name
        subprocess.run(["bash", "-n", script], check=True)
        assert text.startswith("#!/usr/bin/env bash\n")
        assert "set -euo pipefail" in text


def test_the_example_workflow_of_the_docs_uses_inputs_that_exist(action: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "gate.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    workflows = [block for block in blocks if "jobs" in block]
    assert workflows
    for workflow in workflows:
        for job in workflow["jobs"].values():
            used = [step for step in job["steps"] if "dspylab" in step.get("uses", "")]
            assert used
            assert all(set(step.get("with", {})) <= set(action["inputs"]) for step in used)


# --- the scripts --------------------------------------------------------------------------------------------


def check(folder: Path, code: int, config: str = "", **variables: str) -> tuple[dict[str, str], str, str]:
    """Runs check.sh: its outputs, the comment, and how the command line was called."""
    said = run(
        "check.sh",
        folder,
        tools={"dspylab": DSPYLAB},
        CODE=str(code),
        CALLS=str(folder / "calls"),
        CONFIG=config,
        RUNNER_TEMP=str(folder),
        GITHUB_OUTPUT=str(folder / "output"),
        GITHUB_STEP_SUMMARY=str(folder / "summary"),
        **variables,
    )
    outputs = dict(line.split("=", 1) for line in (folder / "output").read_text().splitlines())
    comment = Path(outputs["markdown"]).read_text()
    assert (folder / "summary").read_text() == comment
    return outputs, comment, said + (folder / "calls").read_text()


@pytest.mark.parametrize(("code", "passed"), [(0, "true"), (1, "false")])
def test_a_check_is_followed_by_the_report(tmp_path: Path, code: int, passed: str) -> None:
    outputs, comment, _ = check(tmp_path, code, REPORT="# The report\n")
    assert (outputs["code"], outputs["passed"]) == (str(code), passed)
    assert Path(outputs["junit"]).is_file()
    assert comment == "### triage: checks\n\n# The report\n"


def test_the_experiment_is_named_if_it_was(tmp_path: Path) -> None:
    _, _, called = check(tmp_path, 0, "experiments/a b/experiment.yaml", REPORT="x")
    assert called.count("--config experiments/a b/experiment.yaml") == 2


def test_no_report_and_no_verdict_are_said(tmp_path: Path) -> None:
    outputs, comment, said = check(tmp_path, 3)
    assert outputs["passed"] == "false"
    assert comment == "### dspylab check could not judge the results (exit code 3)\n"
    assert "::warning::there is no report" in said
    assert "--config" not in said


def test_a_report_that_github_would_refuse_is_left_out(tmp_path: Path) -> None:
    _, comment, _ = check(tmp_path, 0, REPORT="x" * 70_000)
    assert comment == "### triage: checks\n\nThe report is too long for a comment.\n"


def comment(folder: Path, answers: dict[str, Any], config: str = "") -> tuple[list[Sequence[Any]], str]:
    """Runs comment.sh: the calls of gh, and what it printed."""
    markdown = folder / "comment.md"
    markdown.write_text("### triage: 1 of 4 checks failed\n")
    said = run(
        "comment.sh",
        folder,
        tools={"gh": GH},
        CONFIG=config,
        MARKDOWN=str(markdown),
        PULL_REQUEST="7",
        GITHUB_REPOSITORY="owner/name",
        GH_LOG=str(folder / "log"),
        GH_ANSWERS=json.dumps(answers),
    )
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()], said


def test_the_first_comment_is_new(tmp_path: Path) -> None:
    (listing, _, marker), (writing, body, _) = comment(tmp_path, {})[0]
    assert listing[:3] == ["api", "--paginate", "repos/owner/name/issues/7/comments"]
    assert writing[:5] == ["api", "--silent", "--method", "POST", "repos/owner/name/issues/7/comments"]
    assert body == f"{marker}\n### triage: 1 of 4 checks failed\n"
    assert marker == "<!-- dspylab check: the only experiment -->"


def test_a_later_one_replaces_it(tmp_path: Path) -> None:
    _, (writing, body, marker) = comment(tmp_path, {"list": "123\n456\n"}, "x/experiment.yaml")[0]
    assert writing[2:5] == ["--method", "PATCH", "repos/owner/name/issues/comments/123"]
    assert body.startswith("<!-- dspylab check: x/experiment.yaml -->\n")
    assert marker in body


def test_a_comment_that_is_refused_is_a_warning(tmp_path: Path) -> None:
    calls, said = comment(tmp_path, {"exit": 1})
    assert len(calls) == 1
    assert said == (
        "::warning::could not comment on the pull request: it needs permissions: pull-requests: write\n"
    )


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq runs the filter that gh has built in")
def test_only_a_comment_of_ours_is_replaced() -> None:
    (expression,) = re.findall(r"--jq \\\n\s+'([^']+)'", (ROOT / "action" / "comment.sh").read_text())
    marker = "<!-- dspylab check: x -->"
    comments = [
        {"id": 1, "user": {"type": "User"}, "body": f"{marker} of a person"},
        {"id": 2, "user": {"type": "Bot"}, "body": "of another bot"},
        {"id": 3, "user": {"type": "Bot"}, "body": f"{marker}\nours"},
    ]
    done = subprocess.run(
        ["jq", expression],
        input=json.dumps(comments),
        env=os.environ | {"MARKER": marker},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["3"]


def logging(name: str, rest: str = "") -> str:
    """A tool that writes down how it was called."""
    return f'#!/bin/sh\necho {name} "$@" >> "$CALLS"\n{rest}\n'


def results(folder: Path, *, remote: str = "", run_code: int = 0, **variables: str) -> tuple[list[str], str]:
    """Runs results.sh in a clone of a repository with a branch main: how its tools were called."""
    calls = folder / "calls"
    calls.touch()
    said = run(
        "results.sh",
        folder,
        tools={
            "dvc": logging("dvc", f'[ "$1" = remote ] && printf "%s" "{remote}"; true'),
            "dspylab": logging("dspylab", f"exit {run_code}"),
        },
        CALLS=str(calls),
        **{"CONFIG": "", "PULL": "true", "RUN": "false", "BASE_REF": "", **variables},
    )
    return calls.read_text().splitlines(), said


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_results_come_from_the_remote_if_there_is_one(tmp_path: Path) -> None:
    assert results(tmp_path) == (["dvc remote list"], "")
    assert results(tmp_path, PULL="false")[0] == ["dvc remote list"]
    calls, _ = results(tmp_path, remote="storage\ts3://bucket")
    assert calls[1:] == ["dvc remote list", "dvc pull --allow-missing"]


def test_runs_are_executed_only_if_asked_for(tmp_path: Path) -> None:
    calls, said = results(tmp_path, PULL="false", RUN="true", CONFIG="x/experiment.yaml")
    assert (calls, said) == (["dspylab run --quiet --config x/experiment.yaml"], "")
    _, said = results(tmp_path, PULL="false", RUN="true", run_code=4)
    assert said == "::warning::dspylab run ended with exit code 4\n"


@pytest.mark.parametrize("shallow", [False, True])
def test_the_base_branch_is_there_to_be_compared_with(tmp_path: Path, *, shallow: bool) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    git(origin, "init", "--quiet", "--initial-branch=main")
    for number in range(3):
        git(origin, "commit", "--quiet", "--allow-empty", "--message", f"Commit {number}")
    git(origin, "checkout", "--quiet", "-b", "feature")
    git(origin, "commit", "--quiet", "--allow-empty", "--message", "Of the pull request")
    depth = ["--depth=1"] if shallow else []
    git(tmp_path, "clone", "--quiet", *depth, "--single-branch", "--branch=feature", origin.as_uri(), "clone")
    git(clone, "checkout", "--quiet", "--detach")
    calls, _ = results(clone, remote="storage", BASE_REF="main")
    assert git(clone, "rev-parse", "origin/main") == git(origin, "rev-parse", "main")
    assert git(clone, "rev-parse", "main") == git(origin, "rev-parse", "main")
    assert len(git(clone, "log", "--oneline", "main").splitlines()) == (1 if shallow else 3)
    assert calls == ["dvc remote list", "dvc pull --allow-missing", "dvc fetch --all-branches"]


def test_the_version_of_the_action_is_installed(tmp_path: Path) -> None:
    tools = {"python": logging("python")}
    for extras, wanted in (("", "/checkout"), ("local,text", "/checkout[local,text]")):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        run(
            "install.sh",
            tmp_path,
            tools=tools,
            CALLS=str(calls),
            GITHUB_ACTION_PATH="/checkout",
            EXTRAS=extras,
        )
        assert calls.read_text() == f"python -m pip install --disable-pip-version-check {wanted}\n"
