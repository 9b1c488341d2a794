"""Hand chunks of examples to a Dask cluster, and deal with what becomes of them there."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from dspylab.errors import DspylabError, EndpointError, EnvironmentProblem, UnreachableEndpoint
from dspylab.execute import worker
from dspylab.execute.lending import Lending
from dspylab.execute.roster import Roster, lost, problem_of
from dspylab.execute.wire import outcome_of, todo_to_json
from dspylab.execute.workers import Outcome, Todo, is_unfinished
from dspylab.jsonable import to_json
from dspylab.lm.budget import Ledger, Reached, Spending
from dspylab.records import AbandonedExample, ExampleError, ExampleFailure

logger = logging.getLogger(__name__)

#: How often it is looked whether workers are gone.
_TICK_S = 0.5
#: How long chunks wait for a worker that could execute them.
_PATIENCE_S = 120.0
#: Chunks that each worker has at hand beside those that its threads are busy with.
_AT_HAND = 1
#: How long its thread may take to end, in seconds.
_GOODBYE_S = 5.0


@dataclass
class DaskRun:
    """A run whose examples are executed on a cluster.

    Attributes:
        key: Its key.
        models: Ids of the models that it calls.
        program: The file of its compiled program; None if it has none.
        dispatcher: Hands its examples out.
        refusal: Why one of its models refuses every call; None if none does.
        may_not_pay: The bound of no dollars, once it kept a call of it out.
        has_ended: Whether nothing more of it is to begin.
    """

    key: str
    models: Sequence[str]
    program: str | None
    dispatcher: Dispatcher = field(repr=False)
    refusal: EndpointError | None = None
    may_not_pay: Reached | None = None
    has_ended: bool = False

    def submit(self, todos: Sequence[Todo]) -> Future[list[Outcome]]:
        """As `Work.submit`."""
        return self.dispatcher.submit(self, todos)

    @property
    def exhausted(self) -> Reached | None:
        """As `Work.exhausted`."""
        return self.dispatcher.ledger.exhausted or self.may_not_pay

    def end(self) -> None:
        """As `Work.end`."""
        if not self.has_ended:
            self.has_ended = True
            self.dispatcher.end(self)


@dataclass(eq=False)
class _Batch:
    """Examples that were submitted together, and what is known of them."""

    missing: int
    outcomes: list[Outcome] = field(default_factory=list)
    future: Future[list[Outcome]] = field(default_factory=Future)

    def add(self, outcomes: Sequence[Outcome], done: int) -> None:
        """Takes in outcomes; with them, so many of the examples are done."""
        self.outcomes += outcomes
        self.missing -= done
        if not self.missing and not self.future.done():
            self.future.set_result(self.outcomes)


@dataclass(eq=False)
class _Chunk:
    """Examples that a worker executes together.

    Attributes:
        run: Their run.
        todos: They.
        batch: Where they come from.
        least: What they must be lent at least.
        losses: How often its worker died meanwhile. If it did, the chunk has the next worker for itself.
        worker: Address of the worker that executes it.
        lent: What it may spend.
        task: The `distributed.Future`; None while it waits.
        sent_at: When it was sent, in seconds since the epoch.
    """

    run: DaskRun
    todos: Sequence[Todo]
    batch: _Batch
    least: Spending = field(default_factory=Spending)
    losses: int = 0
    worker: str = ""
    lent: Spending = field(default_factory=Spending)
    task: Any = None
    sent_at: float = 0.0


class Dispatcher:
    """Sends chunks to the workers that are ready, again where workers are lost, and gives back outcomes.

    All that happens is done by one thread, one thing after the other.

    Args:
        client: The `distributed.Client`.
        roster: Its workers.
        ledger: The budget.
        session: Id of the session.
        note_duration: Is told the model and the duration of each chunk, and its examples.
    """

    def __init__(
        self,
        client: Any,
        roster: Roster,
        ledger: Ledger,
        session: str,
        note_duration: Callable[[str, float, int], None],
    ) -> None:
        self.ledger = ledger
        self._lending = Lending(ledger)
        self._client = client
        self._roster = roster
        self._session = session
        self._note_duration = note_duration
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waiting: deque[_Chunk] = deque()
        self._open: set[_Batch] = set()
        self._answered: set[str] = set()
        self._sent: dict[str, _Chunk] = {}
        self._arriving = 0
        self._counting = threading.Lock()
        self._number = 0
        self._looked_at = time.monotonic()
        self._idle_since: float | None = None
        self._error: BaseException | None = None
        self._stopped = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop, name="dspylab-dispatch", daemon=True)
        self._thread.start()

    def submit(self, run: DaskRun, todos: Sequence[Todo]) -> Future[list[Outcome]]:
        """Executes examples of a run.

        Returns:
            What became of them, in any order; those that were begun in vain also beside their outcome. The
            future raises what made it impossible to go on.
        """
        chunk = _Chunk(run, todos, _Batch(len(todos)))
        self._count_arriving(1)
        self._inbox.put(lambda: self._add(chunk))
        return chunk.batch.future

    def has_room(self) -> bool:
        """Whether a worker would have less than its threads are busy with, and one more that is at hand."""
        load = Counter(chunk.worker for chunk in list(self._sent.values()))
        threads = self._roster.fit(())
        free = sum(max(0, count + _AT_HAND - load[address]) for address, count in threads.items())
        return self._arriving + len(self._waiting) < free

    def stop(self) -> None:
        """Lets no further call start; what is in flight comes back."""
        self._inbox.put(self._stop)

    def end(self, run: DaskRun) -> None:
        """Lets nothing more of a run begin; what is in flight comes back."""
        self._inbox.put(lambda: self._end(run))

    def close(self) -> None:
        """Ends the thread."""
        self._is_closed = True
        self._inbox.put(lambda: None)
        self._thread.join(_GOODBYE_S)

    def _loop(self) -> None:
        while not self._is_closed:
            try:
                self._step()
            except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
                self._fail(error)

    def _step(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._inbox.get(timeout=_TICK_S)()
        if self._error is None:
            self._look_after()
            self._send()

    def _count_arriving(self, change: int) -> None:
        with self._counting:
            self._arriving += change

    def _add(self, chunk: _Chunk) -> None:
        self._count_arriving(-1)
        if self._error is not None:
            chunk.batch.future.set_exception(self._error)
        else:
            self._open = {batch for batch in self._open if not batch.future.done()} | {chunk.batch}
            self._waiting.append(chunk)

    def _fail(self, error: BaseException) -> None:
        """Ends everything that is under way."""
        self._error = error
        for batch in self._open:
            if not batch.future.done():
                batch.future.set_exception(error)
        self._open.clear()
        self._waiting.clear()
        self._sent.clear()

    def _stop(self) -> None:
        self._stopped = True
        if self._sent:
            self._roster.tell(worker.stop, self._session)

    def _end(self, run: DaskRun) -> None:
        if any(chunk.run is run for chunk in self._sent.values()):
            self._roster.tell(worker.end, self._session, run.key)

    def _look_after(self) -> None:
        """Looks for chunks that nobody can execute any more.

        Raises:
            DspylabError: If the cluster is lost, or if no worker is left.
        """
        now = time.monotonic()
        if now - self._looked_at < _TICK_S:
            return
        self._looked_at = now
        self._roster.check()
        alive = self._roster.alive
        for key, chunk in list(self._sent.items()):
            if chunk.worker not in alive:
                del self._sent[key]
                self._lending.write_off(chunk.lent, len(chunk.todos))
                chunk.task.cancel()
                self._lose(chunk)
        if alive or not (self._waiting or self._sent):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
            logger.warning("no worker is left: waiting up to %g s for another", _PATIENCE_S)
        elif now - self._idle_since > _PATIENCE_S:
            raise EnvironmentProblem(
                f"no worker has joined for {_PATIENCE_S:g} s",
                where="dask",
                remedy="what is finished is kept: start workers and run the same command again to go on",
            )

    def _send(self) -> None:
        """Sends what may be sent now. A chunk that no worker may have yet holds up no other one."""
        for chunk in list(self._waiting):
            if not self._is_over(chunk.run):
                address = self._worker_for(chunk)
                if address is None:
                    continue
                lent = self._lending.lend(len(chunk.todos), chunk.least, self._parts(chunk))
                if lent is not None:
                    self._waiting.remove(chunk)
                    chunk.lent, chunk.worker = lent, address
                    self._submit(chunk)
                    continue
                self._stopped |= self.ledger.is_stopped
                if not self._is_over(chunk.run):
                    return  # until parts of the budget come back
            self._waiting.remove(chunk)
            chunk.batch.add([None] * len(chunk.todos), len(chunk.todos))

    def _is_over(self, run: DaskRun) -> bool:
        """Whether nothing more of a run is to begin."""
        return self._stopped or run.has_ended or run.refusal is not None or run.exhausted is not None

    def _worker_for(self, chunk: _Chunk) -> str | None:
        """The worker that has least to do for the threads that it has; None if the chunk has to wait.

        What it has to do for the same model counts twice: only its part of that model's limits is free there.

        The choice is not left to Dask: when a worker dies, Dask would give all its chunks to others, and one
        example that kills its worker would kill them all.
        """
        load = Counter(other.worker for other in self._sent.values())
        taken = {other.worker for other in self._sent.values() if other.losses}
        threads = self._roster.fit(chunk.run.models)
        free = [address for address in threads if address not in taken]
        if not free:
            return None
        model = chunk.run.models[0]
        same = Counter(other.worker for other in self._sent.values() if other.run.models[0] == model)
        best = min(free, key=lambda address: (load[address] + same[address]) / threads[address])
        return best if not chunk.losses or not load[best] else None

    def _submit(self, chunk: _Chunk) -> None:
        self._number += 1
        key = f"dspylab-{self._session}-{self._number}"
        chunk.sent_at = time.time()
        text = json.dumps(
            {
                "session": self._session,
                "run": chunk.run.key,
                "program": chunk.run.program,
                "todos": [todo_to_json(todo) for todo in chunk.todos],
                "lent": [chunk.lent.cost_usd, chunk.lent.tokens, chunk.lent.calls],
            }
        )
        # A key of its own: for Dask, two tasks of the same key are one, and would be executed once.
        chunk.task = self._client.submit(
            worker.execute_chunk, text, key=key, workers=[chunk.worker], pure=False
        )
        self._sent[key] = chunk
        chunk.task.add_done_callback(lambda task: self._fetch(key, task))

    def _fetch(self, key: str, task: Any) -> None:
        """On a thread of Dask's: has the result brought, and the dispatcher's thread take it in."""
        try:
            result: Any = task.result()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is dealt with there
            result = error
        self._inbox.put(lambda: self._take_in(key, result))

    def _take_in(self, key: str, result: Any) -> None:
        chunk = self._sent.get(key)
        if chunk is None:  # it was given up, and sent again
            return
        if isinstance(result, BaseException):
            self._roster.check()
            raise _unforeseen(result)
        answer = json.loads(result)
        if "problem" in answer:
            raise problem_of(answer["problem"])
        if "unprepared" in answer:
            del self._sent[key]
            self._lending.take_back(chunk.lent, Spending(), 0)
            self._roster.forget(answer["unprepared"])
            self._waiting.appendleft(chunk)
            return
        del self._sent[key]
        self._note_duration(chunk.run.models[0], answer["took_s"], len(chunk.todos))
        spent = Spending(*answer["spent"])
        if answer["refusal"] is not None and chunk.run.refusal is None:
            name, message, where, remedy = answer["refusal"]
            kind = UnreachableEndpoint if name == UnreachableEndpoint.__name__ else EndpointError
            refusal = kind(message, where=where, remedy=remedy)
            if kind is UnreachableEndpoint and where in self._answered:
                # It is the worker that has no way to it: others have had answers.
                self._roster.set_aside(chunk.worker, refusal)
                self._lending.take_back(chunk.lent, spent, 0)
                self._waiting.appendleft(chunk)
                return
            chunk.run.refusal = refusal
        if answer["refused_paid"] and self.ledger.is_free_only:
            chunk.run.may_not_pay = self.ledger.refused_paid = Reached("cost_usd", 0.0)
        self._keep(chunk, answer["outcomes"], spent)

    def _keep(self, chunk: _Chunk, values: Sequence[Mapping[str, Any] | None], spent: Spending) -> None:
        """Takes outcomes in; what a part of the budget did not suffice for is executed again."""
        run = chunk.run
        is_over = self._is_over(run)
        outcomes: list[Outcome] = []
        again: list[Todo] = []
        for todo, value in zip(chunk.todos, values, strict=True):
            outcome = outcome_of(value, run.key, todo.row)
            if outcome is not None:
                self._answered |= {f"models.{call.model}" for call in outcome.calls if call.error is None}
            if is_unfinished(outcome) and not is_over:
                answer = outcome.answer if isinstance(outcome, AbandonedExample) else None
                again.append(todo if answer is None else Todo(todo.row, to_json(answer)))
            if outcome is not None or is_over:
                outcomes.append(outcome)
        done = len(chunk.todos) - len(again)
        # Before anybody hears that the chunk is done, and looks at what was spent.
        self._lending.take_back(chunk.lent, spent, done)
        if again:
            more = chunk.lent + chunk.lent
            self._waiting.appendleft(_Chunk(run, again, chunk.batch, more, chunk.losses))
        chunk.batch.add(outcomes, done)

    def _lose(self, chunk: _Chunk) -> None:
        """Its worker died. Finds out whether that is because of an example, and because of which one.

        The first time it may have been any of all that the worker executed. When the worker that a chunk had
        for itself dies as well, its examples are tried one by one.
        """
        chunk.losses += 1
        if chunk.losses == 1:
            self._waiting.appendleft(chunk)
        elif len(chunk.todos) > 1:
            logger.warning(
                "%s: a second worker died while it executed %d examples: these are executed one by one",
                chunk.run.key, len(chunk.todos),
            )  # fmt: skip
            alone = [_Chunk(chunk.run, [todo], chunk.batch, losses=1) for todo in chunk.todos]
            self._waiting.extendleft(alone)
        else:
            chunk.batch.add([_killed(chunk)], 1)

    def _parts(self, chunk: _Chunk) -> int:
        """Into how many parts the rest of the budget goes: one for each chunk that may be sent."""
        slots = sum(self._roster.fit(chunk.run.models).values())
        return max(1, math.ceil(1.5 * slots) - len(self._sent))


def _killed(chunk: _Chunk) -> ExampleFailure:
    """The failure of the one example of a chunk."""
    row = chunk.todos[0].row
    reason = "each worker that executed it died"
    return ExampleFailure(
        run=chunk.run.key,
        index=row.index,
        example_id=row.example_id,
        inputs=row.inputs,
        labels=row.labels,
        error=ExampleError(type="KilledWorker", message=reason, kind="program"),
        example_s=time.time() - chunk.sent_at,
        started_at=chunk.sent_at,
    )


def _unforeseen(error: BaseException) -> DspylabError:
    """Why a task that catches everything has failed nevertheless: Dask could not execute it."""
    if type(error).__name__ in ("CancelledError", "FutureCancelledError", "CommClosedError", "TimeoutError"):
        return lost("is gone")
    text = " ".join(str(error).split())
    return EnvironmentProblem(
        f"can not execute tasks of dspylab: {type(error).__name__}: {text}",
        where="dask",
        remedy="install the same dspylab where the scheduler runs as well, and see its log",
    )
