"""What a pilot says about the rest."""

from __future__ import annotations

import math
import random

import pytest

from dspylab.aggregate.forecast import PilotRun, forecast


def pilot(
    remaining: int, durations: list[float], costs: list[float] | None = None, model: str = "a"
) -> PilotRun:
    return PilotRun(model, remaining, None if costs is None else tuple(costs), tuple(durations))


def test_equal_examples_give_an_exact_total() -> None:
    rest = forecast([pilot(10, [2.0, 2.0], [0.5, 0.5])], {"a": 4}, 64)
    assert rest.examples == 10
    assert rest.wall_s.total == 5.0
    assert rest.cost_usd is not None
    assert rest.cost_usd.total == 5.0
    assert rest.cost_usd.ends == (5.0, 5.0)


def test_the_busiest_model_decides_the_time() -> None:
    rest = forecast(
        [pilot(100, [1.0, 1.0], model="slow"), pilot(100, [1.0, 1.0], model="fast")],
        {"slow": 1, "fast": 50},
        64,
    )
    assert rest.wall_s.total == 100.0


def test_the_width_over_all_runs_bounds_too() -> None:
    rest = forecast([pilot(100, [1.0, 1.0], model=name) for name in "ab"], {"a": 64, "b": 64}, 10)
    assert rest.wall_s.total == 20.0


def test_an_unknown_price_or_a_single_example_gives_no_figure() -> None:
    rest = forecast([pilot(3, [1.0], [1.0]), pilot(3, [1.0, 2.0], None)], {"a": 1}, 1)
    assert rest.cost_usd is None
    assert rest.wall_s.ends is None


def test_the_interval_covers_what_it_says() -> None:
    generator = random.Random(0)
    hits = 0
    for _ in range(1000):
        population = [generator.gauss(5.0, 1.0) for _ in range(200)]
        sample = population[:10]
        rest = forecast([pilot(190, sample, sample)], {"a": 1}, 1)
        assert rest.cost_usd is not None
        assert rest.cost_usd.ends is not None
        hits += rest.cost_usd.ends[0] <= sum(population[10:]) <= rest.cost_usd.ends[1]
    # The finite population makes the true total vary too, a little beyond what the interval allows for.
    assert 0.92 <= hits / 1000 <= 0.97


def test_what_is_only_scored_again_makes_the_calls_no_surer() -> None:
    generator = random.Random(0)
    hits = 0
    for _ in range(1000):
        called = [generator.gauss(5.0, 1.0) for _ in range(3)]
        scored = [generator.gauss(1e-3, 1e-4) for _ in range(12)]
        rest = forecast([pilot(50, called, called), pilot(50, scored, scored)], {"a": 1}, 1)
        assert rest.cost_usd is not None
        assert rest.cost_usd.ends is not None
        hits += rest.cost_usd.ends[0] <= 250.05 <= rest.cost_usd.ends[1]
    assert 0.93 <= hits / 1000 <= 0.97


def test_what_has_nothing_left_decides_nothing() -> None:
    rest = forecast([pilot(0, [9.0, 1.0, 5.0], None), pilot(10, [1.0, 2.0], [0.0, 0.0])], {"a": 1}, 1)
    alone = forecast([pilot(10, [1.0, 2.0], [0.0, 0.0])], {"a": 1}, 1)
    assert rest.cost_usd is not None
    assert rest.cost_usd.total == 0.0
    assert rest.wall_s == alone.wall_s


def test_the_interval_by_hand() -> None:
    rest = forecast([pilot(20, [1.0, 2.0, 3.0]), pilot(10, [5.0, 7.0])], {"a": 4}, 64)
    # 20 · 2 + 10 · 6 seconds in four lanes. Variances of 400/3 with two degrees of freedom and of 100 with
    # one: together (700/3)² / ((400/3)²/2 + 100²) = 49/17 degrees.
    spread = 3.257208 * math.sqrt(20**2 * 1 / 3 + 10**2 * 2 / 2)
    assert rest.wall_s.total == 25.0
    assert rest.wall_s.ends == pytest.approx(((100 - spread) / 4, (100 + spread) / 4))
    # No total is below nothing.
    wide = forecast([pilot(9, [0.0, 0.1], [0.0, 0.1])], {"a": 1}, 1)
    assert wide.cost_usd is not None
    assert wide.cost_usd.ends is not None
    assert wide.cost_usd.ends[0] == 0.0


def test_nothing_left_costs_nothing() -> None:
    rest = forecast([pilot(0, [1.0, 2.0], [1.0, 2.0])], {"a": 1}, 1)
    assert rest.wall_s.total == 0.0
    assert rest.cost_usd is not None
    assert rest.cost_usd.total == 0.0
