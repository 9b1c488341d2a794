"""The budget of the experiment: what was spent, what is in flight, and when to stop."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Reached:
    """A bound of the budget that is reached.

    Attributes:
        field: What of `Spending` it bounds.
        limit: The bound, in the unit of that.
    """

    field: str
    limit: float

    def __str__(self) -> str:
        return f"budget.max_{self.field} is reached"


class Ledger:
    """Admits calls as long as the budget lasts. Thread-safe.

    A call is admitted when what was spent, what is in flight and the call itself fit into the budget. A
    call that only what is in flight leaves no room for waits until that is known. When nothing is in flight
    and money is left, one call is admitted whatever it may cost. So the overshoot is at most what was in
    flight. A bound of no dollars at all admits what is free, and nothing else.

    Args:
        budget: The bounds; all None admits everything.
        spent: What earlier sessions spent on the same results.

    Attributes:
        spent: What was spent so far.
        exhausted: Which bound is reached, so that nothing more is admitted; None while none is.
        refused_paid: The bound of no dollars at all, once it kept a call out; calls that are free go on.
    """

    def __init__(self, budget: Budget, spent: Spending) -> None:
        self._budget = budget
        self.spent = spent
        self.exhausted: Reached | None = None
        self.refused_paid: Reached | None = None
        self._in_flight = Spending()
        self._parts_lent = 0
        self._settled = spent
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
            Stopped: If the budget is exhausted or has no room for what costs, or the run was stopped.
        """
        with self._changed:
            if self.is_free_only and expected.cost_usd > 0:
                self.refused_paid = Reached("cost_usd", 0.0)
                raise Stopped
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

    def lend(self, parts: int, least: Spending) -> Spending | None:
        """Sets a part of what is left aside, for calls that are made on another machine.

        Args:
            parts: Into how many parts what is left is to go.
            least: What a part must hold to be of use.

        Returns:
            The part, for `extend` of the other ledger and `take_back` of this one; bounds that the budget
            does not have are zero in it. None while parts that are out leave no room for another, and when
            the budget is exhausted.
        """
        with self._changed:
            self.exhausted = self._reached(self.spent)
            if self._stopped or self.exhausted is not None:
                return None
            part = Spending()
            for field, limit in self._limits():
                left = max(0, limit - getattr(self.spent + self._in_flight, field))
                enough = getattr(least, field)
                # There will be more when what is in flight, calls of this process included, is done.
                is_in_use = self._parts_lent or self._in_flight.calls
                if is_in_use and (left < enough or left <= 0 < limit):
                    return None
                share = min(left, max(left / parts, enough))
                part = replace(part, **{field: share if field == "cost_usd" else math.ceil(share)})
            self._parts_lent += 1
            self._in_flight += part
            return part

    def take_back(self, part: Spending, spent: Spending) -> None:
        """Ends what `lend` began.

        Args:
            part: What was lent.
            spent: What of it, or beyond it, was spent.
        """
        with self._changed:
            self._parts_lent -= 1
            self._in_flight -= part
            self.spent += spent
            self._changed.notify_all()

    def extend(self, part: Spending) -> None:
        """Raises the bounds by what another ledger lent."""
        with self._changed:
            self._raise(part)

    def settle(self, part: Spending) -> Spending:
        """Ends what `extend` began.

        Args:
            part: What was lent.

        Returns:
            What was spent since this was last called, whichever part it came from: what the lender is told
            counts as paid there, and leaves what other parts hold untouched here.
        """
        with self._changed:
            spent = self.spent - self._settled
            self._settled = self.spent
            self._raise(spent - part)
            return spent

    @property
    def is_free_only(self) -> bool:
        """Whether no call that costs money is admitted."""
        return self._budget.max_cost_usd == 0

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

    def _raise(self, by: Spending) -> None:
        raised = {f"max_{field}": limit + getattr(by, field) for field, limit in self._limits()}
        self._budget = self._budget.model_copy(update=raised)
        self.exhausted = None
        self._changed.notify_all()

    def _admits(self, expected: Spending) -> bool:
        if self._stopped:
            return False
        reached = self._reached(self.spent)
        if reached is not None:
            self.exhausted = reached
            self._changed.notify_all()
            return False
        if self._in_flight.calls == 0 and not self._parts_lent:
            return True
        after = self.spent + self._in_flight + expected
        return all(getattr(after, field) <= limit for field, limit in self._limits_of_all())

    def _reached(self, amount: Spending) -> Reached | None:
        for field, limit in self._limits_of_all():
            value = getattr(amount, field)
            if value > limit or value == limit > 0:
                return Reached(field, limit)
        return None

    def _limits_of_all(self) -> Iterator[tuple[str, float]]:
        """The bounds of all calls. That of no dollars is none: `admit` keeps each call out that costs."""
        return (bound for bound in self._limits() if bound != ("cost_usd", 0.0))

    def _limits(self) -> Iterator[tuple[str, float]]:
        """The fields of `Spending` that the budget bounds, and the bounds."""
        for field in ("cost_usd", "tokens", "calls"):
            limit = getattr(self._budget, f"max_{field}")
            if limit is not None:
                yield field, limit
