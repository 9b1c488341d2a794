"""What the results say, in words. Run names stand in backticks, as in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dspylab.aggregate.compare import ALPHA, Comparison, Family, Standing, needed_examples
from dspylab.report.entries import estimate_of, most_frequent_error
from dspylab.report.material import Material, Objective, RunMaterial
from dspylab.report.numbers import cost, count, difference, duration, number, p_value
from dspylab.report.standing import (
    all_others,
    all_pairs,
    failures_in_the_best,
    is_better,
    probably_worse,
    settling,
)

#: Names that a sentence lists before it only counts.
_MOST_NAMES = 6
#: Runs whose failures are described: those with the most.
_MOST_FAILURES = 3
_OBJECTIVES: tuple[tuple[Objective, Callable[[float], str], str], ...] = (
    ("cost", cost, "cheapest"),
    ("time", duration, "fastest"),
)
_TESTS = {"mcnemar": "exact McNemar test", "wilcoxon": "Wilcoxon signed-rank test"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to ship, as far as that can be said.

    Attributes:
        headline: A sentence or two. It says to ship a run only if all others are worse for sure.
        points: What it rests on and what to mind, a sentence or two each.
    """

    headline: str
    points: tuple[str, ...]


def verdict(material: Material) -> Verdict:
    """The verdict on an experiment.

    Args:
        material: What the report is made from.
    """
    points = [
        *filter(None, [failures_in_the_best(material.decision.failures, names)]),
        *_against_next(material),
        *_probably_worse(material),
        *_choice(material),
        *_dominated(material),
        *_cautions(material),
    ]
    return Verdict(_headline(material), tuple(points))


