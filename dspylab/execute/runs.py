"""Execute runs of an experiment: build what they need, work them off, publish their results."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dspylab.compiled import valid_record, want_anew
from dspylab.config.models import Experiment
from dspylab.errors import EnvironmentProblem, UsageError
from dspylab.execute.active import NOT_BEGUN, ActiveRun, Observer, RunReport
from dspylab.execute.cluster import Cluster
from dspylab.execute.compile import CompileJob, CompileReport, compile_program
from dspylab.execute.compiles import compile_job
from dspylab.execute.fit import refuse_misfits
from dspylab.execute.jobs import models_of_runs
from dspylab.execute.pool import Opening, Stop, work_off
from dspylab.execute.spending import refuse_unpriced, spent_before
from dspylab.execute.threads import Threads
from dspylab.execute.workers import Workers
from dspylab.laboratory import REPORTED_PACKAGES, Laboratory, versions
from dspylab.lm.budget import Spending
from dspylab.lm.build import Models
from dspylab.lm.pricing import rates_for
from dspylab.lm.routing import engine_for
from dspylab.plan.identity import compile_models, resolved_model
from dspylab.record.answers import inherit, recorded_in, retired
from dspylab.record.journal import begin_anew, peek
from dspylab.records import CompileSpec, RunInfo, RunSpec


@dataclass(frozen=True, slots=True)
class Execution:
    """How an execution ended.

    Attributes:
        reports: How each run ended.
        spent: What all results of the matrix have cost; without a budget, those of this session.
        exhausted: Which bound of the budget was reached; None if none was.
        compiles: How each compile ended.
    """

    reports: list[RunReport]
    spent: Spending
    exhausted: str | None
    compiles: list[CompileReport] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Compiling:
    """What is to be compiled before runs, or instead of any.

    Attributes:
        keys: Compiles to execute. Runs that need none of them must have a program that stands.
        ready: Asked, from the thread of the execution, once a program stands: which of the runs that
            waited for it are to be executed.
    """

    keys: Sequence[str] = ()
    ready: Callable[[list[str]], list[str]] = list


def execute_runs(
    laboratory: Laboratory,
    keys: Sequence[str],
    observer: Observer,
    stop: Stop,
    *,
    fresh: bool = False,
    pilot: int | None = None,
    compiling: Compiling | None = None,
    takes_recorded: bool = False,
    dask: str | None = None,
) -> Execution:
    """Executes runs and compiles, all of them together.

    A run whose program is compiled here joins the others as soon as that stands.

    Args:
        laboratory: The experiment.
        keys: Runs to execute.
        observer: Is told what happens.
        stop: Ends the execution early.
        fresh: Call every example again, also those that an interrupted session finished.
        pilot: Execute so many examples of each run only, always the same ones, chosen at random.
        compiling: What is to be compiled; default: nothing.
        takes_recorded: Take for done what DVC has recorded of this very configuration by the time that a run
            begins. The command of a stage does not: DVC calls it to have everything made anew.
        dask: Where the examples are executed: the address of a Dask scheduler, or `local:N`; default: what
            the file says, else threads of this process. Programs are compiled in this process in any case.

    Returns:
        How each run ended, in the order of `keys`, without those that need not be executed once their
        program stands; and what was spent. What finished is on disk, whatever happened.

    Raises:
        EnvironmentProblem: If the machine is not ready, before the first call; if the Dask cluster is lost.
        InvalidExperiment: If an optimizer cannot be made as the file describes it, or if program, dataset and
            metrics do not fit together, before the first call.
        ProgramError: If the user's code cannot be used, before the first call.
        DataError: If the dataset cannot be read, before the first call.
        UsageError: If the budget bounds a cost that is not known, or if DSPy refuses a setting of a model,
            before the first call.
    """
    _log_as_we_do()
    laboratory.layout.make_private()
    plan = compiling or Compiling()
    specs = [laboratory.run(key) for key in keys]
    compiles = [spec for spec in laboratory.compiles if spec.key in plan.keys]
    # Before metrics are imported: whatever is imported then counts as the program's.
    _ = laboratory.code_files
    experiment = laboratory.experiment
    _export(laboratory.environment)
    on_workers = models_of_runs(laboratory, specs)
    here = [model for spec in compiles for model in compile_models(experiment, spec).values()]
    dask = dask or experiment.execution.dask
    if dask is None:
        here = [*on_workers, *here]
    refuse_unpriced(experiment, dict.fromkeys([*on_workers, *here]))
    # It builds the programs: where a cluster executes them, this machine may not be able to.
    refuse_misfits(laboratory, [*(specs if dask is None else ()), *compiles])
    spent = spent_before(laboratory, {*keys, *plan.keys} if fresh else ())
    here = list(dict.fromkeys(here))
    with (
        Models(experiment, here, laboratory.layout.folder, laboratory.environment, spent) as models,
        _opened(laboratory, specs, models, stop, dask) as workers,
    ):
        begin = _Begin(laboratory, workers, observer, fresh=fresh, pilot=pilot, takes_recorded=takes_recorded)
        begin.waiting = {spec.key: needs for spec in specs if (needs := _waits_for(laboratory, spec, plan))}
        for spec in specs:
            if spec.key not in begin.waiting:
                begin.run(spec.key)
            elif spec.model in models.engines:
                models.lm(spec.model, spec.lm_settings)  # what DSPy refuses is known before the first call
        jobs = [compile_job(laboratory, spec, models) for spec in compiles]
        if fresh:
            # Not before all is ready: whoever can not begin keeps what there is.
            begin.note_fresh()
            for anew in compiles:
                want_anew(laboratory, anew)
        stop.on_request(workers.stop)
        stop.on_request(models.stop)
        observer.limited_by(workers.limits)
        _work(begin, jobs, models, plan, stop)
        compiled = [begin.compile_report(job.spec.key) for job in jobs]
        return Execution(begin.reports(keys), models.ledger.spent, models.ledger.exhausted, compiled)


@contextlib.contextmanager
def _opened(
    laboratory: Laboratory, specs: Sequence[RunSpec], models: Models, stop: Stop, dask: str | None
) -> Iterator[Workers]:
    """Where the examples are executed."""
    if dask is not None and specs:
        with Cluster(laboratory, specs, dask, models.ledger) as cluster:
            yield cluster
        return
    width = min(
        laboratory.experiment.execution.max_concurrency, len(laboratory.splits.test) * max(len(specs), 1)
    )
    threads = Threads(laboratory, models, width)
    try:
        yield threads
    except BaseException:
        # Only waited for when all went well: a call that hangs would hold up the message.
        threads.close(wait=False)
        raise
    threads.close(wait=not stop.requested)


def _work(begin: _Begin, jobs: Sequence[CompileJob], models: Models, plan: Compiling, stop: Stop) -> None:
    """Works off the compiles, and the runs as their programs stand."""
    experiment = begin.laboratory.experiment
    width = min(experiment.execution.max_concurrency, len(jobs))
    with _compilers(width, stop) as compilers, _ending(begin, models):
        openings = [
            Opening(
                compilers.submit(compile_program, job),
                begin.after(job.spec.key, plan.ready),
                _embedded(experiment, job.spec),
            )
            for job in jobs
        ]
        work_off(list(begin.runs), begin.workers, stop, openings=openings)


class _Begin:
    """Begins runs: some at once, others when their program stands.

    Attributes:
        laboratory: The experiment.
        workers: Execute its examples.
        runs: Those that have begun.
        waiting: Key of each of the others to the key of the compile that it waits for.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        workers: Workers,
        observer: Observer,
        *,
        fresh: bool,
        pilot: int | None,
        takes_recorded: bool,
    ) -> None:
        self.laboratory = laboratory
        self.workers = workers
        self.runs: list[ActiveRun] = []
        self.waiting: Mapping[str, str] = {}
        self._compiled: dict[str, CompileReport] = {}
        self._observer = observer
        self._fresh = fresh
        self._is_noted = False
        self._takes_recorded = takes_recorded
        self._retired = retired(laboratory.layout, {run.key for run in laboratory.runs})
        self._chosen = None if pilot is None else _pilot_indexes(len(laboratory.splits.test), pilot)
        self._recorded = recorded_in(laboratory.layout.root / "dvc.lock")

    def run(self, key: str) -> ActiveRun:
        """Makes a run whose program stands ready."""
        spec = self.laboratory.run(key)
        if not self._fresh:
            inherit(self.laboratory.layout, key, self.laboratory.answers_hash(spec), self._retired)
        run = ActiveRun(
            spec,
            self.laboratory.splits.test,
            self.workers.open(spec),
            _info(self.laboratory, spec),
            self.laboratory.layout,
            observer=self._observer,
            is_recorded=self._recorded,
            max_errors=self.laboratory.experiment.execution.max_errors,
            chosen=self._chosen,
            fresh=self._fresh,
            takes_recorded=self._takes_recorded,
        )
        if self._is_noted:
            begin_anew(run.journal_path)
        self.runs.append(run)
        return run

    def note_fresh(self) -> None:
        """Notes that all runs begin anew, before their turn: if this is killed, the next one has to know."""
        self._is_noted = True
        for run in self.runs:
            begin_anew(run.journal_path)

    def after(
        self, compile_key: str, ready: Callable[[list[str]], list[str]]
    ) -> Callable[[CompileReport], list[ActiveRun]]:
        """What to do when a compile has ended: begin its runs, if it has a program."""
        keys = [key for key, needs in self.waiting.items() if needs == compile_key]
        self._observer.compiling(compile_key)

        def begin(report: CompileReport) -> list[ActiveRun]:
            self._compiled[compile_key] = report
            self._observer.compiled(report)
            return [] if report.record is None else [self.run(key) for key in ready(keys)]

        return begin

    def compile_report(self, key: str) -> CompileReport:
        """How a compile ended."""
        return self._compiled.get(key) or CompileReport(key, stopped=NOT_BEGUN)

    def reports(self, keys: Sequence[str]) -> list[RunReport]:
        """How each run ended, without those that need not be executed."""
        found = {run.spec.key: run.report or _untouched(run) for run in self.runs}
        for key, needs in self.waiting.items():
            if self.compile_report(needs).record is None:
                found[key] = _without_program(self.laboratory, key, self.compile_report(needs))
        return [found[key] for key in keys if key in found]


