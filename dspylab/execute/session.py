"""One experiment on one Dask worker: its code, its models, its part of the limits."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dspylab.config.models import Budget
from dspylab.execute.example import Job, execute_example
from dspylab.execute.jobs import make_job, models_of_runs
from dspylab.execute.rescore import new_calls
from dspylab.execute.wire import outcome_to_json, todo_of
from dspylab.execute.workers import Outcome, Todo
from dspylab.laboratory import open_laboratory
from dspylab.lm.budget import Spending
from dspylab.lm.build import Models, Share
from dspylab.lm.limits import Gate, Stopped
from dspylab.record.publish import write_atomically
from dspylab.records import AbandonedExample, LMCall


class Session:
    """Executes chunks of examples. Thread-safe.

    Args:
        config: The experiment file, unpacked beside its code.
        runs: Keys of the runs that are to be executed.

    Raises:
        DspylabError: If the worker is not ready: a key is missing, the code cannot be imported.
    """

    def __init__(self, config: Path, runs: Sequence[str]) -> None:
        self._laboratory = open_laboratory(config, with_files=False)
        experiment = self._laboratory.experiment
        # Nothing may be spent but what comes with a chunk.
        nothing: dict[str, Any] = {name: 0 for name, bound in experiment.budget if bound is not None}
        metered = experiment.model_copy(update={"budget": Budget.model_construct(**nothing)})
        specs = [self._laboratory.run(key) for key in runs]
        self._models = Models(
            metered,
            models_of_runs(self._laboratory, specs),
            self._laboratory.layout.folder,
            self._laboratory.environment,
        )
        self._laboratory.code.module(self._laboratory.code.source)
        width = experiment.execution.max_concurrency
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="dspylab-example")
        self._places = Gate(width)
        self._places_of = {model_id: Gate(self._models.width(model_id)) for model_id in self._models.engines}
        self._jobs: dict[str, Job] = {}
        self._building = threading.Lock()
        self._counting = threading.Lock()
        self._chunks = 0
        self.idle_since: float | None = time.monotonic()

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

    def close(self) -> None:
        """Ends everything."""
        self.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._models.__exit__()

    def execute(self, chunk: Mapping[str, Any]) -> dict[str, Any]:
        """As `dspylab.execute.worker.execute_chunk`.

        Raises:
            DspylabError: If the run cannot be executed at all.
        """
        began = time.monotonic()
        self._count(1)
        lent, spent = Spending(*chunk["lent"]), Spending()
        self._models.ledger.borrow(lent)
        try:
            job = self._job(chunk["run"], chunk["program"])
            outcomes = self._outcomes(job, [todo_of(todo) for todo in chunk["todos"]])
            spent = sum((_spent(outcome) for outcome in outcomes), Spending())
        finally:
            self._models.ledger.give_back(lent, spent)
            self._count(-1)
        refusal = job.refusal
        return {
            "outcomes": [outcome_to_json(outcome) for outcome in outcomes],
            "refusal": refusal and [refusal.message, refusal.where, refusal.remedy],
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
                self._jobs[key] = make_job(self._laboratory, spec, self._models)
            return self._jobs[key]

    def _outcomes(self, job: Job, todos: Sequence[Todo]) -> list[Outcome]:
        """What becomes of examples; None for all that a stop left out."""
        futures: list[Future[Outcome]] = []
        for todo in todos:
            held = contextlib.ExitStack()
            try:
                held.enter_context(self._places_of[job.spec.model].slot(0))
                held.enter_context(self._places.slot(0))
            except Stopped:
                held.close()
                break
            futures.append(self._pool.submit(execute_example, job, todo))
            futures[-1].add_done_callback(lambda _, held=held: held.close())  # type: ignore[misc]
        outcomes = [future.result() for future in futures]
        return outcomes + [None] * (len(todos) - len(outcomes))


def _spent(outcome: Outcome) -> Spending:
    """What the calls of an outcome cost that this session made."""
    if outcome is None:
        return Spending()
    calls: Sequence[LMCall] = outcome.calls if isinstance(outcome, AbandonedExample) else new_calls(outcome)
    return sum((_cost(call) for call in calls if not call.cached), Spending())


def _cost(call: LMCall) -> Spending:
    return Spending(call.cost_usd or 0.0, (call.prompt_tokens or 0) + (call.completion_tokens or 0), 1)
