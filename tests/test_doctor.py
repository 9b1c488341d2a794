"""What `dspylab doctor` finds wrong with an environment, a repository and an embedded model."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import API_KEY, Cli, MakeLab

from dspylab.commands import doctor
from dspylab.testing import Laboratory


@pytest.fixture
def lab(make_lab: MakeLab) -> Laboratory:
    return make_lab("http://127.0.0.1:9")


def problems(cli: Cli, root: Path, *arguments: str, **variables: str) -> list[str]:
    """What is found that is not as it should be, but for the endpoint, which is not there."""
    done = cli("doctor", *arguments, cwd=root, **variables)
    lines = [line for line in done.out.splitlines() if not line.startswith("ok")]
    assert done.code == (3 if any(line.startswith("problem") for line in lines) else 0), done.err
    return [line for line in lines if "models.fake" not in line and "is not up to date" not in line]


def test_packages_that_are_missing_or_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [
        "pydantic>=2",
        "rich<1",
        "no-such-package-anywhere>=3",
        "what is this?",
        "altair; extra == 'report'",
        "typer",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    found = {check.found.partition(" ")[0]: check for check in doctor._packages()}
    assert found["rich"].found.endswith("not rich<1: python -m pip install 'rich<1'")
    assert found["no-such-package-anywhere>=3"].found == (
        "no-such-package-anywhere>=3 is not installed: python -m pip install 'no-such-package-anywhere>=3'"
    )
    assert [found[name].state for name in ("rich", "no-such-package-anywhere>=3", "dspylab")] == [
        "problem", "problem", "ok",
    ]  # fmt: skip
    assert "pydantic 2" in found["dspylab"].found
    assert "altair" not in found["dspylab"].found


def test_a_python_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._python().state == "ok"
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.4")
    found = doctor._python()
    assert found.state == "problem"
    assert found.found.startswith("3.10.4 in ")
    assert "; dspylab needs >=3.11: make an environment with one" in found.found


def test_without_an_experiment_there_is_not_much_to_say(tmp_path: Path, cli_inside: Cli) -> None:
    said = "note     experiments: none here: make one with `dspylab init`, or name one with --config"
    assert said in problems(cli_inside, tmp_path)


def test_the_program_that_dvc_will_run(lab: Laboratory, cli_inside: Cli, tmp_path: Path) -> None:
    git = Path(shutil.which("git") or "").parent
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(git / "git")
    (said,) = problems(cli_inside, lab.root, PATH=str(tmp_path / "bin"))
    assert said == (
        "problem  DVC: `dvc repro` runs `dspylab`, which is not on PATH: "
        f"activate the environment in {sys.prefix}"
    )
    other = tmp_path / "bin" / "dspylab"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    (said,) = problems(cli_inside, lab.root, PATH=str(tmp_path / "bin"))
    assert said == f"note     DVC: `dvc repro` runs {other}, which is of another environment than this"


def test_secrets_and_private_files_that_git_has(lab: Laboratory, cli_inside: Cli) -> None:
    (lab.root / ".gitignore").write_text("")
    (lab.root / ".env").write_text(f"FAKE_API_KEY={API_KEY}\n")
    assert problems(cli_inside, lab.root) == [
        "problem  files: .env is not ignored by git: echo .env >> .gitignore"
    ]
    (lab.root / ".dspylab").mkdir(exist_ok=True)
    (lab.root / ".dspylab" / "journal").write_text("")
    lab.git("add", "--force", ".env", ".dspylab")
    assert problems(cli_inside, lab.root) == [
        (
            "problem  files: .env is tracked by git, keys and all: "
            "git rm --cached .env && echo .env >> .gitignore, and make new keys"
        ),
        "problem  files: .dspylab is tracked by git: git rm -r --cached .dspylab",
    ]


def test_one_cause_is_one_problem_and_a_file_is_named_once(lab: Laboratory, cli_inside: Cli) -> None:
    lab.change({"dataset": {"path": None, "split": None, "train": "same.jsonl", "test": "tickets.jsonl"}})
    (lab.folder / "same.jsonl").write_bytes((lab.folder / "tickets.jsonl").read_bytes())
    (said,) = (line for line in problems(cli_inside, lab.root) if line.startswith("problem"))
    assert said.count("is also training example") == 1
    lab.change({"dataset": {"train": None}, "metrics": {"accuracy": {"field": "lable", "label": "lable"}}})
    file = lab.config.relative_to(lab.root)
    found = [line for line in problems(cli_inside, lab.root) if "lable" in line]
    assert found
    assert all(line.count(str(file)) == 1 for line in found)


def test_a_merge_that_is_not_finished(lab: Laboratory, cli_inside: Cli) -> None:
    path = lab.root / "notes.txt"
    for branch, text in (("one", "1\n"), ("two", "2\n")):
        lab.git("checkout", "--quiet", "-b", branch, "HEAD" if branch == "one" else "HEAD~1")
        path.write_text(text)
        lab.commit(branch)
    merged = subprocess.run(["git", "merge", "one"], cwd=lab.root, capture_output=True, check=False)
    assert merged.returncode != 0
    (said,) = (line for line in problems(cli_inside, lab.root) if "merge" in line)
    assert said == (
        "problem  git: a merge is not finished: notes.txt: resolve it, or go back with git merge --abort"
    )


def test_a_disk_that_is_nearly_full(
    lab: Laboratory, cli_inside: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=12_000_000))
    assert problems(cli_inside, lab.root) == [
        f"problem  files: 12 MB are free on the disk of {lab.root}: make room"
    ]


def test_an_embedded_model(lab: Laboratory, cli_inside: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (lab.folder / "own.gguf").write_bytes(b"GGUF")
    lab.change({"models": {"own": {"model": "local:own.gguf"}}, "matrix": {"model": ["own"]}})
    done = cli_inside("doctor", cwd=lab.root)
    assert "models.own: local:own.gguf is on this machine" in done.out
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "xllamacpp" else find(name, *a)
    )
    assert any(
        "models.own: xllamacpp is not installed: pip install 'huggingface-hub" in line
        for line in problems(cli_inside, lab.root)
    )
