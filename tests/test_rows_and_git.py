"""Rows belong to DVC and the summary to git: neither gets into the other's way."""

from __future__ import annotations

import shutil

import pytest
from conftest import Cli, MakeLab, summary

from dspylab.testing import FakeServer, Laboratory, tickets

MATRIX = {"matrix": {"model": ["fake"], "program.style": ["predict", "cot"]}}


@pytest.fixture
def lab(server: FakeServer, make_lab: MakeLab) -> Laboratory:
    return make_lab(server.url, config=MATRIX, files={".gitignore": "__pycache__/\n"})


def test_a_pilot_leaves_nothing_in_the_workspace(
    lab: Laboratory, server: FakeServer, cli: Cli, cli_inside: Cli
) -> None:
    for size in (3, 8):  # a part, and all of them
        assert cli_inside("plan", "--pilot", str(size), cwd=lab.root).code == 0
        assert lab.git("status", "--porcelain") == ""
    assert len(server.requests) == 16

    done = cli_inside("run", cwd=lab.root)

    assert done.code == 0, done.err
    assert len(server.requests) == 16
    lab.commit("Results")
    assert "results/" not in lab.git("ls-files")
    assert "up to date" in cli("repro", cwd=lab.root, program="dvc").out


def test_a_pilot_leaves_the_results_of_other_settings(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    assert cli_inside("run", cwd=lab.root).code == 0
    before = lab.raw("fake-cot").read_bytes()
    lab.change({"models": {"fake": {"temperature": 0.5}}})

    assert cli_inside("plan", "--pilot", "3", cwd=lab.root).code == 0

    assert lab.raw("fake-cot").read_bytes() == before
    assert len(server.requests) == 22
    assert cli_inside("run", cwd=lab.root).code == 0
    assert len(server.requests) == 32


def test_a_pilot_goes_into_dvc_repro(lab: Laboratory, server: FakeServer, cli: Cli, cli_inside: Cli) -> None:
    assert cli_inside("plan", "--pilot", "3", cwd=lab.root).code == 0
    assert cli_inside("sync", cwd=lab.root).code == 0

    assert cli("repro", cwd=lab.root, program="dvc").code == 0

    assert len(server.requests) == 16
    assert "nothing to do" in cli_inside("run", cwd=lab.root).out


def test_git_ignores_what_run_one_writes(lab: Laboratory, server: FakeServer, cli_inside: Cli) -> None:
    (lab.folder / ".gitignore").write_text("# mine")

    assert cli_inside("run-one", "program.style=cot", cwd=lab.root).code == 0

    lab.commit("All of it")
    assert "results/" not in lab.git("ls-files")
    assert (lab.folder / ".gitignore").read_text().startswith("# mine\n/results/")
    assert cli_inside("run", cwd=lab.root).code == 0
    assert len(server.requests) == 16


@pytest.mark.parametrize("command", [["run"], ["plan"], ["plan", "--pilot", "2"]])
def test_rows_that_git_tracks_are_found_before_the_first_call(
    lab: Laboratory, server: FakeServer, cli_inside: Cli, command: list[str]
) -> None:
    lab.raw("fake-cot").parent.mkdir(parents=True)
    lab.raw("fake-cot").write_text("")
    lab.commit("With rows")

    refused = cli_inside(*command, cwd=lab.root)

    assert refused.code == 3, refused.out
    assert "results/fake-cot/raw.jsonl: is tracked by git, and DVC has to keep it" in refused.err
    assert "`git rm -r --cached experiments/triage/results`" in refused.err
    assert not server.requests
    lab.git("rm", "-r", "--quiet", "--cached", "experiments/triage/results")
    assert cli_inside("run", cwd=lab.root).code == 0


def test_an_earlier_revision_stays_as_it_was(lab: Laboratory, server: FakeServer, cli_inside: Cli) -> None:
    assert cli_inside("run", cwd=lab.root).code == 0
    lab.commit("Warm")
    lab.change({"models": {"fake": {"temperature": 0.5}}, "matrix": {"program.style": ["cot"]}})
    assert cli_inside("run", cwd=lab.root).code == 0
    lab.commit("Hot")

    for revision, restored in (("main~1", "2 runs restored"), ("main", "1 run restored")):
        lab.git("checkout", "--quiet", revision)
        done = cli_inside("run", cwd=lab.root)

        assert done.code == 0, done.err
        assert restored in done.out
        assert lab.git("status", "--porcelain") == ""
        assert "up to date" in lab.dvc("status")
        assert "nothing to do" in cli_inside("run", cwd=lab.root).out
    assert len(server.requests) == 24


def test_settings_that_are_taken_back_give_the_summary_of_git(
    lab: Laboratory, server: FakeServer, cli: Cli, cli_inside: Cli
) -> None:
    assert cli_inside("run", cwd=lab.root).code == 0
    lab.commit("Warm")
    text = lab.config.read_text()
    for take_back in ("run", "repro"):
        lab.change({"models": {"fake": {"temperature": 0.5}}})
        assert cli_inside("run", cwd=lab.root).code == 0
        hot = summary(lab)
        assert hot["git"]["dirty"]
        lab.config.write_text(text)

        if take_back == "run":
            assert "2 runs restored" in cli_inside("run", cwd=lab.root).out
        else:
            assert cli_inside("sync", cwd=lab.root).code == 0
            assert cli("repro", cwd=lab.root, program="dvc").code == 0

        assert lab.git("status", "--porcelain") == ""
        assert "up to date" in lab.dvc("status")
    assert len(server.requests) == 32


def test_a_summary_that_says_something_else_says_when_it_was_made(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    assert cli_inside("run", cwd=lab.root).code == 0
    lab.commit("Both")
    before = summary(lab)
    lab.change({"matrix": {"program.style": ["cot"]}})

    assert cli_inside("run", cwd=lab.root).code == 0

    assert set(summary(lab)["runs"]) == {"fake-cot"}
    assert summary(lab)["git"]["commit"] != (before["git"] or {}).get("commit")
    assert len(server.requests) == 16


def test_a_repository_without_git(server: FakeServer, make_lab: MakeLab, cli_inside: Cli) -> None:
    lab = make_lab(server.url, examples=tickets(3))
    shutil.rmtree(lab.root / ".git")

    for command in ("run", "doctor"):
        refused = cli_inside(command, cwd=lab.root)
        assert refused.code == 3
        said = refused.out + refused.err
        assert said.count("is not in a git repository") == 1
        assert "`git init`" in said
        assert "`dvc config core.no_scm true`" in said
        (line,) = (line for line in said.splitlines() if "is not in a git repository" in line)
        assert line.count(str(lab.root)) == 1
    assert not server.requests

    lab.dvc("config", "core.no_scm", "true")
    looked, done = (cli_inside(command, cwd=lab.root) for command in ("doctor", "run"))

    assert looked.code == 0, looked.out
    assert done.code == 0, done.err
    assert "commit" not in looked.out + done.out
    assert "experiment " not in done.out
    assert "nothing to do" in cli_inside("run", cwd=lab.root).out
    assert summary(lab)["git"] is None
