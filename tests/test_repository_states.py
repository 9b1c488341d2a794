"""Repositories in every state: what can be worked with works, the rest names the command that mends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import API_KEY, Cli, InitRepository

from dspylab.testing import FakeServer, Laboratory, experiment, tickets

BINARIES = Path(sys.executable).parent


@pytest.fixture
def lab(tmp_path: Path, server: FakeServer, init_repository: InitRepository) -> Laboratory:
    made = experiment(tmp_path / "lab", server_url=server.url, examples=tickets(3))
    init_repository(made)
    return made


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


@pytest.fixture(scope="module")
def executed_once(
    tmp_path_factory: pytest.TempPathFactory, endpoint: FakeServer, blank_repository: Path
) -> Laboratory:
    made = experiment(tmp_path_factory.mktemp("executed"), server_url=endpoint.url, examples=tickets(3))
    shutil.copytree(blank_repository, made.root, dirs_exist_ok=True)
    path = f"{BINARIES}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "FAKE_API_KEY": API_KEY}
    made.commit("A laboratory")
    subprocess.run([BINARIES / "dspylab", "run", "--quiet"], cwd=made.root, env=environment, check=True)
    made.commit("Results")
    return made


@pytest.fixture
def executed(executed_once: Laboratory, tmp_path: Path) -> Laboratory:
    """A repository with results in it."""
    shutil.copytree(executed_once.root, tmp_path / "lab")
    return Laboratory(tmp_path / "lab", executed_once.name)


def no_commit(lab: Laboratory) -> None:
    shutil.rmtree(lab.root / ".git")
    lab.init_git()


def no_identity(lab: Laboratory) -> None:
    lab.git("config", "--unset", "user.email")
    lab.git("config", "user.useConfigOnly", "true")


def detached(lab: Laboratory) -> None:
    lab.git("checkout", "--quiet", "--detach")


def dirty(lab: Laboratory) -> None:
    lab.change({"description": "changed, not committed"})


def own_keys_and_stages(lab: Laboratory) -> None:
    (lab.root / "params.yaml").write_text("# mine\nlr: 0.1  # as in the paper\nnested: {a: [1, 2]}\n")
    (lab.root / "dvc.yaml").write_text("stages:\n  # mine\n  prepare:\n    cmd: echo done\n")


def half_executed_elsewhere(lab: Laboratory) -> None:
    folder = lab.raw("fake").parent
    folder.mkdir(parents=True)
    (folder / "raw.jsonl").write_text('{"half a row')
    (folder / ".raw.jsonl.99999999-1.tmp").write_text("left by a killed process")


def list_of_files_in_use_cut_by_a_kill(lab: Laboratory) -> None:
    (lab.root / ".dvc" / "tmp").mkdir(exist_ok=True)
    (lab.root / ".dvc" / "tmp" / "rwlock").write_text("")


class Workable(NamedTuple):
    make: Callable[[Laboratory], None]
    said: str = ""
    found: str = ""


WORKABLE = [
    Workable(
        no_commit,
        "git add --all && git commit",
        "note     git: {root} has no commit, so results are not saved",
    ),
    Workable(no_identity, "git config user.name", "note     git: it does not know who you are"),
    Workable(detached, "saved as the DVC experiment", "with a detached head"),
    Workable(dirty, "saved as the DVC experiment", "changed"),
    Workable(own_keys_and_stages, "saved as the DVC experiment", "1 stage,"),
    Workable(half_executed_elsewhere, "saved as the DVC experiment"),
    Workable(list_of_files_in_use_cut_by_a_kill, "saved as the DVC experiment"),
]


@pytest.mark.parametrize("state", WORKABLE, ids=lambda state: state.make.__name__)
def test_what_can_be_worked_with_works(
    lab: Laboratory, server: FakeServer, cli_inside: Cli, state: Workable
) -> None:
    state.make(lab)

    # Whoever runs the tests has an identity.
    before, done, again = (
        cli_inside(command, cwd=lab.root, GIT_CONFIG_GLOBAL=os.devnull)
        for command in ("doctor", "run", "run")
    )

    assert before.code == 0, before.out
    assert state.found.format(root=lab.root) in before.out
    assert done.code == 0, done.err
    assert state.said in done.out
    assert "nothing to do" in again.out, again.out + again.err
    assert len(server.requests) == 3
    summary = json.loads(lab.summary.read_text())
    if state.make is no_commit:
        assert summary["git"] is None
    else:
        assert summary["git"]["branch"] == (None if state.make is detached else "main")
        # The first run writes params.yaml and dvc.yaml, so only tracked files tell.
        assert summary["git"]["dirty"] == (state.make is dirty)
    if state.make is own_keys_and_stages:
        assert (lab.root / "params.yaml").read_text().startswith("# mine\nlr: 0.1  # as in the paper\n")
        assert "  # mine\n  prepare:\n    cmd: echo done\n" in (lab.root / "dvc.yaml").read_text()


def not_git(lab: Laboratory) -> None:
    shutil.rmtree(lab.root / ".git")
    shutil.rmtree(lab.root / ".dvc")


def not_dvc(lab: Laboratory) -> None:
    shutil.rmtree(lab.root / ".dvc")


def conflict_in_lock(lab: Laboratory) -> None:
    (lab.root / "dvc.lock").write_text("schema: '2.0'\n<<<<<<< HEAD\n=======\n>>>>>>> other\n")


def conflict_in_pipeline(lab: Laboratory) -> None:
    text = (lab.root / "dvc.yaml").read_text()
    (lab.root / "dvc.yaml").write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n")


def broken_pipeline(lab: Laboratory) -> None:
    (lab.root / "dvc.yaml").write_text("stages:\n  mine:\n    cmd: [\n")


def pipeline_that_dvc_refuses(lab: Laboratory) -> None:
    (lab.root / "dvc.yaml").write_text("stages:\n  mine:\n    command: echo\n")


def name_is_taken(lab: Laboratory) -> None:
    (lab.root / "dvc.yaml").write_text("stages:\n  triage:\n    cmd: echo mine\n")


def params_no_mapping(lab: Laboratory) -> None:
    (lab.root / "params.yaml").write_text("- a list\n")


def broken_dvc_config(lab: Laboratory) -> None:
    (lab.root / ".dvc" / "config").write_text("[core\n")


def lock_file_cut_by_a_kill(lab: Laboratory) -> None:
    text = (lab.root / "dvc.lock").read_text()
    (lab.root / "dvc.lock").write_text(text[: text.index("triage") + 3])


class Broken(NamedTuple):
    make: Callable[[Laboratory], None]
    said: tuple[str, ...]
    mend: str
    by_run: bool = True


#: `mend` is what the message proposes, with what only the user knows filled in.
BROKEN = [
    Broken(
        not_git,
        ("is not in a git repository", "git init && dvc init"),
        "git init -q && dvc init -q && git config user.name A && git config user.email a@example.com",
    ),
    Broken(not_dvc, ("is not in a DVC repository", "dvc init"), "dvc init -q -f"),
    Broken(
        conflict_in_lock,
        ("dvc.lock:2: holds the markers of a merge conflict", "git checkout --ours dvc.lock"),
        "git checkout dvc.lock",
    ),
    Broken(
        conflict_in_pipeline,
        ("dvc.yaml:1: holds the markers of a merge conflict", "git checkout --ours dvc.yaml"),
        "git checkout dvc.yaml",
    ),
    Broken(broken_pipeline, ("dvc.yaml:4", "git checkout -- dvc.yaml"), "git checkout -- dvc.yaml"),
    Broken(
        pipeline_that_dvc_refuses,
        ("dvc.yaml: is not what DVC expects", "git checkout -- dvc.yaml"),
        "git checkout -- dvc.yaml",
        by_run=False,  # it is a stage of the user's that `run` does not need
    ),
    Broken(name_is_taken, ("dvc.yaml:2: `triage` is yours", "rename it there"), "git checkout dvc.yaml"),
    Broken(params_no_mapping, ("params.yaml:1: is no mapping",), "git checkout params.yaml"),
    Broken(
        lock_file_cut_by_a_kill,
        ("dvc.lock: is not what DVC expects", "or delete it: `dspylab run` brings the results back"),
        "rm dvc.lock",
    ),
    Broken(broken_dvc_config, ("DVC says:",), "git checkout .dvc/config"),
]


@pytest.mark.xdist_group("broken repositories")
@pytest.mark.parametrize("state", BROKEN, ids=lambda state: state.make.__name__)
def test_what_is_broken_names_the_command_that_mends_it(
    executed: Laboratory, endpoint: FakeServer, cli_inside: Cli, state: Broken
) -> None:
    asked = len(endpoint.requests)
    state.make(executed)

    looked = cli_inside("doctor", cwd=executed.root)
    broken = cli_inside("run", cwd=executed.root)

    assert looked.code == 3, looked.out
    assert "Traceback" not in looked.err + broken.err
    for words in state.said:
        assert words in looked.out
        assert words in broken.err or not state.by_run
    assert broken.code == (3 if state.by_run else 0)
    path = f"{BINARIES}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-c", state.mend], cwd=executed.root, env={**os.environ, "PATH": path}, check=True)
    mended = cli_inside("run", cwd=executed.root)
    assert mended.code == 0, mended.err
    # What was executed need not be executed again, unless DVC's memory of it was thrown away.
    assert len(endpoint.requests) == asked or state.make in (not_git, not_dvc)


def without_the_power_of_root() -> list[str]:
    """Root may write everywhere, unless it gives that up."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is needed to be less than root")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]


