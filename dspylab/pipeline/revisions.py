"""The results of an experiment at another commit, read from git and DVC's cache. Nothing is checked out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from dspylab.errors import DataError, RepositoryError
from dspylab.pipeline.blocks import load
from dspylab.pipeline.dvcfile import LOCK_FILE
from dspylab.pipeline.git import Revision, file_at
from dspylab.record.layout import Layout
from dspylab.record.results import StoredResults, checked_summary

#: The command that gets rows which another machine has, by the kind of revision.
_FETCH = {
    "branch": "`dvc fetch --all-branches` gets them",
    "tag": "`dvc fetch --all-tags` gets them",
    "experiment": "`dvc exp pull <git remote> {name}` gets them",
    "commit": "`dvc fetch --all-commits` gets them",
}


def results_at(layout: Layout, revision: Revision) -> StoredResults:
    """Reads `summary.json` from git, and finds the rows in DVC's cache by what `dvc.lock` says of them.

    Args:
        layout: Where the files of the experiment lie, which must be where they lay then.
        revision: The commit.

    Raises:
        DataError: If the commit has no summary of the experiment, or one that cannot be read.
        RepositoryError: If `dvc.lock` of the commit cannot be read.
    """
    # DVC takes a second to load.
    from dspylab.pipeline.repo import open_repository

    name = layout.summary.relative_to(layout.root).as_posix()
    where = f"{name} at {revision.name}"
    text = file_at(layout.root, revision.commit, name)
    if text is None:
        raise DataError(
            "no such file",
            where=where,
            remedy="commit the results of `dspylab run` there, or name another revision",
        )
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"is not JSON: {error}", where=where, remedy="name another revision") from error
    summary = checked_summary(content if isinstance(content, dict) else {}, where)
    digests = _digests(layout, revision)
    repository = open_repository(layout.root)
    try:
        cached = {run: repository.cached(md5) for run, md5 in digests.items()}
    finally:
        repository.close()
    return StoredResults(
        name=revision.name,
        summary=summary,
        files={run: path for run, path in cached.items() if path is not None and run in summary["runs"]},
        digests=digests,
        remedy=_FETCH[revision.kind].format(name=revision.name),
    )


def workspace_digests(layout: Layout) -> dict[str, str]:
    """Run key to the MD5 of its rows, as `dvc.lock` in the workspace says.

    Raises:
        RepositoryError: If `dvc.lock` cannot be read.
    """
    path = layout.root / LOCK_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return _of_lock(text, layout.results.relative_to(layout.root), LOCK_FILE)


def _digests(layout: Layout, revision: Revision) -> dict[str, str]:
    text = file_at(layout.root, revision.commit, LOCK_FILE) or ""
    return _of_lock(text, layout.results.relative_to(layout.root), f"{LOCK_FILE} at {revision.name}")


def _of_lock(text: str, results: Path, where: str) -> dict[str, str]:
    """Run key to MD5, for the outputs `<results>/<run>/raw.jsonl` of all stages."""
    try:
        lock = load(text) or {}
        outs = [out for stage in lock.get("stages", {}).values() for out in stage.get("outs", ())]
        return {run: out["md5"] for out in outs if (run := _run(out, results)) and "md5" in out}
    except (yaml.YAMLError, AttributeError, TypeError, KeyError) as error:
        raise RepositoryError(
            "is not what DVC writes", where=where, remedy="restore it from another commit"
        ) from error


def _run(out: Mapping[str, Any], results: Path) -> str | None:
    """The run whose rows an output is."""
    path = PurePath(out["path"])
    return path.parent.name if path.name == "raw.jsonl" and path.parent.parent == results else None
