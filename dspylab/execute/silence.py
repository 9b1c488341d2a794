"""Notice when examples are under way and none finishes: a program that hangs is not to hang in silence."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

#: How long no example of a run may finish until it is said, in seconds. Then twice as long, and so on, so
#: that a run that is only slow is hardly heard.
PATIENCE_S = 30.0
#: How often it is looked, in seconds.
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Silence:
    """That no example of a run has finished for a while.

    Attributes:
        run: Key of the run.
        silent_s: How long none has.
        under_way: Examples that were begun and have not finished.
        example_id: The one that began first, or the first one of its chunk.
        chunk: Examples that were begun together with that one, itself included; above 1 on a cluster only.
        under_way_s: How long ago that was.
    """

    run: str
    silent_s: float
    under_way: int
    example_id: str
    chunk: int
    under_way_s: float


@dataclass(frozen=True, slots=True)
class Begun:
    """Examples that were begun together.

    Attributes:
        example_id: The first of them.
        size: How many they are.
        at: When, on the monotonic clock, in seconds.
    """

    example_id: str
    size: int
    at: float


@dataclass
class _Run:
    """What is under way of a run, the oldest first.

    Attributes:
        last: When an example finished, or the first one began.
        patience_s: How long none may finish until it is said.
        begun: By what stands for them.
    """

    last: float
    patience_s: float
    begun: dict[Hashable, Begun] = field(default_factory=dict)


class Watch:
    """Looks at what is under way. Used from one thread; times are on the monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._looked_at = -math.inf

    def begin(self, run: str, key: Hashable, begun: Begun) -> None:
        """Examples of a run have begun; `key` stands for them."""
        watched = self._runs.setdefault(run, _Run(begun.at, PATIENCE_S))
        if not watched.begun:
            watched.last = begun.at
        watched.begun[key] = begun

    def end(self, run: str, key: Hashable, now: float) -> None:
        """They have finished."""
        watched = self._runs[run]
        del watched.begun[key]
        watched.last = now

    def look(self, now: float) -> Iterator[Silence]:
        """The runs of which it is to be said; of each, the next time only when it is twice as long silent."""
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        self._looked_at = now
        for run, watched in self._runs.items():
            silent_s = now - watched.last
            if watched.begun and silent_s >= watched.patience_s:
                watched.patience_s = 2 * silent_s
                oldest = next(iter(watched.begun.values()))
                count = sum(begun.size for begun in watched.begun.values())
                yield Silence(run, silent_s, count, oldest.example_id, oldest.size, now - oldest.at)
