"""The budget in parts: what chunks of examples that are executed on other machines may spend."""

from __future__ import annotations

import math

from dspylab.lm.budget import Ledger, Spending


class Lending:
    """Lends of a ledger, and learns what examples usually cost. Used from one thread.

    Args:
        ledger: The budget.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._spent = Spending()
        self._done = 0

    def lend(self, examples: int, least: Spending, parts: int) -> Spending | None:
        """A part of the budget for some examples; None when there is none for them now.

        A part that is smaller than what they usually cost would be gone beyond by a call, and so would every
        other one at the same time.

        Args:
            examples: How many.
            least: What they must have at least.
            parts: Into how many parts the rest of the budget goes.
        """
        usual = self._usual(examples) if self._done else Spending(calls=examples)
        return self._ledger.lend(parts, _larger(least, usual))

    def take_back(self, lent: Spending, spent: Spending, done: int) -> None:
        """Some examples have come back.

        Args:
            lent: What they had.
            spent: What was spent.
            done: How many of them are done.
        """
        self._ledger.take_back(lent, spent)
        self._spent += spent
        self._done += done

    def write_off(self, lent: Spending, examples: int) -> None:
        """Some examples are lost, and what they spent is not known.

        It counts as what examples usually cost, and as nothing as long as that is not known.
        """
        usual = self._usual(examples) if self._done else Spending()
        self._ledger.take_back(lent, _smaller(usual, lent))

    def _usual(self, examples: int) -> Spending:
        """What so many examples would cost, from what those have cost that are done."""
        share, spent = examples / self._done, self._spent
        return Spending(
            spent.cost_usd * share, math.ceil(spent.tokens * share), math.ceil(spent.calls * share)
        )


def _larger(one: Spending, other: Spending) -> Spending:
    return Spending(
        max(one.cost_usd, other.cost_usd), max(one.tokens, other.tokens), max(one.calls, other.calls)
    )


def _smaller(one: Spending, other: Spending) -> Spending:
    return Spending(
        min(one.cost_usd, other.cost_usd), min(one.tokens, other.tokens), min(one.calls, other.calls)
    )
