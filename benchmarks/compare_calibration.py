"""How often `dspylab compare` errs: false positives, coverage of the interval, power, many runs.

    python benchmarks/compare_calibration.py [--draws 1000]

Every cell simulates whole experiments: two runs (or groups of seeds) answer the same examples, some of which
are harder than others. Four tables: no difference; a real difference (coverage of the interval); the power
at the number of examples that `needed_examples` names; and several runs of which none is better. The exit
code is 1 when more than 5% of the experiments without a difference end in a verdict (up to the error of the
simulation), or an interval covers less than 92%.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dspylab.aggregate.compare import ALPHA, Comparison, against_best, compare, needed_examples
from dspylab.aggregate.pairs import RunValues, SideValues

Answers = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, float], tuple[Answers, Answers]]

SIZES = (20, 50, 200)
SEED = 20_260_214
LEAST_COVERAGE = 92.0


def pass_fail(share: float, seeds: int = 1) -> Draw:
    """Examples of differing difficulty, passed with probability `share` on average."""

    def draw(rng: np.random.Generator, n: int, shift: float) -> tuple[Answers, Answers]:
        ability = rng.beta(2 * share, 2 * (1 - share), size=n)
        a, b = (rng.random((seeds, n)) < ability for _ in range(2))
        return a.astype(float), (b | (rng.random((seeds, n)) < shift / (1 - share))).astype(float)

    return draw


def scores(noise: Callable[[np.random.Generator, tuple[int, int]], Answers], seeds: int = 1) -> Draw:
    """A number for each example: its own level, and noise of mean 0."""

    def draw(rng: np.random.Generator, n: int, shift: float) -> tuple[Answers, Answers]:
        level = rng.normal(size=n)
        return level + noise(rng, (seeds, n)), level + shift + noise(rng, (seeds, n))

    return draw


def f1_like(rng: np.random.Generator, n: int, shift: float) -> tuple[Answers, Answers]:
    """Three in ten are 0, four in ten 1, the rest between; on half of the examples both runs agree."""

    def answers() -> Answers:
        kind = rng.random(n)
        return np.where(kind < 0.3, 0.0, np.where(kind < 0.7, 1.0, rng.random(n)))

    a = answers()
    b = np.where(rng.random(n) < 0.5, a, answers())
    # The mean is 0.55: as many of the others become 1 as it takes.
    return a[None, :], np.where(rng.random(n) < shift / 0.45, 1.0, b)[None, :]


def skewed(rng: np.random.Generator, n: int, shift: float) -> tuple[Answers, Answers]:
    """Equal means, but run b is mostly a little worse and seldom much better: no test of ranks sees that."""
    level = rng.normal(size=n)
    return level[None, :], (level + shift + rng.exponential(size=n) - 1)[None, :]


def moving_seeds(seeds: int, size: float) -> Draw:
    """Each seed moves all examples of its run at once, as other demonstrations do."""

    def draw(rng: np.random.Generator, n: int, shift: float) -> tuple[Answers, Answers]:
        level = rng.normal(size=n)

        def side() -> Answers:
            moved = size * rng.normal(size=(seeds, 1))
            return np.asarray(level + moved + rng.normal(size=(seeds, n)))

        return side(), side() + shift

    return draw


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> Answers:
    """Standard normal noise."""
    return rng.normal(size=shape)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of experiment.

    Attributes:
        name: In the table.
        draw: From a size and a difference to the answers of both sides, seeds by examples.
        shift: The real difference in the tables that have one.
        hard: Known to err more with few examples: shown, but not held against the method.
    """

    name: str
    draw: Draw
    shift: float
    hard: bool = False


KINDS = (
    Kind("pass/fail, p=0.5", pass_fail(0.5), 0.1),
    Kind("pass/fail, p=0.9", pass_fail(0.9), 0.05),
    Kind("normal", scores(normal), 0.3),
    Kind("token F1", f1_like, 0.1),
    Kind("skewed differences", skewed, 0.3, hard=True),
    Kind("pass/fail, p=0.5, 3 seeds", pass_fail(0.5, 3), 0.1),
    Kind("pass/fail, p=0.9, 3 seeds", pass_fail(0.9, 3), 0.05),
    Kind("normal, 3 seeds", scores(normal, 3), 0.3),
    Kind("normal, 3 seeds that move all", moving_seeds(3, 0.2), 0.3),
    Kind("normal, 5 seeds that move all", moving_seeds(5, 0.2), 0.3),
)


