"""Work off the examples of many runs at once, under one bound for all and one for each model."""

from __future__ import annotations

import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from dspylab.execute.active import ActiveRun, Observer
from dspylab.execute.silence import Begun, Watch
from dspylab.execute.workers import Outcome, Workers

#: How often the loop looks at whether the user stopped it, in seconds.
_TICK_S = 0.2


class Stop:
    """Set by a signal handler: begin nothing more; `grace_s` later stop waiting for what is in flight.

    Attributes:
        grace_s: How long what is in flight is waited for.
        requested_at: Monotonic time of the request, in seconds; None if there was none.
        is_heeded: Whether a loop has begun that looks at the request.
    """

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.is_heeded = False
        self.requested_at: float | None = None
        self._told: list[Callable[[], None]] = []

    def request(self) -> None:
        """Asks the loop to stop. May be called from a signal handler."""
        if self.requested_at is None:
            self.requested_at = time.monotonic()

    def on_request(self, callback: Callable[[], None]) -> None:
        """Has the loop call `callback` once it sees the request; a signal handler must not: it may lock."""
        self._told.append(callback)

    def tell(self) -> None:
        """Calls the callbacks, once."""
        while self._told:
            self._told.pop()()

    @property
    def requested(self) -> bool:
        """Whether nothing more may begin."""
        return self.requested_at is not None

    @property
    def over(self) -> bool:
        """Whether the grace is over too."""
        return self.requested_at is not None and time.monotonic() > self.requested_at + self.grace_s


@dataclass
class _Lane:
    """The runs of one model, worked off one after the other."""

    model: str
    holds: Counter[str]
    waiting: deque[ActiveRun] = field(default_factory=deque)
    in_flight: int = 0

    def next(self, workers: Workers, total: int) -> tuple[ActiveRun, int] | None:
        """The run that goes on, and with how many examples; None when there is none, or no room for it."""
        if self.holds[self.model] or not workers.room(self.model, self.in_flight, total, 1):
            return None
        while self.waiting:
            run = self.waiting[0]
            left = run.left
            if left:
                return run, min(left, workers.room(self.model, self.in_flight, total, left))
            self.waiting.popleft()
            run.end_if_idle()
        return None


@dataclass(frozen=True)
class Opening:
    """Something under way at whose end further runs may begin, such as the compile of their program.

    Attributes:
        future: It.
        runs: Gives these runs, from what it returned; called by the thread of `work_off`.
        holds: Models of which no run begins an example until then.
    """

    future: Future[Any]
    runs: Callable[[Any], Iterable[ActiveRun]]
    holds: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class _Batch:
    """Examples of a run that were submitted together."""

    lane: _Lane
    run: ActiveRun
    size: int
    first_id: str
    future: Future[list[Outcome]]


_Finished = queue.SimpleQueue[_Batch | Opening]


def work_off(
    runs: Iterable[ActiveRun],
    workers: Workers,
    stop: Stop,
    observer: Observer,
    *,
    openings: Sequence[Opening] = (),
) -> None:
    """Executes all examples of all runs, and has each run record what finishes.

    The runs of one model follow each other, the tail of one overlapping with the head of the next;
    models take turns, so that a slow one never idles a fast one. Runs are only touched by the calling
    thread.

    Args:
        runs: The runs.
        workers: Execute the examples.
        stop: Ends the loop early.
        observer: Is told that it goes on, and when examples are under way and none finishes.
        openings: What opens further runs; they join the lane of their model at once.
    """
    lanes = _Lanes(runs, Counter(model for opening in openings for model in opening.holds))
    finished: _Finished = queue.SimpleQueue()
    for opening in openings:
        opening.future.add_done_callback(_put(finished, opening))
    in_flight, closed, watch = 0, len(openings), Watch()
    stop.is_heeded = True
    while not stop.over:
        if stop.requested:
            stop.tell()
        while not stop.requested and (begun := _start(lanes.turns, workers, in_flight, finished)):
            in_flight += begun.size
            watch.begin(begun.run.spec.key, begun, Begun(begun.first_id, begun.size, time.monotonic()))
        if not in_flight and not closed:
            return
        for silence in watch.look(time.monotonic()):
            observer.silent(silence)
        observer.going_on()
        try:
            ended = finished.get(timeout=_TICK_S)
        except queue.Empty:
            continue
        if isinstance(ended, Opening):
            closed -= 1
            lanes.holds.subtract(ended.holds)
            lanes.add(ended.runs(ended.future.result()))
            continue
        in_flight -= ended.size
        watch.end(ended.run.spec.key, ended, time.monotonic())
        ended.lane.in_flight -= ended.size
        ended.run.record(ended.future.result())


class _Lanes:
    """The lanes of all models, in the order of their turns."""

    def __init__(self, runs: Iterable[ActiveRun], holds: Counter[str]) -> None:
        self.holds = holds
        self.turns: deque[_Lane] = deque()
        self._by_model: dict[str, _Lane] = {}
        self.add(runs)

    def add(self, runs: Iterable[ActiveRun]) -> None:
        for run in runs:
            model = run.spec.model
            if model not in self._by_model:
                self._by_model[model] = _Lane(model, self.holds)
                self.turns.append(self._by_model[model])
            self._by_model[model].waiting.append(run)


def _start(turns: deque[_Lane], workers: Workers, total: int, finished: _Finished) -> _Batch | None:
    """Begins examples of the next lane that has some and room for them, if one has."""
    for _ in range(len(turns)):
        lane = turns[0]
        turns.rotate(-1)
        item = lane.next(workers, total)
        if item is not None:
            run, size = item
            lane.in_flight += size
            first_id = run.next_id
            batch = _Batch(lane, run, size, first_id, run.submit(size))
            batch.future.add_done_callback(_put(finished, batch))
            return batch
    return None


def _put(finished: _Finished, ended: _Batch | Opening) -> Callable[[Future[Any]], None]:
    return lambda _: finished.put(ended)
