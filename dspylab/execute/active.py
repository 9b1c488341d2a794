"""A run while it is being executed: what is left to do, the journal it writes, and its end."""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dspylab.errors import RepositoryError, UnreachableEndpoint
from dspylab.execute.compile import CompileReport
from dspylab.execute.silence import Silence
from dspylab.execute.workers import Outcome, Todo, Work
from dspylab.jsonable import to_json
from dspylab.printable import printable
from dspylab.record.answers import EarlierRows, KeptAnswers
from dspylab.record.journal import Journal
from dspylab.record.layout import Layout
from dspylab.record.publish import write_atomically, write_json
from dspylab.records import (
    AbandonedExample,
    DataRow,
    ExampleFailure,
    ExampleOutcome,
    LMCall,
    RunInfo,
    RunSpec,
)
from dspylab.unscored import unscored_rows

logger = logging.getLogger(__name__)

#: Why a run of which nothing was executed was left out.
NOT_BEGUN = "not begun"
#: Longest error that a report shows, in characters.
_MAX_ERROR = 200


class Observer(Protocol):
    """Whoever wants to follow the execution; called from one thread."""

    def ready(self, limits: Callable[[], Mapping[str, tuple[int, int]]], calls: Callable[[], int]) -> None:
        """Before anything begins.

        Args:
            limits: Gives, per model, the calls that are allowed at once now and at most. From any thread.
            calls: Gives the calls of this session so far, those of compiles included. From any thread.
        """

    def compiling(self, program: str) -> None:
        """A program is compiled from now on."""

    def compiled(self, report: CompileReport) -> None:
        """A compile has ended."""

    def begun(self, run: str, total: int, kept: int, scores: Collection[float]) -> None:
        """A run begins; `kept` of its `total` examples were finished in an earlier session.

        Those of them that have a value of the metric that ranks the runs have it in `scores`.
        """

    def finished(self, outcome: ExampleOutcome) -> None:
        """An example finished."""

    def silent(self, silence: Silence) -> None:
        """No example of a run has finished for a while."""

    def ended(self, report: RunReport) -> None:
        """A run has no example left, or was stopped."""

    def going_on(self) -> None:
        """Nothing has ended just now. Several times a second, as long as anything goes on."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended.

    Attributes:
        run: Key of the run.
        total: Examples of the split.
        done: Examples that need not be called again.
        failed: Examples whose record is a failure.
        retryable: Failures that another try may mend; the next run tries them again.
        stopped: Why examples were left out; None if none were.
        refused: Whether that is because a model refuses every call, or nobody answers at its endpoint.
        unreachable: Whether it is the latter.
        held: Whether another process executes it.
        error: The most frequent error of the failed examples of this session; None if none failed.
        rescored: Examples that this session scored again without calling the program.
        unscored: Why no example that was answered has a value of the metric that ranks the runs; None if one
            has.
    """

    run: str
    total: int
    done: int
    failed: int
    retryable: int
    stopped: str | None
    refused: bool = False
    unreachable: bool = False
    held: bool = False
    error: str | None = None
    rescored: int = 0
    unscored: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every example has its final record, and they are published: not all failed or unscored."""
        return (
            self.done == self.total
            and self.failed < self.total
            and self.unscored is None
            and self.stopped != NOT_BEGUN
        )


class ActiveRun:
    """A run while it is being executed. Used from one thread.

    Args:
        spec: The run.
        rows: The test split.
        work: The run where its examples are executed.
        info: What its `run.json` will say.
        layout: Where its files lie.
        metric: Name of the metric that ranks the runs.
        observer: Is told what happens.
        is_recorded: Whether DVC has recorded a `raw.jsonl` of this MD5, so that it must be made anew.
        max_errors: Failed examples after which the run stops; None for never.
        chosen: Indexes of the examples to execute, as a pilot that publishes nothing; None for all.
        fresh: Whether every example is called again, whatever is kept of it.
        takes_recorded: Whether results of this configuration that DVC has recorded meanwhile are the run's.
        scores_for_nothing: Whether no metric calls a model.
    """

    def __init__(
        self,
        spec: RunSpec,
        rows: Sequence[DataRow],
        work: Work,
        info: RunInfo,
        layout: Layout,
        *,
        metric: str,
        observer: Observer,
        is_recorded: Callable[[str], bool],
        max_errors: int | None = None,
        chosen: Collection[int] | None = None,
        fresh: bool = False,
        takes_recorded: bool = False,
        scores_for_nothing: bool = False,
    ) -> None:
        self.spec = spec
        self.report: RunReport | None = None
        self._rows = rows
        self._work = work
        self._max_errors = max_errors
        self._earlier = EarlierRows((), ())
        self._info = info
        self._layout = layout
        self._metric = metric
        self._observer = observer
        self._is_recorded = is_recorded
        self._journal: Journal | None = None
        self._todo: deque[DataRow] = deque()
        self._chosen = chosen
        self._fresh = fresh
        self._takes_recorded = takes_recorded
        self._scores_for_nothing = scores_for_nothing
        self._answers = KeptAnswers(layout, info.run, info.answers_hash or "", info.config_hash)
        self._in_flight = 0
        self._failed = 0
        self._rescored = 0
        self._errors: Counter[str] = Counter()
        self._stopped: str | None = None
        self._is_refused = False
        self._told_of: set[tuple[str, str]] = set()

    @property
    def journal_path(self) -> Path:
        """Where its journal lies."""
        return self._layout.journal(self._info.config_hash)

    @property
    def total(self) -> int:
        """Examples of the split."""
        return len(self._rows)

    @property
    def left(self) -> int:
        """Examples that are still to begin; none once the run was stopped. The first look begins the run."""
        if self.report is None and self._journal is None:
            self._begin()
        self._look_for_obstacles()
        return 0 if self.report is not None or self._stopped is not None else len(self._todo)

    @property
    def next_id(self) -> str:
        """Id of the example that is begun next, if there is one."""
        return self._todo[0].example_id

    def submit(self, count: int) -> Future[list[Outcome]]:
        """Begins the next examples, so many or as many as there are; `record` takes what became of them."""
        todos = [
            Todo(row, self._earlier.row(row.index))
            for row in (self._todo.popleft() for _ in range(min(count, len(self._todo))))
        ]
        self._in_flight += 1
        return self._work.submit(todos)

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Keeps what became of the examples of one `submit`.

        Raises:
            EnvironmentProblem: If the disk is full.
        """
        self._in_flight -= 1
        for outcome in outcomes:
            if outcome is not None and self._journal is not None:
                self._journal.append(to_json(outcome))
                self._warn_of_unmetered(outcome.calls)
                if not isinstance(outcome, AbandonedExample):
                    self._count(outcome)
                    self._observer.finished(outcome)
        self._look_for_obstacles()
        if not self._todo or self._stopped is not None:
            self.end_if_idle()

    def _warn_of_unmetered(self, calls: Iterable[LMCall]) -> None:
        """Says once of each model that it is none of the experiment's."""
        for call in calls:
            if call.is_unmetered and (call.role, call.model) not in self._told_of:
                self._told_of.add((call.role, call.model))
                who = "a metric" if call.role == "judge" else "the program"
                logger.warning(
                    "%s: %s calls %s, a model that it builds itself, not one of the experiment: the calls "
                    "are not measured, what they cost is not known, and no budget bounds them",
                    self.spec.key,
                    who,
                    printable(call.model),
                )

    def end_if_idle(self) -> None:
        """Publishes the results once nothing of the run is left.

        Raises:
            EnvironmentProblem: If the disk is full.
        """
        if self._journal is not None and self._in_flight == 0 and self.report is None:
            self.end()

    def end(self, reason: str | None = None) -> None:
        """Publishes what is finished and lets the journal go. Does nothing when the run never began.

        The rows of a pilot stay in its journal: they are a sample, and the workspace may hold better results.

        Args:
            reason: Why examples are left out, if any are.

        Raises:
            EnvironmentProblem: If the disk is full.
        """
        if self._journal is None or self.report is not None:
            return
        journal, total = self._journal, len(self._rows)
        done, retryable = len(journal.indexes), len(journal.retryable)
        left_out = done + retryable < total
        self.report = RunReport(
            run=self.spec.key,
            total=total,
            done=done,
            failed=journal.failures,
            retryable=retryable,
            stopped=self._stopped
            or (reason if left_out else "every example failed" if journal.failures == total else None),
            refused=self._is_refused,
            unreachable=self._is_refused and isinstance(self._work.refusal, UnreachableEndpoint),
            error=next((error for error, _ in self._errors.most_common(1)), None),
            rescored=self._rescored,
            unscored=self._unscored(journal),
        )
        info = replace(self._info, torn_lines=journal.torn_lines)
        try:
            if self._chosen is None and (done or retryable):
                write_json(self._layout.info(self.spec.key), to_json(info))
                md5 = write_atomically(self._layout.raw(self.spec.key), journal.rows())
                if self.report.complete:
                    journal.publish(md5)
                    self._answers.replace(self._layout.raw(self.spec.key))
        finally:
            journal.__exit__()
            self._journal = None
            self._earlier = EarlierRows((), ())
        self._observer.ended(self.report)

    def _begin(self) -> None:
        try:
            journal = Journal(self.journal_path, self._metric).__enter__()
        except RepositoryError as error:
            # Another process executes this run. The others can go on.
            self._stopped = error.message
            self._leave(done=0, stopped=error.message)
            return
        wants_new = self._fresh or journal.is_anew
        if self._takes_recorded and not wants_new and self._answers.are_up_to_date(self._is_recorded):
            # Another process finished and recorded it since it was found to be stale.
            journal.__exit__()
            self._leave(done=self.total, stopped=None)
            return
        self._journal = journal
        journal.keep_only({row.index: row.example_id for row in self._rows})
        self._find_earlier(journal)
        kept = journal.indexes
        if self._scores_for_nothing and self._unscored(journal) is not None:
            # What the metric lacked may be there now, such as a package that no digest knows of.
            kept -= self._earlier.indexes
        self._todo = deque(
            row
            for row in self._rows
            if row.index not in kept and (self._chosen is None or row.index in self._chosen)
        )
        scores = [score for index, score in journal.scores.items() if index in kept]
        self._observer.begun(self.spec.key, len(self._rows), len(kept), scores)

    def _leave(self, *, done: int, stopped: str | None) -> None:
        """Leaves the run to another process, which executes it or has done so."""
        self.report = RunReport(
            run=self.spec.key,
            total=self.total,
            done=done,
            failed=0,
            retryable=0,
            stopped=stopped,
            held=stopped is not None,
        )
        self._observer.begun(self.spec.key, self.total, done, ())
        self._observer.ended(self.report)

    def _find_earlier(self, journal: Journal) -> None:
        """Looks for answers that need not be asked for again, and keeps those to come."""
        is_recorded = journal.published is not None and self._is_recorded(journal.published)
        if not journal.indexes and not journal.retryable:
            is_recorded = self._answers.are_recorded(self._is_recorded)
        # The command of a stage is called for results that DVC has recorded when they are to be made anew.
        if self._fresh or (is_recorded and not self._takes_recorded):
            journal.begin_anew()
        # Its own failed and abandoned examples may have answers that could not be scored.
        others = [] if journal.is_anew else self._answers.sources()
        self._earlier = EarlierRows([journal.path, *others], self._rows)
        self._answers.follow(journal.path, anew=journal.is_anew)

    def _unscored(self, journal: Journal) -> str | None:
        """Why nothing that was answered has a value of the metric; None if anything has, or was not."""
        return None if journal.scores else unscored_rows(self._metric, map(json.loads, journal.rows()))

    def _count(self, outcome: ExampleOutcome) -> None:
        if not isinstance(outcome, ExampleFailure):
            self._rescored += outcome.rescored
            return
        # What failed in an earlier session says nothing about how this one goes.
        self._failed += not outcome.rescored
        self._errors[f"{outcome.error.type}: {outcome.error.message}".partition("\n")[0][:_MAX_ERROR]] += 1
        self._look_for_obstacles()
        if self._stopped is None and self._max_errors is not None and self._failed >= self._max_errors:
            self._stopped = f"{self._failed} examples failed (execution.max_errors)"

    def _look_for_obstacles(self) -> None:
        if self._stopped is None and self._work.refusal is not None:
            self._stopped = str(self._work.refusal)
            self._is_refused = True
        if self._stopped is None and self._work.exhausted is not None:
            self._stopped = str(self._work.exhausted)
        if self._stopped is not None:
            self._work.end()
