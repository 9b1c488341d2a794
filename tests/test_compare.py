"""Paired comparison against scipy, known values and what has to hold for any numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from dspylab.aggregate.compare import Comparison, adjusted, against_best, compare, needed_examples
from dspylab.aggregate.pairs import RunValues, pair
from dspylab.aggregate.significance import holm, mcnemar_exact, wilcoxon_signed_rank

pytestmark = pytest.mark.xdist_group("scipy")


def run(values: list[float]) -> RunValues:
    return {str(example): (value,) for example, value in enumerate(values)}


def flipped(wins: int, losses: int, ties: int) -> Comparison:
    a = [0.0] * wins + [1.0] * losses + [1.0] * ties
    b = [1.0] * wins + [0.0] * losses + [1.0] * ties
    return compare("accuracy", [run(a)], [run(b)], ("a", "b"))


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (3, 11), (40, 4), (25, 25), (700, 650)])
def test_mcnemar_is_the_exact_binomial_test(wins: int, losses: int) -> None:
    n = wins + losses
    expected = scipy.stats.binomtest(wins, n).pvalue if n else 1.0
    assert mcnemar_exact(wins, losses) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 5, 30, 200])
def test_wilcoxon_is_scipys_exact_test_without_ties(n: int) -> None:
    values = np.random.default_rng(n).normal(0.2, 1, n)
    expected = scipy.stats.wilcoxon(values, method="exact").pvalue
    assert wilcoxon_signed_rank(values.tolist()) == pytest.approx(expected, rel=1e-9)


def test_wilcoxon_of_many_differences_is_the_normal_approximation_with_tied_ranks() -> None:
    values = np.random.default_rng(8).integers(-3, 4, 900).astype(float) + 0.0
    expected = scipy.stats.wilcoxon(values, method="approx", correction=False).pvalue
    assert wilcoxon_signed_rank(values.tolist()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 1.0, -1.0, 2.0, 2.0, 2.0, -3.0, 0.0],
        [1.0, -1.0, 2.0, 3.0, 4.0, 5.0],  # two that are tied have half a rank
        [-1.0, 1.0, 2.0, 2.0, -3.0, 3.0, 4.0],
        [-1.0, -1.0, 2.0, 2.0, 3.0],
    ],
)
def test_wilcoxon_with_ties_enumerates_all_signs(values: list[float]) -> None:
    known = np.array([value for value in values if value])
    ranks = scipy.stats.rankdata(np.abs(known))
    signs = np.array(np.meshgrid(*[[0, 1]] * len(ranks))).reshape(len(ranks), -1)
    sums = ranks @ signs
    observed = min(ranks[known > 0].sum(), ranks[known < 0].sum())
    assert wilcoxon_signed_rank(values) == pytest.approx(2 * float(np.mean(sums <= observed)))


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_wilcoxon_does_not_depend_on_the_unit(unit: float) -> None:
    values = [0.1, -0.2, 0.4, 0.5, -0.7, 0.9, 1.1]
    assert wilcoxon_signed_rank([value * unit for value in values]) == wilcoxon_signed_rank(values)


def test_wilcoxon_sees_ties_through_rounding() -> None:
    third = [0.1 + 0.2, 0.3, -0.3, 0.3, 0.3, 0.6, 0.6]
    assert wilcoxon_signed_rank(third) == wilcoxon_signed_rank([round(value, 6) for value in third])


def test_holm_has_the_values_of_r() -> None:
    # By its p.adjust with the method "holm".
    assert holm([0.03, 0.01, 0.05, 0.02, 0.04]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])
    assert holm([0.03, 0.01], total=45) == pytest.approx([1.0, 0.45])
    assert holm([]) == []


@given(st.lists(st.floats(min_value=0, max_value=1), max_size=20))
def test_holm_keeps_the_order_and_makes_nothing_smaller(values: list[float]) -> None:
    corrected = holm(values)
    assert all(p <= q <= 1 for p, q in zip(values, corrected, strict=True))
    assert all(
        corrected[i] <= corrected[j]
        for i in range(len(values))
        for j in range(len(values))
        if values[i] < values[j]
    )


def test_pass_or_fail_is_compared_by_mcnemar() -> None:
    found = flipped(wins=16, losses=2, ties=46)
    assert found.test == "mcnemar"
    assert (found.wins, found.losses, found.ties, found.n) == (16, 2, 46, 64)
    assert found.difference == pytest.approx(14 / 64)
    assert found.p_value == pytest.approx(scipy.stats.binomtest(2, 18).pvalue)
    assert found.ci95 is not None
    assert 0 < found.ci95[0] < 14 / 64 < found.ci95[1] < 0.4
    assert found.verdict == "better"
    assert flipped(wins=2, losses=16, ties=46).verdict == "worse"
    assert found.variance is None


def test_numbers_are_compared_by_wilcoxon() -> None:
    rng = np.random.default_rng(2)
    a = rng.random(60)
    b = a + rng.normal(0.2, 0.3, 60)
    found = compare("f1", [run(a.tolist())], [run(b.tolist())])
    assert found.test == "wilcoxon"
    assert found.p_value == pytest.approx(scipy.stats.wilcoxon(b - a, method="exact").pvalue, rel=1e-6)
    assert found.stderr == pytest.approx(scipy.stats.sem(b - a))
    assert found.spread == pytest.approx(np.std(b - a, ddof=1))
    # For numbers that are near normal the bootstrap agrees with Student.
    expected = scipy.stats.t.interval(0.95, 59, np.mean(b - a), scipy.stats.sem(b - a))
    assert found.ci95 == pytest.approx(expected, abs=0.01)


def test_the_same_comparison_has_the_same_interval() -> None:
    rng = np.random.default_rng(4)
    a, b = run(rng.random(40).tolist()), run(rng.random(40).tolist())
    assert compare("f1", [a], [b]) == compare("f1", [a], [b])


def test_what_hardly_ever_differs_is_not_certain() -> None:
    same = flipped(wins=0, losses=0, ties=64)
    assert same.difference == 0
    assert same.p_value == 1
    assert same.ci95 is not None
    assert same.ci95[0] < -0.02 < 0.02 < same.ci95[1]
    one = flipped(wins=1, losses=0, ties=63)
    assert one.ci95 is not None
    assert one.ci95[0] < 0 < 1 / 64 < one.ci95[1]


def test_numbers_that_do_not_differ_have_the_interval_of_answers_that_do_not_at_their_scale() -> None:
    passed = [float(number % 3 > 0) for number in range(27)]
    as_answers = compare("accuracy", [run(passed)], [run(passed)]).ci95
    assert as_answers is not None
    for low, high in ((0.25, 0.75), (10.0, 30.0), (-5.0, -4.0)):
        values = run([low + value * (high - low) for value in passed])
        found = compare("f1", [values], [values])
        assert (found.difference, found.p_value, found.verdict) == (0.0, 1.0, "cannot tell")
        assert found.ci95 == pytest.approx([(high - low) * end for end in as_answers])
    same = run([0.5] * 27)
    assert compare("f1", [same], [same]).ci95 == pytest.approx([0.5 * end for end in as_answers])


def test_numbers_that_say_nothing_of_the_spread_have_no_interval() -> None:
    for a, b in (([0.0] * 3, [0.25] * 3), ([0.25, 0.5], [0.5, 0.75])):
        found = compare("f1", [run(a)], [run(b)])
        assert (found.difference, found.ci95, found.verdict) == (0.25, None, "cannot tell")


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_pairs_say_nothing(n: int) -> None:
    found = compare("f1", [run([0.5] * n)], [run([0.9] * n)])
    assert (found.p_value, found.p_adjusted, found.ci95, found.stderr, found.spread) == (None,) * 5
    assert found.verdict == "cannot tell"
    assert not found.pass_fail
    assert found.difference == (pytest.approx(0.4) if n else None)
    assert needed_examples(found, 0.1) is None


def test_two_pairs_have_a_p_value() -> None:
    assert flipped(wins=2, losses=0, ties=0).p_value == 0.5


def test_many_pairs_that_differ_are_still_tested_exactly() -> None:
    found = flipped(wins=150, losses=120, ties=3)
    assert found.p_value == pytest.approx(scipy.stats.binomtest(150, 270).pvalue, rel=1e-9)


def test_an_example_that_one_seed_lost_is_compared_by_the_others() -> None:
    a: list[RunValues] = [{"x": (1.0,)}, {"x": (0.0,), "y": (1.0,)}]
    found = compare("accuracy", a, [{"x": (1.0,), "y": (0.0,)}])
    assert (found.n, found.mean_a, found.pass_fail) == (2, 0.75, True)


def test_only_common_examples_are_compared() -> None:
    a: RunValues = {"x": (1.0,), "y": (0.0,), "only a": (1.0,), "empty": ()}
    b: RunValues = {"x": (0.0,), "y": (0.0,), "only b": (1.0,), "empty": (1.0,)}
    found = compare("accuracy", [a], [b])
    assert found.n == 2
    assert found.only_a == ("only a",)
    assert found.only_b == ("only b", "empty")
    assert (found.mean_a, found.mean_b) == (0.5, 0.0)


def test_seeds_and_repeated_examples_are_averaged_within_the_example() -> None:
    a: list[RunValues] = [{"x": (1.0,), "y": (0.0, 1.0)}, {"x": (0.0,), "y": (1.0,)}]
    b: list[RunValues] = [{"x": (1.0,), "y": (1.0,)}]
    pairs = pair(a, b)
    assert pairs.examples == ("x", "y")
    assert pairs.a == pytest.approx((0.5, 2 / 3))
    found = compare("accuracy", a, b)
    assert found.test == "wilcoxon"
    assert found.pass_fail
    assert found.n == 2


def seeds(rng: np.random.Generator, shifts: list[float], level: list[float], noise: float) -> list[RunValues]:
    return [run([one + shift + noise * rng.normal() for one in level]) for shift in shifts]


def test_the_variance_is_split_into_examples_noise_and_seeds() -> None:
    rng = np.random.default_rng(12)
    level = rng.normal(size=400).tolist()
    found = compare("f1", seeds(rng, [0, 0, 0], level, 0.6), seeds(rng, [0, 0, 0], level, 0.6))
    split = found.variance
    assert split is not None
    assert found.stderr is not None
    assert split.example + split.noise + split.seed == pytest.approx(found.stderr**2)
    # Both sides share the level of an example, so all of the variance is noise: 2 · 0.36 / 3 / 400.
    assert split.noise == pytest.approx(2 * 0.36 / 3 / 400, rel=0.15)
    assert split.example < 0.2 * split.noise


def test_seeds_that_move_all_examples_are_no_evidence() -> None:
    rng = np.random.default_rng(12)
    level = rng.normal(size=400).tolist()
    found = compare("f1", seeds(rng, [0.4, 0.0, -0.1], level, 0.2), seeds(rng, [0.5, 0.1, 0.2], level, 0.2))
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.variance is not None
    assert found.variance.seed > 10 * (found.variance.noise + found.variance.example)
    assert found.ci95 is not None
    assert found.ci95[0] < 0 < found.ci95[1]
    assert found.verdict == "cannot tell"
    assert needed_examples(found, 0.1) is None


def test_a_verdict_needs_the_test_and_the_interval() -> None:
    # Nearly all examples a little worse, a few much better: the ranks say worse, the mean does not.
    values = [-0.01] * 90 + [2.0] * 3
    found = compare("f1", [run([0.5] * 93)], [run([0.5 + value for value in values])])
    assert found.p_value is not None
    assert found.p_value < 0.01
    assert found.difference is not None
    assert found.difference > 0
    assert found.verdict == "cannot tell"


@pytest.mark.parametrize(
    ("ci95", "p_value", "verdict"),
    [
        ((0.1, 0.2), 0.05, "better"),
        ((0.0, 0.2), 0.01, "cannot tell"),
        ((-0.2, -0.1), 0.05, "worse"),
        ((-0.2, 0.0), 0.01, "cannot tell"),
        ((0.1, 0.2), 0.0501, "cannot tell"),
        (None, 0.01, "cannot tell"),
    ],
)
def test_where_a_verdict_begins(ci95: tuple[float, float] | None, p_value: float, verdict: str) -> None:
    (found,) = adjusted([replace(flipped(18, 2, 44), ci95=ci95, p_value=p_value)])
    assert (found.p_adjusted, found.verdict) == (p_value, verdict)


def test_several_comparisons_are_corrected_together() -> None:
    clear, unclear = flipped(30, 2, 32), flipped(9, 1, 54)
    assert unclear.verdict == "better"
    corrected = adjusted([unclear, clear, flipped(5, 5, 54), flipped(6, 4, 54)])
    verdicts = [found.verdict for found in corrected]
    assert verdicts == ["probably better", "better", "cannot tell", "cannot tell"]
    mirrored = adjusted([flipped(1, 9, 54), flipped(2, 30, 32), flipped(5, 5, 54), flipped(4, 6, 54)])
    assert [found.verdict for found in mirrored[:2]] == ["probably worse", "worse"]
    assert corrected[0].p_adjusted == pytest.approx(3 * (unclear.p_value or 0))
    assert corrected[0].p_value == unclear.p_value


def test_comparisons_without_a_p_value_do_not_count() -> None:
    nothing = compare("f1", [run([1.0])], [run([0.0])])
    one = flipped(9, 1, 54)
    corrected = adjusted([nothing, one])
    assert corrected == [nothing, one]


def test_the_best_and_what_can_not_be_told_from_it() -> None:
    rng = np.random.default_rng(6)
    sides = {
        "weak": [run((rng.random(200) < 0.2).astype(float).tolist())],
        "good": [run((rng.random(200) < 0.8).astype(float).tolist())],
        "as good": [run((rng.random(200) < 0.78).astype(float).tolist())],
        "empty": [run([])],
    }
    standing = against_best("accuracy", sides)
    assert set(standing.not_told_apart) == {"good", "as good"}
    assert standing.not_told_apart[0] == standing.best
    assert list(standing.comparisons)[-1] == "weak"
    assert standing.comparisons["weak"].verdict == "worse"
    assert standing.comparisons["weak"].a == standing.best
    # Chosen from three pairs, of which two are shown.
    weak = standing.comparisons["weak"]
    assert weak.p_adjusted == pytest.approx(min(1.0, 3 * (weak.p_value or 0)))
    assert against_best("accuracy", {"empty": [run([])]}).not_told_apart == ()
    assert against_best("accuracy", {"alone": [run([1.0])]}).not_told_apart == ("alone",)


def passed(*wrong: int, of: int = 60) -> list[RunValues]:
    """A run over so many examples that passes all but the named ones."""
    return [run([float(example not in wrong) for example in range(of)])]


def test_a_rank_is_that_among_all_pairs_not_among_those_shown() -> None:
    """Two runs that are alike far below the best: the third p-value is not doubled, nor the first two."""
    sides = {"best": passed(), "poor": passed(*range(14)), "same": passed(*range(1, 13))}
    standing = against_best("accuracy", sides)
    poor, same = standing.comparisons["poor"], standing.comparisons["same"]
    assert poor.p_value
    assert same.p_value
    assert (poor.p_adjusted, same.p_adjusted) == (3 * poor.p_value, 2 * same.p_value)
    near = {"best": passed(), "near": passed(0, 1), "poor": passed(*range(20, 34))}
    found = against_best("accuracy", near)
    # 1e-4, 0.004 (the two that are not shown as such) and 0.5: the last of all pairs is as it is.
    assert found.comparisons["near"].p_adjusted == found.comparisons["near"].p_value == 0.5
    assert (found.family.total, len(found.family.unshown), found.family.is_bound) == (3, 1, False)


def test_corrected_p_values_against_the_best_are_holms_over_all_pairs() -> None:
    rng = np.random.default_rng(11)
    sides = {str(i): [run((rng.random(80) < 0.9 - i / 12).astype(float).tolist())] for i in range(6)}
    sides["graded"] = [run(rng.random(80).tolist())]
    sides["seeds"] = [run((rng.random(80) < 0.5).astype(float).tolist()) for _ in range(3)]
    standing = against_best("accuracy", sides)
    pairs = list(combinations(sides, 2))
    raw = [compare("accuracy", sides[a], sides[b]).p_value or 0.0 for a, b in pairs]
    wanted = dict(zip(map(frozenset, pairs), holm(raw), strict=True))
    assert standing.family.total == len(pairs) == 28
    for name, found in standing.comparisons.items():
        assert found.p_adjusted == pytest.approx(wanted[frozenset((standing.best or "", name))])
    # A pair that is asked for by name is the same among them, whichever it is.
    for a, b in pairs:
        among = standing.in_experiment(compare("accuracy", sides[b], sides[a], (b, a)))
        assert among is not None
        assert (among.pairs, among.is_bound) == (28, False)
        assert among.p_adjusted == pytest.approx(wanted[frozenset((a, b))])


def test_a_pair_that_was_named_is_only_probably_so_among_all_pairs() -> None:
    sides = {"best": passed(), "near": passed(0, 1), "poor": passed(*range(20, 26))}
    standing = against_best("accuracy", sides)
    named = compare("accuracy", sides["poor"], sides["best"], ("poor", "best"))
    among = standing.in_experiment(named)
    assert among is not None
    assert (named.verdict, among.verdict) == ("better", "probably better")
    assert among.p_adjusted == 3 * (named.p_value or 0) == standing.comparisons["poor"].p_adjusted
    assert standing.probably_worse == ("poor",)
    assert standing.level == ("best", "near")
    # One seed of several, or a run that is not complete, is no side of the family.
    assert (
        standing.in_experiment(compare("accuracy", sides["poor"], sides["best"], ("poor-0", "best"))) is None
    )
    del sides["near"]
    assert against_best("accuracy", sides).in_experiment(named) is None


def test_a_pair_that_is_not_shown_has_the_test_that_it_would_be_shown_with() -> None:
    """McNemar's exact test, which Wilcoxon's agrees with as long as up to 200 examples differ."""
    poor, other = passed(*range(300), of=700), passed(*range(260, 520), of=700)
    sides = {"best": passed(of=700), "other": other, "poor": poor}
    (unshown,) = against_best("accuracy", sides).family.unshown
    assert unshown == compare("accuracy", other, poor).p_value
    assert unshown == mcnemar_exact(260, 220)
    sides["poor"] = [{**poor[0], "0": (0.5,)}]
    (graded,) = against_best("accuracy", sides).family.unshown
    assert graded == compare("accuracy", other, sides["poor"]).p_value != unshown


def test_too_many_pairs_are_bounded_instead_of_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = {"best": passed(), "near": passed(0, 1), "poor": passed(*range(20, 34))}
    exact = against_best("accuracy", sides)
    monkeypatch.setattr("dspylab.aggregate.compare.MOST_RANKED_SIDES", 2)
    bound = against_best("accuracy", sides)
    assert (bound.family.total, bound.family.unshown, bound.family.is_bound) == (3, (), True)
    assert bound.comparisons["near"].p_adjusted == 1.0
    for name, found in exact.comparisons.items():
        assert (found.p_adjusted or 0) <= (bound.comparisons[name].p_adjusted or 0)
    untested = compare("accuracy", sides["poor"], sides["near"], ("poor", "near"))
    among = bound.in_experiment(untested)
    assert among is not None
    assert among.is_bound
    assert among.p_adjusted == 2 * (untested.p_value or 0)


def test_the_highest_mean_may_be_over_other_examples() -> None:
    """What failed has no value: the easy examples alone have the higher mean."""
    few = [1.0, *[0.0] * 9, *[1.0] * 90]
    sides = {
        "few": [{f"e{i}": (value,) for i, value in enumerate(few)}],
        "hard": [
            {f"e{i}": (value,) for i, value in enumerate([1.0] * 10)} | {f"h{i}": (0.0,) for i in range(9)}
        ],
    }
    standing = against_best("accuracy", sides)
    assert standing.best == "few"
    assert standing.better == ("hard",)
    assert against_best("accuracy", {"few": sides["few"]}).better == ()
    # Six wins without a loss are not enough among three pairs.
    sides["hard"] = [{f"e{i}": (float(i < 7),) for i in range(10)} | {f"h{i}": (0.0,) for i in range(9)}]
    sides["near"] = [{**sides["few"][0], "e99": (0.0,)}]
    standing = against_best("accuracy", sides)
    assert standing.comparisons["hard"].verdict == "probably better"
    assert standing.better == ("hard",)


def test_needed_examples_are_connors() -> None:
    # Connor (1987) by hand: s = (10 + 1) / (62 + 2), z = 1.95996 and 0.84162.
    found = flipped(wins=6, losses=4, ties=52)
    share = 11 / 64
    expected = ((1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - 0.01)) / 0.1) ** 2
    assert needed_examples(found, 0.1) == math.ceil(expected)
    assert needed_examples(found, -0.1) == math.ceil(expected)
    half = needed_examples(found, 0.05)
    assert half is not None
    assert half > 3.9 * expected
    assert needed_examples(found, 0.0) is None
    assert needed_examples(found, 1.5) is None


def test_a_difference_of_one_is_the_greatest_of_pass_or_fail() -> None:
    found = flipped(wins=6, losses=4, ties=52)
    # Every pair differs, all in one way: 1.95996² = 3.84.
    assert needed_examples(found, 1.0) == 4
    assert needed_examples(found, 1.0001) is None
    # Of one example nothing can be said, however little is asked for.
    assert needed_examples(found, 1.0, alpha=0.5) == 2
    numbers = compare("f1", [run([0.0, 1.0, 5.0])], [run([1.0, 2.5, 6.0])])
    assert needed_examples(numbers, 1e6) == 2


def test_needed_examples_of_pass_or_fail_with_seeds() -> None:
    a: list[RunValues] = [run([1.0, 0.0, 1.0, 0.0, 1.0, 0.0]), run([1.0, 0.0, 0.0, 0.0, 1.0, 1.0])]
    b: list[RunValues] = [run([1.0, 1.0, 1.0, 0.0, 0.0, 1.0]), run([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])]
    found = compare("accuracy", a, b)
    assert (found.test, found.pass_fail, found.n) == ("wilcoxon", True, 6)
    assert found.variance is not None
    assert found.variance.seed == 0
    differences = [0, 1, 0.5, 0, -0.5, 0.5]
    # A pair that differs by 1 and one that does not are added to the six.
    variance = (6 * np.var(differences, ddof=1) + 1) / 8
    expected = (1.959964 + 0.841621) ** 2 * variance / 0.2**2
    assert needed_examples(found, 0.2) == math.ceil(expected)


def test_needed_examples_of_numbers() -> None:
    rng = np.random.default_rng(1)
    found = compare("f1", [run(rng.normal(size=50).tolist())], [run(rng.normal(size=50).tolist())])
    assert found.spread is not None
    expected = ((1.959964 + 0.841621) * found.spread / 0.3) ** 2
    assert needed_examples(found, 0.3) == math.ceil(expected)
    stricter = needed_examples(found, 0.3, power=0.95, alpha=0.01)
    assert stricter is not None
    assert stricter > expected
    assert needed_examples(replace(found, spread=0.0), 0.3) is None


values = st.lists(st.sampled_from([0.0, 1.0]) | st.floats(min_value=-5, max_value=5), min_size=2, max_size=25)


@settings(max_examples=60)
@given(st.data())
def test_turning_the_sides_round_turns_the_result_round(data: st.DataObject) -> None:
    a = data.draw(values)
    b = data.draw(st.lists(st.sampled_from(a), min_size=len(a), max_size=len(a)))
    one, other = compare("m", [run(a)], [run(b)]), compare("m", [run(b)], [run(a)])
    assert one.difference == pytest.approx(-(other.difference or 0.0))
    assert (one.wins, one.losses, one.ties) == (other.losses, other.wins, other.ties)
    assert one.p_value == pytest.approx(other.p_value)
    assert 0 <= (one.p_value or 0) <= 1
    assert one.wins + one.losses + one.ties == one.n == len(a)


passes = st.sampled_from([0.0, 1.0])
numbers = st.floats(min_value=-5, max_value=5)


@settings(max_examples=60)
@given(st.data(), st.sampled_from([passes, numbers]), st.integers(2, 25))
def test_sides_swapped_have_the_mirrored_interval(
    data: st.DataObject, kind: st.SearchStrategy[float], n: int
) -> None:
    """Exactly, also with seeds, of which the sides need not have the same number."""
    runs = st.lists(st.lists(kind, min_size=n, max_size=n).map(run), min_size=1, max_size=3)
    a, b = data.draw(runs), data.draw(runs)
    one, other = compare("m", a, b), compare("m", b, a)
    assert one.difference == -(other.difference or 0.0)
    assert (one.stderr, one.p_value, one.test) == (other.stderr, other.p_value, other.test)
    assert (one.ci95 is None) == (other.ci95 is None)
    if one.ci95 is not None and other.ci95 is not None:
        assert one.ci95 == (-other.ci95[1], -other.ci95[0])


def test_seven_wins_and_no_loss_are_seven_losses_turned_round() -> None:
    better, worse = run([1.0] * 24), run([0.0] * 7 + [1.0] * 17)
    gain, loss = compare("m", [worse], [better]).ci95, compare("m", [better], [worse]).ci95
    assert gain is not None
    assert loss == (-gain[1], -gain[0])
    assert 0 < gain[0] < 7 / 24 < gain[1]


@settings(max_examples=60)
@given(values, st.floats(min_value=-3, max_value=3))
def test_the_interval_holds_the_difference(a: list[float], shift: float) -> None:
    found = compare("m", [run(a)], [run([value * (shift > 0) + shift for value in a])])
    assert found.difference is not None
    if found.ci95 is not None:
        assert all(map(math.isfinite, found.ci95))
        assert found.ci95[0] - 1e-9 <= found.difference <= found.ci95[1] + 1e-9


@pytest.mark.parametrize("kind", ["pass/fail", "numbers"])
def test_without_a_difference_a_verdict_is_rare(kind: str) -> None:
    """A short version of benchmarks/compare_calibration.py; the seed is fixed."""
    rng = np.random.default_rng(21)
    verdicts = 0
    for _ in range(200):
        level = rng.random(40)
        if kind == "pass/fail":
            a, b = ((rng.random(40) < level).astype(float) for _ in range(2))
        else:
            a, b = (level + rng.normal(size=40) for _ in range(2))
        verdicts += compare("m", [run(a.tolist())], [run(b.tolist())]).verdict != "cannot tell"
    assert verdicts <= 16  # 5% are 10; two standard errors of the simulation are 6
