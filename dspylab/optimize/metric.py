"""The metric of an optimizer, as DSPy's optimizers call it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import dspy

from dspylab.config.models import Metric
from dspylab.metrics.adapt import CallingScorer, Scorer, build_scorers
from dspylab.metrics.numbers import Score

#: Keys of a metric's details that are said to an optimizer, the first one that there is.
_SAID = ("feedback", "reason")


class OptimizerMetric:
    """One metric of the experiment file, with the five parameters that GEPA asks for.

    It returns a float. Only when it is asked about a single predictor, as GEPA and no other optimizer does,
    is it a `dspy.Prediction` with `score` and `feedback`: what the metric itself says (its feedback, or a
    judge's reason), or else the score and the correct labels.

    Attributes:
        name: Name of the number: of the metric, or `helpful.clarity` for one number of several.
    """

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.name = name
        self._scorer = scorer

    def __call__(
        self,
        example: dspy.Example,
        prediction: dspy.Prediction,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        """Scores one prediction.

        Raises:
            LookupError: If the metric gives no number of that name.
            Exception: Whatever the metric raises; a RuntimeError for `sys.exit`.
        """
        further = {"trace": trace, "pred_name": pred_name, "pred_trace": pred_trace}
        try:
            score = self._score(example, prediction, further)
        except SystemExit as error:
            # Optimizers go on without an example whose metric raises, but not if it is no Exception.
            raise RuntimeError(f"SystemExit: {error}") from error
        if self.name not in score.values:
            raise LookupError(f"gave no number {self.name!r}, but {', '.join(score.values)}")
        value = score.values[self.name]
        if pred_name is None:
            return value
        return dspy.Prediction(score=value, feedback=self._feedback(score, value, example))

    def _score(self, example: dspy.Example, prediction: dspy.Prediction, further: Mapping[str, Any]) -> Score:
        if isinstance(self._scorer, CallingScorer):
            return self._scorer.score_traced(example, prediction, further)
        return self._scorer.score(example, prediction)

    def _feedback(self, score: Score, value: float, example: dspy.Example) -> str:
        said = score.details.get(self._scorer.name)
        if isinstance(said, dict):
            said = next((said[key] for key in _SAID if said.get(key)), None)
        if said:
            return str(said)
        labels = json.dumps(example.labels().toDict(), ensure_ascii=False, default=str)
        return f"The score is {value:g}. The correct labels are {labels}."


def optimizer_metric(
    name: str,
    metrics: Mapping[str, Metric],
    resolve: Callable[[str], Any],
    judge_lm: Callable[[str], dspy.LM],
    exported: Callable[[str], Any],
) -> OptimizerMetric:
    """The metric of an optimizer.

    Args:
        name: Of a metric of the file, or of one number of it: `helpful.clarity`.
        metrics: Metrics of the file.
        resolve: As for `build_scorers`.
        judge_lm: As for `build_scorers`.
        exported: As for `build_scorers`.

    Raises:
        ProgramError: If the metric, a reference or a setting cannot be used.
        EnvironmentProblem: If it needs a package that is not installed.
    """
    own = name.partition(".")[0]
    (scorer,) = build_scorers({own: metrics[own]}, resolve, judge_lm, exported=exported)
    return OptimizerMetric(name, scorer)