def names(keys: Sequence[str]) -> str:
    """Names in backticks: `a`, `b` and `c`."""
    shown = [f"`{key.replace('`', chr(39))}`" for key in keys[:_MOST_NAMES]]
    if len(keys) > _MOST_NAMES:
        shown.append(f"{count(len(keys) - _MOST_NAMES)} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _headline(material: Material) -> str:
    standing, primary = material.standing, material.primary
    if standing.best is None:
        return f"No verdict yet: no complete run has a value for {primary} here."
    best = names([standing.best])
    score = _score(material, standing.best)
    if not standing.comparisons:
        return f"{best} is the only complete run: {primary} {score}. There is nothing to compare it with."
    in_doubt = _in_doubt(material, best, score)
    if in_doubt is not None:
        return in_doubt
    level = standing.level[1:]
    if not level:
        sure = f"Ship {best}: with {score}, its {primary} is better than that of every other run."
        leads = (
            f"{best} leads: it has the highest {primary}, {score}, and every other run is "
            f"{all_others(standing)}."
        )
        return _and(leads, _settling(standing)) if standing.probably_worse else sure
    if len(level) == len(standing.comparisons):
        return f"No clear winner: {best} has the highest {primary}, {score}, but no run can be told from it."
    return f"{best} has the highest {primary}, {score}, but {names(level)} can not be told from it."


def _in_doubt(material: Material, best: str, score: str) -> str | None:
    """That the highest mean is that of what did not fail, where this decides; None where it does not."""
    standing, failures, primary = material.standing, material.decision.failures, material.primary
    if standing.better:
        return (
            f"No clear winner: {best} has the highest {primary}, {score}, but {names(standing.better)} "
            f"{is_better(standing)} on the examples that both have a value for. Their means are over "
            f"different examples: see what failed in {best}."
        )
    if failures is not None and failures.winner is not None:
        return (
            f"No clear winner: {best} has the highest {primary}, {score}, but failed "
            f"{count(failures.failed)} of {count(failures.attempted)} times: if that counted as not passed, "
            f"{names([failures.winner])} would be the best."
        )
    return None


def _score(material: Material, side: str) -> str:
    source = material.summary["over_seeds"].get(side) or material.summary["runs"][side]
    return estimate_of(source, material.primary)


def _against_next(material: Material) -> Iterator[str]:
    """The closest other run, and how far more examples would help."""
    found = next(iter(material.standing.comparisons.values()), None)
    if found is None or found.difference is None:
        return
    # The comparison is of the other with the best; the sentence is about the best.
    ends = found.ci95 and (-found.ci95[1], -found.ci95[0])
    decided = (
        f"{_TESTS[found.test]}, {p_value(found.p_adjusted)}{_corrected(material.standing.family)}"
        if found.p_adjusted is not None
        else "too few examples for a test"
    )
    if found.is_the_same:
        yield f"Against the next, {names([found.b])}: the same on all {count(found.n)} paired examples."
        return
    gained = difference(0.0 - found.difference, ends)
    yield (
        f"Against the next, {names([found.b])}: {gained} over {count(found.n)} "
        f"paired examples, better on {count(found.losses)} and worse on {count(found.wins)} ({decided})."
    )
    if found.verdict == "cannot tell":
        yield from _needed(found, material.standing.family)


def _corrected(family: Family) -> str:
    return f" after Holm's correction over {all_pairs(family)}" if family.total > 1 else ""


def _needed(found: Comparison, family: Family) -> Iterator[str]:
    if not found.difference:
        return
    # As the verdict is: corrected for all pairs.
    needed = needed_examples(found, found.difference, alpha=ALPHA / max(family.total, 1))
    if needed is not None and needed > found.n:
        yield (
            f"If they differ by as much as it looks, it takes about {number(needed, 2)} examples to see it; "
            f"here are {count(found.n)}."
        )


def _probably_worse(material: Material) -> Iterator[str]:
    """Runs that no one should choose for being cheap, though it is not sure that they are worse."""
    standing = material.standing
    found = [standing.comparisons[name] for name in standing.probably_worse]
    if found:
        # Where all others are worse, at least probably, the headline says what settles it.
        settled = _settling(standing) if standing.level[1:] else None
        yield _and(f"{names(standing.probably_worse)}: {probably_worse(found, standing)}.", settled)


def _and(sentence: str, another: str | None) -> str:
    return sentence if another is None else f"{sentence} {another}"


def _settling(standing: Standing) -> str | None:
    return settling([standing.comparisons[name] for name in standing.probably_worse], standing.family)


def _choice(material: Material) -> Iterator[str]:
    """Between runs of one quality, cost and latency decide."""
    level = material.standing.level
    if len(level) < 2:
        return
    for objective, shown, least in _OBJECTIVES:
        figures = {side: material.figure(material.decision.sides[side], objective) for side in level}
        known = {side: figure for side, figure in figures.items() if figure is not None}
        if len(known) < len(level) or len(set(known.values())) == 1:
            continue
        first = min(known, key=known.__getitem__)
        last = max(known, key=known.__getitem__)
        yield (
            f"Of these {count(len(level))}, {names([first])} is the {least}: {shown(known[first])} "
            f"against {shown(known[last])} for {names([last])} an example."
        )


def _dominated(material: Material) -> Iterator[str]:
    places = material.decision.places.values()
    what = f"another run is at least as good in {material.primary}, and in time and cost of an example"
    surely = [place.name for place in places if place.surely_by]
    perhaps = [place.name for place in places if place.dominated_by and not place.surely_by]
    if surely:
        yield f"Dominated, as {what}: {names(surely)}."
    if perhaps:
        yield f"Dominated by the figures alone, which may be chance: {names(perhaps)}."


def _cautions(material: Material) -> Iterator[str]:
    failed = [run for run in material.runs if run.figures["examples"]["failed"]]
    failed.sort(key=lambda run: -run.figures["examples"]["failed"])
    yield from map(_failures, failed[:_MOST_FAILURES])
    if len(failed) > _MOST_FAILURES:
        yield f"Runs with fewer failures: {names([run.key for run in failed[_MOST_FAILURES:]])}."
    incomplete = [run.key for run in material.runs if not run.figures["complete"]]
    if incomplete:
        yield f"Not complete, so not compared: {names(incomplete)}."
    without_rows = material.results.without_rows
    if without_rows:
        yield f"Not compared, as their rows are not here: {names(without_rows)}. {material.results.remedy}."
    unpriced = [run.key for run in material.runs if run.figures["cost_usd"]["unpriced_calls"]]
    if unpriced:
        yield f"No price is known for a model of {names(unpriced)}: their cost is not known."


def _failures(run: RunMaterial) -> str:
    failed, attempted = run.figures["examples"]["failed"], run.figures["examples"]["attempted"]
    kind, _, _ = most_frequent_error(run.figures)
    return (
        f"{names([run.key])} failed on {count(failed)} of {count(attempted)} examples, most often with "
        f"`{kind}`: they are in no mean."
    )
