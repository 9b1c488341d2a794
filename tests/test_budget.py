"""The ledger admits calls as long as the budget lasts, and overshoots by what was in flight at most."""

from __future__ import annotations

import threading

import pytest

from dspylab.config.models import Budget
from dspylab.execute.lending import Lending
from dspylab.lm.budget import Ledger, Reached, Spending
from dspylab.lm.limits import Stopped

CALL = Spending(cost_usd=1.0, tokens=100, calls=1)


def spend(ledger: Ledger, actual: Spending = CALL, expected: Spending = CALL) -> None:
    with ledger.admit(expected) as costs:
        costs.append(actual)


def test_without_bounds_everything_is_admitted() -> None:
    ledger = Ledger(Budget(), Spending())
    for _ in range(1000):
        spend(ledger)
    assert ledger.spent.calls == 1000
    assert ledger.exhausted is None


@pytest.mark.parametrize(
    ("budget", "admitted", "name"),
    [
        (Budget(max_cost_usd=2.5), 3, "max_cost_usd"),
        (Budget(max_tokens=300), 3, "max_tokens"),
        (Budget(max_calls=4), 4, "max_calls"),
    ],
)
def test_one_after_the_other_overshoots_by_one_call_at_most(budget: Budget, admitted: int, name: str) -> None:
    ledger = Ledger(budget, Spending())
    for _ in range(admitted):
        spend(ledger)
    with pytest.raises(Stopped):
        spend(ledger)
    assert ledger.exhausted is not None
    assert str(ledger.exhausted) == f"budget.{name} is reached"


def test_what_earlier_sessions_spent_counts() -> None:
    ledger = Ledger(Budget(max_calls=10), Spending(calls=10))
    with pytest.raises(Stopped):
        spend(ledger)


def test_a_failed_call_that_cost_nothing_frees_its_place() -> None:
    ledger = Ledger(Budget(max_calls=1), Spending())
    with pytest.raises(ValueError, match="no luck"), ledger.admit(CALL):
        raise ValueError("no luck")
    spend(ledger)
    assert ledger.spent.calls == 1


def test_many_threads_never_have_more_in_flight_than_fits() -> None:
    ledger = Ledger(Budget(max_cost_usd=20.0), Spending())
    done: list[int] = []
    gate = threading.Semaphore(0)

    def work(number: int) -> None:
        try:
            with ledger.admit(CALL) as costs:
                gate.acquire()
                costs.append(CALL)
            done.append(number)
        except Stopped:
            return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        gate.release()
    for thread in threads:
        thread.join(timeout=30)
    assert len(done) == 20
    assert ledger.spent.cost_usd == 20.0


def test_who_waits_for_what_is_in_flight_goes_on_when_it_was_cheap() -> None:
    ledger = Ledger(Budget(max_cost_usd=1.5), Spending())
    finished = threading.Event()

    def second() -> None:
        spend(ledger)
        finished.set()

    with ledger.admit(CALL) as costs:
        thread = threading.Thread(target=second)
        thread.start()
        assert not finished.wait(0.05)
        costs.append(Spending(cost_usd=0.1, tokens=1, calls=1))
    thread.join(timeout=30)
    assert finished.is_set()


def test_stop_wakes_those_who_wait() -> None:
    ledger = Ledger(Budget(max_calls=1), Spending())
    stopped = threading.Event()

    def wait() -> None:
        try:
            spend(ledger)
        except Stopped:
            stopped.set()

    with ledger.admit(CALL):
        thread = threading.Thread(target=wait)
        thread.start()
        ledger.stop()
        thread.join(timeout=30)
    assert stopped.is_set()


def test_what_is_lent_is_not_spent_here() -> None:
    ledger = Ledger(Budget(max_calls=10, max_cost_usd=1.0), Spending(calls=2))
    first = ledger.lend(4, Spending())
    assert first == Spending(cost_usd=0.25, calls=2)
    rest = ledger.lend(1, Spending())
    assert rest == Spending(cost_usd=0.75, calls=6)
    assert ledger.lend(1, Spending()) is None, "all that is left is out"
    ledger.take_back(rest, Spending(cost_usd=0.5, calls=6))
    # What the first part did not need can be lent again; it is taken whole where less would be of no use.
    assert ledger.lend(4, Spending(calls=1, cost_usd=0.2)) is None
    ledger.take_back(first, Spending(calls=1))
    again = ledger.lend(4, Spending(cost_usd=0.2))
    assert again is not None
    assert again.calls == 1
    assert again.cost_usd == pytest.approx(0.2)
    ledger.take_back(again, Spending(calls=1))
    assert ledger.lend(1, Spending()) is None
    assert ledger.exhausted == Reached("calls", 10)


def test_a_ledger_that_lives_on_loans() -> None:
    ledger = Ledger(Budget.model_construct(max_calls=0), Spending())
    # What a call cost beyond its part is not owed by the next part.
    for _ in range(3):
        ledger.extend(Spending(calls=1))
        spend(ledger, actual=Spending(calls=5))
        with pytest.raises(Stopped):
            spend(ledger)
        assert ledger.exhausted is not None
        assert ledger.settle(Spending(calls=1)) == Spending(calls=5)


def test_without_bounds_everything_is_lent() -> None:
    ledger = Ledger(Budget(), Spending())
    assert ledger.lend(3, Spending(calls=5)) == Spending()
    assert ledger.lend(3, Spending(calls=5)) == Spending()
    ledger.stop()
    assert ledger.lend(3, Spending()) is None


def test_what_this_process_has_in_flight_is_waited_for() -> None:
    """No empty part is lent while a compile may still leave some of the budget."""
    ledger = Ledger(Budget(max_calls=1), Spending())
    with ledger.admit(Spending(calls=1)):
        assert ledger.lend(2, Spending(calls=1)) is None
        assert ledger.exhausted is None
    assert ledger.lend(2, Spending(calls=1)) == Spending(calls=1)


def test_a_part_that_was_overdrawn_leaves_no_debt() -> None:
    ledger = Ledger(Budget.model_construct(max_tokens=0), Spending())
    first, second = Spending(tokens=10), Spending(tokens=20)
    ledger.extend(first)
    ledger.extend(second)
    with ledger.admit(Spending(tokens=5, calls=1)) as costs:
        costs.append(Spending(tokens=25, calls=1))
    assert ledger.settle(first) == Spending(tokens=25, calls=1)
    # All that was spent is told; the other part is there in full.
    with ledger.admit(Spending(tokens=20, calls=1)) as costs:
        costs.append(Spending(tokens=20, calls=1))
    assert ledger.settle(second) == Spending(tokens=20, calls=1)
    with pytest.raises(Stopped):
        spend(ledger)


def test_what_lost_examples_spent_counts_as_what_examples_usually_cost() -> None:
    ledger = Ledger(Budget(max_calls=100), Spending())
    lending = Lending(ledger)

    def lend(parts: int) -> Spending:
        part = lending.lend(10, Spending(), parts)
        assert part is not None
        return part

    lending.write_off(lend(2), 10)
    assert ledger.spent.calls == 0, "nothing is known yet"
    lending.take_back(lend(2), Spending(calls=20), 10)
    lending.write_off(lend(2), 10)
    assert ledger.spent.calls == 40
    lending.write_off(lend(2), 30)
    assert ledger.spent.calls == 70, "not more than what was lent"
    lending.take_back(lend(1), Spending(calls=30), 10)
    assert lending.lend(10, Spending(), 1) is None
    assert ledger.exhausted is not None
