"""The interval of a paired difference, from its published recipe by other means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import scipy

from dspylab.aggregate.compare import Comparison, compare
from dspylab.aggregate.pairs import pair, uncertainty

pytestmark = pytest.mark.xdist_group("scipy")

#: What makes the same comparison have the same interval everywhere, also after an upgrade.
SEED, RESAMPLES = 20260214, 4000

Table = Sequence[Sequence[float]]


def side(table: Table) -> list[dict[str, tuple[float, ...]]]:
    """One row a seed, one column an example."""
    return [{str(example): (value,) for example, value in enumerate(row)} for row in table]


def compared(a: Table, b: Table) -> Comparison:
    return compare("m", side(a), side(b))


def ends(means: np.ndarray, differences: Sequence[float], widening: float = 1.0) -> tuple[float, float]:
    """Hesterberg's expanded percentiles of the resampled means, widened."""
    n, centre = len(differences), float(np.mean(differences))
    share = scipy.stats.norm.cdf(-math.sqrt(n / (n - 1)) * scipy.stats.t.ppf(0.975, n - 1))
    low, high = np.quantile(means, [share, 1 - share])
    return centre - (centre - low) * widening, centre + (high - centre) * widening


def drawn(values: Sequence[float], chunks: Sequence[int] = (RESAMPLES,)) -> np.ndarray:
    """Means of resamples, one value after another."""
    generator, n = np.random.default_rng(SEED), len(values)
    ordered = np.sort(values)
    return np.concatenate([ordered[generator.integers(0, n, (rows, n))].mean(axis=1) for rows in chunks])


def counted(weights: dict[float, float], n: int) -> np.ndarray:
    """Means of resamples, how often each value is drawn."""
    shares = np.array(list(weights.values()))
    counts = np.random.default_rng(SEED).multinomial(n, shares / shares.sum(), size=RESAMPLES)
    means: np.ndarray = counts @ np.array(list(weights)) / n
    return means


def test_numbers_are_resampled_one_by_one() -> None:
    values = [0.3, -0.2, 0.9, 1.4, -0.7, 0.1, 0.1, 0.8]
    found = compared([[0.0] * 8], [values])
    assert found.ci95 == pytest.approx(ends(drawn(values), values), abs=1e-12)


def test_very_many_numbers_are_resampled_in_parts() -> None:
    values = np.random.default_rng(3).normal(size=700).tolist()
    found = compared([[0.0] * 700], [values])
    rows = 2_000_000 // 700
    assert found.ci95 == pytest.approx(ends(drawn(values, [rows, RESAMPLES - rows]), values), abs=1e-12)


@pytest.mark.parametrize("times", [8, 9])
def test_numbers_that_repeat_are_counted(times: int) -> None:
    values = [-0.5] * (times - 3) + [0.25] * times + [1.5] * (times + 3)
    found = compared([[0.0] * len(values)], [values])
    weights = {-0.5: times - 3.0, 0.25: float(times), 1.5: times + 3.0}
    assert found.ci95 == pytest.approx(ends(counted(weights, len(values)), values), abs=1e-12)


def test_pass_or_fail_has_half_a_pair_more_in_each_cell() -> None:
    a, b = [0.0] * 4 + [1.0] * 5, [1.0] * 4 + [0.0] + [1.0] * 4
    found = compared([a], [b])
    differences = [1.0] * 4 + [-1.0] + [0.0] * 4
    assert found.ci95 == pytest.approx(
        ends(counted({-1.0: 1.5, 0.0: 5.0, 1.0: 4.5}, 9), differences), abs=1e-12
    )


A = [[0.2, 0.9, 0.4, 0.7], [0.6, 1.0, 0.9, 0.8], [0.1, 0.5, 0.6, 0.2]]
B = [[1.2, 1.0, 1.9, 2.1], [1.0, 0.6, 1.1, 1.5]]


def mean_squares(table: Table) -> tuple[float, float]:
    """Between seeds and of the residual, over the number of values: parts of a mean's variance."""
    values = np.array(table)
    seeds, n = values.shape
    of_seeds, of_examples = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    between = n * ((of_seeds - values.mean()) ** 2).sum() / (seeds - 1)
    residual = ((values - of_seeds - of_examples + values.mean()) ** 2).sum() / ((seeds - 1) * (n - 1))
    return between / values.size, residual / values.size


