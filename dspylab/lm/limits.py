"""How many calls an endpoint gets at once and per minute, adapted to what it can take.

Concurrency follows additive increase, multiplicative decrease (Chiu and Jain, 1989): a 429 halves the
limit of that endpoint, successes raise it again by about one per round trip, up to what the user allows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Factor on a 429, lowest limit, and how long to hold back when the endpoint does not say (doubling).
_DECREASE = 0.5
_LOWEST = 1.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


class Stopped(BaseException):
    """No further call may be made: the user or a limit stopped the run.

    Not an `Exception`, so that a program's own error handling cannot take it for a failed call.
    """


class Gate:
    """Admission of calls to one endpoint or model. Thread-safe.

    Args:
        limit: Calls in flight at once.
        requests_per_minute: Calls started per minute; None for no limit.
        tokens_per_minute: Tokens per minute, prompt and reply; None for no limit.
    """

    def __init__(
        self, limit: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.maximum = limit
        self.throttled = 0
        self._limit = float(limit)
        self._in_flight = 0
        self._paused_until = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._decreased_at = 0.0
        self._stopped = False
        self._buckets = [
            (_Bucket(rate), per_token)
            for rate, per_token in ((requests_per_minute, False), (tokens_per_minute, True))
            if rate is not None
        ]
        self._changed = threading.Condition()

    def allow_more(self, calls: int) -> None:
        """Raises the limit, when one more model shares the endpoint."""
        with self._changed:
            self.maximum += calls
            self._limit += calls

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
            Stopped: If the gate was stopped before a place was free.
        """
        granted = self._acquire(tokens)
        try:
            yield granted
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify()

    def settle(self, difference_tokens: int) -> None:
        """Corrects the count of tokens by what a call really used beyond its expectation."""
        with self._changed:
            for bucket, per_token in self._buckets:
                if per_token:
                    bucket.take(difference_tokens)

    def throttle(self, granted: float, retry_after_s: float | None) -> None:
        """Notes that the endpoint refused a call as too many.

        Args:
            granted: When that call got its place; refusals of calls from before the last decrease say
                nothing new and do not lower the limit again.
            retry_after_s: How long the endpoint asks to wait; None if it does not say.
        """
        with self._changed:
            now = time.monotonic()
            self.throttled += 1
            if granted >= self._decreased_at:
                self._limit = max(_LOWEST, self._limit * _DECREASE)
                self._decreased_at = now
                pause_s = self._pause_s if retry_after_s is None else retry_after_s
                self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)
            else:
                pause_s = retry_after_s or 0.0
            self._paused_until = max(self._paused_until, now + min(pause_s, _LONGEST_PAUSE_S))
            self._changed.notify_all()

    def succeed(self) -> None:
        """Notes that the endpoint answered."""
        with self._changed:
            self._pause_s = _FIRST_PAUSE_S
            if self._limit < self.maximum:
                self._limit = min(float(self.maximum), self._limit + 1.0 / self._limit)
                self._changed.notify()

    def stop(self) -> None:
        """Lets nobody in any more; those who wait get `Stopped`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not beyond a stop.

        Raises:
            Stopped: If the gate is or gets stopped.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while not self._stopped and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._stopped:
                raise Stopped

    def _acquire(self, tokens: int) -> float:
        with self._changed:
            while True:
                if self._stopped:
                    raise Stopped
                now = time.monotonic()
                if self._in_flight < self.limit:
                    ready = max([self._paused_until, *(bucket.ready_at(now) for bucket, _ in self._buckets)])
                    if ready <= now:
                        self._in_flight += 1
                        for bucket, per_token in self._buckets:
                            bucket.take(tokens if per_token else 1)
                        return now
                    self._changed.wait(ready - now)
                else:
                    self._changed.wait()


class _Bucket:
    """A token bucket that may go into debt: it lets one through as long as it is not empty.

    The burst is a tenth of a minute's worth, so that the rate holds over seconds and not just over minutes.
    """

    def __init__(self, per_minute: float) -> None:
        self._per_s = per_minute / 60.0
        self._capacity = max(1.0, per_minute / 10.0)
        self._level = self._capacity
        self._updated = time.monotonic()

    def ready_at(self, now: float) -> float:
        self._refill(now)
        return now if self._level > 0 else now + (1e-3 - self._level) / self._per_s

    def take(self, amount: float) -> None:
        self._refill(time.monotonic())
        self._level -= amount

    def _refill(self, now: float) -> None:
        self._level = min(self._capacity, self._level + (now - self._updated) * self._per_s)
        self._updated = now
