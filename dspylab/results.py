"""Results for Python: what an experiment left on disk, as typed records and as frames.

    import dspylab

    results = dspylab.load_results("experiments/triage")
    results.summary.runs["smollm2-cot"].metrics["accuracy"].mean
    for row in results.rows("smollm2-cot"): ...
    results.to_pandas()

Nothing is executed and nothing is written. ``docs/python.md`` shows more.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from dspylab.aggregate.stats import sum_if_known
from dspylab.errors import DataError, EnvironmentProblem, UsageError
from dspylab.jsonable import to_json
from dspylab.places import shown_path
from dspylab.record.layout import Layout, find_root
from dspylab.record.publish import read_json, read_rows
from dspylab.record.rows import outcome_of_row
from dspylab.records import (
    JSON,
    RAW_SCHEMA_VERSION,
    SUMMARY_SCHEMA_VERSION,
    ExampleOutcome,
    RunSummary,
    Summary,
)

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Table = Literal["examples", "runs", "calls"]
#: What the names of columns begin with that the program and the metrics have named.
_PREFIXES = frozenset({"inputs", "labels", "prediction", "metrics", "run_metrics"})
#: What the names of columns end with that hold numbers.
_NUMBERS = ("_s", "_usd", "_tokens", ".p50", ".p95")


@dataclass(frozen=True, slots=True)
class Results:
    """The results of one experiment, as they lie on disk.

    Attributes:
        folder: Folder of the experiment.
        summary: All figures, as in `summary.json`.
    """

    folder: Path
    summary: Summary
    _layout: Layout = field(repr=False)

    @property
    def runs(self) -> Mapping[str, RunSummary]:
        """Run key to its figures, in the order of the matrix."""
        return self.summary.runs

    def rows(self, *runs: str) -> Iterator[ExampleOutcome]:
        """The examples of some runs, in dataset order, read one at a time.

        Args:
            runs: Keys of runs; none means all of them, in the order of the matrix.

        Returns:
            `ExampleResult` for an example that the program answered, `ExampleFailure` for one that failed;
            `row.error is None` tells them apart.

        Raises:
            UsageError: If there is no such run. At once, not when the first row is read.
            DataError: If rows are absent, damaged, or of other results than the summary.
        """
        chosen = list(runs or self.runs)
        for run in chosen:
            if run not in self.runs:
                raise UsageError(f"there is no run {run!r}", remedy=f"one of: {', '.join(self.runs)}")
            self._check_info(run)
        return (row for run in chosen for row in _read_rows(self._layout.raw(run)))

    def records(self, table: Table = "examples") -> Iterator[dict[str, JSON]]:
        """A table as plain dictionaries, one a line, all with the same keys; what frames are made from.

        Args:
            table: ``examples``: a line an example; ``runs``: a line a run; ``calls``: a line a call of a
                language model. ``docs/python.md`` lists the columns.

        Raises:
            UsageError: If there is no such table.
            DataError: As `rows`.
        """
        tables = {"examples": self._examples, "runs": self._run_lines, "calls": self._calls}
        if table not in tables:
            raise UsageError(f"there is no table {table!r}", remedy=f"one of: {', '.join(tables)}")
        lines = list(tables[table]())
        columns = _together(dict.fromkeys(name for line in lines for name in line))
        return ({name: line.get(name) for name in columns} for line in lines)

    def to_pandas(self, table: Table = "examples") -> pd.DataFrame:
        """A table as a pandas frame.

        Args:
            table: As for `records`.

        Raises:
            EnvironmentProblem: If pandas is not installed.
            UsageError: If there is no such table.
            DataError: As `rows`.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise _not_installed("pandas", "polars") from error
        frame = pd.DataFrame.from_records(list(self.records(table)))
        return frame.astype({name: float for name in frame if _is_number(name) and frame[name].isna().all()})

    def to_polars(self, table: Table = "examples") -> pl.DataFrame:
        """A table as a polars frame. A column whose values are of several kinds becomes text.

        Args:
            table: As for `records`.

        Raises:
            EnvironmentProblem: If polars is not installed.
            UsageError: If there is no such table.
            DataError: As `rows`.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise _not_installed("polars", "pandas") from error
        frame = pl.DataFrame(list(self.records(table)), infer_schema_length=None, strict=False)
        empty = [name for name in frame.columns if _is_number(name) and frame[name].is_null().all()]
        return frame.cast(dict.fromkeys(empty, pl.Float64))

    def _check_info(self, run: str) -> None:
        """Whether the rows of a run are those that the summary was made from."""
        path = self._layout.info(run)
        if not path.is_file():
            raise DataError(
                "no such file",
                where=shown_path(path),
                remedy="bring the rows back with `dvc pull` or `dvc checkout`, or execute with `dspylab run`",
            )
        info = read_json(path)
        _check_version(info, RAW_SCHEMA_VERSION, shown_path(path))
        if info.get("config_hash") != self.runs[run].config_hash:
            raise DataError(
                f"the rows of {run} are of other results than the summary",
                where=shown_path(path),
                remedy="build the summary anew with `dspylab aggregate`, or go back with `dvc checkout`",
            )

    def _examples(self) -> Iterator[dict[str, Any]]:
        for key, run in self.runs.items():
            for row in self.rows(key):
                yield {
                    "run": key,
                    **run.coordinates,
                    "index": row.index,
                    "example_id": row.example_id,
                    **_prefixed("inputs", row.inputs),
                    **_prefixed("labels", row.labels),
                    **_prefixed("prediction", row.prediction or {}),
                    **_prefixed("metrics", row.metrics),
                    "failed": row.error is not None,
                    "error": None if row.error is None else f"{row.error.type}: {row.error.message}",
                    "error_kind": None if row.error is None else row.error.kind,
                    "example_s": row.example_s,
                    "metric_s": row.metric_s,
                    "cost_usd": sum_if_known([call.cost_usd for call in row.calls]),
                    "calls": len(row.calls),
                }

    def _run_lines(self) -> Iterator[dict[str, Any]]:
        for key, run in self.runs.items():
            yield {"run": key, **run.coordinates, "complete": run.complete, **_run_figures(run)}

    def _calls(self) -> Iterator[dict[str, Any]]:
        for row in self.rows():
            for position, call in enumerate(row.calls):
                place = {"run": row.run, "index": row.index, "example_id": row.example_id, "call": position}
                yield {**place, **to_json(call)}


def load_results(path: str | Path = ".") -> Results:
    """Reads the results of an experiment.

    Args:
        path: The folder of the experiment, its experiment file, or its `summary.json`.

    Returns:
        The summary as typed records. Rows are read when they are asked for.

    Raises:
        DataError: If there are no results, they were damaged, or another version of dspylab wrote them.
    """
    given = Path(path)
    file = given / "summary.json" if given.is_dir() else given.with_name("summary.json")
    folder = file.parent.absolute()
    summary = read_summary(read_json(file), shown_path(file))
    return Results(folder, summary, Layout(folder=folder, root=find_root(folder)))


def read_summary(document: Mapping[str, Any], where: str) -> Summary:
    """A `Summary` from the content of a `summary.json`.

    Args:
        document: The content.
        where: What to call it in a message.

    Raises:
        DataError: If it is not one, or another version of dspylab wrote it.
    """
    _check_version(document, SUMMARY_SCHEMA_VERSION, where)
    try:
        summary: Summary = _summary_adapter().validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"is not a summary: {place}: {first['msg']}",
            where=where,
            remedy="build it anew: `dspylab aggregate`",
        ) from error
    return summary


@functools.cache
def _summary_adapter() -> TypeAdapter[Summary]:
    return TypeAdapter(Summary)


def _check_version(document: Mapping[str, Any], expected: int, where: str) -> None:
    found = document.get("schema_version")
    if found == expected:
        return
    if not isinstance(found, int):
        raise DataError(
            "has no schema_version, so it is no file of results",
            where=where,
            remedy="name the folder of an experiment",
        )
    newer = found > expected
    raise DataError(
        f"has schema_version {found}, and this version of dspylab reads {expected}",
        where=where,
        remedy="update dspylab" if newer else "build it anew: `dspylab run`, or `dspylab aggregate`",
    )


def _read_rows(path: Path) -> Iterator[ExampleOutcome]:
    for number, row in enumerate(read_rows(path), start=1):
        try:
            yield outcome_of_row(row)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"is not a row of this version ({error})",
                where=f"{shown_path(path)}:{number}",
                remedy="restore it with `dvc checkout`, or execute the run anew: --fresh",
            ) from error


def _run_figures(run: RunSummary) -> dict[str, float | None]:
    """The figures of a run under the names that columns have.

    Args:
        run: The run.

    Returns:
        `metrics.<name>` is a mean, `metrics.<name>.ci95_low` and `.ci95_high` its 95% interval; the others
        are called as in `summary.json`.
    """
    figures: dict[str, float | None] = {
        f"examples.{name}": getattr(run.examples, name) for name in ("total", "attempted", "scored", "failed")
    }
    for name, metric in run.metrics.items():
        low, high = metric.ci95 or (None, None)
        column = f"metrics.{name}"
        figures |= {column: metric.mean, f"{column}.ci95_low": low, f"{column}.ci95_high": high}
    figures |= {f"run_metrics.{name}": value for name, value in run.run_metrics.items()}
    for name in ("latency_s", "ttft_s", "itl_s", "output_tokens_per_s", "example_s"):
        timing = getattr(run, name)
        figures |= {f"{name}.p50": timing.p50, f"{name}.p95": timing.p95}
    figures |= {
        "throughput_tokens_per_s": run.throughput_tokens_per_s,
        "tokens.prompt": run.tokens.prompt,
        "tokens.completion": run.tokens.completion,
        "calls.total": run.calls.total,
        "cost_usd": run.cost_usd.total,
        "active_s": run.active_s,
    }
    return figures


def _together(columns: Iterable[str]) -> list[str]:
    """Columns of one prefix side by side, also if a later line was the first to have one of them."""
    groups: dict[str, list[str]] = {}
    for name in columns:
        prefix, dot, _ = name.partition(".")
        groups.setdefault(prefix if dot and prefix in _PREFIXES else name, []).append(name)
    return [name for group in groups.values() for name in group]


def _is_number(column: str) -> bool:
    """Whether a column holds numbers, also where no line has one."""
    return column.endswith(_NUMBERS) or column.startswith(("metrics.", "run_metrics."))


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _not_installed(package: str, other: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"{package} is not installed", remedy=f"`pip install {package}`, or use `to_{other}()` or `records()`"
    )
