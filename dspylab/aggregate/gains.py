"""What compiling gained: the difference to the same run without an optimizer, and its price. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dspylab.aggregate.compare import compare
from dspylab.aggregate.scores import Scores
from dspylab.config.axes import NO_OPTIMIZER
from dspylab.config.values import canonical
from dspylab.records import JSON, CompileRecord, Gain, RunCompile, RunSummary

#: Points of a metric whose values go from 0 to 1.
_POINTS = 100
#: Axes in which a run may differ from its baseline.
_OWN_AXES = ("optimizer", "compile_model")


def with_gains(
    runs: Mapping[str, RunSummary],
    scores: Mapping[str, Scores],
    records: Mapping[str, CompileRecord],
    primary: str,
) -> dict[str, RunSummary]:
    """The runs, those with a compiled program with what it cost and gained.

    Args:
        runs: Run key to its summary.
        scores: Run key to the scores that the summary was made from.
        records: Run key to the record of its compiled program, for the runs that have one.
        primary: Name of the metric that ranks the runs.
    """
    plain = {
        _others(run.coordinates): key
        for key, run in runs.items()
        if run.coordinates.get("optimizer", NO_OPTIMIZER) == NO_OPTIMIZER
    }
    found = dict(runs)
    for key, record in records.items():
        baseline = plain.get(_others(runs[key].coordinates))
        won = None if baseline is None else gain(baseline, scores[key], scores[baseline], primary)
        found[key] = replace(runs[key], compile=_compile(record, won))
    return found


def gain(baseline: str, of_run: Scores, of_baseline: Scores, metric: str) -> Gain | None:
    """The difference of two runs over the examples that both have scored; None if there are none.

    It and its interval are those of `dspylab compare`.

    Args:
        baseline: Key of the run that is subtracted.
        of_run: Scores of the run.
        of_baseline: Scores of the baseline.
        metric: Name of the metric.
    """
    found = compare(metric, [of_baseline.by_example(metric)], [of_run.by_example(metric)])
    if found.difference is None:
        return None
    return Gain(baseline=baseline, difference=found.difference, ci95=found.ci95, n=found.n)


def _compile(record: CompileRecord, won: Gain | None) -> RunCompile:
    cost_usd, score = record.cost_usd, record.validation_score
    per_point_usd = None
    if won is not None and won.difference > 0 and cost_usd is not None:
        per_point_usd = cost_usd / (_POINTS * won.difference)
    return RunCompile(
        program=record.program,
        cost_usd=cost_usd,
        calls=record.calls,
        compile_s=record.compile_s,
        validation_score=None if score is None else score.score.mean,
        gain=won,
        cost_per_point_usd=per_point_usd,
    )


def _others(coordinates: Mapping[str, JSON]) -> str:
    return canonical({axis: value for axis, value in coordinates.items() if axis not in _OWN_AXES})
