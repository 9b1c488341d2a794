"""How a run stands to the best one, in the words that tables and plots use. Pure."""

from __future__ import annotations

from typing import Literal

from dspylab.report.material import Material, RunMaterial

Standing = Literal["best", "level", "worse", "none"]

#: Standing to what people read.
WORDS: dict[Standing, str] = {
    "best": "best",
    "level": "cannot tell",
    "worse": "worse",
    "none": "not compared",
}


def standing_of(material: Material, run: RunMaterial) -> Standing:
    """How a run, with those that differ from it in their seed alone, stands to the best."""
    standing = material.standing
    if run.side == standing.best:
        return "best"
    found = standing.comparisons.get(run.side)
    if found is None:
        return "none"
    return "worse" if found.verdict == "worse" else "level"
