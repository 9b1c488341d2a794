"""One metric of the file as DSPy's optimizers call it: a number, and for GEPA what there is to learn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import dspy
import pytest

from dspylab.config.models import Metric
from dspylab.optimize.metric import OptimizerMetric, optimizer_metric

EXAMPLE = dspy.Example(text="Where is it?", label="delivery").with_inputs("text")


def made(function: Callable[..., Any], name: str = "own") -> OptimizerMetric:
    def unused(*_: Any) -> Any:
        raise AssertionError

    metrics = {"own": Metric(type="path", ref="program.py:own")}
    return optimizer_metric(name, metrics, lambda ref: function, unused, unused)


def is_right(example: Any, prediction: Any, trace: Any = None) -> float:
    return float(example.label == prediction.label) / (2 if trace else 1)


def test_a_number_for_all_and_feedback_for_gepa() -> None:
    metric = made(is_right)
    right, wrong = dspy.Prediction(label="delivery"), dspy.Prediction(label="bug")
    assert (metric(EXAMPLE, right), metric(EXAMPLE, wrong)) == (1.0, 0.0)
    # What an optimizer hands over reaches the metric.
    assert metric(EXAMPLE, right, trace=["a step"]) == 0.5
    asked = metric(EXAMPLE, wrong, None, "route", None)
    assert (asked.score, asked.feedback) == (
        0.0,
        'The score is 0. The correct labels are {"label": "delivery"}.',
    )


@pytest.mark.parametrize(
    ("said", "feedback"),
    [
        ({"feedback": "Look at the verb.", "reason": "no"}, "Look at the verb."),
        ({"feedback": ""}, 'The score is 0.5. The correct labels are {"label": "delivery"}.'),
    ],
)
def test_what_the_metric_itself_says_comes_first(said: dict[str, str], feedback: str) -> None:
    metric = made(lambda example, prediction: dspy.Prediction(score=0.5, **said))
    asked = metric(EXAMPLE, dspy.Prediction(label="bug"), None, "route")
    assert (asked.score, asked.feedback) == (0.5, feedback)


def test_one_number_of_several() -> None:
    def rated(example: Any, prediction: Any) -> dict[str, float]:
        return {"clarity": 0.25, "tone": 1.0}

    assert made(rated, "own.clarity")(EXAMPLE, dspy.Prediction(label="bug")) == 0.25
    with pytest.raises(LookupError, match=r"gave no number 'own\.wit', but own\.clarity, own\.tone"):
        made(rated, "own.wit")(EXAMPLE, dspy.Prediction(label="bug"))


def test_one_that_leaves_costs_an_optimizer_one_example() -> None:
    metric = made(lambda example, prediction: sys.exit(3))
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        metric(EXAMPLE, dspy.Prediction(label="bug"))
