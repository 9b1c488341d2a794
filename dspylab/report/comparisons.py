"""The words and tables of `dspylab compare`, for the terminal and for Markdown. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from dspylab.aggregate.compare import ALPHA, Comparison, Family
from dspylab.aggregate.contrast import Contrast, Flip, Flips
from dspylab.config.wording import named
from dspylab.report.fitting import Column, FittingTable
from dspylab.report.numbers import (
    NOTHING,
    chance,
    count,
    difference,
    estimate,
    in_unit,
    number,
    p_value,
)
from dspylab.report.pairing import changed, left_out
from dspylab.report.standing import all_pairs

_TESTS = {"mcnemar": "exact McNemar", "wilcoxon": "Wilcoxon"}
_OF_CALLS = "Timings are of single calls; tokens per second: those of a reply by its latency."
#: Characters of a text that stays on one line of a terminal's table.
SHORT = 160
#: Characters to which answers, and headings with the name of a run, are folded before a column goes: five of
#: them fit 80.
_SQUEEZED = 14
_INTERVAL_ALONE = (
    "The interval of the mean difference excludes 0, but by the test the wins and losses may be chance: a "
    "verdict takes both."
)
#: Lines below a table of comparisons that say what is not in it.
_MOST_REMARKS = 6


def comparisons_table(
    title: str, contrasts: Sequence[Contrast], against: str | None, family: Family | None = None
) -> FittingTable:
    """One row a comparison.

    Args:
        title: Above the table.
        contrasts: The comparisons.
        against: Name of the baseline, if all have the same.
        family: What the comparisons were chosen from; None for just these.
    """

    def cell(text: Callable[[Comparison], str]) -> Callable[[Contrast], str]:
        return lambda found: text(found.comparison)

    tests = _tests(contrasts)
    columns = [
        *([] if against else [Column("a", cell(lambda one: one.a), text=True)]),
        Column("run" if against else "b", cell(lambda one: one.b), text=True),
        Column(
            "verdict",
            cell(lambda one: one.verdict),
            style=_emphasis,
            legend="probably: by p before its correction." if _has_probable(contrasts) else "",
        ),
        Column(
            "difference",
            cell(lambda one: difference(one.difference, one.ci95)),
            legend="difference: [95% interval], paired by example.",
        ),
        Column("mean", cell(lambda one: estimate(one.mean_b, None)), rank=3),
        Column("baseline", cell(lambda one: estimate(one.mean_a, None)), rank=4),
        Column(
            "p",
            cell(lambda one: chance(one.p_adjusted)),
            rank=1,
            legend=f"p: {tests}, after Holm's correction over {_corrected_over(contrasts, family)}."
            if tests
            else "",
        ),
        Column(
            "wins", cell(lambda one: count(one.wins)), rank=2, legend="wins: examples on which it is better."
        ),
        Column("losses", cell(lambda one: count(one.losses)), rank=2),
        Column("pairs", cell(lambda one: count(one.n)), rank=5),
        Column(
            "latency\np50",
            lambda found: _change("latency_p50_s", found.figures_a, found.figures_b),
            rank=6,
        ),
        Column("cost", lambda found: _change("cost_usd", found.figures_a, found.figures_b), rank=7),
    ]
    return FittingTable(title, columns, contrasts, _only_probably(contrasts))


def figures_table(contrast: Contrast) -> FittingTable:
    """What both sides cost and how fast they are."""
    comparison = contrast.comparison
    rows: list[tuple[str, float | None, float | None]] = [
        (name, value, contrast.figures_b[name]) for name, value in contrast.figures_a.items()
    ]
    columns = [
        Column("figure", lambda row: row[0], text=True),
        Column(comparison.a, lambda row: _figure(row[0], row[1]), squeezed=_SQUEEZED),
        Column(comparison.b, lambda row: _figure(row[0], row[2]), squeezed=_SQUEEZED),
        Column("change", lambda row: _share(row[1], row[2]), rank=1),
    ]
    return FittingTable("", columns, rows, [_OF_CALLS])


def flips_tables(comparison: Comparison, flips: Flips, short: int | None) -> list[FittingTable]:
    """The examples that flipped, one table each way.

    Args:
        comparison: What they are of.
        flips: The examples.
        short: Most characters of a text; None for all.
    """
    prose = partial(Column, text=True, squeezed=_SQUEEZED)
    tables = []
    ways = ((comparison.b, flips.wins, comparison.wins), (comparison.a, flips.losses, comparison.losses))
    for better, shown, total in ways:
        if not shown:
            continue
        many = "" if len(shown) == total else f", {count(len(shown))} of them (--flips N shows more)"
        columns = [
            prose("example", lambda flip: flip.example_id[:12] if short else flip.example_id, rank=2),
            prose("inputs", partial(_field, name="inputs", short=short), rank=1),
            prose("labels", partial(_labels, a=comparison.a, short=short), rank=3),
            prose(f"{comparison.a} says", partial(_answer, side="a", short=short)),
            prose(f"{comparison.b} says", partial(_answer, side="b", short=short)),
        ]
        tables.append(FittingTable(f"{better} is better on {count(total)}{many}", columns, shown))
    return tables


def without_pairs(contrasts: Sequence[Contrast]) -> list[str]:
    """Why nothing is said of sides that have values, but not for the same examples, and what to do."""
    apart = [
        found.comparison
        for found in contrasts
        if not found.comparison.n and found.comparison.only_a and found.comparison.only_b
    ]
    if not apart:
        return []
    which = "" if len(apart) == len(contrasts) else f" of {', '.join(found.b for found in apart)}"
    return [
        (
            f"No example is common to both sides{which}, neither by its id nor by its inputs, so none can be "
            "paired. The dataset has other rows by now, or rows with the same inputs and another "
            "`dataset.id`. Run both sides with the same rows and the same `dataset.id`, then compare them "
            "again."
        )
    ]


def remarks_on_pairs(contrasts: Sequence[Contrast]) -> list[str]:
    """What a table of comparisons does not show: examples that are left out, or have other labels.

    What holds for all of them is said once.
    """
    said: dict[str, list[str]] = {}
    for found in contrasts:
        lost = left_out(found.pairing, "the baseline", "the run") if found.comparison.n else None
        for line in (*changed(found.pairing, "the baseline"), *filter(None, [lost])):
            said.setdefault(line, []).append(found.comparison.b)
    lines = [
        line if len(runs) == len(contrasts) else f"{named(runs)}: {line}"
        for line, runs in list(said.items())[:_MOST_REMARKS]
    ]
    more = len(said) - len(lines)
    return [*lines, *([f"{count(more)} more such lines: --format json has all."] if more else [])]


def sentences(contrast: Contrast, *, planned: bool = False) -> list[str]:
    """What was found, in words: the verdict first.

    Args:
        contrast: What was found.
        planned: Whether the examples that it takes are named also when enough of them are there.
    """
    found = contrast.comparison
    lines = [_verdict(contrast)]
    if found.p_adjusted is not None and found.p_value is not None:
        same = found.p_adjusted == found.p_value
        corrected = _not_corrected(contrast) if same else f" ({p_value(found.p_adjusted)} after Holm)"
        counted = (
            f"over {count(found.n)} examples {found.b} is better on {count(found.wins)}, worse on "
            f"{count(found.losses)}, equal on {count(found.ties)}"
        )
        tested = f"{_TESTS[found.test]}: {p_value(found.p_value)}{corrected}; {counted}."
        lines.append(f"The same on all {count(found.n)} examples." if found.is_the_same else tested)
    lines += _disagreement(found)
    lines += changed(contrast.pairing, found.a)
    lines += _lost(contrast)
    lines += _variance(found)
    if found.verdict == "cannot tell" or planned:
        lines += _needed(contrast)
    return lines


def _verdict(contrast: Contrast) -> str:
    found, wider = contrast.comparison, contrast.in_experiment
    if found.difference is None:
        return f"{found.a} and {found.b} have no example with {found.metric} in common."
    size = f"{found.metric} {difference(found.difference, found.ci95)}"
    means = f"{estimate(found.mean_b, None)} against {estimate(found.mean_a, None)}"
    if found.verdict == "cannot tell":
        return f"Whether {found.b} is better or worse than {found.a} can not be told: {size}, {means}."
    said = f"{found.b} is {found.verdict} than {found.a}"
    if wider is not None and wider.verdict != found.verdict:
        said += (
            f" if this is the one comparison that was planned ({p_value(found.p_adjusted)}); among all "
            f"{count(wider.pairs)} pairs of runs it is only {wider.verdict} ({p_value(wider.p_adjusted)})"
        )
    return f"{said}: {size}, {means}."


def _not_corrected(contrast: Contrast) -> str:
    """That the p-value is the test's own, and what it would be among all pairs where this matters."""
    wider = contrast.in_experiment
    if wider is None or contrast.comparison.verdict == "cannot tell":
        return " (not corrected)"
    pairs = all_pairs(Family(total=wider.pairs, is_bound=wider.is_bound))
    return f" (not corrected; {p_value(wider.p_adjusted)} after Holm's correction over {pairs})"


