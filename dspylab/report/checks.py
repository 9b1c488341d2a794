"""What became of the checks, in words: for the terminal, for a pull request, for JUnit, for GitHub. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET

from dspylab.aggregate.gate import Outcome
from dspylab.printable import printable
from dspylab.report.formats import markdown_row, markdown_text
from dspylab.report.numbers import NOTHING, count, estimate, in_unit, number
from dspylab.report.pairing import changed, left_out

_FAILED = "FAILED"
#: Sentences on the examples of several comparisons, whose reasons are many when failures are.
_MOST_SENTENCES = 4


class _Row(NamedTuple):
    """A line of a table."""

    word: str
    run: str
    check: str
    result: str


def condition(outcome: Outcome) -> str:
    """What is demanded: ``accuracy at least 0.8``."""
    figure, bound = outcome.figure, outcome.bound
    if outcome.condition == "complete":
        return "complete"
    if outcome.condition == "no_worse_than":
        margin = f" by more than {_value(figure, bound)}" if bound else ""
        return f"{figure} no worse than {outcome.baseline or 'the baseline'}{margin}"
    return f"{figure} {'at least' if outcome.condition == 'min' else 'at most'} {_value(figure, bound)}"


def reason(outcome: Outcome) -> str:
    """Why it was judged so, with the figures: ``0.812 [0.720, 0.880]: the interval reaches below 0.8``."""
    if outcome.problem is not None:
        return outcome.problem
    if outcome.condition == "complete":
        return "every run has complete results"
    shown = _quantity(outcome)
    if outcome.condition == "no_worse_than":
        shown = f"difference {shown}"
        if outcome.quantity.sampled:
            shown += f" over {count(outcome.quantity.n)} examples"
    explained = _explained(outcome)
    return ". ".join([f"{shown}: {explained}" if explained else shown, *_on_the_data([outcome])])


def lines(outcomes: Sequence[Outcome]) -> list[str]:
    """One line for each outcome, for the terminal; what several runs hold alike is one line."""
    return [printable(f"{row.word:9}  {row.run}: {row.check}: {row.result}") for row in _rows(outcomes)]


def verdict(outcomes: Sequence[Outcome]) -> str:
    """The whole in one sentence: ``2 of 5 checks failed``."""
    failed = sum(not outcome.passed for outcome in outcomes)
    total = f"{len(outcomes)} check{'s' * (len(outcomes) != 1)}"
    return f"{failed} of {total} failed" if failed else f"{total} passed"


def markdown(name: str, outcomes: Sequence[Outcome]) -> str:
    """A section of Markdown with a table, for a pull request."""
    rows = [markdown_row(row) for row in sorted(_rows(outcomes), key=lambda row: row.word != _FAILED)]
    title = f"### {markdown_text(name)}: {verdict(outcomes)}"
    return "\n".join([title, "", "| | run | check | result |", "|---|---|---|---|", *rows, ""])


def junit(name: str, outcomes: Sequence[Outcome]) -> bytes:
    """A JUnit document: one suite, a test case for each outcome."""
    failed = sum(not outcome.passed for outcome in outcomes)
    counts = {"tests": str(len(outcomes)), "failures": str(failed), "errors": "0", "skipped": "0"}
    root = ET.Element("testsuites", {"name": "dspylab check", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": name, **counts})
    for outcome in outcomes:
        case = ET.SubElement(
            suite,
            "testcase",
            {"classname": printable(f"{name}.{outcome.side}"), "name": printable(condition(outcome))},
        )
        text = printable(reason(outcome))
        if outcome.passed:
            ET.SubElement(case, "system-out").text = text
        else:
            kind = "undecided" if outcome.verdict == "undecided" else "failed"
            ET.SubElement(case, "failure", {"type": kind, "message": text})
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def workflow_commands(file: str, line_of: Callable[[str], int], outcomes: Sequence[Outcome]) -> list[str]:
    """GitHub's workflow commands: an error for each failure, a warning for what passed undecided.

    Args:
        file: The experiment file, relative to the root of the git repository.
        line_of: From the name of a figure to the line of its check.
        outcomes: What became of the checks.
    """
    found = []
    for outcome in outcomes:
        if outcome.passed and outcome.verdict == "passed":
            continue
        level = "warning" if outcome.passed else "error"
        place = f"file={_property(file)},line={line_of(outcome.figure)}"
        title = _property(f"{outcome.side}: {condition(outcome)}")
        found.append(f"::{level} {place},title={title}::{_message(reason(outcome))}")
    return found


def _rows(outcomes: Sequence[Outcome]) -> list[_Row]:
    """What is shown to people: a condition that several runs hold is one row for all of them."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        alike = "" if outcome.verdict == "passed" else outcome.side
        groups.setdefault((condition(outcome), alike), []).append(outcome)
    rows = []
    for (check, _), group in groups.items():
        first = group[0]
        word = first.verdict if first.passed else _FAILED
        several = len(group) > 1
        run = f"{count(len(group))} runs" if several else first.side
        result = ". ".join(["all hold", *_on_the_data(group)]) if several else reason(first)
        rows.append(_Row(word, run, check, result))
    return rows


def _explained(outcome: Outcome) -> str:
    """What decided it; nothing for a plain figure that is on its side of the bound."""
    found = outcome.quantity
    if not found.sampled:
        return "" if outcome.passed else _plainly(outcome)
    if found.ci95 is None:
        few = (
            "there are too few examples for an interval" if found.n < 2 else "all values are the same number"
        )
        return f"not decided: {few}"
    if outcome.condition == "no_worse_than" and found.ci95 == (0.0, 0.0):
        return "the very same results"
    if outcome.verdict != "undecided":
        return f"the whole interval {'holds' if outcome.passed else 'is on the wrong side'}"
    if outcome.needed is None:
        return "not decided: the figure itself is on the wrong side, its interval is not"
    return f"not decided: the interval is too wide; about {count(outcome.needed)} such examples would do"


def _on_the_data(outcomes: Sequence[Outcome]) -> list[str]:
    """What is to be known of the examples that differences are over, each sentence once, without its stop."""
    said: dict[str, None] = {}
    for outcome in outcomes:
        found, baseline = outcome.quantity.pairing, outcome.baseline or "the baseline"
        if found is not None:
            lost = left_out(found, baseline, "the run")
            said |= dict.fromkeys([*changed(found, baseline), *filter(None, [lost])])
    return [line.removesuffix(".") for line in list(said)[:_MOST_SENTENCES]]


def _plainly(outcome: Outcome) -> str:
    worse = "above" if outcome.condition == "max" else "below"
    if outcome.condition == "no_worse_than":
        worse = "worse by more than"
    return f"{worse} {_value(outcome.figure, outcome.bound)}"


def _quantity(outcome: Outcome) -> str:
    found = outcome.quantity
    if found.sampled:
        return estimate(found.value, found.ci95)
    if found.value is not None and found.value < 0:
        return f"-{_value(outcome.figure, -found.value)}"
    return _value(outcome.figure, found.value)


def _value(figure: str, value: float | None) -> str:
    """A figure in the unit that its name says."""
    if value is None:
        return NOTHING
    is_count = figure.startswith(("examples.", "tokens.", "calls.")) and float(value).is_integer()
    return in_unit(figure, value, count if is_count else _short)


def _short(value: float) -> str:
    """As a person would write it: 0.8, not 0.800."""
    shown = f"{value:.6g}"
    return shown if float(shown) == value else number(value)


def _message(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
