"""The budget through the command line: it stops cleanly, keeps everything, and goes on when it is raised."""

from __future__ import annotations

import re

import pytest
from conftest import Cli, MakeLab, summary

from dspylab.report.numbers import cost, number
from dspylab.testing import FakeServer, Fault, answer_key, tickets

OPTIMIZERS = """

import threading

asked = threading.Event()

def paid(student, trainset):
    try:
        return student(text="Where is my parcel?")
    finally:
        asked.set()

def broken(student, trainset):
    asked.wait(30)
    raise RuntimeError("no luck today")
"""
PRICED = {"models": {"fake": {"pricing": {"input": 10.0, "output": 10.0}, "max_tokens": 16}}}


@pytest.mark.parametrize("bound", [{"max_calls": 6}, {"max_tokens": 1500}, {"max_cost_usd": 0.015}])
def test_the_budget_stops_and_raising_it_goes_on(
    server: FakeServer,
    cli_inside: Cli,
    make_lab: MakeLab,
    bound: dict[str, float],
) -> None:
    config = {**PRICED, "budget": bound, "execution": {"max_concurrency": 2}}
    lab = make_lab(server.url, config=config, examples=tickets(20))

    stopped = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert stopped.code == 4, stopped.out + stopped.err
    assert f"budget.{next(iter(bound))}" in stopped.err
    assert "raise it" in stopped.err
    asked = len(server.requests)
    assert 0 < asked < 20
    kept = len(lab.raw("fake").read_text().splitlines())
    assert kept == asked, "every answer that was paid for is kept"
    again = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert again.code == 4
    assert len(server.requests) <= asked + 2, "what earlier sessions spent counts"

    lab.change({"budget": {name: value * 100 for name, value in bound.items()}})
    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert len(server.requests) == 20
    assert summary(lab)["runs"]["fake"]["complete"]


@pytest.mark.parametrize("begun", ["one of two runs", "both runs"])
def test_what_all_would_take_is_told_run_by_run(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab, begun: str
) -> None:
    """The second run costs more than the first, and how much more is not known before it has begun."""
    matrix = {"model": ["fake"], "program.style": ["predict", "cot"]}
    dear = {"fake": {"pricing": {"input": 0.1, "output": 100.0}, "max_tokens": 160}}
    config = {"models": dear, "matrix": matrix, "execution": {"max_concurrency": 1}}
    bound = {"one of two runs": 10, "both runs": 25}[begun]
    bounds = {"max_calls": bound, "max_cost_usd": 100}
    lab = make_lab(server.url, config={**config, "budget": bounds}, examples=tickets(20))

    stopped = cli_inside("run", "-q", "-c", lab.config, cwd=lab.root)

    assert stopped.code == 4
    sentence = " ".join(stopped.err.split())
    assert f"budget.max_calls of {bound} is reached: {bound} spent" in sentence
    lab.change({"budget": {"max_calls": 1000}})
    assert cli_inside("run", "-q", "-c", lab.config, cwd=lab.root).code == 0
    first, second = (entry["cost_usd"]["total"] for entry in summary(lab)["runs"].values())
    assert second > 1.2 * first
    if begun == "both runs":
        told = re.search(r"\(all of it would take about \$([0-9.]+), 40 calls\)", sentence)
        cost = first + second
    else:
        told = re.search(
            r"\(all of it would take more than \$([0-9.]+), 20 calls: "
            r"not in it: 20 examples of 1 run of which none is done\)",
            sentence,
        )
        cost = first
    assert told is not None, sentence
    assert float(told[1]) == pytest.approx(cost, rel=0.05)


def test_amounts_of_money_are_told_as_such(server: FakeServer, cli_inside: Cli, make_lab: MakeLab) -> None:
    config = {**PRICED, "budget": {"max_cost_usd": 0.00005}, "execution": {"max_concurrency": 1}}
    lab = make_lab(server.url, config=config)

    stopped = cli_inside("run", "-c", lab.config, cwd=lab.root)

    spent = cost(summary(lab)["runs"]["fake"]["cost_usd"]["total"])
    assert f"budget.max_cost_usd of $0.0000500 is reached: {spent} spent" in stopped.err
    assert ": budget.max_cost_usd is reached" in stopped.out


