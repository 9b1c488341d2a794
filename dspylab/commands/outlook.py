"""What `dspylab run` would do with each run, found out by what it goes by itself. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dspylab.commands.run import is_up_to_date
from dspylab.config.wording import counted
from dspylab.laboratory import Laboratory
from dspylab.pipeline.dvcfile import LOCK_FILE
from dspylab.pipeline.stages import PipelineEntry
from dspylab.pipeline.states import NEVER_RUN, RunState
from dspylab.record.answers import inheritable, recorded_in, retired
from dspylab.record.journal import begins_anew, finished, is_published
from dspylab.records import RunSpec
from dspylab.report.programs import COMES_BACK, CompileRow

if TYPE_CHECKING:
    from dspylab.pipeline.repo import Repository

_ANEW = "to be executed anew (--fresh was interrupted)"

Step = Literal["nothing", "record", "restore", "execute", "wait"]


@dataclass(frozen=True, slots=True)
class Prospect:
    """What would happen to a run.

    Attributes:
        run: The run.
        step: `nothing`: it is done. `record`: its results are those of the files as they are, but DVC does
            not know. `restore`: its cache has them. `execute`: the rest of its examples. `wait`: its program
            is not there yet, on which all else depends.
        state: What DVC thinks of it.
        reasons: Why it is not done, and what is kept of it.
        kept: Examples that an interrupted session finished.
        answered: Others whose answer is kept, so that they are only scored again.
    """

    run: RunSpec
    step: Step
    state: str
    reasons: Sequence[str] = ()
    kept: int = 0
    answered: int = 0


def foresee(
    laboratory: Laboratory, repository: Repository, entry: PipelineEntry, programs: Sequence[CompileRow]
) -> list[Prospect]:
    """What would happen to each run, in the order of the matrix.

    Args:
        laboratory: The experiment.
        repository: Its repository.
        entry: What DVC's files have to say about it.
        programs: What would happen to each of its compiles.

    Raises:
        DspylabError: If the experiment, its code or the repository is wrong.
    """
    states = repository.states(entry, [run.key for run in laboratory.runs])
    absent = {program.program: program for program in programs if program.state != "done"}
    is_recorded = recorded_in(repository.root / LOCK_FILE)
    # Most often there is none, and then the digests of runs that are done need not be made.
    has_journals = any(laboratory.layout.journals.glob("*.jsonl"))
    found: dict[str, Prospect] = {}
    for run in laboratory.runs:
        state, needed = states[run.key], laboratory.needed_compiles.get(run.key)
        prospect = Prospect(run, "execute", state.state, state.reasons)
        if needed is not None and needed.key in absent:
            prospect = _waiting(prospect, absent[needed.key])
        elif state.state == "done":
            if not (has_journals and _goes_on_anew(laboratory.journal(run))):
                prospect = replace(prospect, step="nothing")
        elif is_up_to_date(laboratory, run.key, is_recorded):
            reasons = (*state.reasons, "its results are those of the files as they are")
            prospect = replace(prospect, step="record", reasons=reasons)
        found[run.key] = prospect
    _look_into_the_cache(laboratory, repository, entry, found)
    leavings = _Leavings(laboratory)
    return [
        leavings.of(prospect, states[key]) if prospect.step == "execute" else prospect
        for key, prospect in found.items()
    ]


def _are(number: int, noun: str) -> str:
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def _waiting(prospect: Prospect, program: CompileRow) -> Prospect:
    """A run that waits for its program. Which answers are its own depends on that, so none are looked for."""
    comes = "comes back" if program.state == COMES_BACK else "is to be compiled"
    state = "missing" if prospect.state == "missing" else "stale"
    return replace(prospect, step="wait", state=state, reasons=(f"its program {program.program} {comes}",))


def _goes_on_anew(journal: Path) -> bool:
    """Whether an interrupted `--fresh` began a run, whatever DVC thinks of the results before it."""
    return begins_anew(journal) and not is_published(journal)


def _look_into_the_cache(
    laboratory: Laboratory, repository: Repository, entry: PipelineEntry, found: dict[str, Prospect]
) -> None:
    """Notes which of the runs to execute DVC would give back. What was begun goes on, as in `run`."""
    unknown = [
        key
        for key, prospect in found.items()
        if prospect.step == "execute"
        and prospect.state != "done"
        and not laboratory.journal(prospect.run).is_file()
    ]
    for key in repository.restorable(entry, unknown) if unknown else ():
        reasons = (*found[key].reasons, "DVC's cache has its results")
        found[key] = replace(found[key], step="restore", reasons=reasons)


class _Leavings:
    """What earlier sessions have left for runs that are to be executed; asked in the order of the matrix."""

    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory
        self._retired = retired(laboratory.layout, {run.key for run in laboratory.runs})
        self._taken: set[Path] = set()

    def of(self, prospect: Prospect, state: RunState) -> Prospect:
        """A run with the examples that need not be called."""
        journal = self._laboratory.journal(prospect.run)
        inherited = self._inherited(prospect.run)
        kept = finished(journal)
        if begins_anew(journal):
            now = "missing" if state.state == "missing" else "stale"
            return replace(prospect, state=now, reasons=(_ANEW,), kept=len(kept))
        answered = len(self._laboratory.earlier_rows(prospect.run, inherited).indexes - kept)
        reasons = list(state.reasons)
        if answered and inherited and state == NEVER_RUN:
            reasons = ["never run under this name"]
        if kept:
            # What came back now would be in the way of what goes on.
            reasons = [reason for reason in reasons if reason not in state.outputs]
            reasons.append(f"{_are(len(kept), 'example')} kept: `dspylab run` goes on")
        if answered:
            reasons.append(f"{_are(answered, 'answer')} kept, to be scored again")
        return replace(prospect, reasons=tuple(reasons), kept=len(kept), answered=answered)

    def _inherited(self, run: RunSpec) -> list[Path]:
        """Answers that the run takes over: of several runs that would ask the same, the first one does."""
        if not self._retired:
            return []
        left = inheritable(self._laboratory.answers_hash(run), self._retired)
        mine = [path for path in left if path not in self._taken]
        self._taken.update(mine)
        return mine
