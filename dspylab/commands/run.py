"""`dspylab run`: execute what is missing or stale, all runs together, and record it with DVC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dspylab.aggregate.collect import collect
from dspylab.commands.console import console, note
from dspylab.commands.find import find_config
from dspylab.commands.sync import pipeline_entry
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.pipeline.dvcfile import upsert
from dspylab.pipeline.git import SavedExperiment
from dspylab.pipeline.stages import PipelineEntry
from dspylab.record.journal import drop_journal, is_published
from dspylab.report.tables import results_table
from dspylab.scaffold.editors import refresh_schema

if TYPE_CHECKING:
    from dspylab.execute.active import RunReport
    from dspylab.execute.pool import Stop
    from dspylab.execute.runs import Execution
    from dspylab.pipeline.repo import Repository
    from dspylab.records import Summary


def run_experiment(config: Path | None, *, fresh: bool, quiet: bool, json_events: bool) -> None:
    """Runs an experiment: sync, look what is stale, restore, execute, summarize, commit, save.

    Raises:
        DspylabError: What is wrong with the file, the code, the machine or the repository; before the
            first call where it can be known before.
        RunsIncomplete: If examples are left that another try may mend.
        Interrupted: If the user stopped it.
    """
    from dspylab.pipeline.repo import open_repository

    silent = quiet or json_events
    laboratory = open_laboratory(find_config(config))
    entry = pipeline_entry(laboratory)
    repository = open_repository(laboratory.layout.root)
    upsert(repository.root, entry)
    refresh_schema(laboratory.loaded.path, repository.root)
    stale, restored = _stale(laboratory, repository, entry, fresh=fresh)
    if not stale and not restored and repository.summary_state(entry).state == "done":
        note(f"{laboratory.experiment.name}: all {len(laboratory.runs)} runs are done: nothing to do", silent)
        return
    if restored:
        note(f"{len(restored)} runs come from the cache of DVC", silent)
    execution, stop = _execute(laboratory, stale, fresh=fresh, quiet=quiet, json_events=json_events)
    summary = _record(laboratory, repository, entry, execution.reports if execution else [])
    if not json_events:
        console().print(results_table(summary))
    if stop is not None and stop.requested:
        # Half of an experiment is none, and whoever pressed Ctrl-C is waiting.
        note("not saved as a DVC experiment: it was interrupted", silent)
    else:
        _save(laboratory, repository, silent=silent)
    if execution is not None and stop is not None:
        from dspylab.commands.outcome import raise_unless_complete

        raise_unless_complete(execution, stop)


def _stale(
    laboratory: Laboratory, repository: Repository, entry: PipelineEntry, *, fresh: bool
) -> tuple[list[str], set[str]]:
    """Keys of the runs to execute, in matrix order, and of those that came back from DVC's caches."""
    keys = [run.key for run in laboratory.runs]
    states = repository.states(entry, keys)
    if fresh:
        return keys, set()
    stale = [key for key in keys if states[key].state != "done"]
    _drop_recorded(laboratory, [key for key in keys if states[key].state == "done"])
    # What an interrupted session began, an interrupted `--fresh` included, goes on instead.
    begun = {key for key in stale if _is_begun(laboratory, key)}
    restored = repository.restore(entry, [key for key in stale if key not in begun]) if stale else set()
    return [key for key in stale if key not in restored], restored


def _is_begun(laboratory: Laboratory, key: str) -> bool:
    return laboratory.layout.journal(laboratory.config_hash(laboratory.run(key))).is_file()


def _drop_recorded(laboratory: Laboratory, keys: Sequence[str]) -> None:
    """Drops what `dvc repro`, or a `run` that was killed once DVC had recorded it, left of recorded runs."""
    if not any((laboratory.layout.private / "journal").glob("*.jsonl")):
        return
    for key in keys:
        journal = laboratory.layout.journal(laboratory.config_hash(laboratory.run(key)))
        if is_published(journal):
            drop_journal(journal)


def _execute(
    laboratory: Laboratory, keys: Sequence[str], *, fresh: bool, quiet: bool, json_events: bool
) -> tuple[Execution | None, Stop | None]:
    if not keys:
        return None, None
    # Heavy: they import dspy, which a run that has nothing to do does not need.
    from dspylab.commands.interrupt import stopping_on_signals
    from dspylab.commands.progress import observing
    from dspylab.execute.runs import execute_runs

    metric = laboratory.experiment.ranked_by
    with stopping_on_signals() as stop, observing(metric, quiet=quiet, json_events=json_events) as observer:
        return execute_runs(laboratory, keys, observer, stop, fresh=fresh), stop


def _record(
    laboratory: Laboratory, repository: Repository, entry: PipelineEntry, reports: Sequence[RunReport]
) -> Summary:
    """Builds the summary, has DVC record every complete run and the summary, and drops their journals."""
    summary = collect(laboratory, repository.git_state()).summary
    complete = [report.run for report in reports if report.complete]
    # Without any result there is no folder that the summary could depend on.
    recorded = repository.commit(entry, complete, summary=laboratory.layout.results.is_dir())
    for key in recorded:
        drop_journal(laboratory.layout.journal(laboratory.config_hash(laboratory.run(key))))
    return summary


def _save(laboratory: Laboratory, repository: Repository, *, silent: bool) -> None:
    layout, loaded = laboratory.layout, laboratory.loaded
    own = [loaded.path, layout.folder / ".gitignore", layout.summary, layout.metrics]
    saved = repository.save_experiment(
        laboratory.experiment.name, [*own, *laboratory.code_files, *laboratory.data_files]
    )
    if isinstance(saved, SavedExperiment):
        note(f"saved as the DVC experiment {saved.name}: compare with `dvc exp show`", silent)
    else:
        note(f"not saved as a DVC experiment: {saved.reason}", silent)
