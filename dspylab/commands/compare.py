"""`dspylab compare`: which run is better, by how much, is that real, and what does it cost. Reads only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dspylab.aggregate.compare import ALPHA, Family, adjusted
from dspylab.aggregate.contrast import Contrast, Flips, completed, contrast, flips
from dspylab.commands.console import console
from dspylab.commands.find import find_layout, refuse_files
from dspylab.commands.opponents import Opponents, find_opponents
from dspylab.commands.stale import Now
from dspylab.jsonable import to_json
from dspylab.record.results import WORKSPACE

if TYPE_CHECKING:
    from dspylab.report.fitting import FittingTable

Format = Literal["table", "md", "json"]

#: Examples that flipped, each way, that a terminal and a page of Markdown show; JSON has all.
_FLIPS = {"table": 3, "md": 10, "json": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to compare, and how to print it.

    Attributes:
        names: None, one or two names of runs or of revisions, see `find_opponents`.
        metric: Name of the metric; None for the primary one.
        flips: Most examples that flipped to show, each way; None for as many as the format has room for.
        sizes: Differences to say the needed examples for; empty for the usual ones.
        format: How to print it.
    """

    names: Sequence[str] = ()
    metric: str | None = None
    flips: int | None = None
    sizes: Sequence[float] = ()
    format: Format = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is printed: the comparisons, and the flips of the only one, or of all if they were asked for.

    `planned`: differences to plan for were asked for.
    """

    opponents: Opponents
    contrasts: Sequence[Contrast]
    flips: Sequence[Flips | None]
    planned: bool


def compare_results(config: Path | None, wish: Wish) -> None:
    """Prints the comparison of two runs, of all with one, or of two revisions.

    Args:
        config: The experiment file.
        wish: What to compare, and how to print it.

    Raises:
        UsageError: If a name means nothing, or there is nothing to compare.
        DataError: If there are no results, or their rows are elsewhere.
    """
    refuse_files(wish.names)
    layout, now = find_layout(config), Now(config)
    workspace = now.results(layout) if layout.summary.is_file() or not wish.names else None
    opponents = find_opponents(layout, workspace, wish.names, wish.metric)
    found = _compare(opponents, wish)
    if wish.format == "json":
        print(json.dumps(_document(found), ensure_ascii=False, indent=2))
    elif wish.format == "md":
        _print_markdown(found)
    else:
        _print_tables(found)
    results = [side.results for pair in opponents.pairs for side in pair]
    in_workspace = [one for one in results if one.name == WORKSPACE]
    if in_workspace:
        now.tell_stale(in_workspace[0].summary)


def _compare(opponents: Opponents, wish: Wish) -> _Found:
    raw = [contrast(opponents.metric, a, b) for a, b in opponents.pairs]
    family = opponents.family
    comparisons = adjusted([comparison for comparison, _, _ in raw], family)
    # Beside each other as they are shown: a comparison without failures stands in its own place. Those not
    # shown are not made once more, they count as if nothing differed.
    as_0 = adjusted(
        [other or comparison for comparison, _, other in raw], family and Family(total=family.total)
    )
    alpha = ALPHA / max(family.total if family else 0, len(raw), 1)
    contrasts = [
        completed(comparison, found, corrected if other else None, sides, sizes=wish.sizes, alpha=alpha)
        for comparison, (_, found, other), corrected, sides in zip(
            comparisons, raw, as_0, opponents.pairs, strict=True
        )
    ]
    if opponents.among is not None:
        contrasts = [
            replace(one, in_experiment=opponents.among.in_experiment(one.comparison)) for one in contrasts
        ]
    limit = _FLIPS[wish.format] if wish.flips is None else wish.flips
    detailed = len(contrasts) == 1 or wish.flips is not None
    return _Found(
        opponents=opponents,
        contrasts=contrasts,
        planned=bool(wish.sizes),
        flips=[flips(opponents.metric, a, b, limit) if detailed else None for a, b in opponents.pairs],
    )


def _table(found: _Found) -> FittingTable:
    from dspylab.report.comparisons import comparisons_table

    opponents = found.opponents
    return comparisons_table(opponents.title, found.contrasts, opponents.against, opponents.family)


def _print_tables(found: _Found) -> None:
    from dspylab.report.comparisons import SHORT, figures_table, flips_tables, sentences

    out = console()
    single = len(found.contrasts) == 1
    if len(found.contrasts) > 1:
        out.print(_table(found))
    for one, shown in zip(found.contrasts, found.flips, strict=True):
        if single:
            verdict, *details = sentences(one, planned=found.planned)
            out.print(verdict, style="bold", markup=False)
            for line in details:
                out.print(line, markup=False)
            out.print()
            out.print(figures_table(one))
        if shown is not None:
            for table in flips_tables(one.comparison, shown, SHORT):
                out.print()
                out.print(table)
    for line in _remarks(found):
        out.print(line, style="dim", markup=False)


def _print_markdown(found: _Found) -> None:
    from dspylab.report.comparisons import figures_table, flips_tables, sentences
    from dspylab.report.formats import markdown_table, markdown_text

    parts = []
    if len(found.contrasts) > 1:
        parts.append(markdown_table(_table(found)))
    for one, shown in zip(found.contrasts, found.flips, strict=True):
        if len(found.contrasts) == 1:
            verdict, *details = map(markdown_text, sentences(one, planned=found.planned))
            parts += [
                f"**{verdict}**\n",
                *(f"{line}\n" for line in details),
                markdown_table(figures_table(one)),
            ]
        if shown is not None:
            parts += [markdown_table(table) for table in flips_tables(one.comparison, shown, None)]
    parts += [f"{markdown_text(line)}\n" for line in _remarks(found)]
    print("\n".join(parts), end="")


def _not_compared(found: _Found) -> list[str]:
    """What is not compared, or not with quite the same."""
    from dspylab.report.comparisons import remarks_on_pairs, without_pairs

    # Of the only comparison its sentences have said it.
    on_pairs = remarks_on_pairs(found.contrasts) if len(found.contrasts) > 1 else []
    return [*on_pairs, *without_pairs(found.contrasts), *found.opponents.remarks]


def _remarks(found: _Found) -> list[str]:
    """What is not compared, and how to see more."""
    remarks = _not_compared(found)
    if len(found.contrasts) > 1 and not any(found.flips):
        remarks.append("The examples that flipped: `dspylab compare A B` of two runs, or --flips N for all.")
    return remarks


def _document(found: _Found) -> dict[str, Any]:
    comparisons = [
        {**to_json(one), "flips": to_json(shown)}
        for one, shown in zip(found.contrasts, found.flips, strict=True)
    ]
    return {
        "metric": found.opponents.metric,
        "comparisons": comparisons,
        "only_in_a": list(found.opponents.only_a),
        "only_in_b": list(found.opponents.only_b),
        "same": list(found.opponents.same),
        "remarks": _not_compared(found),
    }
