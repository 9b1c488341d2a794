"""Execute runs of an experiment: build what they need, work them off, publish their results."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dspylab.errors import EnvironmentProblem
from dspylab.execute.active import NOT_BEGUN, ActiveRun, Observer, RunReport, recorded_in
from dspylab.execute.example import Job
from dspylab.execute.pool import Stop, work_off
from dspylab.execute.rescore import output_types
from dspylab.execute.spending import refuse_unpriced, spent_before
from dspylab.laboratory import REPORTED_PACKAGES, Laboratory, versions
from dspylab.lm.budget import Spending
from dspylab.lm.build import Models
from dspylab.lm.recorder import predictor_names
from dspylab.metrics.adapt import build_scorers
from dspylab.plan.identity import resolved_model
from dspylab.record.journal import drop_journal, peek
from dspylab.records import RunInfo, RunSpec


@dataclass(frozen=True, slots=True)
class Execution:
    """How an execution ended.

    Attributes:
        reports: How each run ended.
        spent: What all results of the matrix have cost; without a budget, those of this session.
        exhausted: Which bound of the budget was reached; None if none was.
    """

    reports: list[RunReport]
    spent: Spending
    exhausted: str | None


def execute_runs(
    laboratory: Laboratory,
    keys: Sequence[str],
    observer: Observer,
    stop: Stop,
    *,
    fresh: bool = False,
    pilot: int | None = None,
) -> Execution:
    """Executes runs, all of them together.

    Args:
        laboratory: The experiment.
        keys: Runs to execute.
        observer: Is told what happens.
        stop: Ends the execution early.
        fresh: Call every example again, also those that an interrupted session finished.
        pilot: Execute so many examples of each run only, always the same ones, chosen at random.

    Returns:
        How each run ended, in the order of `keys`, and what was spent. What finished is on disk, whatever
        happened.

    Raises:
        EnvironmentProblem: If the machine is not ready, before the first call.
        ProgramError: If the user's code cannot be used, before the first call.
        DataError: If the dataset cannot be read, before the first call.
        UsageError: If the budget bounds a cost that is not known, before the first call.
    """
    _log_as_we_do()
    laboratory.layout.make_private()
    specs = [laboratory.run(key) for key in keys]
    # Before metrics are imported: whatever is imported then counts as the program's.
    _ = laboratory.code_files
    experiment = laboratory.experiment
    for name, value in laboratory.environment.items():
        # LiteLLM reads the variables of providers that need several, such as Azure and Bedrock, by itself.
        os.environ.setdefault(name, value)
    needed = _models_needed(laboratory, specs)
    refuse_unpriced(experiment, needed)
    spent = spent_before(laboratory, keys if fresh else ())
    with Models(experiment, needed, laboratory.layout.folder, laboratory.environment, spent) as models:
        chosen = None if pilot is None else _pilot_indexes(len(laboratory.splits.test), pilot)
        recorded = recorded_in(laboratory.layout.root / "dvc.lock")
        runs = [
            ActiveRun(
                _job(laboratory, spec, models),
                _info(laboratory, spec, models),
                laboratory.layout,
                observer,
                is_recorded=recorded,
                chosen=chosen,
                fresh=fresh,
            )
            for spec in specs
        ]
        if fresh:
            for run in runs:
                drop_journal(run.journal_path)
        width = min(experiment.execution.max_concurrency, sum(len(run.job.rows) for run in runs))
        widths = {spec.model: models.width(spec.model) for spec in specs}
        with _threads(width, stop) as executor, _ending(runs, models):
            stop.on_request(models.stop)
            observer.limited_by(models.limits)
            work_off(runs, widths, executor, width, stop)
        reports = [run.report or _untouched(run) for run in runs]
        return Execution(reports, models.ledger.spent, models.ledger.exhausted)


@contextlib.contextmanager
def _threads(width: int, stop: Stop) -> Iterator[ThreadPoolExecutor]:
    """Threads that are only waited for when nobody asked to stop."""
    executor = ThreadPoolExecutor(max_workers=max(width, 1), thread_name_prefix="dspylab-example")
    try:
        yield executor
    finally:
        executor.shutdown(wait=not stop.requested, cancel_futures=True)


@contextlib.contextmanager
def _ending(runs: Sequence[ActiveRun], models: Models) -> Iterator[None]:
    """Publishes what runs have finished, also when something goes wrong."""
    try:
        yield
    except BaseException as error:
        # What cannot be recorded any more is not tried again either.
        models.stop()
        for run in runs:
            # The first problem is the one to report; a full disk would only repeat itself here.
            with contextlib.suppress(EnvironmentProblem):
                run.end(f"stopped by {type(error).__name__}")
        raise
    for run in runs:
        run.end("interrupted")


def _pilot_indexes(total: int, count: int) -> frozenset[int]:
    """Indexes of the examples of a pilot. The first ones would mislead where a file is sorted."""
    return frozenset(random.Random(0).sample(range(total), min(count, total)))


def _log_as_we_do() -> None:
    """Sends DSPy's log our way: its own handler would print over the progress, and secrets unmasked."""
    log = logging.getLogger("dspy")
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


def _untouched(run: ActiveRun) -> RunReport:
    kept, retryable = peek(run.journal_path)
    return RunReport(
        run=run.job.spec.key,
        total=len(run.job.rows),
        done=kept - retryable,
        failed=0,
        retryable=retryable,
        stopped=NOT_BEGUN,
    )


def _models_needed(laboratory: Laboratory, specs: Sequence[RunSpec]) -> list[str]:
    return list(dict.fromkeys([*(spec.model for spec in specs), *_judges(laboratory)]))


def _judges(laboratory: Laboratory) -> list[str]:
    return [metric.model for metric in laboratory.experiment.metrics.values() if metric.model]


def _job(laboratory: Laboratory, spec: RunSpec, models: Models) -> Job:
    experiment = laboratory.experiment
    program = laboratory.code.build(spec.program_args)

    def judge(model_id: str) -> Any:
        return models.lm(model_id, {})

    return Job(
        spec=spec,
        program=program,
        names=predictor_names(program),
        lm=models.lm(spec.model, spec.lm_settings, spec.seed if "seed" in spec.coordinates else None),
        engines=tuple(models.engines[model_id] for model_id in (spec.model, *_judges(laboratory))),
        adapter=laboratory.code.adapter(spec.adapter),
        scorers=build_scorers(
            experiment.metrics, laboratory.code.attribute, judge, exported=laboratory.code.metric
        ),
        rows=laboratory.splits.test,
        max_errors=experiment.execution.max_errors,
        ledger=models.ledger,
        types=output_types(program),
    )


def _info(laboratory: Laboratory, spec: RunSpec, models: Models) -> RunInfo:
    engines: Mapping[str, Any] = models.engines
    return RunInfo(
        run=spec.key,
        coordinates=spec.coordinates,
        total=len(laboratory.splits.test),
        config_hash=laboratory.config_hash(spec),
        answers_hash=laboratory.answers_hash(spec),
        model=resolved_model(laboratory.resolved, spec.model, spec.lm_settings),
        engine=engines[spec.model].endpoint.engine,
        rates={model_id: models.rates(model_id) for model_id in engines},
        versions=versions(REPORTED_PACKAGES),
    )
