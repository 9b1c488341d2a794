"""How a run stands to the best one, in the words that tables and plots use. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from dspylab.aggregate.compare import ALPHA, Comparison, Family, Standing, Verdict, needed_examples
from dspylab.aggregate.decision import Failures
from dspylab.config.wording import named
from dspylab.report.material import Material, RunMaterial
from dspylab.report.numbers import count, difference, estimate, number

RunStanding = Literal["best", "better", "ahead", "level", "leaning", "worse", "none"]

_STANDINGS: dict[Verdict, RunStanding] = {
    "better": "better",
    "probably better": "ahead",
    "cannot tell": "level",
    "probably worse": "leaning",
    "worse": "worse",
}

#: How a run stands, to what people read.
WORDS: dict[RunStanding, str] = {
    "best": "best",
    "better": "better on shared examples",
    "ahead": "probably better on shared examples",
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
    return "none" if found is None else _STANDINGS[found.verdict]


def all_pairs(family: Family) -> str:
    """The pairs that a p-value of a comparison with the best was corrected for."""
    many = f"all {count(family.total)} pairs of runs" if family.total > 1 else "the only pair of runs"
    return f"{many} (at most: so many pairs are not ranked)" if family.is_bound else many


def probably_worse(found: Sequence[Comparison], standing: Standing) -> str:
    """What is said of runs that the correction alone keeps from being called worse."""
    worst = max(found, key=lambda one: abs(one.difference or 0.0))
    shown = difference(worst.difference, worst.ci95)
    size = shown if len(found) == 1 else f"up to {shown}"
    runs, examples = count(len(standing.comparisons) + 1), count(min(one.n for one in found))
    return (
        f"probably worse ({size}), but not after correction for {runs} runs: too many runs for {examples} "
        "examples"
    )


def all_others(standing: Standing) -> str:
    """What all are that none of which is level with the best."""
    surely = len(standing.comparisons) > len(standing.probably_worse)
    return " or ".join(
        [*(["worse"] if surely else []), *(["probably worse"] if standing.probably_worse else [])]
    )


def settling(found: Sequence[Comparison], family: Family) -> str | None:
    """How many more examples it takes to be sure that these runs are worse; None if that can not be told."""
    more = 0
    for one in found:
        # As the verdict is: corrected for all pairs.
        needed = needed_examples(one, one.difference or 0.0, alpha=ALPHA / max(family.total, 1))
        if needed is None:
            return None
        more = max(more, needed - one.n)
    if not more:
        return None
    return (
        f"About {number(more, 2)} more examples would settle that with a chance of 80%, if the differences "
        "are as large as they look."
    )


def is_better(standing: Standing) -> str:
    """What those are that are better than the best where both have a value."""
    said = {name: standing.comparisons[name].verdict for name in standing.better}
    words = " or ".join(word for word in ("better", "probably better") if word in said.values())
    return f"{'are' if len(said) > 1 else 'is'} {words}"


def contradiction(standing: Standing) -> str | None:
    """Says so when the highest mean is not the mark of the best; None when it is."""
    if not standing.better:
        return None
    return (
        f"{standing.best} has the highest mean, but over other examples than {', '.join(standing.better)}, "
        f"which {is_better(standing)} than it on the examples that both have a value for. See "
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