def _embedded(experiment: Experiment, spec: CompileSpec) -> frozenset[str]:
    """The embedded models that a compile calls.

    Their runs wait for it: in the slots of one model the prompts of both would push each other out of the
    cache of prompts, which takes several times as long and bends the measured times.
    """
    models = compile_models(experiment, spec).values()
    return frozenset(model for model in models if experiment.models[model].is_local)


def _waits_for(laboratory: Laboratory, run: RunSpec, plan: Compiling) -> str | None:
    """Key of the compile that a run has to wait for; None if it can begin.

    Raises:
        UsageError: If its program neither stands nor is compiled now.
    """
    spec = laboratory.needed_compiles.get(run.key)
    if spec is None:
        return None
    if spec.key in plan.keys:
        return spec.key
    if valid_record(laboratory, spec) is None:
        place = laboratory.layout.program(spec.key).relative_to(laboratory.layout.root)
        coordinates = " ".join(f"{axis}={value}" for axis, value in spec.coordinates.items())
        raise UsageError(
            f"its program {place} is not compiled, or not from what there is now",
            where=run.key,
            remedy=f"compile it first: dspylab compile-one --config {laboratory.config} {coordinates}",
        )
    return None


def _without_program(laboratory: Laboratory, key: str, report: CompileReport) -> RunReport:
    why = (
        report.stopped
        if report.refused
        else f"its program {report.program} is not compiled: {report.stopped}"
    )
    return RunReport(
        run=key,
        total=len(laboratory.splits.test),
        done=0,
        failed=0,
        retryable=0,
        stopped=why,
        refused=report.refused,
        held=report.held,
    )