def test_without_a_dollar_no_call_is_paid(server: FakeServer, cli_inside: Cli, make_lab: MakeLab) -> None:
    """Models that cost nothing work all the same, beside one that does."""
    free = {"model": "openai/free", "pricing": {"input": 0, "output": 0}}
    lab = make_lab(server.url, config={**PRICED, "budget": {"max_cost_usd": 0}}, examples=tickets(20))

    stopped = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert stopped.code == 4, stopped.out + stopped.err
    assert "budget.max_cost_usd is $0, and the next call costs; 0 of 20 examples" in stopped.err
    assert not server.requests

    lab.change(
        {"models": {"free": {**lab.read()["models"]["fake"], **free}}, "matrix": {"model": ["fake", "free"]}}
    )
    stopped = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert stopped.code == 4
    assert len(server.requests) == 20
    assert summary(lab)["runs"]["free"]["complete"]
    assert "20 of 40 examples are finished" in stopped.err

    lab.change({"budget": {"max_cost_usd": 5}})
    assert cli_inside("run", "-q", "-c", lab.config, cwd=lab.root).code == 0
    lab.change({"budget": {"max_cost_usd": 0}})
    asked = len(server.requests)
    lab.change({"models": {"free": {"temperature": 0.7}}})
    assert cli_inside("run", "-q", "-c", lab.config, cwd=lab.root).code == 0, "what was paid before is paid"
    assert len(server.requests) == asked + 20


def test_what_may_not_be_paid_hides_no_other_failure_of_a_compile(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(
        server.url,
        config={**PRICED, "budget": {"max_cost_usd": 0}, "dataset": {"split": {"train": 0.5}}},
        examples=tickets(20),
    )
    lab.program.write_text(lab.program.read_text() + OPTIMIZERS)
    optimizers = {name: {"path": f"program.py:{name}"} for name in ("paid", "broken")}
    lab.change({"optimizers": optimizers, "matrix": {"optimizer": ["paid", "broken"]}})

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 4
    said = {line.partition(": ")[0]: line for line in done.out.splitlines() if "not compiled: " in line}
    assert "budget.max_cost_usd is reached" in said["paid-fake"]
    assert "RuntimeError: no luck today" in said["broken-fake"]
    (reason,) = (line for line in done.err.splitlines() if line.startswith("  fake-"))
    assert reason.startswith("  fake-broken: 0/10 examples, its program broken-fake is not compiled: Runtime")


def test_a_cost_that_nobody_knows_cannot_be_bounded(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(server.url, config={"budget": {"max_cost_usd": 1.0}})

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 2
    assert "no price is known for fake: give the model `pricing:`" in done.err
    assert not server.requests


def test_a_pilot_is_kept_and_says_what_the_rest_will_take(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(
        server.url,
        config={**PRICED, "matrix": {"model": ["fake"], "program.style": ["predict", "cot"]}},
        examples=tickets(20),
    )

    pilot = cli_inside("plan", "--pilot", "4", "-c", lab.config, cwd=lab.root)

    assert pilot.code == 0, pilot.err
    assert len(server.requests) == 8
    assert "The other 32 examples: about" in pilot.out
    assert "$" in pilot.out
    assert "half done" in cli_inside("plan", "-c", lab.config, cwd=lab.root).out
    done = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert done.code == 0
    assert len(server.requests) == 40, "the examples of the pilot are not called again"
    for run in ("fake-predict", "fake-cot"):
        (line,) = (line for line in done.out.splitlines() if line.startswith(f"{run}: done in"))
        assert (
            f": 20/20, accuracy {number(summary(lab)['runs'][run]['metrics']['accuracy']['mean'])}, $" in line
        )


def test_a_pilot_says_only_what_failed_of_its_own_examples(cli_inside: Cli, make_lab: MakeLab) -> None:
    rows = tickets(20)
    down = [Fault("status")] * 20
    with FakeServer(answer=answer_key(rows), fail=lambda _: down.pop() if down else None) as server:
        config = {**PRICED, "execution": {"max_concurrency": 1}}
        lab = make_lab(server.url, config={**config, "models": {"fake": {"num_retries": 0}}}, examples=rows)
        assert cli_inside("run", "-q", "-c", lab.config, cwd=lab.root).code == 1
        assert not down

        down[:] = [Fault("status")]
        pilot = cli_inside("plan", "--pilot", "4", "-c", lab.config, cwd=lab.root)
        assert "1 examples of the pilot failed" in pilot.out
        pilot = cli_inside("plan", "--pilot", "4", "-c", lab.config, cwd=lab.root)
        assert pilot.code == 0, pilot.err
        assert "The other 16 examples: about" in pilot.out
        assert "failed" not in pilot.out
        assert len(server.requests) == 25


def test_a_pilot_says_that_a_metric_has_no_value(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    metric = {"type": "path", "ref": "metrics.py:broken"}
    lab = make_lab(
        server.url,
        config={**PRICED, "metrics": {"broken": metric}, "primary_metric": "broken"},
        files={"experiments/triage/metrics.py": "def broken(example, prediction):\n    return right\n"},
        examples=tickets(20),
    )

    pilot = cli_inside("plan", "--pilot", "4", "-c", lab.config, cwd=lab.root)

    assert "broken has no value for any example: NameError: name 'right' is not defined" in pilot.out
    assert len(server.requests) == 4
