"""The budget of the experiment: what was spent, what is in flight, and when to stop."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dspylab.config.models import Budget
from dspylab.lm.limits import Stopped


@dataclass(frozen=True, slots=True)
class Spending:
    """What calls cost.

    Attributes:
        cost_usd: US dollars; calls without a known price count as free.
        tokens: Prompt and completion tokens.
        calls: Calls, each with all its attempts.
    """

    cost_usd: float = 0.0
    tokens: int = 0
    calls: int = 0

    def __add__(self, other: Spending) -> Spending:
        return Spending(self.cost_usd + other.cost_usd, self.tokens + other.tokens, self.calls + other.calls)

    def __sub__(self, other: Spending) -> Spending:
        return Spending(self.cost_usd - other.cost_usd, self.tokens - other.tokens, self.calls - other.calls)


class Ledger:
    """Admits calls as long as the budget lasts. Thread-safe.

    A call is admitted when what was spent, what is in flight and the call itself fit into the budget. A
    call that only what is in flight leaves no room for waits until that is known. When nothing is in flight
    and money is left, one call is admitted whatever it may cost. So the overshoot is at most what was in
    flight.

    Args:
        budget: The bounds; all None admits everything.
        spent: What earlier sessions spent on the same results.

    Attributes:
        spent: What was spent so far.
        exhausted: Which bound is reached, as words; None while none is.
    """

    def __init__(self, budget: Budget, spent: Spending) -> None:
        self._budget = budget
        self.spent = spent
        self.exhausted: str | None = None
        self._in_flight = Spending()
        self._stopped = False
        self._changed = threading.Condition()

    @contextmanager
    def admit(self, expected: Spending) -> Iterator[list[Spending]]:
        """Holds a place in the budget for a call.

        Args:
            expected: What the call may cost, `calls` being 1.

        Yields:
            A list to which the body appends what the call did cost.

        Raises:
            Stopped: If the budget is exhausted or the run was stopped.
        """
        with self._changed:
            while not self._admits(expected):
                if self._stopped or self.exhausted is not None:
                    raise Stopped
                self._changed.wait()
            self._in_flight += expected
        actual: list[Spending] = []
        try:
            yield actual
        finally:
            with self._changed:
                self._in_flight -= expected
                for cost in actual:
                    self.spent += cost
                self._changed.notify_all()

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def go_on(self) -> None:
        """Nothing, as long as calls may be made.

        Raises:
            Stopped: If the run was stopped.
        """
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """Admits nothing more; those who wait get `Stopped`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _admits(self, expected: Spending) -> bool:
        if self._stopped:
            return False
        reached = self._reached(self.spent)
        if reached is not None:
            self.exhausted = reached
            self._changed.notify_all()
            return False
        if self._in_flight.calls == 0:
            return True
        return self._beyond(self.spent + self._in_flight + expected) is None

    def _reached(self, amount: Spending) -> str | None:
        for name, limit, value in self._bounds(amount):
            # A bound of zero admits what is free.
            if value > limit or value == limit > 0:
                return f"budget.{name} of {limit:g} is reached: {value:g} spent"
        return None

    def _beyond(self, amount: Spending) -> str | None:
        return next((name for name, limit, value in self._bounds(amount) if value > limit), None)

    def _bounds(self, amount: Spending) -> Iterator[tuple[str, float, float]]:
        budget = self._budget
        for name, limit, value in (
            ("max_cost_usd", budget.max_cost_usd, amount.cost_usd),
            ("max_tokens", budget.max_tokens, amount.tokens),
            ("max_calls", budget.max_calls, amount.calls),
        ):
            if limit is not None:
                yield name, limit, value