def _disagreement(found: Comparison) -> list[str]:
    """Why a small p-value, or an interval without 0, was not enough."""
    if found.verdict != "cannot tell" or found.p_adjusted is None or found.ci95 is None:
        return []
    if found.p_adjusted > ALPHA:
        low, high = found.ci95
        return [_INTERVAL_ALONE] if low > 0 or high < 0 else []
    return [
        (
            "The test sees a difference, but the interval of the mean difference holds 0: few examples "
            "differ a lot one way and many a little the other way, or a seed moves all of them."
        )
    ]


def _lost(contrast: Contrast) -> list[str]:
    lost = left_out(contrast.pairing, contrast.comparison.a, contrast.comparison.b)
    if lost is None:
        return []
    lines = [lost]
    as_0 = contrast.failures_as_0
    if as_0 is not None:
        lines.append(
            f"If what failed counted as not passed: {difference(as_0.difference, as_0.ci95)}, "
            f"{p_value(as_0.p_adjusted)}: {as_0.verdict}."
        )
    return lines


def _variance(found: Comparison) -> list[str]:
    split = found.variance
    total = split and split.example + split.noise + split.seed
    if split is None or not total:
        return []
    return [
        (
            f"Variance of the difference: {split.example / total:.0%} from the examples, "
            f"{split.noise / total:.0%} from answers that change with the seed, {split.seed / total:.0%} "
            "from seeds that move all examples at once (only more seeds make that smaller)."
        )
    ]


