"""The results of an experiment, wherever they lie: in the workspace, or at a revision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspylab.errors import DataError
from dspylab.places import shown_path
from dspylab.record.layout import Layout
from dspylab.record.publish import read_json, read_rows

#: What the results in the workspace are called, as DVC calls them.
WORKSPACE = "workspace"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResults:
    """The summary of an experiment, and the rows of its runs as far as they are on this machine.

    `dspylab.results.Results` has those of the workspace as typed records, for people who use Python.

    Attributes:
        name: ``workspace``, or the name of the revision.
        summary: The content of `summary.json`.
        files: Run key to the file with its rows, for the runs whose rows are there: those that the summary
            is of, not what another commit left in their place.
        digests: Run key to the MD5 of its rows, as far as `dvc.lock` says it.
        remedy: What to do to get the rows of the other runs.
    """

    name: str
    summary: Mapping[str, Any]
    files: Mapping[str, Path]
    digests: Mapping[str, str]
    remedy: str

    @property
    def without_rows(self) -> tuple[str, ...]:
        """Runs of the summary whose rows are not on this machine."""
        return tuple(run for run in self.summary["runs"] if run not in self.files)

    def rows(self, run: str) -> Iterator[dict[str, Any]]:
        """The rows of a run that is in `files`, in dataset order.

        Raises:
            DataError: If a line is not a row.
        """
        return read_rows(self.files[run])


def workspace_results(layout: Layout) -> StoredResults:
    """The results that lie in the workspace.

    Args:
        layout: Where they lie.

    Raises:
        DataError: If there is no summary yet, or it is not one of this version.
    """
    summary = checked_summary(read_json(layout.summary), shown_path(layout.summary))
    return StoredResults(
        name=WORKSPACE,
        summary=summary,
        files={
            run: layout.raw(run)
            for run, entry in summary["runs"].items()
            if layout.raw(run).is_file() and _config_hash(layout.info(run)) == entry["config_hash"]
        },
        digests={},
        remedy="`dvc checkout` or `dvc pull` gets them, or `dspylab run` executes the runs",
    )


def _config_hash(info: Path) -> str | None:
    """What made the rows beside a `run.json`; None without one.

    After `git checkout` the rows of another commit lie beside the summary of this one until `dvc checkout`.
    """
    return str(read_json(info).get("config_hash")) if info.is_file() else None


def checked_summary(summary: dict[str, Any], where: str) -> dict[str, Any]:
    """A document that has what every `summary.json` has.

    Args:
        summary: Its content.
        where: What to call it in the error.

    Raises:
        DataError: If it has not.
    """
    absent = [name for name in ("experiment", "primary_metric", "runs", "over_seeds") if name not in summary]
    if absent:
        raise DataError(
            f"is not a summary of this version, it lacks: {', '.join(absent)}",
            where=where,
            remedy="build it again: `dspylab aggregate`",
        )
    return summary
