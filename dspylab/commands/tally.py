"""What is known of runs and compiles while they go on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from dspylab.execute.rescore import new_calls
from dspylab.records import ExampleFailure, ExampleOutcome
from dspylab.report.numbers import cost, duration, number

#: How often it is said that a compile goes on, in seconds. Some take an hour, and say nothing themselves.
COMPILE_EVERY_S = 60.0


@dataclass
class RunTally:
    """What is known of a run while it goes on.

    Attributes:
        total: Examples of the run.
        done: Those that are finished, in earlier sessions too.
        failed: Those of this session without a result.
        score: Sum of the primary metric.
        scored: Examples that it is over.
        rescored: Those of this session whose answer is of an earlier one.
        cost_usd: What this session's calls cost; None once one has no price.
        kept: Examples that an earlier session finished.
        here: Those that this session finished.
        first_wave: Those that began beside the first one that ended: about as many as run at once.
        wave_until: Half-way between its begin and its end, before which those began; None before it ended.
        began: When the run began.
        spoke: When a line was last printed about it.
    """

    total: int
    done: int
    failed: int = 0
    score: float = 0.0
    scored: int = 0
    rescored: int = 0
    cost_usd: float | None = 0.0
    kept: int = 0
    here: int = 0
    first_wave: int = 0
    wave_until: float | None = None
    began: float = field(default_factory=time.monotonic)
    spoke: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, total: int, kept: int, scores: Collection[float]) -> RunTally:
        """The tally of a run of which a part was finished in an earlier session, some of it with a score."""
        return cls(total=total, done=kept, kept=kept, score=math.fsum(scores), scored=len(scores))

    def add(self, outcome: ExampleOutcome, metric: str) -> None:
        """Counts one more example."""
        self.done += 1
        self.here += 1
        self.rescored += outcome.rescored and outcome.error is None
        if not outcome.rescored:
            ended, took_s = time.monotonic(), outcome.example_s + outcome.metric_s
            if self.wave_until is None:
                self.wave_until = ended - took_s / 2
            self.first_wave += ended - took_s <= self.wave_until
        if isinstance(outcome, ExampleFailure):
            self.failed += 1
        elif metric in outcome.metrics:
            self.scored += 1
            self.score += outcome.metrics[metric]
        for call in (call for call in new_calls(outcome) if call.error is None):
            self.cost_usd = (
                None if self.cost_usd is None or call.cost_usd is None else self.cost_usd + call.cost_usd
            )

    @property
    def mean(self) -> float | None:
        """Running mean of the primary metric; None as long as nothing is scored."""
        return self.score / self.scored if self.scored else None

    @property
    def left_s(self) -> float | None:
        """Seconds until the run is done at the pace so far; None while there is no pace.

        Examples begin together. How soon the first ones end says little of the pace, so there is none before
        twice as many have ended as run at once.
        """
        if not self.here or self.here < 2 * self.first_wave:
            return None
        return (self.total - self.done) * (time.monotonic() - self.began) / self.here

    def line(self, metric: str, *, has_ended: bool = False) -> str:
        """The tally as words; of a run that has ended, without the time that is left."""
        parts = [f"{self.done}/{self.total}"]
        if self.rescored:
            parts.append(f"{self.rescored} scored again without calling the program")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.mean is not None:
            parts.append(f"{metric} {number(self.mean)}")
        if self.cost_usd:
            # The tables below have what all sessions paid.
            has_earlier = self.kept or self.rescored
            parts.append(cost(self.cost_usd) + (" in this session" if has_earlier else ""))
        if self.left_s and self.done < self.total and not has_ended:
            parts.append(f"about {duration(self.left_s)} left")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class CompileProgress:
    """That a compile goes on.

    Attributes:
        program: Key of the compile.
        compiling_s: For how long, in seconds.
        calls: Calls that were made since that was said last, by all that goes on.
        since_s: How long ago that was, in seconds.
    """

    program: str
    compiling_s: float
    calls: int
    since_s: float


class Compiles:
    """The compiles that go on, and when that is to be said of each.

    Attributes:
        calls: Gives the calls so far.
    """

    def __init__(self) -> None:
        self.calls: Callable[[], int] = int
        self._began: dict[str, float] = {}
        #: When it was said of each, and how many calls there were.
        self._said: dict[str, tuple[float, int]] = {}

    def begin(self, program: str) -> None:
        """A compile begins."""
        self._began[program] = time.monotonic()
        self._said[program] = (self._began[program], self.calls())

    def end(self, program: str) -> None:
        """It has ended."""
        self._began.pop(program, None)

    def due(self) -> Iterator[CompileProgress]:
        """What is to be said now."""
        now = time.monotonic()
        for program, began in self._began.items():
            said, calls = self._said[program]
            if now - said >= COMPILE_EVERY_S:
                self._said[program] = (now, self.calls())
                yield CompileProgress(program, now - began, self.calls() - calls, now - said)