@contextlib.contextmanager
def _compilers(width: int, stop: Stop) -> Iterator[ThreadPoolExecutor]:
    """Threads that are only waited for when all went well."""
    executor = ThreadPoolExecutor(max_workers=max(width, 1), thread_name_prefix="dspylab-compile")
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown(wait=not stop.requested, cancel_futures=True)


@contextlib.contextmanager
def _ending(begin: _Begin, models: Models) -> Iterator[None]:
    """Publishes what runs have finished, also when something goes wrong."""
    try:
        yield
    except BaseException as error:
        # What cannot be recorded any more is not tried again either.
        begin.workers.stop()
        models.stop()
        for run in begin.runs:
            # The first problem is the one to report; a full disk would only repeat itself here.
            with contextlib.suppress(EnvironmentProblem):
                run.end(f"stopped by {type(error).__name__}")
        raise
    for run in begin.runs:
        run.end("interrupted")


def _pilot_indexes(total: int, count: int) -> frozenset[int]:
    """Indexes of the examples of a pilot. The first ones would mislead where a file is sorted."""
    return frozenset(random.Random(0).sample(range(total), min(count, total)))


def _export(environment: Mapping[str, str]) -> None:
    """LiteLLM reads the variables of providers that need several, such as Azure and Bedrock, by itself."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)


def _log_as_we_do() -> None:
    """Sends DSPy's log our way: its own handler would print over the progress, and secrets unmasked."""
    log = logging.getLogger("dspy")
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


def _untouched(run: ActiveRun) -> RunReport:
    kept, retryable = peek(run.journal_path)
    return RunReport(
        run=run.spec.key,
        total=run.total,
        done=kept - retryable,
        failed=0,
        retryable=retryable,
        stopped=NOT_BEGUN,
    )


def _info(laboratory: Laboratory, spec: RunSpec) -> RunInfo:
    models = laboratory.experiment.models
    called = [*models_of_runs(laboratory, [spec])]
    return RunInfo(
        run=spec.key,
        coordinates=spec.coordinates,
        total=len(laboratory.splits.test),
        config_hash=laboratory.config_hash(spec),
        answers_hash=laboratory.answers_hash(spec),
        model=resolved_model(laboratory.resolved, spec.model, spec.lm_settings),
        engine=engine_for(spec.model, models[spec.model]),
        rates={model_id: rates_for(models[model_id]) for model_id in called},
        versions=versions(REPORTED_PACKAGES),
    )
