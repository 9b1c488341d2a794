"""Execute examples on threads of this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future

from dspylab.errors import EndpointError
from dspylab.execute.example import Job, execute_example
from dspylab.execute.jobs import make_job
from dspylab.execute.workers import Outcome, Todo, Work, is_unfinished
from dspylab.laboratory import Laboratory
from dspylab.lm.budget import Reached
from dspylab.lm.build import Models
from dspylab.records import RunSpec


class Threads:
    """Workers that are threads of this process.

    Args:
        laboratory: The experiment.
        models: Its models.
        executor: The threads.
        width: Examples in flight at once.
    """

    def __init__(self, laboratory: Laboratory, models: Models, executor: Executor, width: int) -> None:
        self._laboratory = laboratory
        self._models = models
        self._executor = executor
        self._width = width

    def open(self, spec: RunSpec) -> Work:
        """Builds its program, its model and its metrics.

        Raises:
            ProgramError: If the user's code cannot be used.
            DataError: If its compiled program is absent or damaged.
            UsageError: If DSPy refuses its settings.
        """
        return _Run(make_job(self._laboratory, spec, self._models), self._models, self._executor)

    def room(self, model: str, in_flight: int, total: int, left: int) -> int:
        """One at a time, so that each is recorded as soon as it is done."""
        return 1 if total < self._width and in_flight < self._models.width(model) else 0

    def limits(self) -> Mapping[str, tuple[int, int]]:
        """Model id to the calls that its endpoint takes at once now, and at most."""
        return self._models.limits()

    def stop(self) -> None:
        """Lets no further call start."""
        self._models.stop()


class _Run:
    """A run whose examples are executed on threads."""

    def __init__(self, job: Job, models: Models, executor: Executor) -> None:
        self._job = job
        self._models = models
        self._executor = executor
        self._was_held_up = False

    def submit(self, todos: Sequence[Todo]) -> Future[list[Outcome]]:
        return self._executor.submit(self._execute, todos)

    @property
    def refusal(self) -> EndpointError | None:
        return self._job.refusal

    @property
    def exhausted(self) -> Reached | None:
        ledger = self._models.ledger
        return ledger.exhausted or (ledger.refused_paid if self._was_held_up else None)

    def end(self) -> None:
        self._job.has_ended.set()

    def _execute(self, todos: Sequence[Todo]) -> list[Outcome]:
        outcomes = [execute_example(self._job, todo) for todo in todos]
        # Never set back: of several threads one would undo what another has found.
        if any(map(is_unfinished, outcomes)):
            self._was_held_up = True
        return outcomes
