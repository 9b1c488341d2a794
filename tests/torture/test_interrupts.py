"""Ctrl-C on a real terminal, and SIGTERM: what was answered is kept, the process leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Cli, InitRepository
from kill import environment
from terminal import Terminal

from dspylab.testing import FakeServer, Fault, Laboratory, experiment, tickets

pytestmark = pytest.mark.torture
BINARIES = Path(sys.executable).parent
ON_TERMINAL = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}


def laboratory(folder: Path, server: FakeServer, init_repository: InitRepository) -> Laboratory:
    config = {"execution": {"max_concurrency": 2}}
    lab = experiment(folder, server_url=server.url, config=config, examples=tickets(20))
    init_repository(lab)
    return lab


def assert_cursor_is_shown(terminal: Terminal) -> None:
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")


def test_ctrl_c_waits_for_calls_in_flight_and_says_how_to_go_on(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository
) -> None:
    with FakeServer(ttft_s=0.4) as server:
        lab = laboratory(tmp_path, server, init_repository)
        command = [str(BINARIES / "dspylab"), "run"]
        with Terminal(command, lab.root, environment() | ON_TERMINAL) as terminal:
            terminal.wait_for(lambda: len(server.requests) >= 3)
            terminal.press_ctrl_c()
            assert terminal.end() == 130, terminal.text
        asked = len(server.requests)
        assert asked < 20
        assert not any(record.client_left for record in server.requests)
        assert "stopping: calls in flight get" in terminal.text
        assert f"stopped: {asked} of 20 examples are finished and kept" in terminal.text
        assert "goes on where it stopped" in terminal.text
        assert "Traceback" not in terminal.text
        assert_cursor_is_shown(terminal)

        done = cli_inside("run", cwd=lab.root)

        assert done.code == 0, done.err
        assert f"{asked} kept from before" in done.out
        assert len(server.requests) == 20


def test_a_second_ctrl_c_leaves_at_once_also_below_dvc_repro(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository
) -> None:
    hanging = {"now": True}
    with FakeServer(fail=lambda _: Fault("hang") if hanging["now"] else None) as server:
        lab = laboratory(tmp_path, server, init_repository)
        assert cli_inside("sync", cwd=lab.root).code == 0
        command = [str(BINARIES / "dvc"), "repro"]
        with Terminal(command, lab.root, environment() | ON_TERMINAL) as terminal:
            terminal.wait_for(lambda: len(server.requests) == 2)
            terminal.press_ctrl_c()
            terminal.wait_for(lambda: "stopping: calls in flight" in terminal.text)
            time.sleep(0.2)  # sooner it would count as the same press
            terminal.press_ctrl_c()
            assert terminal.end() != 0
        # Below a shell that dies of Ctrl-C itself, such as dash, DVC sees the signal in place of our 130.
        assert "exited with 130" in terminal.text or "exited with -2" in terminal.text, terminal.text
        # It did not wait for the grace to end, after which it would have said what is kept.
        assert "finished and kept" not in terminal.text
        assert_cursor_is_shown(terminal)
        hanging["now"] = False

        done = cli_inside("run", cwd=lab.root)

        assert done.code == 0, done.out + done.err
        assert len(server.requests) == 22


def test_sigterm_does_not_wait_for_calls_that_hang(tmp_path: Path, init_repository: InitRepository) -> None:
    with FakeServer(fail=lambda request: Fault("hang") if request.number >= 4 else None) as server:
        lab = laboratory(tmp_path, server, init_repository)
        process = subprocess.Popen(
            [BINARIES / "dspylab", "run-one", "model=fake"],
            cwd=lab.root, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            while len(server.requests) < 6 and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert "stopped: 4 of 20 examples are finished and kept: " in err
    assert "Traceback" not in err
    assert len(lab.raw("fake").read_text().splitlines()) == 4


def test_before_the_first_call_one_ctrl_c_is_enough(
    tmp_path: Path, server: FakeServer, init_repository: InitRepository
) -> None:
    lab = laboratory(tmp_path, server, init_repository)
    lab.program.write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    command = [str(BINARIES / "dspylab"), "run-one", "model=fake"]
    with Terminal(command, lab.root, environment() | ON_TERMINAL) as terminal:
        terminal.wait_for(lambda: "importing" in terminal.text)
        terminal.press_ctrl_c()
        assert terminal.end() == 130, terminal.text
    assert "interrupted" in terminal.text
    assert "Traceback" not in terminal.text
    assert not server.requests
