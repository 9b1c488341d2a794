"""The runs of an execution: those that have begun, and those that wait for their program to be compiled."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from dspylab.compiled import valid_record
from dspylab.errors import UsageError
from dspylab.execute.active import NOT_BEGUN, ActiveRun, Observer, RunReport
from dspylab.execute.compile import CompileReport
from dspylab.execute.jobs import judges, models_of_runs
from dspylab.execute.workers import Workers
from dspylab.laboratory import REPORTED_PACKAGES, Laboratory, versions
from dspylab.lm.pricing import rates_for
from dspylab.lm.routing import engine_for
from dspylab.pipeline.stages import COMPILE_COMMAND, arguments, quote
from dspylab.plan.identity import resolved_model
from dspylab.record.answers import inherit, recorded_in, retired
from dspylab.record.journal import begin_anew, peek
from dspylab.records import RunInfo, RunSpec


class UnderWay:
    """Begins runs, some at once, others when their program stands, and says how they ended.

    Args:
        laboratory: The experiment.
        workers: Execute its examples.
        observer: Is told what happens.
        fresh: As for `execute_runs`.
        pilot: As for `execute_runs`.
        takes_recorded: As for `execute_runs`.

    Attributes:
        laboratory: As given.
        workers: As given.
        observer: As given.
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
        self.observer = observer
        self._fresh = fresh
        self._is_noted = False
        self._takes_recorded = takes_recorded
        self._retired = retired(laboratory.layout, {run.key for run in laboratory.runs})
        self._chosen = None if pilot is None else pilot_indexes(len(laboratory.splits.test), pilot)
        self._recorded = recorded_in(laboratory.layout.root / "dvc.lock")

    def wait(self, specs: Iterable[RunSpec], compiling: Collection[str]) -> None:
        """Has those runs wait whose program is compiled now.

        Args:
            specs: Runs that are to be executed.
            compiling: Keys of the compiles that are executed.

        Raises:
            UsageError: If the program of a run neither stands nor is compiled now.
        """
        needs = {spec.key: _compile_of(self.laboratory, spec, compiling) for spec in specs}
        self.waiting = {key: needed for key, needed in needs.items() if needed is not None}

    def begin(self, key: str) -> ActiveRun:
        """Makes a run whose program stands ready.

        Raises:
            ProgramError: If the user's code cannot be used.
            DataError: If its compiled program is absent or damaged.
            UsageError: If DSPy refuses its settings.
        """
        spec = self.laboratory.run(key)
        if not self._fresh:
            inherit(self.laboratory.layout, key, self.laboratory.answers_hash(spec), self._retired)
        run = ActiveRun(
            spec,
            self.laboratory.splits.test,
            self.workers.open(spec),
            _info(self.laboratory, spec),
            self.laboratory.layout,
            metric=self.laboratory.experiment.ranked_by,
            observer=self.observer,
            is_recorded=self._recorded,
            max_errors=self.laboratory.experiment.execution.max_errors,
            chosen=self._chosen,
            fresh=self._fresh,
            takes_recorded=self._takes_recorded,
            scores_for_nothing=not judges(self.laboratory.experiment),
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
        """What to do when a compile has ended: begin its runs, if it has a program.

        Args:
            compile_key: Key of the compile, which begins now.
            ready: As `Compiling.ready`.
        """
        keys = [key for key, needs in self.waiting.items() if needs == compile_key]
        self.observer.compiling(compile_key)

        def begin(report: CompileReport) -> list[ActiveRun]:
            self._compiled[compile_key] = report
            self.observer.compiled(report)
            return [] if report.record is None else [self.begin(key) for key in ready(keys)]

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


def _compile_of(laboratory: Laboratory, run: RunSpec, compiling: Collection[str]) -> str | None:
    """Key of the compile that a run has to wait for; None if it can begin."""
    spec = laboratory.needed_compiles.get(run.key)
    if spec is None:
        return None
    if spec.key in compiling:
        return spec.key
    if valid_record(laboratory, spec) is None:
        place = laboratory.layout.program(spec.key).relative_to(laboratory.layout.root)
        raise UsageError(
            f"its program {place} is not compiled, or not from what there is now",
            where=run.key,
            remedy=f"compile it first: {COMPILE_COMMAND} {quote(str(laboratory.config))} {arguments(spec)}",
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


def pilot_indexes(total: int, count: int) -> frozenset[int]:
    """Indexes of the examples of a pilot. The first ones would mislead where a file is sorted."""
    return frozenset(random.Random(0).sample(range(total), min(count, total)))


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
    return RunInfo(
        run=spec.key,
        coordinates=spec.coordinates,
        total=len(laboratory.splits.test),
        config_hash=laboratory.config_hash(spec),
        answers_hash=laboratory.answers_hash(spec),
        model=resolved_model(laboratory.resolved, spec.model, spec.lm_settings),
        engine=engine_for(spec.model, models[spec.model]),
        rates={model_id: rates_for(models[model_id]) for model_id in models_of_runs(laboratory, [spec])},
        versions=versions(REPORTED_PACKAGES),
    )
