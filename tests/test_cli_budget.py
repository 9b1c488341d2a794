"""The budget through the command line: it stops cleanly, keeps everything, and goes on when it is raised."""

from __future__ import annotations

import pytest
from conftest import Cli, MakeLab, summary

from dspylab.testing import FakeServer, tickets

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
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert len(server.requests) == 40, "the examples of the pilot are not called again"
