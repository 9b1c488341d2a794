"""Models that a program, a metric or an optimizer builds itself: recorded, without a figure, and told of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Cli, MakeLab, rows, summary

from dspylab.testing import FakeServer, Laboratory, tickets

PROGRAM = """
import asyncio
import dspy

def other(name="other", url="URL"):
    return dspy.LM("openai/" + name, api_base=url, api_key="x", cache=False, num_retries=0)

class Mixed(dspy.Module):
    def __init__(self, style):
        super().__init__()
        self.style = style
        self.first = dspy.Predict("text -> label")
        self.second = dspy.Predict("text -> label")
        if style == "set_lm":
            self.set_lm(other())

    def forward(self, text):
        if self.style == "context":
            with dspy.context(lm=other()):
                self.first(text=text)
        if self.style == "bare":
            other()(text)
        if self.style == "async":
            asyncio.run(self.first.acall(text=text, lm=other()))
        if self.style == "fails":
            try:
                other("none", "http://127.0.0.1:9")(text)
            except Exception:
                pass
        return self.second(text=text)

def build(style="plain"):
    return Mixed(style)

def judged(example, prediction, trace=None):
    return float(bool(other()("Is it right?")))
"""


@pytest.fixture
def elsewhere() -> Iterator[FakeServer]:
    """The endpoint of the models that are none of the experiment's."""
    with FakeServer() as running:
        yield running


@pytest.fixture
def lab(server: FakeServer, elsewhere: FakeServer, make_lab: MakeLab) -> Laboratory:
    pricing = {"input": 1.0, "output": 2.0}
    return make_lab(
        server.url,
        examples=tickets(4),
        config={"models": {"fake": {"pricing": pricing}}, "program": {"args": ...}},
        files={"experiments/triage/program.py": PROGRAM.replace("URL", elsewhere.url)},
    )


@pytest.mark.parametrize("style", ["set_lm", "context", "bare", "async"])
def test_calls_of_its_own_models_have_no_figure_and_no_run_is_cheap_for_them(
    style: str, lab: Laboratory, elsewhere: FakeServer, cli_inside: Cli
) -> None:
    lab.change({"matrix": {"program.style": ["plain", style]}})

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert len(elsewhere.requests) == 4
    assert (
        done.err.count(f"warning: fake-{style}: the program calls openai/other, a model that it builds") == 1
    )
    for row in rows(lab, f"fake-{style}"):
        (call,) = [call for call in row["calls"] if call["model"] == "openai/other"]
        assert (call["attempts"], call["cached"], call["error"]) == (0, False, None)
        assert (call["cost_usd"], call["latency_s"], call["completion_tokens"]) == (None, None, None)
        assert (call["role"], call["adapter"]) == ("task", None if style == "bare" else "ChatAdapter")
        assert row["inputs"]["text"] in call["prompt"][-1]["text"]
        assert call["response"]
    found = summary(lab)["runs"]
    assert found["fake-plain"]["cost_usd"]["total"] > 0
    assert found["fake-plain"]["example_s"]["p50"] > 0
    assert found[f"fake-{style}"]["cost_usd"]["total"] is None
    # For all that is known DSPy's cache may have answered.
    assert found[f"fake-{style}"]["example_s"]["p50"] is None

    markdown = cli_inside("report", "--format", "md", "-c", lab.config, cwd=lab.root).out
    assert "is the cheapest" not in markdown
    assert "is the fastest" not in markdown


def test_a_check_of_the_cost_fails_when_it_is_not_known(lab: Laboratory, cli_inside: Cli) -> None:
    lab.change({"matrix": {"program.style": ["set_lm"]}, "checks": {"cost_usd": {"max": 1.0}}})
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0

    check = cli_inside("check", "-c", lab.config, cwd=lab.root)

    assert check.code == 1
    assert "FAILED     fake-set_lm: cost_usd at most $1.00: there is no such figure" in check.out


def test_what_was_not_answered_cost_nothing_and_is_not_told(lab: Laboratory, cli_inside: Cli) -> None:
    lab.change({"matrix": {"program.style": ["fails"]}})

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert "builds itself" not in done.err
    (failed,) = [call for call in rows(lab, "fake-fails")[0]["calls"] if call["model"] == "openai/none"]
    assert failed["error"]
    assert summary(lab)["runs"]["fake-fails"]["cost_usd"]["total"] > 0


def test_a_metric_of_its_own_model_is_told_as_one(lab: Laboratory, cli_inside: Cli) -> None:
    metric = {"accuracy": ..., "judged": {"type": "path", "ref": "program.py:judged"}}
    lab.change({"metrics": metric, "primary_metric": "judged", "matrix": {"program.style": ["plain"]}})

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert "warning: fake-plain: a metric calls openai/other, a model that it builds itself" in done.err
    found = summary(lab)["runs"]["fake-plain"]
    assert found["cost_usd"]["by_role"]["judge"] is None
    assert found["cost_usd"]["by_role"]["task"] > 0
    assert found["example_s"]["p50"] > 0


def test_what_a_compile_asks_elsewhere_makes_its_cost_unknown(lab: Laboratory, cli_inside: Cli) -> None:
    config: dict[str, Any] = {
        "dataset": {"split": {"train": 0.5, "seed": 1}},
        "optimizers": {"boot": {"type": "BootstrapFewShot", "metric": "accuracy"}},
        "matrix": {"program.style": ["context"], "optimizer": ["boot"]},
    }
    lab.change(config)

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert "calls went to models that are none of the experiment's (openai/other)" in done.err
    (record,) = [json.loads(path.read_text()) for path in (lab.folder / "programs").glob("*.record.json")]
    assert record["cost_usd"] is None


def test_a_model_that_asks_the_runs_own_is_measured_there(
    make_lab: MakeLab, server: FakeServer, cli_inside: Cli
) -> None:
    program = """
import dspy

class Around:
    supports_response_schema = supports_function_calling = supports_reasoning = False
    supported_params = frozenset()

    def __init__(self, inner):
        self.inner = inner

    def complete(self, request):
        return self.inner.complete(request)

class Wrapped(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("text -> label")

    def forward(self, text):
        around = dspy.LM("mine/around", engine=Around(dspy.settings.lm.engine), cache=False)
        with dspy.context(lm=around):
            return self.answer(text=text)

def build():
    return Wrapped()
"""
    lab = make_lab(
        server.url,
        examples=tickets(4),
        config={"program": {"args": ...}},
        files={"experiments/triage/program.py": program},
    )

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert "builds itself" not in done.err
    assert [call["model"] for row in rows(lab) for call in row["calls"]] == ["fake"] * 4
