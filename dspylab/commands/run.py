"""`dspylab run`: execute what is missing or stale, all runs together, and record it with DVC."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dspylab.commands.aggregate import summarize_workspace
from dspylab.commands.console import console, note, warn
from dspylab.commands.events import EventLog, event_log
from dspylab.commands.find import find_config
from dspylab.commands.outcome import raise_if_unscored, raise_unless_complete
from dspylab.commands.sync import pipeline_entry
from dspylab.compiled import is_wanted_anew, restore, set_aside, unneeded, valid_record
from dspylab.config.models import DASK_PATTERN
from dspylab.config.wording import counted, named
from dspylab.errors import DataError, UsageError
from dspylab.jsonable import to_json
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.pipeline.dvcfile import LOCK_FILE, upsert
from dspylab.pipeline.git import SavedExperiment
from dspylab.pipeline.stages import PipelineEntry
from dspylab.record.answers import KeptAnswers, holder, recorded_in
from dspylab.record.journal import begins_anew, drop_journal, is_published
from dspylab.record.publish import file_md5, read_json
from dspylab.record.results import workspace_results
from dspylab.report.tables import results_table
from dspylab.scaffold.editors import refresh_schema

if TYPE_CHECKING:
    from dspylab.execute.active import RunReport
    from dspylab.execute.pool import Stop
    from dspylab.execute.runs import Execution
    from dspylab.pipeline.repo import Repository
    from dspylab.records import Summary


def run_experiment(
    config: Path | None, *, fresh: bool, quiet: bool, json_events: bool, dask: str | None = None
) -> None:
    """Runs an experiment: sync, look what is stale, restore, execute, summarize, commit, save.

    Args:
        config: The experiment file.
        fresh: Execute all runs anew.
        quiet: Show no progress, only the results.
        json_events: Print events as JSON, and nothing else.
        dask: Where examples are executed, as for `execute_runs`.

    Raises:
        DspylabError: What is wrong with the file, the code, the machine or the repository; before the
            first call where it can be known before.
        RunsIncomplete: If examples are left that another try may mend.
        Interrupted: If the user stopped it.
    """
    with event_log(json_events) as log:
        _run(config, log, fresh=fresh, quiet=quiet, dask=dask)


def _run(config: Path | None, log: EventLog | None, *, fresh: bool, quiet: bool, dask: str | None) -> None:
    """As `run_experiment`, with the log of events if these are wanted."""
    from dspylab.pipeline.repo import open_repository

    if dask is not None and not re.fullmatch(DASK_PATTERN, dask):
        raise UsageError(
            f"{dask!r} is no address of a Dask scheduler",
            where="--dask",
            remedy="write tcp://host:8786, the path of a scheduler file, or local:4",
        )
    silent = quiet or log is not None
    laboratory = open_laboratory(find_config(config))
    warn(laboratory.loaded.warnings)
    entry = pipeline_entry(laboratory)
    repository = open_repository(laboratory.layout.root)
    upsert(repository.root, entry)
    refresh_schema(laboratory.loaded.path, repository.root)
    leftovers = _Leftovers(laboratory, repository, silent=silent)
    todo = _Todo(laboratory, repository, entry, fresh=fresh)
    repository.refuse_tracked(entry, todo.runs)
    if not todo.runs and not todo.compiles:
        leftovers.move_out()
    if todo.is_empty and repository.summary_state(entry).state == "done":
        known = workspace_results(laboratory.layout).summary
        raise_if_unscored(known["primary_metric"], known["runs"])
        runs = counted(len(laboratory.runs), "run")
        note(f"{laboratory.experiment.name}: nothing to do: all is done ({runs})", silent)
        _log_idleness(log, laboratory)
        return
    if todo.restored:
        note(f"{counted(len(todo.restored), 'run')} restored: the results come from the cache of DVC", silent)
    # Whoever can not begin keeps what there is.
    execution, stop = _execute(
        laboratory, todo, leftovers.move_out, fresh=fresh, quiet=quiet, log=log, dask=dask
    )
    summary, has_new = _record(laboratory, repository, entry, execution, todo.adopted)
    if execution is None:
        _log_idleness(log, laboratory)
    if log is None:
        console().print(results_table(summary))
        if absent := [run.key for run in laboratory.runs if run.key not in summary.runs]:
            note(f"not in the table, as they have no results yet: {named(absent)}")
    if repository.has_git:
        is_interrupted = stop is not None and stop.requested
        _save(laboratory, repository, _why_not(execution, has_new, is_interrupted), silent=silent)
    if execution is not None and stop is not None:
        raise_unless_complete(_with_what_others_did(laboratory, execution, summary), stop)
    # What was executed has said so itself. What DVC has recorded may have been ranked by another metric then.
    raise_if_unscored(summary.primary_metric, to_json(summary.runs))


def _log_idleness(log: EventLog | None, laboratory: Laboratory) -> None:
    """Says to a program that follows why it hears of no run."""
    if log is not None:
        log.write("nothing_to_do", runs=[run.key for run in laboratory.runs])


class _Leftovers:
    """Results and compiled programs of the workspace that the experiment does not need any more.

    The summary depends on the folder of results. With folders in it that no stage makes, a clone, where DVC
    brings back what stages make, would not have what the summary was made from.

    Args:
        laboratory: The experiment. Its programs are set aside at once, for another one may be the same under
            another name; what lies in the workspace stays there until `move_out`.
        repository: Its repository. Results that DVC's cache does not have stay where they are.
        silent: Whether nothing is said.
    """

    def __init__(self, laboratory: Laboratory, repository: Repository, *, silent: bool) -> None:
        self._layout = laboratory.layout
        self._runs = {run.key for run in laboratory.runs}
        self._silent = silent
        self._folders = _removed(laboratory, repository)
        self._programs = _set_unneeded_aside(laboratory)

    def move_out(self) -> None:
        """Takes them out of the workspace, and says so."""
        heirs = {folder.name: self._heir(folder.name) for folder in self._folders}
        for folder in self._folders:
            shutil.rmtree(folder)
        for program in self._programs:
            for file in self._layout.compiled(program):
                file.unlink()
        renamed = [f"{run} (now {heir})" for run, heir in heirs.items() if heir]
        if renamed:
            note(f"{', '.join(renamed)}: renamed, the answers are kept", self._silent)
        removed = [run for run, heir in heirs.items() if not heir]
        if removed:
            note(
                f"{', '.join(removed)}: no longer in the matrix: moved out; DVC's cache keeps the results",
                self._silent,
            )
        if self._programs:
            unneeded = ", ".join(self._programs)
            note(
                f"{unneeded}: programs that no run needs: moved to .dspylab, which gives them back",
                self._silent,
            )

    def _heir(self, run: str) -> str | None:
        """The run of the matrix that has the answers of a run that is no longer in it; None if none has."""
        try:
            info = read_json(self._layout.info(run))
        except DataError:
            return None
        return holder(self._layout, str(info.get("answers_hash")), str(info.get("config_hash")), self._runs)


def _removed(laboratory: Laboratory, repository: Repository) -> list[Path]:
    """Folders with results of runs that are no longer in the matrix, and that DVC's cache has."""
    keys = {run.key for run in laboratory.runs}
    results = laboratory.layout.results
    folders = [folder for folder in results.iterdir() if folder.is_dir()] if results.is_dir() else []
    gone = []
    for folder in sorted(folders):
        if folder.name in keys:
            continue
        files = [path for path in folder.rglob("*") if path.is_file()]
        if files and all(repository.cached(file_md5(path) or "") for path in files):
            gone.append(folder)
    return gone