def main() -> int:
    """Prints the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description="False positives, coverage and power of dspylab compare.")
    parser.add_argument("--draws", type=int, default=1000, help="simulated experiments a cell")
    draws = parser.parse_args().draws
    started = time.perf_counter()
    failed = no_difference(draws) + real_difference(draws) + several_runs(draws)
    power(draws)
    print(f"\n{time.perf_counter() - started:.0f} s")
    return 1 if failed else 0


def no_difference(draws: int) -> int:
    """Table of experiments without a difference; returns how many cells are out of bounds."""
    print(f"No difference, {draws:,} draws a cell: % of experiments")
    print(f"{'':30} {'n':>5} {'p <= 5%':>8} {'verdict':>8} {'covered':>8}")
    failed = 0
    for kind in KINDS:
        for n in SIZES:
            found = simulate(kind, n, 0.0, draws)
            tests = share([(one.p_value or 1.0) <= ALPHA for one in found])
            verdicts = share([one.verdict != "cannot tell" for one in found])
            covered = share([covers(one, 0.0) for one in found])
            failed += not kind.hard and (too_many(verdicts, draws) or covered < LEAST_COVERAGE)
            print(f"{kind.name:30} {n:>5} {tests:>8.1f} {verdicts:>8.1f} {covered:>8.1f}", flush=True)
    return failed


def real_difference(draws: int) -> int:
    """Table of experiments with a difference; returns how many cells are out of bounds."""
    print(f"\nA real difference, {draws:,} draws a cell: % of experiments")
    print(f"{'':30} {'n':>5} {'difference':>10} {'better':>8} {'worse':>8} {'covered':>8}")
    failed = 0
    for kind in KINDS:
        for n in SIZES:
            found = simulate(kind, n, kind.shift, draws)
            better = share([one.verdict == "better" for one in found])
            worse = share([one.verdict == "worse" for one in found])
            true = kind.shift
            covered = share([covers(one, true) for one in found])
            failed += not kind.hard and covered < LEAST_COVERAGE
            print(
                f"{kind.name:30} {n:>5} {true:>10.3f} {better:>8.1f} {worse:>8.1f} {covered:>8.1f}",
                flush=True,
            )
    return failed


def several_runs(draws: int) -> int:
    """Table of experiments with several equal runs; returns how many cells are out of bounds.

    In the last column half of them are far below the rest, whose pairs then have the low ranks of Holm's
    correction to themselves: counted is whether one of the equal ones is called worse.
    """
    rounds = max(1, draws // 4)
    print(f"\nSeveral runs of 50 examples, none better, {rounds:,} draws: % with any run called worse")
    failed = 0
    for runs in (2, 3, 5, 10, 20):
        rng = np.random.default_rng([SEED, runs])
        hits = {"pass/fail, p=0.5": 0, "normal": 0, "normal, half far below": 0}
        equal = (runs + 1) // 2
        far_below = 2.0 * (np.arange(runs) >= equal)[:, None]
        for _ in range(rounds):
            ability, level = rng.beta(1, 1, size=50), rng.normal(size=50)
            for name, answers, count in (
                ("pass/fail, p=0.5", (rng.random((runs, 50)) < ability).astype(float), runs),
                ("normal", level + rng.normal(size=(runs, 50)), runs),
                ("normal, half far below", level - far_below + rng.normal(size=(runs, 50)), equal),
            ):
                sides = {str(index): as_side(one[None, :]) for index, one in enumerate(answers)}
                level_with_best = against_best("score", sides).not_told_apart
                hits[name] += any(str(index) not in level_with_best for index in range(count))
        shares = {name: 100 * count / rounds for name, count in hits.items()}
        failed += sum(too_many(value, rounds) for value in shares.values())
        print(f"{runs:>3} runs: " + ", ".join(f"{name} {value:.1f}" for name, value in shares.items()))
    return failed


def power(draws: int, wanted: float = 0.8) -> None:
    """Table of how often a difference is seen with the number of examples that was named for it."""
    rounds = max(1, draws // 4)
    print(
        f"\nPower at the number of examples named after 100 of them, {rounds:,} draws; wanted: {wanted:.0%}"
    )
    for kind in KINDS:
        size = kind.shift
        pilots = simulate(kind, 100, kind.shift, 100)
        named = [n for one in pilots if (n := needed_examples(one, size, wanted)) is not None]
        if len(named) < len(pilots) // 2:
            print(f"{kind.name:30} no number of examples is enough for {size:.3f}: more seeds are")
            continue
        n = int(np.median(named))
        seen = share([one.verdict == "better" for one in simulate(kind, n, kind.shift, rounds)])
        print(f"{kind.name:30} {n:>5} examples for {size:.3f}: seen {seen:.1f}%", flush=True)


def simulate(kind: Kind, n: int, shift: float, draws: int) -> list[Comparison]:
    """Compares two runs, or groups of seeds, again and again."""
    rng = np.random.default_rng([SEED, n, round(1000 * shift), *kind.name.encode()])
    found = []
    for _ in range(draws):
        a, b = kind.draw(rng, n, shift)
        found.append(compare("score", as_side(a), as_side(b)))
    return found


def as_side(answers: Answers) -> SideValues:
    """Answers, seeds by examples, in the shape that `compare` takes."""
    return [values(run) for run in answers]


def values(run: Answers) -> RunValues:
    """The answers of one run by example."""
    return {str(example): (value,) for example, value in enumerate(run.tolist())}


def covers(comparison: Comparison, true: float) -> bool:
    """Whether the interval holds the true difference. No interval is no claim, so it is not wrong."""
    ends = comparison.ci95
    return ends is None or ends[0] <= true <= ends[1]


def too_many(percentage: float, draws: int) -> bool:
    """Whether so many false positives are over 5%, with two standard errors of the simulation allowed."""
    return percentage > 100 * (ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / draws))


def share(hits: list[bool]) -> float:
    """Percentage of true values."""
    return 100 * float(np.mean(hits))


if __name__ == "__main__":
    sys.exit(main())
