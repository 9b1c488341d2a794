"""How a run stands to the best one, in the words that tables and plots use. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from dspylab.aggregate.compare import ALPHA, Comparison, Family, Standing
from dspylab.aggregate.decision import Failures
from dspylab.config.wording import named
from dspylab.report.material import Material, RunMaterial
from dspylab.report.numbers import count, difference, estimate

RunStanding = Literal["best", "better", "level", "leaning", "worse", "none"]

#: How a run stands, to what people read.
WORDS: dict[RunStanding, str] = {
    "best": "best",
    "better": "better on shared examples",
    "level": "cannot tell",
    "leaning": "probably worse",
    "worse": "worse",
    "none": "not compared",
}


def standing_of(material: Material, run: RunMaterial) -> RunStanding:
    """How a run, with those that differ from it in their seed alone, stands to the best."""
    standing = material.standing
    if run.side == standing.best:
        return "best"
    found = standing.comparisons.get(run.side)
    if found is None:
        return "none"
    if found.verdict == "cannot tell":
        return "leaning" if found.is_probably_worse else "level"
    return found.verdict


def all_pairs(family: Family) -> str:
    """The pairs that a p-value of a comparison with the best was corrected for."""
    many = f"all {count(family.total)} pairs of runs" if family.total > 1 else "the only pair of runs"
    return f"{many} (at most: so many pairs are not ranked)" if family.is_bound else many


def probably_worse(found: Sequence[Comparison], standing: Standing) -> str:
    """What is said of runs that are not called worse although their intervals lie below 0."""
    worst = max(found, key=lambda one: abs(one.difference or 0.0))
    shown = difference(worst.difference, worst.ci95)
    size = shown if len(found) == 1 else f"up to {shown}"
    runs = len(standing.comparisons) + 1
    if all(one.p_value is not None and one.p_value <= ALPHA for one in found) and runs > 2:
        examples = min(one.n for one in found)
        reason = (
            f"but not after correction for {count(runs)} runs: too many runs for {count(examples)} examples"
        )
    else:
        reason = "but too few examples differ to be sure"
    return f"probably worse ({size}), {reason}"


def contradiction(standing: Standing) -> str | None:
    """Says so when the highest mean is not the mark of the best; None when it is."""
    if not standing.better:
        return None
    many = len(standing.better) > 1
    return (
        f"{standing.best} has the highest mean, but over other examples than {', '.join(standing.better)}, "
        f"which {'are' if many else 'is'} better than it on the examples that both have a value for. See "
        f"what failed in {standing.best}."
    )


def failures_in_the_best(found: Failures | None, shown: Callable[[Sequence[str]], str] = named) -> str | None:
    """Says so when the best failed where others did not, and which run that would make the best.

    Args:
        found: What failed; None if that is nothing to speak of.
        shown: How names are written.
    """
    if found is None:
        return None
    best, times = shown([found.best]), f"{count(found.failed)} of {count(found.attempted)} times"
    if found.winner is not None:
        return (
            f"If what failed counted as not passed, {shown([found.winner])} would be the best with "
            f"{estimate(found.winner_mean, None)}: {best}, which failed {times}, would have "
            f"{estimate(found.mean, None)}."
        )
    said = f"{best} failed {times}, {shown(found.less_often)} less often: what failed is in no mean."
    if found.mean is not None:
        still = f"{best} would still be the best, with {estimate(found.mean, None)}"
        said += f" If it counted as not passed, {still}."
    return said