@pytest.mark.parametrize(
    "case",
    [
        (".", "doctor", "is read-only: make it writable: chmod -R u+w"),
        (".", "run-one model=fake", "cannot be written: Permission denied"),
        ("experiments/triage", "run-one model=fake", "cannot be written: Permission denied"),
    ],
)
def test_a_read_only_folder(
    lab: Laboratory, server: FakeServer, cli_inside: Cli, case: tuple[str, str, str]
) -> None:
    part, command, said = case
    top = lab.root / part
    folders = [top, *(folder for folder in top.rglob("*") if folder.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = subprocess.run(
            [*without_the_power_of_root(), BINARIES / "dspylab", *command.split()],
            cwd=lab.root, env={**os.environ, "FAKE_API_KEY": API_KEY}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    finally:
        for folder in folders:
            folder.chmod(0o755)

    assert done.returncode == 3, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "writable" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert cli_inside("run", cwd=lab.root).code == 0
    assert len(server.requests) <= 6


def test_the_doctor_names_who_holds_the_lock_of_dvc(
    lab: Laboratory, cli_inside: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspylab.pipeline.repo.LOCK_ATTEMPTS", 1)
    hold = "import sys; from dvc.repo import Repo\nwith Repo().lock: print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], cwd=lab.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        looked = cli_inside("doctor", cwd=lab.root)
        holder.communicate("")
    assert looked.code == 3
    assert f"is locked by process {holder.pid}" in looked.out
    assert "wait for it to end" in looked.out
    assert cli_inside("doctor", cwd=lab.root).code == 0


def test_without_git_on_this_machine(lab: Laboratory, cli_inside: Cli, tmp_path: Path) -> None:
    nothing = tmp_path / "bin"
    nothing.mkdir()
    done = cli_inside("run", cwd=lab.root, PATH=str(nothing))
    assert done.code == 3
    assert "git is not installed" in done.err


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    command = 'mkdir gone && cd gone && rmdir ../gone && exec "$0" run'
    done = subprocess.run(
        ["sh", "-c", command, BINARIES / "dspylab"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "the working folder is gone" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_finds_nothing_wrong_with_a_good_laboratory(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    looked = cli_inside("doctor", cwd=lab.folder)
    called = cli_inside("doctor", "--call", "-c", lab.config, cwd=lab.root)

    assert looked.code == called.code == 0
    assert looked.err == ""
    states = {line.partition(" ")[0] for line in looked.out.splitlines()}
    assert states == {"ok", "note"}
    assert "experiment.yaml: valid, 1 run" in looked.out
    assert "models.fake: openai/fake, with its key: it lists the model" in looked.out
    assert "dvc.yaml is not up to date" in looked.out
    assert "it answers, after" in called.out
    assert len(server.requests) == 1, "only --call makes calls"
    assert not (lab.root / "dvc.yaml").exists(), "the doctor changes nothing"


def test_the_doctor_looks_through_keys_and_endpoints(tmp_path: Path, cli_inside: Cli) -> None:
    served = ["fake", "model-a", "model-b", "unknown-2", "fourth", "other", "more"]
    with FakeServer(api_key=API_KEY, models=served) as server, FakeServer() as gone:
        base = {"api_base": server.url, "api_key_env": "FAKE_API_KEY"}
        models = {
            "unknown": {**base, "model": "openai/unknown"},
            "keyless": {**base, "model": "openai/fake", "api_key_env": "NO_SUCH_VARIABLE"},
            "wrong": {**base, "model": "openai/fake", "api_key_env": "WRONG_KEY"},
            "gone": {"model": "openai/fake", "api_base": gone.url},
            "unused": {"model": "openai/fake", "api_key_env": "NO_SUCH_VARIABLE_EITHER"},
            "absent": {"model": "local:no-such.gguf"},
        }
        config = {
            "models": models,
            "matrix": {"model": ["fake", *(name for name in models if name != "unused")]},
            "program": {"path": "broken.py", "args": ...},
            "dataset": {"path": "broken.jsonl"},
        }
        files = {
            "experiments/triage/broken.py": "def build():\n    raise ValueError('no luck')\n",
            "experiments/triage/broken.jsonl": "{\n",
        }
        lab = experiment(tmp_path, server_url=server.url, config=config, files=files)
        gone.stop()

        looked = cli_inside("doctor", "-c", lab.config, cwd=tmp_path, WRONG_KEY="canary-wrong-0123456789")

    assert looked.code == 3
    lines = dict(
        line.split(f"{lab.config}: ", 1)[::-1] for line in looked.out.splitlines() if str(lab.config) in line
    )
    states = {found: state.strip() for found, state in lines.items()}

    def state(words: str) -> str:
        (only,) = (value for found, value in states.items() if words in found)
        return only

    assert state("models.fake: openai/fake, with its key: it lists the model") == "ok"
    assert (
        state("models.unknown: openai/unknown, with its key: it can be reached, but the model is") == "note"
    )
    assert (
        "not in its list, which has unknown-2, fake, fourth, model-a, model-b and 2 more: corr" in looked.out
    )
    assert state("NO_SUCH_VARIABLE") == "problem"
    assert state("models.wrong: Incorrect API key") == "problem"
    assert state("models.gone: failed to connect") == "problem"
    assert state("local:no-such.gguf") == "note"
    assert state("no luck") == "problem"
    assert state("broken.jsonl:1") == "problem"
    assert "unused" not in looked.out
    assert "canary-wrong" not in looked.out
    assert "is not in a git repository" in looked.out
    assert "problems: mend them from the top" in looked.err
    assert not server.requests


def test_the_doctor_looks_at_the_models_of_nested_optimizers(tmp_path: Path, cli_inside: Cli) -> None:
    config = {
        "models": {"teacher": {"model": "openai/fake", "api_key_env": "NO_SUCH_VARIABLE"}},
        "dataset": {"split": {"train": 0.5}},
        "optimizers": {
            "several": {"type": "Ensemble", "params": {"programs": ["taught"]}},
            "taught": {"type": "BootstrapFewShot", "lms": {"teacher": "teacher"}},
        },
        "matrix": {"model": ["fake"], "optimizer": ["several"]},
    }
    with FakeServer() as server:
        lab = experiment(tmp_path, server_url=server.url, config=config)
        looked = cli_inside("doctor", "-c", lab.config, cwd=tmp_path)
    assert re.search(r"^problem .*models.teacher.*NO_SUCH_VARIABLE", looked.out, re.MULTILINE), looked.out
