"""What all tests share: no surprise traffic, a fake endpoint, and the real command line."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import hypothesis
import pytest

# Before anything imports dspy or litellm: both would fetch a price list.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ.pop("COLUMNS", None)  # that of whoever runs the tests
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from dspylab.cli import execute_command_line
from dspylab.testing import FakeServer, Laboratory, experiment

# A machine that is busy makes no example wrong.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")
# `make mutation` runs the tests thousands of times, and wants the same result each time.
hypothesis.settings.register_profile("mutation", deadline=None, max_examples=25, derandomize=True)

# Shells start jobs in the background with Ctrl-C ignored, and so would be every process of a test.
if (
    signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

API_KEY = "canary-key-0123456789"


@pytest.hookimpl(optionalhook=True)  # mutation testing does without xdist
def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are cores: at times a test waits, for a process or a server."""
    return (os.cpu_count() or 1) * 3 // 2


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long to begin with goes to one process: LiteLLM's import, and the start of the model.

    The longest tests come first, so that no process is left with one of them at the end.
    """
    items.sort(key=lambda item: item.get_closest_marker("torture") is None)
    for item in items:
        if item.get_closest_marker("local"):
            item.add_marker(pytest.mark.xdist_group("local model"))
        elif "litellm" in item.nodeid:
            item.add_marker(pytest.mark.xdist_group("litellm"))


def pytest_collection_finish() -> None:
    """What is imported is never garbage: looking through it again and again took a tenth of the time."""
    gc.set_threshold(100_000, 50, 50)
    gc.collect()
    gc.freeze()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """An endpoint that answers at once."""
    with FakeServer() as running:
        yield running


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Finished]


@pytest.fixture
def cli() -> Cli:
    """The real command line, as a process of its own, with `dspylab` on PATH as DVC needs it."""

    def call(*arguments: str | Path, cwd: Path, program: str = "dspylab", **variables: str) -> Finished:
        binaries = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "FAKE_API_KEY": API_KEY,
            **variables,
        }
        done = subprocess.run(
            [binaries / program, *map(str, arguments)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def cli_inside(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """As `cli`, inside this process, so that dspy is imported once for all calls."""

    def call(*arguments: str | Path, cwd: Path, **variables: str) -> Finished:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["dspylab", *map(str, arguments)])
        capfd.readouterr()
        # What a command reads from a .env file must not stay in the environment of this process.
        with patch.dict(os.environ, {"PATH": path, "FAKE_API_KEY": API_KEY, **variables}):
            code = execute_command_line()
        sys.stdout.flush()
        sys.stderr.flush()
        return Finished(code, *capfd.readouterr())

    return call


def execute(lab: Laboratory, *arguments: str) -> None:
    """As `cli_inside`, of a command that succeeds, for results that are made once for many tests."""
    with pytest.MonkeyPatch.context() as monkeypatch, patch.dict(os.environ, {"FAKE_API_KEY": API_KEY}):
        monkeypatch.chdir(lab.root)
        monkeypatch.setattr(sys, "argv", ["dspylab", *arguments])
        assert execute_command_line() == 0


def rows(lab: Laboratory, run: str = "fake") -> list[dict[str, Any]]:
    """The rows of a run."""
    # Not splitlines(): U+2028 and others end no line of a JSON-lines file.
    return [json.loads(line) for line in lab.raw(run).read_text().split("\n")[:-1]]


def summary(lab: Laboratory) -> dict[str, Any]:
    """The content of `summary.json`."""
    loaded: dict[str, Any] = json.loads(lab.summary.read_text())
    return loaded


@pytest.fixture(scope="session")
def blank_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository with nothing in it, made once: `dvc init` takes a second."""
    lab = Laboratory(tmp_path_factory.mktemp("blank"), "none")
    lab.init_git()
    lab.init_dvc()
    return lab.root


InitRepository = Callable[[Laboratory], None]


@pytest.fixture
def init_repository(blank_repository: Path) -> InitRepository:
    """As `Laboratory.init_repository`, from the copy that was made once."""

    def init(lab: Laboratory) -> None:
        shutil.copytree(blank_repository, lab.root, dirs_exist_ok=True)
        lab.commit("A laboratory")

    return init


MakeLab = Callable[..., Laboratory]


@pytest.fixture
def make_lab(tmp_path: Path, init_repository: InitRepository) -> MakeLab:
    """As `dspylab.testing.experiment`, in the folder of the test, committed to a git and DVC repository."""

    def make(server_url: str, **options: Any) -> Laboratory:
        lab = experiment(tmp_path, server_url=server_url, **options)
        init_repository(lab)
        return lab

    return make