def _set_unneeded_aside(laboratory: Laboratory) -> list[str]:
    """Keeps copies of the compiled programs that no run of the matrix needs.

    Returns:
        Their keys, without programs that dspylab did not compile, or that were changed since.
    """
    return [key for key in unneeded(laboratory) if set_aside(laboratory.layout, key)]


class _Todo:
    """What is to be done.

    Attributes:
        runs: Keys of the runs to execute, in matrix order, those included that wait for their program.
        compiles: Keys of the programs to compile.
        restored: Keys of the runs that came back from DVC's caches.
        adopted: Keys of the runs whose results are those of the file as it is, but not yet recorded as such.
    """

    def __init__(
        self, laboratory: Laboratory, repository: Repository, entry: PipelineEntry, *, fresh: bool
    ) -> None:
        self._laboratory = laboratory
        self._repository = repository
        self._entry = entry
        self._fresh = fresh
        self.restored: set[str] = set()
        self.adopted: set[str] = set()
        self.compiles = compiles_to_do(laboratory, repository, entry, fresh=fresh)
        waiting = {run for run, spec in laboratory.needed_compiles.items() if spec.key in self.compiles}
        keys = [run.key for run in laboratory.runs]
        stale = waiting | set(self.stale([key for key in keys if key not in waiting]))
        self.runs = [key for key in keys if key in stale]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be executed or recorded."""
        return not (self.runs or self.compiles or self.restored or self.adopted)

    def stale(self, keys: list[str]) -> list[str]:
        """Those of some runs, whose programs stand, that are to be executed; others are restored."""
        laboratory, repository = self._laboratory, self._repository
        # What the runs read is remembered by this, for when they are recorded.
        states = repository.states(self._entry, keys)
        if self._fresh:
            return keys
        done = [key for key in keys if states[key].state == "done"]
        # What an interrupted `--fresh` began goes on, whatever DVC thinks of the results before it.
        anew = _settle_journals(laboratory, done)
        stale = [key for key in keys if states[key].state != "done" or key in anew]
        is_recorded = recorded_in(repository.root / LOCK_FILE)
        adopted = {key for key in stale if key not in anew and is_up_to_date(laboratory, key, is_recorded)}
        self.adopted |= adopted
        stale = [key for key in stale if key not in adopted]
        # What an interrupted session began goes on as well.
        begun = {key for key in stale if laboratory.journal(laboratory.run(key)).is_file()}
        unknown = [key for key in stale if key not in begun]
        restored = repository.restore(self._entry, unknown) if unknown else set()
        self.restored |= restored
        return [key for key in stale if key not in restored]


def compiles_to_do(
    laboratory: Laboratory, repository: Repository, entry: PipelineEntry, *, fresh: bool
) -> list[str]:
    """Keys of the programs to compile.

    Those that stand although DVC does not think so are recorded, and so are those that were set aside.
    """
    keys = [spec.key for spec in laboratory.compiles]
    states = repository.compile_states(entry, keys)
    if fresh:
        return keys
    stale = [
        spec
        for spec in laboratory.compiles
        if states[spec.key].state != "done" or is_wanted_anew(laboratory, spec)
    ]
    valid = [
        spec.key for spec in stale if valid_record(laboratory, spec) is not None or restore(laboratory, spec)
    ]
    if valid:
        repository.commit(entry, [], compiles=valid, summary=False)
    return [spec.key for spec in stale if spec.key not in valid]


def is_up_to_date(laboratory: Laboratory, key: str, is_recorded: Callable[[str], bool]) -> bool:
    """Whether the results are those of the run as it is now, although DVC recorded them in other words.

    Such as those of `dvc repro` with a `dvc.yaml` that did not know yet what the program imports.
    """
    run = laboratory.run(key)
    # What decides the answers is not looked at: what decides the results decides these too.
    kept = KeptAnswers(laboratory.layout, key, answers_hash="", config_hash=laboratory.config_hash(run))
    return kept.are_up_to_date(is_recorded)


def _settle_journals(laboratory: Laboratory, keys: Sequence[str]) -> set[str]:
    """Drops what `dvc repro`, or a `run` that was killed once DVC had recorded it, left of recorded runs.

    Returns:
        Keys of the runs whose journal is not dropped, since an interrupted `--fresh` began it.
    """
    # Most often there is none, and then the digests of all runs need not be made.
    if not any(laboratory.layout.journals.glob("*.jsonl")):
        return set()
    anew = set()
    for key in keys:
        journal = laboratory.journal(laboratory.run(key))
        if is_published(journal):
            drop_journal(journal)
        elif begins_anew(journal):
            anew.add(key)
    return anew


def _execute(
    laboratory: Laboratory,
    todo: _Todo,
    on_ready: Callable[[], None],
    *,
    fresh: bool,
    quiet: bool,
    log: EventLog | None,
    dask: str | None,
) -> tuple[Execution | None, Stop | None]:
    if not todo.runs and not todo.compiles:
        return None, None
    # Heavy: they import dspy, which a run that has nothing to do does not need.
    from dspylab.commands.interrupt import stopping_on_signals
    from dspylab.commands.progress import observing
    from dspylab.execute.runs import Compiling, execute_runs

    compiling = Compiling(todo.compiles, todo.stale)
    metric = laboratory.experiment.ranked_by
    with stopping_on_signals() as stop, observing(metric, quiet=quiet, log=log) as observer:
        execution = execute_runs(
            laboratory,
            todo.runs,
            observer,
            stop,
            fresh=fresh,
            compiling=compiling,
            takes_recorded=True,
            dask=dask,
            on_ready=on_ready,
        )
        return execution, stop


def _record(
    laboratory: Laboratory,
    repository: Repository,
    entry: PipelineEntry,
    execution: Execution | None,
    adopted: Collection[str],
) -> tuple[Summary, bool]:
    """Builds the summary, has DVC record every complete run and the summary, and drops their journals.

    Returns:
        The summary, and whether DVC recorded a run that was executed just now, or a compile with calls.
    """
    summary = summarize_workspace(laboratory).summary
    complete = [report.run for report in execution.reports if report.complete] if execution else []
    executed = set(complete)
    complete += adopted
    compiles = [report for report in execution.compiles if report.record] if execution else []
    # Without any result there is no folder that the summary could depend on.
    has_inputs = laboratory.layout.results.is_dir() and (
        not laboratory.compiles or laboratory.layout.programs.is_dir()
    )
    recorded = repository.commit(
        entry, complete, compiles=[report.program for report in compiles], summary=has_inputs
    )
    for key in recorded:
        drop_journal(laboratory.journal(laboratory.run(key)))
    # A program that cost nothing, such as LabeledFewShot's, comes with whatever fails behind it.
    paid = any(report.record and report.record.calls for report in compiles)
    return summary, paid or bool(executed & recorded)


def _with_what_others_did(laboratory: Laboratory, execution: Execution, summary: Summary) -> Execution:
    """The execution with the runs that another process held as the table shows them.

    It may have completed them since they were left to it.
    """

    def is_complete(report: RunReport) -> bool:
        known = summary.runs.get(report.run)
        journal = laboratory.journal(laboratory.run(report.run))
        # With `--fresh` the other one makes new results, and those before are there until it has.
        return known is not None and known.complete and (not begins_anew(journal) or is_published(journal))

    reports = [
        replace(report, done=report.total, stopped=None, held=False)
        if report.held and is_complete(report)
        else report
        for report in execution.reports
    ]
    return replace(execution, reports=reports)


def _why_not(execution: Execution | None, has_new: bool, is_interrupted: bool) -> str | None:
    """Why the results are not to be saved as a DVC experiment; None if they are."""
    if is_interrupted:
        # Half of an experiment is none, and whoever pressed Ctrl-C is waiting.
        return "it was interrupted"
    if has_new:
        return None
    # Each would be a row of `dvc exp show` with nothing in it that another one has not.
    return "nothing was executed" if execution is None else "no run was completed and recorded"


def _save(laboratory: Laboratory, repository: Repository, why_not: str | None, *, silent: bool) -> None:
    if why_not is not None:
        note(f"not saved as a DVC experiment: {why_not}", silent)
        return
    layout, loaded = laboratory.layout, laboratory.loaded
    own = [loaded.path, layout.folder / ".gitignore", layout.summary, layout.metrics]
    own += layout.plots.glob("*.json")
    for spec in laboratory.compiles:
        own += [path for path in layout.compiled(spec.key) if path.is_file()]
    saved = repository.save_experiment(
        laboratory.experiment.name, [*own, *laboratory.code_files, *laboratory.data_files]
    )
    if isinstance(saved, SavedExperiment):
        note(f"saved as the DVC experiment {saved.name}: compare with `dvc exp show --only-changed`", silent)
    else:
        note(f"not saved as a DVC experiment: {saved.reason}", silent)