def _needed(contrast: Contrast) -> list[str]:
    if not contrast.needed:
        return []
    parts = [
        f"{count(needed)} for {size}" if needed is not None else f"no number of examples is enough for {size}"
        for size, needed in contrast.needed.items()
    ]
    return [f"Examples that it takes to see a difference (power 80%): {', '.join(parts)}."]


def _field(flip: Flip, name: str, short: int | None) -> str:
    return _text(getattr(flip, name), short)


def _labels(flip: Flip, a: str, short: int | None) -> str:
    before = "" if flip.labels_a is None else f" (in {a}: {_text(flip.labels_a, short)})"
    return _text(flip.labels, short) + before


def _text(value: Any, short: int | None) -> str:
    """Fields as text: the only one's value alone, else each with its name."""
    if isinstance(value, Mapping):
        parts = [part if isinstance(part, str) else _json(part) for part in value.values()]
        with_names = [f"{name}: {part}" for name, part in zip(value, parts, strict=True)]
        text = parts[0] if len(parts) == 1 else "; ".join(with_names)
    else:
        text = NOTHING if value is None else _json(value)
    text = " ".join(text.split()) if short else text
    return text if short is None or len(text) <= short else text[: short - 1] + "…"


def _answer(flip: Flip, side: str, short: int | None) -> str:
    """What a side said, each different answer of its seeds once, and the value of the metric."""
    outputs, value = (flip.outputs_a, flip.value_a) if side == "a" else (flip.outputs_b, flip.value_b)
    said = dict.fromkeys("failed" if output is None else _text(output, short) for output in outputs)
    return f"{' / '.join(said)} ({value:.3g})"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return NOTHING
    return in_unit(name, value, number if name.endswith("per_s") else "{:g}".format)


def _share(before: float | None, after: float | None) -> str:
    if before is None or after is None or before == after:
        return NOTHING
    # There is to be neither +0% nor -0%.
    return f"{after / before - 1:+.0%}".replace("+0%", "0%").replace("-0%", "0%") if before else NOTHING


def _change(name: str, before: Mapping[str, float | None], after: Mapping[str, float | None]) -> str:
    change = _share(before[name], after[name])
    return _figure(name, after[name]) + ("" if change == NOTHING else f" ({change})")


def _tests(contrasts: Sequence[Contrast]) -> str:
    made = [found.comparison.test for found in contrasts if found.comparison.p_value is not None]
    return " or ".join(dict.fromkeys(_TESTS[test] for test in made))


def _corrected_over(contrasts: Sequence[Contrast], family: Family | None) -> str:
    """Over how many comparisons p was corrected."""
    if family is not None:
        return all_pairs(family)
    tested = sum(found.comparison.p_value is not None for found in contrasts)
    return "these comparisons" if tested != len(contrasts) else f"these {count(tested)} comparisons"


def _has_probable(contrasts: Sequence[Contrast]) -> bool:
    return any(found.comparison.verdict.startswith("probably") for found in contrasts)


def _only_probably(contrasts: Sequence[Contrast]) -> list[str]:
    """Which verdicts hold for these comparisons, but not among all pairs of the experiment."""
    weaker = [
        (found.comparison.b, found.in_experiment)
        for found in contrasts
        if found.in_experiment is not None and found.in_experiment.verdict != found.comparison.verdict
    ]
    if not weaker:
        return []
    said = [f"{name} ({one.verdict}, {p_value(one.p_adjusted)})" for name, one in weaker]
    return [
        (
            "That is so if it is these comparisons that were planned. Among all "
            f"{count(weaker[0][1].pairs)} pairs of runs it is not sure of {', '.join(said)}."
        )
    ]


def _emphasis(found: Contrast) -> str:
    return {"better": "green", "worse": "red"}.get(found.comparison.verdict, "")
