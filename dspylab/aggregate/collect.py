"""Read what the runs left on disk and build the summary of it. No model is called."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dspylab.aggregate.summarize import RunRows, summarize
from dspylab.aggregate.views import plain_metrics, plot_points
from dspylab.compiled import valid_record
from dspylab.errors import DataError
from dspylab.jsonable import to_json
from dspylab.laboratory import REPORTED_PACKAGES, Laboratory, versions
from dspylab.lm.pricing import rates_for
from dspylab.metrics.runlevel import build_run_metrics, evaluate
from dspylab.places import shown_path
from dspylab.plan.identity import digest
from dspylab.record.publish import json_text, read_json, read_rows, write_json, write_lines
from dspylab.records import GitState, Rates, RunInfo, Summary

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collected:
    """The summary, and the runs that are not in it.

    Attributes:
        summary: Of all runs that have results of the experiment as it stands.
        missing: Runs without results.
        outdated: Runs whose results were made with other settings, code or data.
    """

    summary: Summary
    missing: tuple[str, ...]
    outdated: tuple[str, ...]


def collect(laboratory: Laboratory, git: GitState | None, committed: str | None = None) -> Collected:
    """Builds the summary from `run.json` and `raw.jsonl` of every run, and writes it.

    One that differs from an earlier summary only in what made it, and when, is not news: the earlier one
    stands, byte for byte, as DVC and git have recorded it.

    Args:
        laboratory: The experiment.
        git: The commit that the results are made on.
        committed: The `summary.json` of that commit; None without one. The other earlier summary is the one
            in the workspace.

    Returns:
        The summary, which also stands in `summary.json`; what DVC shows of it is in `metrics.json` and
        `plots`.

    Raises:
        DataError: If a file of results was damaged, or one of the dataset cannot be read.
        ProgramError: If the user's code cannot be imported.
        EnvironmentProblem: If the summary cannot be written.
    """
    experiment, layout = laboratory.experiment, laboratory.layout
    found, missing, outdated = _results(laboratory)
    summary = summarize(
        experiment,
        found,
        rates={
            model_id: rates_for(experiment.models[model_id])
            for model_id in _models(found.values())
            if model_id in experiment.models  # a result may name a model that was taken out since
        },
        config_hash=digest(laboratory.loaded.document),
        git=git,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(REPORTED_PACKAGES),
    )
    summary = _as_before(summary, [committed, _text(layout.summary)])
    write_json(layout.summary, to_json(summary))
    write_json(layout.metrics, to_json(plain_metrics(summary)))
    for name, lines in plot_points(summary).items():
        write_lines(layout.plot(name), [to_json(line) for line in lines])
    return Collected(summary, tuple(missing), tuple(outdated))


def _results(laboratory: Laboratory) -> tuple[dict[str, RunRows], list[str], list[str]]:
    """What the runs left; and which runs have left nothing, and which something that is out of date."""
    layout = laboratory.layout
    over_rows = build_run_metrics(laboratory.experiment.metrics, laboratory.code.attribute)
    found: dict[str, RunRows] = {}
    missing: list[str] = []
    outdated: list[str] = []
    for spec in laboratory.runs:
        if not layout.info(spec.key).is_file() or not layout.raw(spec.key).is_file():
            missing.append(spec.key)
            continue
        info = read_info(read_json(layout.info(spec.key)), shown_path(layout.info(spec.key)))
        needed = laboratory.needed_compiles.get(spec.key)
        compiled = valid_record(laboratory, needed) if needed is not None else None
        has_lost_program = needed is not None and compiled is None
        if has_lost_program or info.config_hash != laboratory.config_hash(spec, info.versions):
            outdated.append(spec.key)
            continue
        rows = functools.partial(read_rows, layout.raw(spec.key))
        values, errors = evaluate(over_rows, rows)
        for name, error in errors.items():
            logger.warning("metric %s of the run %s has no value: %s", name, spec.key, error)
        found[spec.key] = RunRows(
            info=info,
            rows=_checked(rows(), layout.raw(spec.key)),
            total=info.total,
            run_metrics=values,
            compiled=compiled,
        )
    return found, missing, outdated


def _as_before(summary: Summary, earlier: Iterable[str | None]) -> Summary:
    """The first of the earlier summaries that says the same, else the summary."""
    for text in earlier:
        try:
            known = json.loads(text or "")
            git = None if known["git"] is None else GitState(**known["git"])
            same = replace(summary, git=git, created_at=known["created_at"], versions=known["versions"])
            if json_text(to_json(same)) == text:
                return same
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # there is none, or it is not of this version
    return summary


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def read_info(value: Mapping[str, Any], where: str) -> RunInfo:
    """A `RunInfo` from the content of a `run.json`.

    Raises:
        DataError: If it is not one.
    """
    try:
        rates = {name: None if entry is None else Rates(**entry) for name, entry in value["rates"].items()}
        return RunInfo(**{**value, "rates": rates})
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"is not a run.json of this version ({error})",
            where=where,
            remedy="execute the run anew: --fresh",
        ) from error


#: What a row must have to be summed up; the schema says the rest.
_KEYS = frozenset({
    "index", "example_id", "metrics", "metric_errors", "metric_s", "error", "calls", "parse_failures",
    "example_s", "started_at",
})  # fmt: skip


def _checked(rows: Iterable[Mapping[str, Any]], path: Path) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(rows, start=1):
        absent = sorted(_KEYS - row.keys())
        if absent or not isinstance(row["calls"], list) or not isinstance(row["metrics"], dict):
            raise DataError(
                f"is not a row of this version (no {', '.join(absent) or 'list of calls'})",
                where=f"{shown_path(path)}:{number}",
                remedy="bring it back with `dvc checkout`, or execute the run anew: --fresh",
            )
        yield row


def _models(runs: Iterable[RunRows]) -> list[str]:
    return list(dict.fromkeys(model_id for run in runs for model_id in run.info.rates))
