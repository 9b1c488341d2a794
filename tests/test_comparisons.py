"""What is said of a comparison, in words and tables."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from dspylab.aggregate.compare import Comparison, InExperiment, adjusted, compare
from dspylab.aggregate.contrast import Contrast, Flip, Flips
from dspylab.aggregate.pairs import RunValues, VarianceSplit
from dspylab.aggregate.sides import Pairing
from dspylab.report.comparisons import (
    comparisons_table,
    figures_table,
    flips_tables,
    remarks_on_pairs,
    sentences,
    without_pairs,
)
from dspylab.report.formats import markdown_table
from dspylab.report.numbers import NOTHING

NOTHING_LOST = Pairing(examples=64, paired=64, failed_a=0, failed_b=0, absent_a=0, absent_b=0)


def run(values: Sequence[float]) -> list[RunValues]:
    return [{str(example): (value,) for example, value in enumerate(values)}]


def flipped(wins: int, losses: int, ties: int = 44, names: tuple[str, str] = ("old", "new")) -> Comparison:
    a = [0.0] * wins + [1.0] * (losses + ties)
    b = [1.0] * wins + [0.0] * losses + [1.0] * ties
    return compare("accuracy", run(a), run(b), names)


def contrast(comparison: Comparison, **fields: Any) -> Contrast:
    names = ("failed", "latency_p50_s", "latency_p95_s", "ttft_p50_s", "tokens_p50_per_s", "cost_usd")
    figures = dict.fromkeys(names, None)
    usual: dict[str, Any] = {
        "pairing": NOTHING_LOST,
        "failures_as_0": None,
        "figures_a": {
            **figures,
            "failed": 0.0,
            "latency_p50_s": 0.5,
            "cost_usd": 0.2,
            "tokens_p50_per_s": 50.0,
        },
        "figures_b": {
            **figures,
            "failed": 1.0,
            "latency_p50_s": 1.0,
            "cost_usd": 0.1,
            "tokens_p50_per_s": 50.0,
        },
        "needed": {},
    }
    return Contrast(comparison=comparison, **{**usual, **fields})


def shown(table: Any, *, width: int = 200, colour: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=colour).print(table)
    return out.getvalue()


def said(comparison: Comparison, **fields: Any) -> str:
    return "\n".join(sentences(contrast(comparison, **fields)))


# --- words


def test_a_verdict_comes_first() -> None:
    better, *_ = sentences(contrast(flipped(18, 2)))
    assert better.startswith("new is better than old: accuracy +0.250 [")
    assert better.endswith(", 0.969 against 0.719.")
    assert said(flipped(2, 18)).startswith("new is worse than old: ")
    unsure = said(flipped(3, 2, 59))
    assert unsure.startswith("Whether new is better or worse than old can not be told: accuracy +0.016 [")
    assert "exact McNemar: p = 1.000 (not corrected); over 64 examples new is better on 3" in unsure
    assert "better on 3, worse on 2, equal on 59." in unsure
    assert "The test sees a difference" not in unsure


def test_without_a_pair_there_is_nothing_to_tell() -> None:
    assert sentences(contrast(compare("accuracy", run([]), run([]), ("old", "new")))) == [
        "old and new have no example with accuracy in common."
    ]


def test_a_correction_is_said_where_it_changed_something() -> None:
    first, _ = adjusted([flipped(18, 2), flipped(17, 2)])
    assert "p < 0.001 (p < 0.001 after Holm); over 64" in said(first)
    assert "after Holm" not in said(flipped(18, 2))
    assert "p < 0.001 (not corrected); over 64" in said(flipped(18, 2))


def test_a_pair_that_was_named_is_said_to_be_one_of_all_pairs() -> None:
    """What `show` and the report say of it must not be another thing."""
    pair, sure = flipped(6, 0), flipped(18, 2)
    weaker = InExperiment(pairs=6, is_bound=False, p_adjusted=0.1875, verdict="probably better")
    verdict, tested, *_ = sentences(contrast(pair, in_experiment=weaker))
    assert verdict.startswith(
        "new is better than old if this is the one comparison that was planned (p = 0.031); among all 6 "
        "pairs of runs it is only probably better (p = 0.188): accuracy +0.120 ["
    )
    assert tested.startswith(
        "exact McNemar: p = 0.031 (not corrected; p = 0.188 after Holm's correction over all 6 pairs of "
        "runs); over 50 examples"
    )
    same = InExperiment(pairs=6, is_bound=True, p_adjusted=0.002, verdict="better")
    verdict, tested, *_ = sentences(contrast(sure, in_experiment=same))
    assert verdict.startswith("new is better than old: accuracy +0.250 [")
    assert "(not corrected; p = 0.002 after Holm's correction over all 6 pairs of runs (at most: " in tested
    unclear = InExperiment(pairs=6, is_bound=False, p_adjusted=1.0, verdict="cannot tell")
    assert "p = 1.000 (not corrected); over" in said(flipped(3, 2, 59), in_experiment=unclear)


def test_a_test_that_the_interval_does_not_follow_is_explained() -> None:
    values = [-0.01] * 90 + [2.0] * 3
    found = compare("f1", run([0.5] * 93), run([0.5 + value for value in values]), ("old", "new"))
    assert found.verdict == "cannot tell"
    text = said(found)
    assert "Wilcoxon" in text
    assert "The test sees a difference, but the interval of the mean difference holds 0" in text


@pytest.mark.parametrize("sign", [1, -1])
def test_an_interval_that_the_test_does_not_follow_is_explained(sign: int) -> None:
    values = [0.5 * sign] * 4 + [0.0] * 20
    found = compare("f1", run([0.4] * 24), run([0.4 + value for value in values]), ("old", "new"))
    assert found.ci95 is not None
    assert found.ci95[0] * found.ci95[1] > 0
    assert found.verdict == "cannot tell"
    text = said(found)
    assert "p = 0.125" in text
    assert (
        "The interval of the mean difference excludes 0, but by the test the wins and losses may be" in text
    )
    assert "excludes 0" not in said(flipped(3, 2, 59))
    assert "excludes 0" not in said(flipped(18, 2))


def test_every_reason_why_an_example_is_lost_is_counted() -> None:
    lost = Pairing(examples=80, paired=64, failed_a=1, failed_b=2, absent_a=3, absent_b=4)
    assert (
        "16 of 80 examples are not compared: "
        "1 failed in old; 2 failed in new; 3 not tried by old; 4 not tried by new."
        in said(flipped(18, 2), pairing=lost)
    )
    none = replace(NOTHING_LOST, examples=65)
    assert "1 of 65 examples are not compared: the metric has no value for them." in said(
        flipped(18, 2), pairing=none
    )
    as_0 = said(flipped(18, 2), pairing=lost, failures_as_0=flipped(18, 12))
    assert "If what failed counted as not passed: +0.081 [" in as_0
    assert "p = 0.362: cannot tell." in as_0


def test_other_labels_are_said_beside_the_verdict_and_below_a_table() -> None:
    edited = replace(NOTHING_LOST, other_labels=1, label_fields=("label",), other_inputs=2)
    line = (
        "1 of 64 examples has another label than in old (label): the difference is partly that of the labels."
    )
    text = said(flipped(3, 2, 59), pairing=edited)
    assert line in text
    assert "2 of 64 examples have other inputs than in old, under the same id: " in text
    several = replace(edited, other_labels=3, label_fields=("label", "team"), other_inputs=1)
    text = said(flipped(3, 2, 59), pairing=several)
    assert "3 of 64 examples have other labels than in old (label, team): " in text
    assert "1 of 64 examples has other inputs than in old" in text
    found = [contrast(flipped(3, 2, 59), pairing=edited), contrast(flipped(0, 0), pairing=edited)]
    below = remarks_on_pairs(found)
    assert below[0] == line.replace("in old", "in the baseline")
    assert len(below) == 2
    found.append(contrast(flipped(1, 0, names=("old", "other")), pairing=replace(edited, examples=65)))
    assert remarks_on_pairs(found)[2] == (
        "other: 1 of 65 examples are not compared: the metric has no value for them."
    )
    assert len(remarks_on_pairs(found)) == 3
    many = [contrast(flipped(1, 0), pairing=replace(NOTHING_LOST, examples=70 + n)) for n in range(9)]
    assert remarks_on_pairs(many)[6:] == ["3 more such lines: --format json has all."]
    assert remarks_on_pairs([contrast(flipped(1, 0))]) == []


def test_where_the_variance_comes_from() -> None:
    split = VarianceSplit(example=0.5, noise=0.3, seed=0.2)
    assert (
        "Variance of the difference: 50% from the examples, 30% from answers that change with the seed, "
        "20% from seeds" in said(replace(flipped(18, 2), variance=split))
    )
    nothing = VarianceSplit(example=0.0, noise=0.0, seed=0.0)
    assert "Variance" not in said(replace(flipped(18, 2), variance=nothing))


def test_how_many_examples_it_takes() -> None:
    text = said(flipped(3, 2, 59), needed={"0.05": 1234, "0.1": None})
    assert text.endswith(
        "Examples that it takes to see a difference (power 80%): 1,234 for 0.05, "
        "no number of examples is enough for 0.1."
    )


def test_sides_without_a_common_example_id_are_told_apart_from_sides_without_a_value() -> None:
    old, new = [{"a": (1.0,)}], [{"b": (1.0,)}]
    apart = contrast(compare("accuracy", old, new, ("old", "new")))
    empty = contrast(compare("accuracy", run([]), new, ("old", "new")))
    assert without_pairs([empty, contrast(flipped(2, 1))]) == []
    assert without_pairs([apart])[0].startswith("No example is common to both sides, neither by its id nor")
    assert without_pairs([apart, empty])[0].startswith("No example is common to both sides of new, neither")
    assert " p: " not in markdown_table(comparisons_table("", [apart, empty], "old"))


def test_what_is_already_called_better_needs_no_more_examples_unless_asked() -> None:
    better = contrast(flipped(18, 2), needed={"0.05": 1234})
    assert "Examples that it takes" not in "\n".join(sentences(better))
    assert "Examples that it takes" in "\n".join(sentences(better, planned=True))


def test_sides_that_do_not_differ_are_the_same() -> None:
    text = said(flipped(0, 0, 64))
    assert "The same on all 64 examples." in text
    assert "p = 1.000" not in text


# --- tables


def test_several_comparisons_are_a_table() -> None:
    found = adjusted([flipped(18, 2, names=("old", "new")), flipped(3, 2, 59, names=("old", "other"))])
    title, baseline = "accuracy against old", "old"
    table = markdown_table(comparisons_table(title, [contrast(one) for one in found], baseline))
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    head = [name.replace("<br>", " ") for name in lines[0]]
    assert head == [
        *("run", "verdict", "difference", "mean", "baseline", "p", "wins", "losses", "pairs"),
        *("latency p50", "cost"),
    ]
    first, second = (dict(zip(head, line, strict=True)) for line in lines[2:4])
    assert (first["run"], first["verdict"], first["mean"], first["baseline"]) == (
        "new", "better", "0.969", "0.719",
    )  # fmt: skip
    assert (first["wins"], first["losses"], first["pairs"]) == ("18", "2", "64")
    assert (first["latency p50"], first["cost"]) == ("1.00 s (+100%)", "$0.10 (-50%)")
    assert (second["run"], second["verdict"], second["p"]) == ("other", "cannot tell", "1.000")
    assert "p: exact McNemar, after Holm's correction over these 2 comparisons." in table
    assert "probably" not in table
    # Without a baseline of all, each says its own.
    text = shown(comparisons_table("all", [contrast(one) for one in found], None))
    assert all(name in text for name in ("old", "new", "other"))


def test_a_table_has_the_words_that_show_has() -> None:
    pairs = [flipped(20, 0), flipped(6, 0, names=("old", "lucky")), flipped(0, 6, names=("old", "poor"))]
    found = [contrast(one) for one in adjusted(pairs)]
    text = shown(comparisons_table("", found, "old"))
    assert [one.comparison.verdict for one in found] == ["better", "probably better", "probably worse"]
    assert "probably better" in text
    assert "probably worse" in text
    assert "probably: by p before its correction." in text
    assert "planned" not in text
    # Against a run that was named, the family is smaller than that of all pairs.
    wider = InExperiment(pairs=6, is_bound=False, p_adjusted=0.09, verdict="probably better")
    sure = InExperiment(pairs=6, is_bound=False, p_adjusted=0.001, verdict="better")
    named = [contrast(flipped(20, 0), in_experiment=sure), contrast(pairs[1], in_experiment=wider)]
    note = (
        "That is so if it is these comparisons that were planned. Among all 6 pairs of runs it is not sure "
        "of lucky (probably better, p = 0.090)."
    )
    assert note in " ".join(shown(comparisons_table("", named, "old")).split())
    assert "planned" not in shown(comparisons_table("", named[:1], "old"))


def test_only_columns_that_are_shown_are_explained() -> None:
    table = comparisons_table("all", [contrast(flipped(18, 2))], "old")
    wide, narrow, narrowest = (shown(table, width=width) for width in (200, 46, 38))
    assert "p: " in wide
    assert "wins: " in wide
    assert "p: " in narrow
    assert "wins: " not in narrow
    assert "p: " not in narrowest
    assert "difference: [95% interval], paired by example." in narrow


def test_a_verdict_has_a_colour() -> None:
    found = [contrast(flipped(18, 2)), contrast(flipped(2, 18)), contrast(flipped(3, 2, 59))]
    text = shown(comparisons_table("all", found, "old"), colour=True)
    assert re.search(r"\x1b\[32m *better", text)
    assert re.search(r"\x1b\[31m *worse", text)


def test_figures_stand_side_by_side() -> None:
    table = markdown_table(figures_table(contrast(flipped(18, 2))))
    rows = {
        line.split("|")[1].strip().replace("\\", ""): [
            cell.strip() for cell in line.strip("|").split("|")[1:]
        ]
        for line in table.splitlines()
        if line.startswith("|")
    }
    assert rows["figure"] == ["old", "new", "change"]
    assert rows["failed"] == ["0", "1", NOTHING]  # from nothing there is no share
    assert rows["latency_p50_s"] == ["500 ms", "1.00 s", "+100%"]
    assert rows["tokens_p50_per_s"] == ["50.0", "50.0", NOTHING]
    assert rows["cost_usd"] == ["$0.20", "$0.10", "-50%"]
    assert rows["ttft_p50_s"] == [NOTHING, NOTHING, NOTHING]


LONG = ("triage-mini-two_steps-balanced_demos", "triage-smollm2-predict-temperature0.7")


@pytest.mark.parametrize("width", [6, 8, 20, 30, 40, 50, 60, 70, 80, 100, 140])
def test_no_width_cuts_a_table_off(width: int) -> None:
    long = flipped(18, 2, names=LONG)
    answers = ({"label": "the parcel was delivered to the neighbours", "urgent": True},)
    flips = Flips(wins=(flip("0123456789abcdef", outputs_b=answers),), losses=())
    tables = [
        figures_table(contrast(long)),
        comparisons_table("all", [contrast(long)], LONG[0]),
        comparisons_table("all", [contrast(long)], None),
        *flips_tables(long, flips, 160),
    ]
    for table in tables:
        bare = replace(table, columns=[replace(column, legend="") for column in table.columns], notes=())
        text = shown(bare, width=width)
        assert all(len(line.rstrip()) <= width for line in text.splitlines())
        characters, _, names = "".join(text.split()).partition("Leftoutinthiswidth:")
        left_out = names.removesuffix(".").split(",")
        for column in bare.columns:
            if "".join(column.title.split()) not in left_out:
                characters = without(characters, [column.title, *map(column.cell, bare.rows)])
            else:
                assert column.rank


def without(characters: str, texts: Iterable[str]) -> str:
    """Those characters that are left when each of the texts was found among them, folded or not."""
    left = Counter(characters)
    left.subtract("".join("".join(texts).split()))
    assert min(left.values()) >= 0
    return "".join(left.elements())


def test_eighty_columns_show_what_each_side_says() -> None:
    long = flipped(18, 2, names=LONG)
    (table,) = flips_tables(long, Flips(wins=(flip("0123456789abcdef"),), losses=()), 160)
    text = shown(table, width=80)
    assert "Left out" not in text
    assert "temperature0.7" in text
    text = shown(figures_table(contrast(long)), width=50)
    assert "tokens_p50_per_s" in text
    assert "Left out in this width: change." in text
    # Names are folded before intervals are.
    assert "+0.250 [+0.125, +0.375]" in shown(comparisons_table("all", [contrast(long)], LONG[0]), width=50)


def flip(example: str, **fields: Any) -> Flip:
    usual: dict[str, Any] = {
        "inputs": {"text": "Where is\nmy order?"}, "labels": {"label": "delivery", "urgent": True},
        "value_a": 0.5, "value_b": 1.0, "outputs_a": ({"label": "bug"}, None, {"label": "bug"}),
        "outputs_b": ({"label": "delivery"},),
    }  # fmt: skip
    return Flip(example_id=example, **{**usual, **fields})


def test_examples_that_flipped_are_shown_with_what_was_said() -> None:
    wins = (flip("0123456789abcdef"), flip("b", inputs={"text": "x" * 50}, labels={}))
    better, worse = flips_tables(
        flipped(3, 1), Flips(wins=wins, losses=(flip("c", outputs_a=(3,), inputs={"n": 3}),)), 40
    )
    text = shown(better)
    assert "new is better on 3, 2 of them (--flips N shows more)" in text
    assert "0123456789ab " in text
    assert "Where is my order?" in text
    assert "label: delivery; urgent: true" in text
    assert "bug / failed (0.5)" in text
    assert "delivery (1)" in text
    assert f"{'x' * 39}…" in text
    text = shown(worse)
    assert "old is better on 1\n" in text
    assert "3 (0.5)" in text
    edited = Flips(wins=(flip("a", labels={"label": "bug"}, labels_a={"label": "login"}),), losses=())
    assert "bug (in old: login)" in shown(flips_tables(flipped(1, 0), edited, 40)[0])
    whole = shown(flips_tables(flipped(3, 1), Flips(wins=wins, losses=()), None)[0], width=300)
    assert "0123456789abcdef" in whole
    assert "x" * 50 in whole
    assert flips_tables(flipped(0, 0), Flips(wins=(), losses=()), None) == []


@pytest.mark.parametrize(("value", "text"), [(None, NOTHING), ([1, "ä"], '[1, "ä"]')])
def test_inputs_that_are_no_fields(value: Any, text: str) -> None:
    (table,) = flips_tables(flipped(1, 0), Flips(wins=(flip("a", inputs=value),), losses=()), None)
    assert text in shown(table)
