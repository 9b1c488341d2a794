"""What a terminal shows while an experiment is executed."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import API_KEY, Cli, MakeLab

from dspylab.commands import tally as tallies
from dspylab.commands.console import console
from dspylab.commands.tally import RunTally
from dspylab.records import ExampleResult
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


class Clock:
    """A clock that stands still unless it is moved."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


def ended(example_s: float, *, rescored: bool = False) -> ExampleResult:
    return ExampleResult(
        run="fake", index=0, example_id="e0", inputs={}, labels={}, prediction={}, metrics={},
        example_s=example_s, metric_s=0.0, started_at=0.0, rescored=rescored,
    )  # fmt: skip


def test_time_left_is_not_guessed_from_the_first_examples_of_many_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four at once, ten seconds each, 40 in all: the first to end would promise minutes."""
    clock = Clock()
    monkeypatch.setattr(tallies, "time", clock)
    tally = RunTally(total=40, done=0, began=clock.now_s)
    guesses = []
    for wave in range(1, 4):
        clock.now_s = 100.0 + 10.0 * wave
        for number in range(4):
            clock.now_s += 0.01
            tally.add(ended(10.0 + 0.01 * number), "accuracy")
            guesses.append(tally.left_s)
    assert guesses[:7] == [None] * 7
    assert guesses[7] == pytest.approx(80, rel=0.01)
    assert guesses[11] == pytest.approx(70, rel=0.01)
    assert "left" in tally.line("accuracy")
    # One after another there is a pace from the second on.
    clock.now_s = 100.0
    tally = RunTally(total=10, done=0, began=clock.now_s)
    assert tally.left_s is None
    for _ in range(2):
        clock.now_s += 5.0
        tally.add(ended(4.9), "accuracy")
    assert tally.left_s == pytest.approx(40)
    # What is only scored again has the pace that it has.
    clock.now_s = 100.0
    tally = RunTally(total=10, done=0, began=clock.now_s)
    clock.now_s += 1.0
    tally.add(ended(4.9, rescored=True), "accuracy")
    assert tally.left_s == pytest.approx(9)


def test_a_cost_beside_kept_examples_is_that_of_this_session() -> None:
    assert RunTally(total=4, done=2, kept=1, cost_usd=0.00117).line("m") == "2/4, $0.00117 in this session"
    assert RunTally(total=4, done=2, rescored=1, cost_usd=0.00117).line("m").endswith("in this session")
    assert RunTally(total=4, done=2, cost_usd=0.00117).line("m") == "2/4, $0.00117"


@pytest.mark.parametrize(
    ("columns", "width"), [("90", 90), ("", 140), ("0", 140), ("wide", 140), (None, 140)]
)
def test_a_pipe_is_as_wide_as_columns_says(
    monkeypatch: pytest.MonkeyPatch, columns: str | None, width: int
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    assert console().width == width


@pytest.mark.parametrize("view", ["lines", "events"])
def test_without_a_terminal_a_compile_says_that_it_goes_on(
    view: str, make_lab: MakeLab, cli_inside: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "dataset": {"split": {"train": 0.4, "seed": 1}},
        "optimizers": {"shots": {"type": "BootstrapFewShot", "params": {"max_bootstrapped_demos": 4}}},
        "matrix": {"model": ["fake"], "optimizer": ["shots"]},
    }
    monkeypatch.setattr(tallies, "COMPILE_EVERY_S", 0.3)
    with FakeServer(ttft_s=0.4) as server:
        lab = make_lab(server.url, examples=tickets(20), config=config)
        done = cli_inside("run", *(["--json"] if view == "events" else []), cwd=lab.root)

    assert done.code == 0, done.err
    if view == "lines":
        told = re.findall(
            r"^shots-fake: compiling for (\S+) \w+, (\d+) calls in the last", done.out, re.MULTILINE
        )
        before, _, after = done.out.partition("shots-fake: compiled in")
        assert "compiling for" in before
        assert "compiling for" not in after
        calls = [int(number) for _, number in told]
    else:
        events = [json.loads(line) for line in done.out.splitlines()]
        going_on = [event for event in events if event["event"] == "compile_going_on"]
        assert {event["program"] for event in going_on} == {"shots-fake"}
        assert [event["compiling_s"] for event in going_on] == sorted(
            event["compiling_s"] for event in going_on
        )
        assert all(event["since_s"] >= 0.3 for event in going_on)
        calls = [event["calls"] for event in going_on]
        (ended,) = [event for event in events if event["event"] == "compile_ended"]
        assert sum(calls) <= ended["calls"]
    assert sum(calls) > 0
