"""Show how the execution goes: a live view on a terminal, plain lines elsewhere, JSON events on request."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from dspylab.commands.events import EventLog
from dspylab.commands.tally import CompileProgress, Compiles, RunTally
from dspylab.execute.active import Observer, RunReport
from dspylab.execute.compile import CompileReport
from dspylab.execute.rescore import new_calls
from dspylab.execute.silence import Silence
from dspylab.printable import printable
from dspylab.records import ExampleOutcome
from dspylab.report.numbers import cost, duration, number

if TYPE_CHECKING:
    from rich.table import Table

#: Between two plain lines about a run, and between two pictures of the live view, in seconds.
_LINE_EVERY_S = 10.0
_REFRESH_S = 0.5
#: Per model, the calls that are allowed at once now and at most.
Limits = Callable[[], Mapping[str, tuple[int, int]]]
#: Runs that the live view shows at once; finished ones scroll away above it.
_SHOWN_RUNS = 12


class Quiet:
    """Shows nothing."""

    def ready(self, limits: Limits, calls: Callable[[], int]) -> None:
        """Nothing."""

    def compiling(self, program: str) -> None:
        """Nothing."""

    def compiled(self, report: CompileReport) -> None:
        """Nothing."""

    def begun(self, run: str, total: int, kept: int, scores: Collection[float]) -> None:
        """Nothing."""

    def finished(self, outcome: ExampleOutcome) -> None:
        """Nothing."""

    def silent(self, silence: Silence) -> None:
        """Nothing."""

    def ended(self, report: RunReport) -> None:
        """Nothing."""

    def going_on(self) -> None:
        """Nothing."""


class Events:
    """Events for programs that follow.

    Args:
        log: Where they go.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._compiles = Compiles()

    def ready(self, limits: Limits, calls: Callable[[], int]) -> None:
        """Remembers how to ask for figures."""
        self._compiles.calls = calls

    def compiling(self, program: str) -> None:
        """Prints that a compile begins."""
        self._compiles.begin(program)
        self._log.write("compile_begun", program=program)

    def compiled(self, report: CompileReport) -> None:
        """Prints how a compile ended."""
        self._compiles.end(report.program)
        record = report.record
        figures = {} if record is None else {"calls": record.calls, "cost_usd": record.cost_usd}
        complete = record is not None
        self._log.write(
            "compile_ended", program=report.program, complete=complete, stopped=report.stopped, **figures
        )

    def begun(self, run: str, total: int, kept: int, scores: Collection[float]) -> None:
        """Prints that a run begins."""
        self._log.write("run_begun", run=run, total=total, kept=kept)

    def finished(self, outcome: ExampleOutcome) -> None:
        """Prints one example's outcome in short."""
        error = outcome.error
        self._log.write(
            "example_finished",
            run=outcome.run,
            index=outcome.index,
            example_id=outcome.example_id,
            metrics=dict(outcome.metrics),
            error=None if error is None else asdict(error),
            example_s=outcome.example_s,
            calls=len(new_calls(outcome)),
            rescored=outcome.rescored,
        )

    def silent(self, silence: Silence) -> None:
        """Prints that no example of a run has finished for a while."""
        self._log.write("run_silent", **asdict(silence))

    def ended(self, report: RunReport) -> None:
        """Prints how a run ended."""
        self._log.write("run_ended", complete=report.complete, **asdict(report))

    def going_on(self) -> None:
        """Prints now and then that a compile goes on, and how many calls were made since that was said."""
        for progress in self._compiles.due():
            self._log.write("compile_going_on", **asdict(progress))


