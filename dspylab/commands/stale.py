"""What `show`, `compare` and `report` say of results, by the experiment and its files as they are now."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dspylab.commands.find import find_config
from dspylab.config.wording import named
from dspylab.errors import DataError, DspylabError, Finding, InvalidExperiment
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.record.layout import Layout
from dspylab.record.publish import read_json
from dspylab.record.results import StoredResults, workspace_results


class Now:
    """The experiment as it is now.

    Results can be looked at whatever the files say by now, so what cannot be found out is not told either:
    of a dataset that is elsewhere, or code that was never imported here.

    Args:
        config: What `--config` says.
    """

    def __init__(self, config: Path | None) -> None:
        self._config = config

    def results(self, layout: Layout) -> StoredResults:
        """The results in the workspace. Where there are newer rows than the summary has, it says so.

        Raises:
            DataError: As `workspace_results`.
        """
        results = workspace_results(layout)
        newer = self._made_now(layout, results.without_rows)
        if not newer:
            return results
        if len(newer) == len(results.without_rows):
            return replace(results, remedy="`dspylab aggregate` takes the newer ones that are here")
        remedy = f"`dspylab aggregate` takes the newer ones of {named(newer)} that are here; {results.remedy}"
        return replace(results, remedy=remedy)

    def not_in(self, summary: Mapping[str, Any], layout: Layout) -> tuple[list[str], list[str]]:
        """Keys of the runs of the matrix that a summary has not.

        Args:
            summary: The content of `summary.json`.
            layout: Where the results lie.

        Returns:
            Those that have no results of the experiment as it is; and those that have newer ones.
        """
        if self._laboratory is None:
            return [], []
        absent = [run.key for run in self._laboratory.runs if run.key not in summary["runs"]]
        newer = self._made_now(layout, absent)
        return [run for run in absent if run not in newer], newer

    def tell_stale(self, summary: Mapping[str, Any]) -> None:
        """Says on stderr, which no format is printed to, how many runs are stale; nothing if none is.

        Args:
            summary: The content of `summary.json`.
        """
        if isinstance(self._opened, Finding):
            print(
                "the experiment file is not valid now, so it can not be told whether these results are of it "
                f"(`dspylab validate`): {self._opened}",
                file=sys.stderr,
            )
        known = self._made_from_these(summary["runs"])
        if stale := len(known) - sum(known.values()):
            print(
                "made from other code, data or settings than the files have now "
                f"({stale} of {len(summary['runs'])} runs): `dspylab run`",
                file=sys.stderr,
            )

    @functools.cached_property
    def _opened(self) -> Laboratory | Finding | None:
        """The laboratory; or what is wrong with its file first; None if it is no matter of the file."""
        try:
            return open_laboratory(find_config(self._config), with_files=False)
        except InvalidExperiment as error:
            return error.findings[0]
        except (DspylabError, OSError):
            return None

    @property
    def _laboratory(self) -> Laboratory | None:
        return self._opened if isinstance(self._opened, Laboratory) else None

    def _made_from_these(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
        """As of the laboratory; nothing if it can not be found out."""
        try:
            return {} if self._laboratory is None else self._laboratory.made_from_these(results)
        except (DspylabError, OSError):
            return {}

    def _made_now(self, layout: Layout, runs: Iterable[str]) -> list[str]:
        """Those of some runs whose rows lie there, and were made from what the files have now."""
        entries = {}
        for run in runs:
            if layout.raw(run).is_file() and (info := _info(layout, run)) is not None:
                entries[run] = info
        return [run for run, is_now in self._made_from_these(entries).items() if is_now] if entries else []


def _info(layout: Layout, run: str) -> dict[str, Any] | None:
    """What a `run.json` says; None if there is none, or it was damaged."""
    try:
        return read_json(layout.info(run))
    except DataError:
        return None
