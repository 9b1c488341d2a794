"""How many calls an endpoint gets at once and per minute, adapted to what it can take.

Concurrency follows additive increase, multiplicative decrease (Chiu and Jain, 1989): a 429 halves the
limit of that endpoint, successes raise it again by about one per round trip, up to what the user allows.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Factor on a 429, lowest limit, and how long to hold back when the endpoint does not say (doubling).
_DECREASE = 0.5
_LOWEST = 1.0
_FIRST_PAUSE_S = 0.5
#: No endpoint is waited for longer than this at a time, whatever it asks for.
LONGEST_PAUSE_S = 60.0


class Stopped(BaseException):
    """No further call may be made: the user or a limit stopped the run.

    Not an `Exception`, so that a program's own error handling cannot take it for a failed call.
    """


class Gate:
    """Admission of calls to one endpoint or model, in the order in which they ask. Thread-safe.

    Args:
        limit: Calls in flight at once.
        requests_per_minute: Calls started per minute; None for no limit.
        tokens_per_minute: Tokens per minute, prompt and reply; None for no limit.

    Attributes:
        maximum: Calls in flight at once that the user allows.
        throttled: How often the endpoint refused a call as too many.
    """

    def __init__(
        self, limit: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.maximum = limit
        self.throttled = 0
        now = time.monotonic()
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute, now)
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute, now)
        self._limit = float(limit)
        self._in_flight = 0
        self._paused_until = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._decreased_at = 0.0
        self._lock = threading.Lock()
        # Each waiting thread is woken on its own, when it is first: with one condition for all, a wake-up
        # may reach a thread that cannot use it, and be lost.
        self._queue: deque[threading.Condition] = deque()
        self._ended = threading.Event()
        self._error: Callable[[], BaseException] = Stopped

    def allow(self, calls: int) -> None:
        """Raises the limit to what one more model that shares the endpoint allows, if that is more."""
        with self._lock:
            if calls > self.maximum:
                self._limit += calls - self.maximum
                self.maximum = calls
                self._wake_first()

    def restrict(
        self, limit: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        """Sets other limits than those it was made with. What it has no limit for stays without one."""
        with self._lock:
            now = time.monotonic()
            more = limit - self.maximum
            self._limit = self._limit + more if more > 0 else max(_LOWEST, min(self._limit, limit))
            self.maximum = limit
            if self._requests is not None and requests_per_minute is not None:
                self._requests.change(requests_per_minute, now)
            if self._tokens is not None and tokens_per_minute is not None:
                self._tokens.change(tokens_per_minute, now)
            self._wake_first()

    @property
    def limit(self) -> int:
        """Calls in flight that are allowed now."""
        return max(1, int(self._limit))

    @contextmanager
    def slot(self, tokens: int) -> Iterator[float]:
        """Waits for a place, holds it for the body.

        Args:
            tokens: What the call is expected to use, for the limit of tokens per minute.

        Yields:
            Monotonic time at which the place was given, in seconds.

        Raises:
            Stopped: Or what `stop` was given, if the gate was stopped before a place was free.
        """
        granted = self._acquire(tokens)
        try:
            yield granted
        finally:
            with self._lock:
                self._in_flight -= 1
                self._wake_first()

    def settle(self, difference_tokens: int) -> None:
        """Corrects the count of tokens by what a call really used beyond its expectation."""
        if self._tokens is not None:
            with self._lock:
                self._tokens.take(difference_tokens, time.monotonic())
                self._wake_first()

    def throttle(self, granted: float, retry_after_s: float | None) -> None:
        """Notes that the endpoint refused a call as too many.

        Args:
            granted: When that call got its place; refusals of calls from before the last decrease say
                nothing new and do not lower the limit again.
            retry_after_s: How long the endpoint asks to wait; None if it does not say.
        """
        with self._lock:
            now = time.monotonic()
            self.throttled += 1
            if granted >= self._decreased_at:
                self._limit = max(_LOWEST, self._limit * _DECREASE)
                self._decreased_at = now
                pause_s = self._pause_s if retry_after_s is None else retry_after_s
                self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
            else:
                pause_s = retry_after_s or 0.0
            self._paused_until = max(self._paused_until, now + min(pause_s, LONGEST_PAUSE_S))

    def succeed(self) -> None:
        """Notes that the endpoint answered."""
        with self._lock:
            self._pause_s = _FIRST_PAUSE_S
            if self._limit < self.maximum:
                self._limit = min(float(self.maximum), self._limit + 1.0 / self._limit)
                self._wake_first()

    def stop(self, error: Callable[[], BaseException] = Stopped) -> None:
        """Lets nobody in any more; those who wait get the error, at once.

        Args:
            error: Makes the error, one for each thread. It does not replace `Stopped`.
        """
        with self._lock:
            if not (self._ended.is_set() and self._error is Stopped):
                self._error = error
            self._ended.set()
            for turn in self._queue:
                turn.notify()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not beyond a stop.

        Raises:
            Stopped: Or what `stop` was given, if the gate is or gets stopped.
        """
        if self._ended.wait(seconds):
            raise self._error()

    def _acquire(self, tokens: int) -> float:
        with self._lock:
            turn = threading.Condition(self._lock)
            self._queue.append(turn)
            try:
                while (wait_s := self._obstacle_s(turn, tokens)) != 0.0:
                    turn.wait(wait_s)
                now = time.monotonic()
                self._in_flight += 1
                if self._requests is not None:
                    self._requests.take(1, now)
                if self._tokens is not None:
                    self._tokens.take(tokens, now)
                return now
            finally:
                self._queue.remove(turn)
                self._wake_first()

    def _obstacle_s(self, turn: threading.Condition, tokens: int) -> float | None:
        """Seconds until the call may start as far as is known; None until it is woken."""
        if self._ended.is_set():
            raise self._error()
        if self._queue[0] is not turn or self._in_flight >= self.limit:
            return None
        now = time.monotonic()
        ready = self._paused_until
        if self._requests is not None:
            ready = max(ready, self._requests.ready_at(1, now))
        if self._tokens is not None:
            ready = max(ready, self._tokens.ready_at(tokens, now))
        return max(0.0, ready - now)

    def _wake_first(self) -> None:
        if self._queue:
            self._queue[0].notify()


class Bucket:
    """A token bucket that holds a limit per minute over every minute, not just on average.

    It lets through at once what a second's share allows, at least one, and after that at a steady pace.
    What is larger than the whole bucket passes when it is full, and leaves a debt. Not thread-safe.

    Args:
        per_minute: The limit.
        now: The time, in seconds of whichever clock the caller uses.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._set(per_minute)
        self._level = self._capacity
        self._updated = now

    def change(self, per_minute: float, now: float) -> None:
        """Sets another limit; what was taken under the old one stays taken."""
        level = self._level_at(now)
        self._set(per_minute)
        self._level = min(self._capacity, level)
        self._updated = now

    def _set(self, per_minute: float) -> None:
        self._capacity = max(1.0, per_minute / 60.0)
        # The burst that may precede a minute's steady flow is part of that minute.
        self._per_s = (per_minute - self._capacity + 1.0) / 60.0

    def ready_at(self, amount: float, now: float) -> float:
        """When so much may be taken, in seconds of the clock."""
        missing = min(amount, self._capacity) - self._level_at(now)
        return now + missing / self._per_s if missing > 0 else now

    def take(self, amount: float, now: float) -> None:
        """Takes so much; a negative amount gives it back."""
        self._level = self._level_at(now) - amount
        self._updated = now

    def _level_at(self, now: float) -> float:
        return min(self._capacity, self._level + (now - self._updated) * self._per_s)
