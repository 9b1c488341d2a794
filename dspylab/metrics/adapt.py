"""From the metrics of the experiment file to scorers, and from a prediction to named JSON numbers.

A metric is one of the built-in comparisons, a judge model, or any callable of the user's, as DSPy's own
optimizers take them. Whatever it returns becomes finite numbers; a metric that can not give one fails on
that example alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dspy

from dspylab.config.models import Metric
from dspylab.errors import ProgramError
from dspylab.jsonable import to_json
from dspylab.metrics.builtin import COMPARISONS, WITHOUT_LABEL, Comparison, comparison
from dspylab.metrics.calling import NOTHING_FURTHER, Further, MetricCall, metric_call
from dspylab.metrics.fields import answer_of, label_of
from dspylab.metrics.judge import judge_scorer
from dspylab.metrics.numbers import Score, score_of
from dspylab.records import JSON


class Scorer(Protocol):
    """One metric of the experiment file."""

    @property
    def name(self) -> str:
        """Name of the metric in the experiment file."""

    def score(self, example: dspy.Example, prediction: dspy.Prediction) -> Score:
        """Scores one prediction; may raise anything."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What all metrics say of one example.

    Attributes:
        values: Metric name to finite number.
        errors: Name of a metric that raised to ``Type: message``.
        details: Metric name to what it says beside its number.
    """

    values: Mapping[str, float]
    errors: Mapping[str, str]
    details: Mapping[str, JSON]


def build_scorers(
    metrics: Mapping[str, Metric],
    resolve: Callable[[str], Any],
    judge_lm: Callable[[str], dspy.LM],
    *,
    exported: Callable[[str], Any],
) -> tuple[Scorer, ...]:
    """Scorers of the metrics that look at one example each, in file order.

    Args:
        metrics: Metrics of the experiment file; those over all rows (type ``run``) are left out.
        resolve: Turns ``path:name`` or ``module:name`` into the object.
        judge_lm: Gives the metered model of a model id. The caller marks its calls with the role judge.
        exported: Gives the metric of a name among those that the program exports.

    Raises:
        ProgramError: If a metric, a reference or a setting can not be used.
        EnvironmentProblem: If a metric needs a package that is not installed.
    """
    scorers: list[Scorer] = []
    for name, metric in metrics.items():
        if metric.type in ("path", "program"):
            scorers.append(_calling(name, metric, resolve, exported, judge_lm))
        elif metric.type != "run":
            scorers.append(_scorer(name, metric, judge_lm))
    return tuple(scorers)


def score_all(
    scorers: Sequence[Scorer],
    example: dspy.Example,
    prediction: dspy.Prediction,
    *,
    passes: Callable[[Exception], bool] = lambda _: False,
) -> Scores:
    """Scores a prediction with every metric. One that raises fails alone.

    Args:
        scorers: From `build_scorers`.
        example: Inputs and labels.
        prediction: What the program answered.
        passes: Says of what a metric raised whether it is for the caller, such as a judge out of reach.

    Returns:
        Numbers, errors and details of all metrics.

    Raises:
        Exception: What `passes` says so of.
        Stopped: If the run was stopped; as a `BaseException` it is no failure of a metric.
    """
    values: dict[str, float] = {}
    errors: dict[str, str] = {}
    details: dict[str, JSON] = {}
    for scorer in scorers:
        try:
            score = scorer.score(example, prediction)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            if isinstance(error, Exception) and passes(error):
                raise
            errors[scorer.name] = f"{type(error).__name__}: {error}"
        else:
            values.update(score.values)
            details.update(score.details)
    return Scores(values, errors, details)


@dataclass(frozen=True, slots=True)
class ComparingScorer:
    """A built-in comparison of an output field with a label.

    Attributes:
        name: Name of the metric.
        compare: The comparison.
        field: Output field; None for the one called like the label, or the only one.
        label: Label; None for the one called like the field, or the only one.
        needs_label: False when the comparison looks at the answer alone.
    """

    name: str
    compare: Comparison
    field: str | None
    label: str | None
    needs_label: bool

    def score(self, example: dspy.Example, prediction: dspy.Prediction) -> Score:
        """Scores one prediction.

        Raises:
            LookupError: If the field or the label is not there.
        """
        label = label_of(example, self.label or self.field) if self.needs_label else None
        answer = answer_of(prediction, self.field, self.label)
        verdict = self.compare(to_json(answer), to_json(label))
        return Score(
            {self.name: verdict.value}, {} if verdict.detail is None else {self.name: verdict.detail}
        )


@dataclass(frozen=True, slots=True)
class CallingScorer:
    """The user's own metric.

    Attributes:
        name: Name of the metric.
        call: Calls it with (example, prediction).
        lm: Model that it judges with; None leaves the one of the context.
    """

    name: str
    call: MetricCall
    lm: dspy.LM | None = None

    def score(self, example: dspy.Example, prediction: dspy.Prediction) -> Score:
        """Scores one prediction; raises what the metric raises."""
        return self.score_traced(example, prediction, NOTHING_FURTHER)

    def score_traced(self, example: dspy.Example, prediction: dspy.Prediction, further: Further) -> Score:
        """As `score`, with what an optimizer hands over further: `trace`, `pred_name`, `pred_trace`."""
        if self.lm is None:
            return score_of(self.name, self.call(example, prediction, further))
        with dspy.context(lm=self.lm):
            return score_of(self.name, self.call(example, prediction, further))


def _calling(
    name: str,
    metric: Metric,
    resolve: Callable[[str], Any],
    exported: Callable[[str], Any],
    judge_lm: Callable[[str], dspy.LM],
) -> CallingScorer:
    """The user's own callable, which the file refers to or the program exports."""
    where = f"metrics.{name}"
    if metric.type == "program":
        function = exported(name)
    elif metric.ref is None:
        raise ProgramError("ref is missing", where=where, remedy="add ref: program.py:name")
    else:
        function = resolve(metric.ref)
        where = f"{where}.ref ({metric.ref})"
    call = metric_call(function, metric.params, where)
    return CallingScorer(name, call, judge_lm(metric.model) if metric.model else None)


def _scorer(name: str, metric: Metric, judge_lm: Callable[[str], dspy.LM]) -> Scorer:
    where = f"metrics.{name}"
    if metric.type in COMPARISONS:
        compare = comparison(metric.type, metric.params, where)
        needs_label = metric.type not in WITHOUT_LABEL
        return ComparingScorer(name, compare, metric.field, metric.label, needs_label)
    if metric.model is None:
        raise ProgramError("the judge is missing", where=where, remedy="add model: <id of a model>")
    return judge_scorer(name, metric, judge_lm(metric.model), where)
