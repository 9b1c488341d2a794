"""`dspylab check`: the gate. Do the results hold what the file demands? Calls no model, changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dspylab.aggregate.checking import State, judge
from dspylab.aggregate.gate import Outcome
from dspylab.commands.console import note
from dspylab.commands.find import find_config
from dspylab.errors import ChecksFailed, DataError, UsageError
from dspylab.jsonable import to_json
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.pipeline.dvcfile import LOCK_FILE
from dspylab.pipeline.git import find_git_root, find_revision
from dspylab.pipeline.revisions import results_at, workspace_digests
from dspylab.places import shown_path
from dspylab.record.answers import recorded_in
from dspylab.record.journal import finished, is_published
from dspylab.record.layout import Layout
from dspylab.record.publish import file_md5, read_json, write_atomically
from dspylab.record.results import StoredResults, workspace_results
from dspylab.records import RunSpec
from dspylab.report.checks import junit, lines, markdown, verdict, workflow_commands
from dspylab.results import read_summary
from dspylab.unscored import unscored_entry

_OUTDATED = "its results were made with other settings, code or data: `dspylab run`"


def check_experiment(
    config: Path | None,
    *,
    junit_file: Path | None,
    markdown_file: Path | None,
    github: bool | None,
    form: Literal["text", "json"] = "text",
) -> None:
    """Judges every check of the experiment file and says why.

    Args:
        config: The experiment file.
        junit_file: Where to write a JUnit document.
        markdown_file: Where to write a table for a pull request.
        github: Whether to print annotations for GitHub; None: when GITHUB_ACTIONS says so.
        form: ``json``: the outcomes as one document, and no other line on standard output.

    Raises:
        ChecksFailed: If any condition does not hold.
        UsageError: If the file has no checks.
        DataError: If there are no results.
    """
    laboratory = open_laboratory(find_config(config))
    name = laboratory.experiment.name
    if not laboratory.experiment.checks:
        raise UsageError(
            "there are no checks",
            where=str(laboratory.loaded.given),
            remedy=f"add some, such as checks: {{{laboratory.experiment.ranked_by}: {{min: 0.8}}}}",
        )
    outcomes = judge_experiment(laboratory)
    passed = all(outcome.passed for outcome in outcomes)
    if form == "json":
        document = {"experiment": name, "passed": passed, "checks": to_json(outcomes)}
        print(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        note("\n".join(lines(outcomes)))
    if junit_file is not None:
        write_atomically(junit_file, [junit(name, outcomes)])
    if markdown_file is not None:
        write_atomically(markdown_file, [markdown(name, outcomes).encode()])
    in_github = os.environ.get("GITHUB_ACTIONS") == "true" and form == "text"
    if in_github if github is None else github:
        _annotate(laboratory, outcomes)
    if not passed:
        raise ChecksFailed(f"{name}: {verdict(outcomes)}")
    note(f"{name}: {verdict(outcomes)}", form == "json")


def judge_experiment(laboratory: Laboratory) -> list[Outcome]:
    """Judges the results that lie in the workspace.

    Raises:
        DataError: If there are none, or rows were damaged.
    """
    layout, experiment = laboratory.layout, laboratory.experiment
    results = replace(workspace_results(layout), digests=workspace_digests(layout))
    now = _state(results, laboratory, shown_path(layout.summary), only={run.key for run in laboratory.runs})
    revisions = dict.fromkeys(
        check.no_worse_than for check in experiment.checks.values() if check.no_worse_than is not None
    )
    baselines = {name: _baseline(laboratory, name) for name in revisions}
    return judge(experiment, now, _unfit(laboratory, now), baselines)


def _unfit(laboratory: Laboratory, now: State) -> dict[str, str]:
    """Runs of the matrix whose results can not be judged, with the reason."""
    unfit = {}
    metric = laboratory.experiment.ranked_by
    is_recorded = recorded_in(laboratory.layout.root / LOCK_FILE)
    for spec in laboratory.runs:
        run = now.summary.runs.get(spec.key)
        if run is None:
            unfit[spec.key] = _why_absent(laboratory, spec)
        elif run.config_hash != laboratory.config_hash(spec, run.versions):
            unfit[spec.key] = _OUTDATED
        elif (unscored := unscored_entry(metric, now.results.summary["runs"][spec.key])) is not None:
            unfit[spec.key] = unscored
        elif not run.complete:
            unfit[spec.key] = "is not complete: `dspylab run` goes on with it"
        elif _has_other_rows(laboratory.layout, spec.key, is_recorded):
            unfit[spec.key] = (
                f"its rows are not those that {LOCK_FILE} names: `dvc checkout` brings those back"
            )
    return unfit


def _has_other_rows(layout: Layout, run: str, is_recorded: Callable[[str], bool]) -> bool:
    """Whether the rows are not those that DVC has recorded of the very configuration that made them.

    Of a configuration that it has not recorded, as after `run-one`, or of rows that are elsewhere it says
    nothing.
    """
    info, rows = file_md5(layout.info(run)), file_md5(layout.raw(run))
    return info is not None and rows is not None and is_recorded(info) and not is_recorded(rows)


def _why_absent(laboratory: Laboratory, spec: RunSpec) -> str:
    """Why the summary has no such run, as far as what lies there says it."""
    journal = laboratory.journal(spec)
    if finished(journal) and not is_published(journal):
        return "is not finished: `dspylab run` goes on with it"
    layout = laboratory.layout
    if not (layout.raw(spec.key).is_file() and layout.info(spec.key).is_file()):
        return "has no results: `dspylab run`"
    try:
        made = read_json(layout.info(spec.key))
    except DataError as error:
        return str(error)
    if made.get("config_hash") != laboratory.config_hash(spec, made.get("versions")):
        return _OUTDATED
    return "its results are newer than the summary: `dspylab aggregate`"


def _baseline(laboratory: Laboratory, name: str) -> State | str:
    """The results at a revision; or why there are none."""
    layout = laboratory.layout
    # A checkout of continuous integration has the branches of others as remote ones alone.
    revision = find_revision(layout.root, name) or find_revision(layout.root, f"origin/{name}")
    if revision is None:
        return f"git knows no {name} here: fetch it (actions/checkout: fetch-depth: 0), or correct the name"
    try:
        return _state(
            results_at(layout, replace(revision, name=name)), laboratory, f"{layout.summary.name} at {name}"
        )
    except DataError as error:
        return str(error)


def _state(results: StoredResults, laboratory: Laboratory, where: str, only: set[str] | None = None) -> State:
    """Results with their summary as typed records, ranked by the primary metric of now.

    Args:
        results: The results.
        laboratory: The experiment.
        where: Where the summary was read, for messages.
        only: Keys of the runs that count; None: all. A run that left the matrix is no candidate.
    """
    summary = read_summary(results.summary, where)
    runs = {key: run for key, run in summary.runs.items() if only is None or key in only}
    return State(replace(summary, runs=runs, primary_metric=laboratory.experiment.ranked_by), results)


def _annotate(laboratory: Laboratory, outcomes: Sequence[Outcome]) -> None:
    loaded = laboratory.loaded
    root = find_git_root(loaded.folder) or laboratory.layout.root
    file = Path(os.path.relpath(os.path.realpath(loaded.path), os.path.realpath(root))).as_posix()
    for text in workflow_commands(file, lambda figure: loaded.line(("checks", figure)), outcomes):
        print(text)
