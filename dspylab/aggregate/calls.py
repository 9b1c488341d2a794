"""Sums over the LM calls of a run: timings, tokens, counts, cost by role and by predictor. Pure."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspylab.aggregate.stats import distribution
from dspylab.lm.pricing import cost_usd
from dspylab.records import CallCounts, CostSummary, Distribution, PredictorSummary, Rates, TokenCounts

#: Timings and rates of a call that a summary has the distribution of.
TIMINGS = (
    "latency_s", "ttft_s", "ttfot_s", "itl_s", "decode_tokens_per_s", "output_tokens_per_s", "queue_s",
)  # fmt: skip
#: Name for the calls that no predictor made.
NO_PREDICTOR = "(none)"


@dataclass(frozen=True, slots=True)
class CallFigures:
    """What a summary says of the calls of a run.

    Attributes:
        timings: Name of a figure to its distribution over the task calls that were sent and succeeded.
        tokens: Sums over the task calls that were sent.
        counts: Counts over all calls.
        predictors: Figures by predictor.
        cost: Cost by role.
    """

    timings: Mapping[str, Distribution]
    tokens: TokenCounts
    counts: CallCounts
    predictors: Mapping[str, PredictorSummary]
    cost: CostSummary


@dataclass
class _Money:
    """Prices whose sum is unknown as soon as one of them is. Kept one by one, so that the sum is exact.

    What a call costs that failed nobody reports: it is not in the sum, and of such calls alone there is none.
    """

    known: array[float] = field(default_factory=lambda: array("d"))
    unpriced: int = 0
    has_priced: bool = False
    has_unreported: bool = False

    def add(self, usd: float | None, *, is_reported: bool = True) -> None:
        if not is_reported:
            self.has_unreported = True
        elif usd is None:
            self.unpriced += 1
        else:
            self.has_priced = True
            if usd:
                self.known.append(usd)

    def take(self, other: _Money) -> None:
        """Adds all of another sum."""
        self.known.extend(other.known)
        self.unpriced += other.unpriced
        self.has_priced |= other.has_priced
        self.has_unreported |= other.has_unreported

    @property
    def total(self) -> float | None:
        is_unknown = self.unpriced or (self.has_unreported and not self.has_priced)
        return None if is_unknown else math.fsum(self.known)


@dataclass
class _Predictor:
    calls: int = 0
    failed: int = 0
    fallbacks: int = 0
    truncated: int = 0
    latency_s: array[float] = field(default_factory=lambda: array("d"))
    ttft_s: array[float] = field(default_factory=lambda: array("d"))
    tokens: Counter[str] = field(default_factory=Counter)
    cost: _Money = field(default_factory=_Money)


def is_unmetered(call: Mapping[str, Any]) -> bool:
    """As `LMCall.is_unmetered`, of a call of a row."""
    return not (call["attempts"] or call["cached"] or call["error"])


def may_be_from_cache(call: Mapping[str, Any]) -> bool:
    """Whether DSPy's cache answered a call of a row, so that the time of its example is no measurement.

    It did as far as anybody knows when the program built the model itself: see `LMCall.is_unmetered`.
    """
    return call["role"] == "task" and (call["cached"] or is_unmetered(call))


class CallTotals:
    """Sums over calls, added one by one.

    Args:
        rates: Model id to the price rates of now. A model that is not in it keeps the cost in its rows.
    """

    def __init__(self, rates: Mapping[str, Rates | None]) -> None:
        self._rates = rates
        self._timings = {name: array("d") for name in TIMINGS}
        self._tokens: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._by_role: Counter[str] = Counter()
        self._cost: dict[str, _Money] = {}
        self._predictors: dict[str, _Predictor] = {}
        self._saved = _Money()

    def add(self, call: Mapping[str, Any]) -> None:
        """Adds a call of a row."""
        role, failed, cached = call["role"], call["error"] is not None, call["cached"]
        self._by_role[role] += 1
        self._counts["failed"] += failed
        self._counts["cached"] += cached
        self._counts["attempts"] += call["attempts"]
        cost, is_reported = self._price(call), self._is_reported(call)
        self._cost.setdefault(role, _Money()).add(cost, is_reported=is_reported)
        if role != "task":
            return
        predictor = self._predictors.setdefault(call["predictor"] or NO_PREDICTOR, _Predictor())
        predictor.calls += 1
        predictor.failed += failed
        predictor.fallbacks += call["fallback"]
        predictor.truncated += call["finish_reason"] == "length"
        predictor.cost.add(cost, is_reported=is_reported)
        if not cached:
            self._add_tokens(call, predictor)
        if not cached and not failed:
            self._add_timings(call, predictor)

    def figures(self, parse_failures: int) -> CallFigures:
        """The figures.

        Args:
            parse_failures: Replies of the task that an adapter could not parse; rows count them.
        """
        fallbacks = sum(predictor.fallbacks for predictor in self._predictors.values())
        asked = self._by_role["task"] - fallbacks
        return CallFigures(
            timings={name: distribution(values) for name, values in self._timings.items()},
            tokens=TokenCounts(
                prompt=self._tokens["prompt_tokens"],
                cached=self._tokens["cached_tokens"],
                completion=self._tokens["completion_tokens"],
                reasoning=self._tokens["reasoning_tokens"],
                estimated_calls=self._counts["estimated"],
            ),
            counts=CallCounts(
                total=self._by_role.total(),
                failed=self._counts["failed"],
                cached=self._counts["cached"],
                attempts=self._counts["attempts"],
                fallbacks=fallbacks,
                fallback_rate=fallbacks / asked if asked > 0 else None,
                truncated=sum(predictor.truncated for predictor in self._predictors.values()),
                parse_failures=parse_failures,
                by_role={role: count for role, count in self._by_role.items() if count},
                by_predictor={name: predictor.calls for name, predictor in self._predictors.items()},
            ),
            predictors={name: _summary(predictor) for name, predictor in self._predictors.items()},
            cost=self._cost_summary(),
        )

    def _price(self, call: Mapping[str, Any]) -> float | None:
        """Cost of a call now; None when it has no known price."""
        if call["cached"]:
            self._saved.add(self._price_of_tokens(call, "saved_usd"))
            return 0.0
        if call["error"] is not None and call["completion_tokens"] is None:
            return 0.0
        return self._price_of_tokens(call, "cost_usd")

    def _is_reported(self, call: Mapping[str, Any]) -> bool:
        """Whether anybody says what a call cost: of one that failed without tokens, only that it was free."""
        if call["cached"] or call["error"] is None or call["completion_tokens"] is not None:
            return True
        rates = self._rates.get(call["model"])
        return rates is not None and rates.input_usd == rates.output_usd == 0

    def _price_of_tokens(self, call: Mapping[str, Any], recorded: str) -> float | None:
        if call["model"] not in self._rates:
            usd: float | None = call[recorded]
            return usd
        return cost_usd(
            self._rates[call["model"]],
            call["prompt_tokens"],
            call["cached_tokens"] or 0,
            call["cache_write_tokens"] or 0,
            call["completion_tokens"],
        )

    def _add_tokens(self, call: Mapping[str, Any], predictor: _Predictor) -> None:
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"):
            tokens = call[name] or 0
            self._tokens[name] += tokens
            predictor.tokens[name] += tokens
        self._counts["estimated"] += call["token_source"] == "estimate"

    def _add_timings(self, call: Mapping[str, Any], predictor: _Predictor) -> None:
        for name, values in self._timings.items():
            value = call[name]
            if value is not None:
                values.append(value)
        if call["latency_s"] is not None:
            predictor.latency_s.append(call["latency_s"])
        if call["ttft_s"] is not None:
            predictor.ttft_s.append(call["ttft_s"])

    def _cost_summary(self) -> CostSummary:
        everything = _Money()
        for money in self._cost.values():
            everything.take(money)
        return CostSummary(
            total=everything.total,
            by_role={role: money.total for role, money in self._cost.items()},
            saved=math.fsum(self._saved.known),
            unpriced_calls=everything.unpriced,
        )


def _summary(predictor: _Predictor) -> PredictorSummary:
    return PredictorSummary(
        calls=predictor.calls,
        failed=predictor.failed,
        fallbacks=predictor.fallbacks,
        truncated=predictor.truncated,
        latency_s=distribution(predictor.latency_s),
        ttft_s=distribution(predictor.ttft_s),
        prompt_tokens=predictor.tokens["prompt_tokens"],
        completion_tokens=predictor.tokens["completion_tokens"],
        cost_usd=predictor.cost.total,
    )
