"""Execute runs of an experiment: build what they need, work them off, publish their results."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from dspylab.compiled import want_anew
from dspylab.config.models import Experiment
from dspylab.errors import EnvironmentProblem
from dspylab.execute.active import Observer, RunReport
from dspylab.execute.cluster import Cluster
from dspylab.execute.compile import CompileJob, CompileReport, compile_program
from dspylab.execute.compile_jobs import compile_job
from dspylab.execute.fit import refuse_misfits
from dspylab.execute.jobs import models_of_runs
from dspylab.execute.pool import Opening, Stop, work_off
from dspylab.execute.rest import Rest, foresee_rest
from dspylab.execute.spending import refuse_unpriced, spent_before
from dspylab.execute.threads import Threads
from dspylab.execute.underway import UnderWay
from dspylab.execute.workers import Workers
from dspylab.laboratory import Laboratory
from dspylab.lm.budget import Reached, Spending
from dspylab.lm.build import Models
from dspylab.pipeline.dvcfile import ignore_rows
from dspylab.plan.identity import compile_models
from dspylab.records import CompileSpec, RunSpec


@dataclass(frozen=True, slots=True)
class Execution:
    """How an execution ended.

    Attributes:
        reports: How each run ended.
        spent: What all results of the matrix have cost; without a budget, those of this session.
        exhausted: Which bound of the budget was reached; None if none was.
        compiles: How each compile ended.
        rest: What would be needed beyond that; None unless a bound was reached.
    """

    reports: list[RunReport]
    spent: Spending
    exhausted: Reached | None
    compiles: list[CompileReport] = field(default_factory=list)
    rest: Rest | None = None


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
    on_ready: Callable[[], None] = lambda: None,
) -> Execution:
    """Executes runs and compiles, all of them together.

    A run whose program is compiled here joins the others as soon as that stands.

    Args:
        laboratory: The experiment.
        keys: Runs to execute.
        observer: Is told what happens.
        stop: Ends the execution early.
        fresh: Call every example again, also those that an interrupted session finished.
        pilot: Execute so many examples of each run only, always the same ones, chosen at random. The journals
            keep them; nothing is published.
        compiling: What is to be compiled; default: nothing.
        takes_recorded: Take for done what DVC has recorded of this very configuration by the time that a run
            begins. The command of a stage does not: DVC calls it to have everything made anew.
        dask: Where the examples are executed: the address of a Dask scheduler, or `local:N`; default: what
            the file says, else threads of this process. Programs are compiled in this process in any case.
        on_ready: Called once all is ready, before the first call: what can be wrong by then is known.

    Returns:
        How each run ended, in the order of `keys`, without those that need not be executed once their
        program stands; and what was spent. What finished is on disk, whatever happened.

    Raises:
        EnvironmentProblem: If the machine is not ready, before the first call; if the Dask cluster is lost.
        RepositoryError: If the `.gitignore` beside the experiment file cannot be read.
        InvalidExperiment: If an optimizer cannot be made as the file describes it, or if program, dataset and
            metrics do not fit together, before the first call.
        ProgramError: If the user's code cannot be used, before the first call.
        DataError: If the dataset cannot be read, before the first call.
        UsageError: If the budget bounds a cost that is not known, or if DSPy refuses a setting of a model,
            before the first call.
    """
    _log_as_we_do()
    laboratory.layout.make_private()
    if keys and pilot is None:
        ignore_rows(laboratory.layout.root, laboratory.config)
    # Before metrics are imported: whatever is imported then counts as the program's.
    _ = laboratory.code_files
    _export(laboratory.environment)
    experiment, plan = laboratory.experiment, compiling or Compiling()
    dask = dask or experiment.execution.dask
    specs = [laboratory.run(key) for key in keys]
    compiles = [spec for spec in laboratory.compiles if spec.key in plan.keys]
    answering = models_of_runs(laboratory, specs)
    optimizing = [model for spec in compiles for model in compile_models(experiment, spec).values()]
    called = list(dict.fromkeys([*answering, *optimizing]))
    refuse_unpriced(experiment, called)
    # It builds the programs: where a cluster executes them, this machine may not be able to.
    refuse_misfits(laboratory, [*(specs if dask is None else ()), *compiles])
    spent = spent_before(laboratory, {*keys, *plan.keys} if fresh else ())
    here = called if dask is None else list(dict.fromkeys(optimizing))
    with (
        Models(experiment, here, laboratory.layout.folder, laboratory.environment, spent) as models,
        _workers(laboratory, specs, models, stop, dask) as workers,
    ):
        under_way = UnderWay(
            laboratory, workers, observer, fresh=fresh, pilot=pilot, takes_recorded=takes_recorded
        )
        jobs = _prepared(under_way, specs, compiles, models)
        on_ready()
        if fresh:
            # Not before all is ready: whoever can not begin keeps what there is.
            under_way.note_fresh()
            for anew in compiles:
                want_anew(laboratory, anew)
        stop.on_request(workers.stop)
        stop.on_request(models.stop)
        earlier = models.ledger.spent.calls
        observer.ready(workers.limits, lambda: models.ledger.spent.calls - earlier)
        _work(under_way, jobs, models, plan, stop)
        compiled = [under_way.compile_report(job.spec.key) for job in jobs]
        reports, ledger = under_way.reports(keys), models.ledger
        exhausted = ledger.exhausted or ledger.refused_paid
        rest = None if exhausted is None else foresee_rest(laboratory, reports)
        return Execution(reports, ledger.spent, exhausted, compiled, rest)


@contextlib.contextmanager
def _workers(
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
    with _threads(width, "dspylab-example", stop) as executor:
        yield Threads(laboratory, models, executor, width)


def _prepared(
    under_way: UnderWay, specs: Sequence[RunSpec], compiles: Sequence[CompileSpec], models: Models
) -> list[CompileJob]:
    """Makes runs and compiles ready, so that all that can be wrong with them is known before the first call.

    Returns:
        The compiles.
    """
    under_way.wait(specs, [spec.key for spec in compiles])
    for spec in specs:
        if spec.key not in under_way.waiting:
            under_way.begin(spec.key)
        elif spec.model in models.engines:
            models.lm(spec.model, spec.lm_settings)  # what DSPy refuses
    return [compile_job(under_way.laboratory, spec, models) for spec in compiles]


def _work(
    under_way: UnderWay, jobs: Sequence[CompileJob], models: Models, plan: Compiling, stop: Stop
) -> None:
    """Works off the compiles, and the runs as their programs stand."""
    experiment = under_way.laboratory.experiment
    width = min(experiment.execution.max_concurrency, len(jobs))
    with _threads(width, "dspylab-compile", stop) as compilers, _ending(under_way, models):
        openings = [
            Opening(
                compilers.submit(compile_program, job),
                under_way.after(job.spec.key, plan.ready),
                _embedded(experiment, job.spec),
            )
            for job in jobs
        ]
        work_off(list(under_way.runs), under_way.workers, stop, under_way.observer, openings=openings)


@contextlib.contextmanager
def _threads(width: int, name: str, stop: Stop) -> Iterator[ThreadPoolExecutor]:
    """Threads that are only waited for when all went well: a call that hangs would hold up the message."""
    executor = ThreadPoolExecutor(max(width, 1), thread_name_prefix=name)
    went_well = False
    try:
        yield executor
        went_well = not stop.requested
    finally:
        executor.shutdown(wait=went_well, cancel_futures=True)


def _embedded(experiment: Experiment, spec: CompileSpec) -> frozenset[str]:
    """The embedded models that a compile calls.

    Their runs wait for it: in the slots of one model the prompts of both would push each other out of the
    cache of prompts, which takes several times as long and bends the measured times.
    """
    models = compile_models(experiment, spec).values()
    return frozenset(model for model in models if experiment.models[model].is_local)


@contextlib.contextmanager
def _ending(under_way: UnderWay, models: Models) -> Iterator[None]:
    """Publishes what runs have finished, also when something goes wrong."""
    try:
        yield
    except BaseException as error:
        # What cannot be recorded any more is not tried again either.
        under_way.workers.stop()
        models.stop()
        for run in under_way.runs:
            # The first problem is the one to report; a full disk would only repeat itself here.
            with contextlib.suppress(EnvironmentProblem):
                run.end(f"stopped by {type(error).__name__}")
        raise
    for run in under_way.runs:
        run.end("interrupted")


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
