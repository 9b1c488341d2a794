"""A program that hangs: somebody says so, and names the example."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import Cli, MakeLab

from dspylab.commands.progress import Events, Lines, LiveView
from dspylab.execute import silence
from dspylab.execute.silence import Begun, Silence, Watch
from dspylab.testing import FakeServer, tickets

#: Waits for a file beside the program, with the one example that has a 3 in it.
HANGING = """
import pathlib, time
import dspy

class Hanging(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("text -> label")

    def forward(self, text):
        while "3" in text and not pathlib.Path(__file__).with_name("go").exists():
            time.sleep(0.01)
        return self.answer(text=text)

def build():
    return Hanging()
"""


def test_only_what_is_silent_for_long_is_said_and_the_next_time_later() -> None:
    watch = Watch()

    def said(now: float) -> list[tuple[str, float, int, str, float]]:
        found = watch.look(now)
        return [(s.run, s.silent_s, s.under_way, s.example_id, s.under_way_s) for s in found]

    watch.begin("a", 1, Begun("first", 1, 0.0))
    watch.begin("a", 2, Begun("second", 4, 5.0))
    watch.begin("b", 3, Begun("third", 1, 25.0))
    assert said(29.9) == []
    watch.end("b", 3, 31.0)
    assert said(32.0) == [("a", 32.0, 5, "first", 32.0)]
    assert said(63.0) == []
    watch.end("a", 1, 63.5)
    assert said(127.4) == []
    assert said(128.0) == [("a", 64.5, 4, "second", 123.0)]
    # A run that had nothing under way was not silent.
    watch.begin("b", 4, Begun("fourth", 1, 400.0))
    watch.end("a", 2, 400.0)
    assert said(429.0) == []
    assert said(430.0) == [("b", 30.0, 1, "fourth", 30.0)]


def test_it_is_looked_now_and_then_only() -> None:
    watch = Watch()
    watch.begin("a", 1, Begun("first", 1, 0.0))
    assert list(watch.look(29.9)) == []
    assert list(watch.look(30.1)) == []
    assert len(list(watch.look(30.4))) == 1


@pytest.mark.parametrize("view", [Lines, Events])
def test_an_example_that_hangs_is_named(
    view: Any, make_lab: MakeLab, cli_inside: Cli, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(
        server.url,
        config={"program": {"args": ...}},
        examples=[{"id": f"ticket-{number}", **row} for number, row in enumerate(tickets(6))],
        files={"experiments/triage/program.py": HANGING},
    )
    lab.change({"dataset": {"id": "id"}})
    tell = view.silent

    def tell_and_let_go(self: Any, what: Silence) -> None:
        tell(self, what)
        if what.under_way == 1:
            (lab.folder / "go").touch()

    monkeypatch.setattr(view, "silent", tell_and_let_go)
    monkeypatch.setattr(silence, "PATIENCE_S", 0.01)

    done = cli_inside("run", "-c", lab.config, *(["--json"] if view is Events else []), cwd=lab.root)

    assert done.code == 0, done.err
    if view is Events:
        events = [json.loads(line) for line in done.out.splitlines()]
        last = [event for event in events if event["event"] == "run_silent"][-1]
        assert (last["run"], last["under_way"], last["example_id"]) == ("fake", 1, "ticket-3")
        assert last["under_way_s"] >= last["silent_s"] > 0
    else:
        line = r"fake: no example has finished for \S+ \w+; 1 under way for up to \S+ \w+: ticket-3"
        assert re.search(line, done.out)


def test_a_terminal_shows_it_above_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    view = LiveView("accuracy")
    view.silent(Silence("fake", 31.0, 3, "ticket\x1b[2J", 1, 34.0))
    view.silent(Silence("fake", 31.0, 8, "ticket-8", 4, 34.0))
    told = " ".join(capsys.readouterr().out.split())
    assert "no example has finished for 31.0 s; 3 under way for up to 34.0 s: such as ticket" in told
    assert "8 under way for up to 34.0 s: such as the 4 from ticket-8 on" in told
    assert "\x1b[2J" not in told
