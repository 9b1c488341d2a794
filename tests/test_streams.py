"""Output that is piped into something that stops reading."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import API_KEY, MakeLab

from dspylab.testing import FakeServer

DSPYLAB = Path(sys.executable).parent / "dspylab"


@pytest.mark.parametrize("command", ["run", "run --json", "run-one"])
def test_a_run_goes_on_when_its_reader_goes_away(command: str, server: FakeServer, make_lab: MakeLab) -> None:
    """`head` is gone after the first line, long before the last call: what is paid for is finished."""
    lab = make_lab(server.url)

    done = subprocess.run(
        ["bash", "-c", '"$0" $1 -c "$2" | head -n 1; exit ${PIPESTATUS[0]}', DSPYLAB, command, lab.config],
        cwd=lab.root,
        env={
            **os.environ,
            "PATH": f"{DSPYLAB.parent}{os.pathsep}{os.environ['PATH']}",
            "FAKE_API_KEY": API_KEY,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == "nobody reads the output any more: going on without it; Ctrl-C stops\n"
    assert len(server.requests) == 8
    assert len(lab.raw("fake").read_text().splitlines()) == 8
    assert lab.summary.is_file() == (command != "run-one")


def test_a_run_goes_on_without_any_reader_at_all(server: FakeServer, make_lab: MakeLab) -> None:
    """Both streams into one pipe that is closed at once, as a terminal multiplexer that dies leaves it."""
    lab = make_lab(server.url)
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [DSPYLAB, "run-one", "-c", lab.config],
        cwd=lab.root,
        env={**os.environ, "FAKE_API_KEY": API_KEY},
        stdout=writing,
        stderr=writing,
        check=False,
        timeout=300,
    )
    os.close(writing)

    assert done.returncode == 0
    assert len(lab.raw("fake").read_text().splitlines()) == 8
