"""What a terminal shows while an experiment is executed."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from conftest import API_KEY, MakeLab

from dspylab.testing import FakeServer, tickets

DSPYLAB = Path(sys.executable).parent / "dspylab"


def shown(lab_root: Path) -> str:
    """Everything that `dspylab run` writes to a terminal, without what moves the cursor and colours."""
    mine, theirs = pty.openpty()
    environment = {**os.environ, "FAKE_API_KEY": API_KEY, "COLUMNS": "120", "TERM": "xterm"}
    environment["PATH"] = f"{DSPYLAB.parent}{os.pathsep}{environment['PATH']}"
    with subprocess.Popen(
        [DSPYLAB, "run"], cwd=lab_root, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(mine, 65536)
            except OSError:  # how Linux says that nobody writes any more
                break
            if not part:
                break
            written += part
    os.close(mine)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    assert process.returncode == 0, text
    return text


def test_a_terminal_sees_compiles_and_runs_go_on(make_lab: MakeLab) -> None:
    optimizer = {"type": "BootstrapFewShot", "params": {"max_bootstrapped_demos": 4}}
    config = {
        "dataset": {"split": {"train": 0.4, "seed": 1}},
        "optimizers": {"shots": optimizer},
        "matrix": {"model": ["fake"], "optimizer": ["shots"]},
        "models": {"fake": {"max_concurrency": 1}},
    }
    with FakeServer(ttft_s=0.2) as server:
        lab = make_lab(server.url, examples=tickets(20), config=config)
        text = shown(lab.root)
        calls = len(server.requests)
    compiling = text.partition("compiled in")[0]
    assert re.search(r"shots-fake\s+compiling for \d", compiling)
    counted = [int(number) for number in re.findall(r"(\d+) calls, [\d.]+ calls/s", compiling)]
    assert counted == sorted(counted)
    assert counted[-1] > 0, "the calls of a compile are counted while it goes on"
    done = re.search(r"fake-shots: done in \S+ \w+: 12/12, accuracy", text)
    assert done
    rest = [int(number) for number in re.findall(r"(\d+) calls, [\d.]+ calls/s", text)]
    assert counted[-1] < rest[-1] <= calls
    assert re.search(r"fake-shots\s+\S+\s+\d+/12", text), "a run has a bar"
    assert "Traceback" not in text
