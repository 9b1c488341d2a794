"""How often the 95% intervals of `aggregate/stats.py` hold the true mean.

    python benchmarks/interval_coverage.py

Prints three tables: proportions (also exactly, by enumeration), metrics that are not 0 or 1 (beside the
plain t interval and the bootstrap-t, which were the alternatives), and examples repeated over seeds.
The exit code is 1 when a cell lies outside of 93 to 97% although an interval could have been inside.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from dspylab.aggregate.stats import metric_summary, t_quantile

Samples = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Samples]

SIZES = (20, 50, 200)
PROPORTIONS = (0.05, 0.5, 0.95)
LOW, HIGH = 93.0, 97.0
SEED = 20_250_101


def f1_like(rng: np.random.Generator, shape: tuple[int, int]) -> Samples:
    """Three in ten are 0, four in ten are 1, the rest lies anywhere between."""
    kind = rng.random(shape)
    return np.where(kind < 0.3, 0.0, np.where(kind < 0.7, 1.0, rng.random(shape)))


def judge_like(rng: np.random.Generator, shape: tuple[int, int]) -> Samples:
    """A scale of five steps on which most answers get the best mark."""
    return rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], p=[0.02, 0.03, 0.05, 0.2, 0.7], size=shape)


CONTINUOUS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "exponential": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "log-normal": (lambda rng, shape: rng.lognormal(size=shape), float(np.exp(0.5))),
    "token F1": (f1_like, 0.4 + 0.3 * 0.5),
    "judge, 5 steps": (judge_like, 0.0075 + 0.025 + 0.15 + 0.7),
}


def main() -> int:
    """Prints the tables; returns the exit code."""
    started = time.perf_counter()
    rng = np.random.default_rng(SEED)
    missed = proportions(rng)
    continuous(rng)
    repeated(rng)
    print(f"\n{time.perf_counter() - started:.0f} s")
    return 1 if missed else 0


def proportions(rng: np.random.Generator, draws: int = 20_000) -> int:
    """Table of proportions; returns how many cells are outside of the band and need not be."""
    print(f"Proportions (Wilson), {draws:,} draws a cell; wanted: {LOW:g} to {HIGH:g}%")
    print(f"{'n':>5} {'p':>6} {'simulated %':>12} {'exact %':>9}  nearest that any interval can have")
    missed = 0
    for n in SIZES:
        for p in PROPORTIONS:
            covers = np.array([holds(count, n, p) for count in range(n + 1)])
            exact = 100 * float(scipy_stats.binom.pmf(np.arange(n + 1), n, p)[covers].sum())
            simulated = 100 * float(covers[rng.binomial(n, p, size=draws)].mean())
            possible = attainable(n, p)
            inside = [value for value in possible if LOW <= value <= HIGH]
            missed += not LOW <= exact <= HIGH and bool(inside)
            below = max((value for value in possible if value < LOW), default=0.0)
            above = min((value for value in possible if value > HIGH), default=100.0)
            note = "" if inside else f"none inside: {below:.2f} or {above:.2f}"
            print(f"{n:>5} {p:>6} {simulated:>12.2f} {exact:>9.2f}  {note}")
    return missed


def holds(count: int, n: int, p: float) -> bool:
    """Whether the interval of `count` ones among `n` holds `p`."""
    return ours_holds([1.0] * count + [0.0] * (n - count), p)


def attainable(n: int, p: float) -> list[float]:
    """Coverages in percent that an interval can have whose ends rise with the count.

    Such an interval holds p for a run of consecutive counts, so the coverage is the probability of one.
    """
    cumulative = np.concatenate([[0.0], scipy_stats.binom.cdf(np.arange(n + 1), n, p)])
    upper, lower = np.meshgrid(cumulative, cumulative)
    return sorted(100 * float(value) for value in np.unique(upper - lower) if value > 0)


def continuous(rng: np.random.Generator, draws: int = 3_000, bootstrap_draws: int = 400) -> None:
    """Table of metrics that are not 0 or 1."""
    print(f"\nOther metrics, {draws:,} draws a cell (bootstrap-t: {bootstrap_draws})")
    print(f"{'':>15} {'n':>5} {'ours %':>8} {'plain t %':>10} {'bootstrap-t %':>14} {'of it infinite %':>17}")
    for name, (draw, mean) in CONTINUOUS.items():
        for n in SIZES:
            samples = draw(rng, (draws, n))
            ours = share(ours_holds(sample.tolist(), mean) for sample in samples)
            reach = t_quantile(n - 1) * samples.std(axis=1, ddof=1) / np.sqrt(n)
            plain = 100 * float((np.abs(samples.mean(axis=1) - mean) <= reach).mean())
            ends = [bootstrap_t(sample, rng) for sample in samples[:bootstrap_draws]]
            resampled = share(low <= mean <= high for low, high in ends)
            infinite = share(not math.isfinite(high - low) for low, high in ends)
            print(f"{name:>15} {n:>5} {ours:>8.1f} {plain:>10.1f} {resampled:>14.1f} {infinite:>17.1f}")


def bootstrap_t(sample: Samples, rng: np.random.Generator, resamples: int = 999) -> tuple[float, float]:
    """The bootstrap-t interval (Efron 1981), for comparison."""
    n, mean, deviation = len(sample), sample.mean(), sample.std(ddof=1)
    drawn = sample[rng.integers(0, n, (resamples, n))]
    offset, spread = drawn.mean(axis=1) - mean, drawn.std(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.sort(np.nan_to_num(offset / spread, nan=0.0, posinf=np.inf, neginf=-np.inf))
    cut = round(0.025 * (resamples + 1))
    return float(mean - t[-cut] * deviation), float(mean - t[cut - 1] * deviation)


def repeated(rng: np.random.Generator, draws: int = 3_000, seeds: int = 3) -> None:
    """Table of examples that are each answered with several seeds and differ in difficulty."""
    print(f"\n{seeds} seeds an example, intraclass correlation 0.5, {draws:,} draws a cell")
    print(f"{'':>15} {'examples':>9} {'ours %':>8} {'as if independent %':>20}")
    for p in (0.5, 0.9):
        for groups in SIZES:
            ability = rng.beta(p, 1 - p, size=(draws, groups, 1))
            answers = (rng.random((draws, groups, seeds)) < ability).astype(float)
            row(f"0 or 1, p={p}", groups, answers.reshape(draws, -1), p, seeds)
    for groups in SIZES:
        level = rng.normal(size=(draws, groups, 1))
        answers = level + rng.normal(size=(draws, groups, seeds))
        row("normal", groups, answers.reshape(draws, -1), 0.0, seeds)


def row(name: str, groups: int, samples: Samples, mean: float, seeds: int) -> None:
    """Prints one row of the table of repeated examples."""
    examples = [index for index in range(groups) for _ in range(seeds)]
    ours = share(ours_holds(sample.tolist(), mean, examples) for sample in samples)
    naive = share(ours_holds(sample.tolist(), mean) for sample in samples)
    print(f"{name:>15} {groups:>9} {ours:>8.1f} {naive:>20.1f}")


def ours_holds(values: list[float], mean: float, examples: list[int] | None = None) -> bool:
    """Whether the interval that goes into summary.json holds the true mean."""
    ends = metric_summary(values, examples).ci95
    return ends is not None and ends[0] <= mean <= ends[1]


def share(hits: Iterable[bool]) -> float:
    """Percentage of true values."""
    return 100 * float(np.mean(list(hits)))


if __name__ == "__main__":
    sys.exit(main())