class Lines:
    """Plain lines: when a run begins, every few seconds, and when it ends."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._tallies: dict[str, RunTally] = {}
        self._compiles = Compiles()

    def ready(self, limits: Limits, calls: Callable[[], int]) -> None:
        """Remembers how to ask for figures."""
        self._compiles.calls = calls

    def compiling(self, program: str) -> None:
        """Prints that a compile begins."""
        self._compiles.begin(program)
        print(f"{program}: compiling", flush=True)

    def compiled(self, report: CompileReport) -> None:
        """Prints how a compile ended."""
        self._compiles.end(report.program)
        print(_compile_line(report), flush=True)

    def begun(self, run: str, total: int, kept: int, scores: Collection[float]) -> None:
        """Prints that a run begins."""
        self._tallies[run] = RunTally.of(total, kept, scores)
        kept_text = f", {kept} kept from before" if kept else ""
        print(f"{run}: {total} examples{kept_text}", flush=True)

    def finished(self, outcome: ExampleOutcome) -> None:
        """Prints the tally now and then."""
        tally = self._tallies[outcome.run]
        tally.add(outcome, self._metric)
        now = time.monotonic()
        if now - tally.spoke >= _LINE_EVERY_S:
            tally.spoke = now
            print(f"{outcome.run}: {tally.line(self._metric)}", flush=True)

    def silent(self, silence: Silence) -> None:
        """Prints that no example of a run has finished for a while."""
        print(_silence_line(silence), flush=True)

    def ended(self, report: RunReport) -> None:
        """Prints how a run ended."""
        print(_end_line(report, self._tallies[report.run], self._metric), flush=True)

    def going_on(self) -> None:
        """Prints now and then that a compile goes on."""
        for progress in self._compiles.due():
            print(_compiling_line(progress), flush=True)


class LiveView:
    """A table that is redrawn in place, now and then and when a row comes or goes.

    Attributes:
        live: Draws it, as a context manager.
    """

    def __init__(self, metric: str) -> None:
        from rich.live import Live

        self._metric = metric
        self._tallies: dict[str, RunTally] = {}
        self._compiling: dict[str, float] = {}
        self._began = time.monotonic()
        self._limits: Limits = dict
        self._calls: Callable[[], int] = int
        # Last: it asks for the table at once.
        self.live = Live(get_renderable=self._table, refresh_per_second=1 / _REFRESH_S, transient=True)

    def ready(self, limits: Limits, calls: Callable[[], int]) -> None:
        """Remembers how to ask for figures."""
        self._limits, self._calls = limits, calls

    def compiling(self, program: str) -> None:
        """Adds a row."""
        self._compiling[program] = time.monotonic()
        self.live.refresh()

    def compiled(self, report: CompileReport) -> None:
        """Moves a row to the lines above the table."""
        del self._compiling[report.program]
        self._print(_compile_line(report))

    def begun(self, run: str, total: int, kept: int, scores: Collection[float]) -> None:
        """Adds a row."""
        self._tallies[run] = RunTally.of(total, kept, scores)
        self.live.refresh()

    def finished(self, outcome: ExampleOutcome) -> None:
        """Updates a row."""
        self._tallies[outcome.run].add(outcome, self._metric)

    def silent(self, silence: Silence) -> None:
        """Adds a line above the table."""
        self._print(_silence_line(silence))

    def ended(self, report: RunReport) -> None:
        """Moves a row to the lines above the table."""
        self._print(_end_line(report, self._tallies.pop(report.run), self._metric))

    def going_on(self) -> None:
        """Nothing: the table is drawn anew by itself."""

    def _print(self, line: str) -> None:
        """A line above the table, which is drawn anew below it."""
        self.live.console.print(line, markup=False, highlight=False)
        self.live.refresh()

    def _table(self) -> Table:
        """What is under way now."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        table = Table(box=None, pad_edge=False, show_header=False)
        for program, began in list(self._compiling.items())[:_SHOWN_RUNS]:
            table.add_row(
                Text(program, overflow="ellipsis"), "", Text(f"compiling for {duration(now - began)}")
            )
        for run, tally in list(self._tallies.items())[:_SHOWN_RUNS]:
            bar = ProgressBar(total=max(tally.total, 1), completed=tally.done, width=20)
            table.add_row(Text(run, overflow="ellipsis"), bar, Text(tally.line(self._metric)))
        hidden = len(self._tallies) - _SHOWN_RUNS
        elapsed_s, calls = now - self._began, self._calls()
        rate = calls / elapsed_s if elapsed_s else 0.0
        slowed = [
            f"{model} slowed to {current} of {most}"
            for model, (current, most) in self._limits().items()
            if current < most
        ]
        foot = ", ".join([f"{calls} calls, {rate:.1f} calls/s, {duration(elapsed_s)}", *slowed])
        table.add_row(
            Text(f"and {hidden} more runs" if hidden > 0 else "", style="dim"), "", Text(foot, style="dim")
        )
        return table


def _compile_line(report: CompileReport) -> str:
    record = report.record
    if record is None:
        # A refusal is said once, at the end, for all its runs.
        return f"{report.program}: not compiled" + ("" if report.refused else f": {report.stopped}")
    parts = [f"{record.calls} calls"]
    if record.cost_usd:
        parts.append(cost(record.cost_usd))
    if record.validation_score is not None:
        parts.append(
            f"validation {record.validation_score.metric} {number(record.validation_score.score.mean)}"
        )
    return f"{report.program}: compiled in {duration(record.compile_s)}: {', '.join(parts)}"


def _compiling_line(progress: CompileProgress) -> str:
    return (
        f"{progress.program}: compiling for {duration(progress.compiling_s)}, "
        f"{progress.calls} calls in the last {duration(progress.since_s)}"
    )


def _silence_line(silence: Silence) -> str:
    """Which example to look for. An id may be anything that stands in the data."""
    example = printable(silence.example_id)
    if silence.chunk > 1:
        example = f"the {silence.chunk} from {example} on"
    such_as = "" if silence.under_way == silence.chunk else "such as "
    return (
        f"{silence.run}: no example has finished for {duration(silence.silent_s)}; {silence.under_way} under "
        f"way for up to {duration(silence.under_way_s)}: {such_as}{example}"
    )


def _end_line(report: RunReport, tally: RunTally, metric: str) -> str:
    ending = _ending(report, duration(time.monotonic() - tally.began))
    return f"{report.run}: {ending}: {tally.line(metric, has_ended=True)}"


def _ending(report: RunReport, took: str) -> str:
    if report.complete:
        # What a program raised may hold anything, and a terminal obeys some of it.
        but = f", but {report.failed} failed ({printable(report.error)})" if report.error else ""
        return f"done in {took}{but}"
    if report.done == report.total and report.unscored:  # said once, at the end, for all its runs
        return f"answered in {took}, but not scored"
    if report.refused:  # said once, at the end, for all its runs
        why = "nobody answers at the endpoint of its model" if report.unreachable else ""
        return f"stopped after {took}: {why or 'its model refuses every call'}"
    if report.stopped:
        after = "" if report.held else f" after {took}"
        return f"stopped{after}: {printable(report.stopped)}"
    return f"incomplete after {took}: {report.retryable} to try again"


@contextmanager
def observing(metric: str, *, quiet: bool, log: EventLog | None = None) -> Iterator[Observer]:
    """The way of showing progress that fits the options and the terminal.

    Args:
        metric: Name of the metric that ranks the runs.
        quiet: Whether nothing is shown.
        log: Where events go, if they are wanted instead.
    """
    if log is not None:
        yield Events(log)
    elif quiet:
        yield Quiet()
    elif sys.stdout.isatty():
        view = LiveView(metric)
        with view.live:
            yield view
    else:
        yield Lines(metric)