@pytest.mark.parametrize(("a", "b"), [(A, B), ([row[:2] for row in A], [row[:2] for row in B]), (B, A)])
def test_the_parts_of_the_variance_are_those_of_two_way_random_effects(a: Table, b: Table) -> None:
    differences = np.mean(b, axis=0) - np.mean(a, axis=0)
    n = len(differences)
    of_examples = differences.var(ddof=1) / n
    (between_a, residual_a), (between_b, residual_b) = mean_squares(a), mean_squares(b)
    shift = max(0.0, between_a + between_b - residual_a - residual_b)
    noise = min(of_examples, residual_a + residual_b)
    found = compared(a, b)
    assert found.variance is not None
    assert found.variance.seed == pytest.approx(shift)
    assert found.variance.noise == pytest.approx(noise)
    assert found.variance.example == pytest.approx(of_examples - noise)
    assert found.stderr == pytest.approx(math.sqrt(of_examples + shift))
    assert found.spread == pytest.approx(differences.std(ddof=1))


def widening_of(a: Table, b: Table) -> float:
    """Satterthwaite's degrees of freedom, of the mean squares that the variance is made of."""
    differences = np.mean(b, axis=0) - np.mean(a, axis=0)
    n, of_examples = len(differences), float(differences.var(ddof=1) / len(differences))
    doubt, shift = of_examples**2 / (n - 1), 0.0
    for table in (a, b):
        between, residual = mean_squares(table)
        shift += between - residual
        doubt += between**2 / (len(table) - 1) + residual**2 / ((len(table) - 1) * (n - 1))
    if shift <= 0:
        return 1.0
    df = max(1, math.floor((of_examples + shift) ** 2 / doubt))
    t = scipy.stats.t.ppf(0.975, [df, n - 1])
    return max(1.0, float(math.sqrt((of_examples + shift) / of_examples) * t[0] / t[1]))


def test_an_interval_is_widened_by_what_the_seeds_add() -> None:
    differences = (np.mean(B, axis=0) - np.mean(A, axis=0)).tolist()
    widening = widening_of(A, B)
    assert widening > 1
    assert compared(A, B).ci95 == pytest.approx(ends(drawn(differences), differences, widening), abs=1e-12)


def test_seeds_widen_by_how_little_they_say() -> None:
    rng = np.random.default_rng(4)
    seen = set()
    for _ in range(200):
        n, spread = int(rng.integers(3, 14)), rng.choice([0.0, 0.2, 1.0, 5.0])
        level = rng.normal(size=n)
        a, b = (
            [(level + spread * rng.normal() + rng.normal(size=n)).tolist() for _ in range(rng.integers(2, 6))]
            for _ in range(2)
        )
        error = uncertainty(side(a), side(b), pair(side(a), side(b)))
        assert error is not None
        assert error.widening == pytest.approx(widening_of(a, b))
        seen.add(error.widening == 1.0)
    assert seen == {True, False}


def test_a_shift_of_all_examples_alike_is_no_widening() -> None:
    """There is nothing to widen: differences that are all the same have no interval."""
    found = compared([[1.0, 1.0], [2.0, 2.0]], [[4.0, 4.0], [9.0, 9.0]])
    assert (found.ci95, found.spread) == (None, 0.0)
    assert found.variance is not None
    assert found.variance.seed > 0


def test_with_seeds_a_pair_more_is_one_answer_more() -> None:
    a = [[1.0, 0.0, 1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]]
    b = [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]]
    differences = (np.mean(b, axis=0) - np.mean(a, axis=0)).tolist()
    weights = {value: float(differences.count(value)) for value in sorted(set(differences))}
    for value, extra in ((-0.5, 0.5), (0.0, 1.0), (0.5, 0.5)):
        weights[value] = weights.get(value, 0.0) + extra
    assert widening_of(a, b) == 1.0
    assert compared(a, b).ci95 == pytest.approx(ends(counted(weights, 6), differences), abs=1e-12)


def test_a_difference_of_shares_lies_between_minus_one_and_one() -> None:
    right, wrong = [1.0] * 5, [0.0] * 5
    mixed = [1.0, 0.0, 0.0, 0.0, 0.0]
    found = compared([wrong, wrong], [right, mixed])
    turned = compared([right, mixed], [wrong, wrong])
    assert found.ci95 is not None
    assert turned.ci95 is not None
    assert (found.ci95[1], turned.ci95[0]) == (1.0, -1.0)


def test_differences_that_are_their_own_mirror_image_have_the_interval_of_their_neighbours() -> None:
    halves = [0.1 * step for step in range(1, 21)]
    table = [[*halves, *(-value for value in halves)]]
    symmetric = compared([[0.0] * 40], table).ci95
    table[0][0] += 1e-6
    nearly = compared([[0.0] * 40], table).ci95
    assert symmetric is not None
    assert nearly is not None
    assert symmetric[0] == -symmetric[1]
    assert symmetric == pytest.approx(nearly, rel=0.05)
