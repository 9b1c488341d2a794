"""One experiment on one Dask worker: its code, its models, its part of the limits."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from dspylab.config.models import Budget
from dspylab.errors import EnvironmentProblem
from dspylab.execute.example import Job, execute_example
from dspylab.execute.fit import mismatches
from dspylab.execute.jobs import make_job, models_of_runs
from dspylab.execute.wire import outcome_to_json, todo_of
from dspylab.execute.workers import Outcome, Todo, is_unfinished
from dspylab.laboratory import open_laboratory
from dspylab.lm.budget import Spending
from dspylab.lm.build import Models, Share
from dspylab.lm.limits import Gate, Stopped
from dspylab.program.load import Code
from dspylab.record.publish import write_atomically


class Session:
    """Executes chunks of examples. Thread-safe.

    Args:
        settings: As `dspylab.execute.worker.prepare` takes them.
        place: The folder where the code is unpacked.
        builder: Builds programs, on the thread that the session is made on.
        code: The code of another session that is unpacked there: one that both call has one set of modules.

    Attributes:
        place: As given.
        code: The user's code.

    Raises:
        DspylabError: If the worker is not ready: a key is missing, the code cannot be imported.
    """

    def __init__(
        self, settings: Mapping[str, Any], place: Path, builder: Executor, code: Code | None
    ) -> None:
        opened = open_laboratory(place / settings["config"], with_files=False)
        experiment, layout = opened.experiment, opened.layout
        search = [place / folder for folder in settings["search"]]
        self.place = place
        self.code = code or Code(experiment.program, layout.folder, layout.root, search)
        self._laboratory = replace(opened, code=self.code)
        self._builder = builder
        # Nothing may be spent but what comes with a chunk.
        nothing: dict[str, Any] = {name: 0 for name, bound in experiment.budget if bound is not None}
        metered = experiment.model_copy(update={"budget": Budget.model_construct(**nothing)})
        self._specs = [self._laboratory.run(key) for key in settings["runs"]]
        called = models_of_runs(self._laboratory, self._specs)
        self.code.module(self.code.source)
        self._models = Models(metered, called, layout.folder, self._laboratory.environment)
        _refuse_other_endpoints(self._laboratory.endpoints, settings["endpoints"], called)
        width = experiment.execution.max_concurrency
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="dspylab-example")
        self._places = Gate(width)
        self._places_of = {model_id: Gate(self._models.width(model_id)) for model_id in self._models.engines}
        self._turns = {model_id: threading.Lock() for model_id in self._models.engines}
        self._jobs: dict[str, Job] = {}
        self._ended: set[str] = set()
        self._building = threading.Lock()
        self._counting = threading.Lock()
        self._chunks = 0
        self.idle_since: float | None = time.monotonic()

    def mismatches(self) -> list[list[Any]]:
        """As `dspylab.execute.worker.check`.

        Raises:
            ProgramError: If the user's code cannot be used.
        """
        # The examples are not here: their labels are not compared with what answers may be.
        found = self._builder.submit(lambda: list(mismatches(self._laboratory, self._specs, [])))
        return [list(astuple(each)) for each in found.result()]

    def share(self, shares: Mapping[str, Sequence[Any]], total: int) -> None:
        """As `dspylab.execute.worker.share`."""
        mine = {model_id: Share(*share) for model_id, share in shares.items()}
        self._models.share(mine)
        self._places.restrict(total)
        for model_id, share in mine.items():
            self._places_of[model_id].restrict(share.concurrency)

    def stop(self) -> None:
        """Lets no further call start."""
        self._models.stop()
        for gate in (self._places, *self._places_of.values()):
            gate.stop()

    def end(self, run: str) -> None:
        """As `dspylab.execute.worker.end`."""
        self._ended.add(run)
        if run in self._jobs:
            self._jobs[run].has_ended.set()

    def close(self) -> None:
        """Ends everything but the embedded models, which other sessions may use as well."""
        self.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._models.close()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps it from counting as idle."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def execute(self, chunk: Mapping[str, Any]) -> dict[str, Any]:
        """As `dspylab.execute.worker.execute_chunk`.

        Raises:
            DspylabError: If the run cannot be executed at all.
        """
        began = time.monotonic()
        lent = Spending(*chunk["lent"])
        self._models.ledger.extend(lent)
        try:
            # An import inside of a function of the program finds its own modules.
            self.code.enter()
            job = self._job(chunk["run"], chunk["program"])
            outcomes = self._outcomes(job, [todo_of(todo) for todo in chunk["todos"]])
        finally:
            spent = self._models.ledger.settle(lent)
        refusal = job.refusal
        return {
            "outcomes": [outcome_to_json(outcome) for outcome in outcomes],
            "refusal": refusal and [type(refusal).__name__, refusal.message, refusal.where, refusal.remedy],
            "refused_paid": self._models.ledger.refused_paid is not None
            and any(map(is_unfinished, outcomes)),
            "spent": [spent.cost_usd, spent.tokens, spent.calls],
            "took_s": time.monotonic() - began,
        }

    def _count(self, change: int) -> None:
        with self._counting:
            self._chunks += change
            self.idle_since = None if self._chunks else time.monotonic()

    def _job(self, key: str, program: str | None) -> Job:
        with self._building:
            if key not in self._jobs:
                spec = self._laboratory.run(key)
                if program is not None:
                    compiled = self._laboratory.needed_compiles[key]
                    write_atomically(self._laboratory.layout.program(compiled.key), [program.encode()])
                made = self._builder.submit(make_job, self._laboratory, spec, self._models)
                self._jobs[key] = made.result()
                if key in self._ended:
                    self._jobs[key].has_ended.set()
            return self._jobs[key]

    def _outcomes(self, job: Job, todos: Sequence[Todo]) -> list[Outcome]:
        """What becomes of examples; None for all that a stop, or the end of the run, left out."""
        # One chunk after the other begins, so that the first one is done, and sent back, first.
        with self._turns[job.spec.model]:
            futures = self._begun(job, todos)
        outcomes = [future.result() for future in futures]
        return outcomes + [None] * (len(todos) - len(outcomes))

    def _begun(self, job: Job, todos: Sequence[Todo]) -> list[Future[Outcome]]:
        """Begins examples as there are places for them, until a stop or the end of the run."""
        futures: list[Future[Outcome]] = []
        for todo in todos:
            held = contextlib.ExitStack()
            try:
                held.enter_context(self._places_of[job.spec.model].slot(0))
                held.enter_context(self._places.slot(0))
            except Stopped:
                held.close()
                break
            if job.has_ended.is_set():
                held.close()
                break
            futures.append(self._pool.submit(execute_example, job, todo))
            futures[-1].add_done_callback(lambda _, held=held: held.close())  # type: ignore[misc]
        return futures


def _refuse_other_endpoints(here: Mapping[str, str], there: Mapping[str, str], called: Sequence[str]) -> None:
    """Results say which endpoint gave them: it must not depend on who asked it.

    Raises:
        EnvironmentProblem: If a model's endpoint, which only the environment names, is another one here.
    """
    for model_id in called:
        if here.get(model_id) != there.get(model_id):
            raise EnvironmentProblem(
                f"is called at {here.get(model_id) or 'its usual endpoint'} here, "
                f"at {there.get(model_id) or 'its usual endpoint'} where dspylab runs",
                where=f"models.{model_id}",
                remedy="name its api_base in the experiment file, or set the same variables for the workers",
            )
