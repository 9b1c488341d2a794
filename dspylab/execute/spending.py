"""What the results that are on disk have cost, for the budget of the whole matrix."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from dspylab.compiled import valid_record
from dspylab.config.models import Budget, Experiment
from dspylab.errors import DataError, UsageError
from dspylab.execute.compile import calls_file
from dspylab.laboratory import Laboratory
from dspylab.lm.budget import Spending
from dspylab.lm.pricing import rates_for
from dspylab.lm.replies import noted
from dspylab.record.journal import stored_rows
from dspylab.record.publish import read_json, read_rows
from dspylab.records import CompileSpec, RunSpec


def spent_before(laboratory: Laboratory, anew: Collection[str]) -> Spending:
    """What the results of the matrix have cost so far, in this session and in earlier ones.

    Args:
        laboratory: The experiment.
        anew: Runs and compiles whose results are thrown away now; they do not count.

    Returns:
        The sum over all calls in journals and results, those of replaced failures in journals included, and
        those of the programs of runs that are only to be scored again. Zero without a budget, for then
        nobody asks.
    """
    total = Spending()
    if laboratory.experiment.budget == Budget():
        return total
    for run in laboratory.runs:
        if run.key not in anew:
            total += _spent_on(laboratory, run)
    for spec in laboratory.compiles:
        if spec.key not in anew:
            total += _spent_compiling(laboratory, spec)
    return total


def refuse_unpriced(experiment: Experiment, models: Iterable[str]) -> None:
    """Stops before the first call when the budget bounds a cost that nobody knows.

    Raises:
        UsageError: If `max_cost_usd` is set and a model has no known price.
    """
    if experiment.budget.max_cost_usd is None:
        return
    unpriced = [model_id for model_id in models if rates_for(experiment.models[model_id]) is None]
    if unpriced:
        raise UsageError(
            f"max_cost_usd cannot be kept: no price is known for {', '.join(unpriced)}",
            where="budget",
            remedy="give the model `pricing:`, or bound max_tokens or max_calls instead",
        )


def _spent_compiling(laboratory: Laboratory, spec: CompileSpec) -> Spending:
    """What a compile has cost: its record says, or, as long as it is not done, what it has noted."""
    record = valid_record(laboratory, spec)
    if record is None:
        return spending_of(noted(calls_file(laboratory.layout, laboratory.compile_hash(spec))).calls)
    tokens = record.prompt_tokens + record.completion_tokens
    return Spending(record.cost_usd or 0.0, tokens, record.calls)


def _spent_on(laboratory: Laboratory, run: RunSpec) -> Spending:
    """What the rows of a run have cost. A call that stands in several rows of an example was paid once."""
    total = Spending()
    seen: dict[int, set[str]] = {}
    for row in _rows(laboratory, run):
        calls = [(json.dumps(call), call) for call in row.get("calls") or ()]
        known = seen.setdefault(row.get("index", row.get("abandoned")), set())
        total += spending_of(call for text, call in calls if text not in known)
        known.update(text for text, _ in calls)
    earlier = laboratory.earlier_rows(run)
    for index in earlier.indexes - seen.keys():
        row = earlier.row(index) or {}
        total += spending_of(call for call in row.get("calls") or () if call["role"] == "task")
    return total


def _rows(laboratory: Laboratory, run: RunSpec) -> Iterator[Mapping[str, Any]]:
    journal = laboratory.journal(run)
    if journal.is_file():
        return stored_rows(journal)
    try:
        info = read_json(laboratory.layout.info(run.key))
        if info.get("config_hash") == laboratory.config_hash(run, info.get("versions")):
            return read_rows(laboratory.layout.raw(run.key))
    except DataError:
        pass
    return iter(())


def spending_of(calls: Iterable[Mapping[str, Any]]) -> Spending:
    """What calls of rows have cost; those that came from a cache nothing."""
    total = Spending()
    for call in calls:
        if not call["cached"]:
            tokens = (call["prompt_tokens"] or 0) + (call["completion_tokens"] or 0)
            total += Spending(call["cost_usd"] or 0.0, tokens, 1)
    return total
