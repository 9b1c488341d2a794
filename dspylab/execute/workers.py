"""Where examples are executed: what threads of this process and a Dask cluster have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from dspylab.errors import EndpointError
from dspylab.lm.budget import Reached
from dspylab.records import AbandonedExample, DataRow, ExampleOutcome, RunSpec

#: What became of an example. A stop or the budget may end it midway: what remains of it are the calls that it
#: made, or None.
Outcome = ExampleOutcome | AbandonedExample | None


def is_unfinished(outcome: Outcome) -> bool:
    """Whether something ended an example midway, or before it began."""
    return outcome is None or isinstance(outcome, AbandonedExample)


@dataclass(frozen=True, slots=True)
class Todo:
    """An example that is to be executed.

    Attributes:
        row: The example.
        stored: A row of an earlier session whose answer need not be asked for again; None if there is none.
    """

    row: DataRow
    stored: Mapping[str, Any] | None = None


class Work(Protocol):
    """One run where its examples are executed. Used from one thread."""

    def submit(self, todos: Sequence[Todo]) -> Future[list[Outcome]]:
        """Begins examples; gives what became of them, the abandoned ones perhaps beside their outcome."""

    @property
    def refusal(self) -> EndpointError | None:
        """Why one of its models refuses every call; None if none does."""

    @property
    def exhausted(self) -> Reached | None:
        """Which bound of the budget lets it make no further call; None if none does."""

    def end(self) -> None:
        """Nothing more of the run is begun: what is in flight need not try again."""


class Workers(Protocol):
    """Executes examples of many runs at once. Used from one thread."""

    def open(self, spec: RunSpec) -> Work:
        """Makes a run whose program stands ready."""

    def room(self, model: str, in_flight: int, total: int, left: int) -> int:
        """How many examples of a run to submit at once now; 0 to wait until some are done.

        Args:
            model: Its model.
            in_flight: Examples of that model that were submitted and are not done.
            total: Those of all models.
            left: Examples of the run that were not submitted yet, at least 1.
        """

    def limits(self) -> Mapping[str, tuple[int, int]]:
        """Model id to the calls that its endpoint takes at once now, and at most."""

    def stop(self) -> None:
        """Lets no further call start."""
