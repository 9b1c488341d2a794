"""Small experiments for the tests of reports: rows made by hand, and the summary made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspylab.aggregate.summarize import RunRows, summarize
from dspylab.config.models import Experiment
from dspylab.jsonable import to_json
from dspylab.record.journal import encode
from dspylab.record.publish import write_atomically, write_json
from dspylab.record.results import StoredResults
from dspylab.records import (
    ExampleError,
    ExampleFailure,
    ExampleResult,
    GitState,
    LMCall,
    Message,
    Rates,
    RunInfo,
)
from dspylab.report.html import Page, render_html
from dspylab.report.material import Material, gather
from dspylab.report.plots import plots
from dspylab.report.verdict import verdict

Row = dict[str, Any]


def call(**fields: Any) -> LMCall:
    usual: dict[str, Any] = {
        "model": "mini", "predictor": "route", "adapter": "ChatAdapter", "ttft_s": 0.1, "latency_s": 0.4,
        "attempts": 1, "prompt_tokens": 100, "completion_tokens": 10, "token_source": "provider",
        "cost_usd": 0.0002, "streamed": True, "finish_reason": "stop",
        "prompt": (Message(role="system", text="Route the ticket."), Message(role="user", text="It broke.")),
        "response": '{"label": "bug"}',
    }  # fmt: skip
    return LMCall(**{**usual, **fields})


def answered(index: int, score: float, *calls: LMCall, **fields: Any) -> Row:
    usual: dict[str, Any] = {
        "run": "-", "index": index, "example_id": f"e{index}", "inputs": {"text": f"Ticket {index} broke."},
        "labels": {"label": "bug"}, "prediction": {"label": "bug" if score else "login"},
        "metrics": {"accuracy": score}, "example_s": 0.5 + index / 100, "metric_s": 0.001,
        "started_at": 1_700_000_000.0 + index, "calls": calls or (call(),),
    }  # fmt: skip
    return dict(to_json(ExampleResult(**{**usual, **fields})))


def failed(index: int, message: str = "cannot be parsed") -> Row:
    error = ExampleError(type="AdapterParseError", message=message, kind="program")
    failure = ExampleFailure(
        run="-", index=index, example_id=f"e{index}", inputs={"text": f"Ticket {index} broke."},
        labels={"label": "bug"}, error=error, example_s=0.5, started_at=1_700_000_000.0, calls=(call(),),
    )  # fmt: skip
    return dict(to_json(failure))


def scored(*scores: float | None) -> list[Row]:
    """Rows with these scores; None is a failure."""
    return [failed(index) if score is None else answered(index, score) for index, score in enumerate(scores)]


def summary_of(runs: Mapping[str, Sequence[Row]], description: str = "Which one?", **config: Any) -> Row:
    """What `summary.json` says of these rows."""
    experiment = Experiment.model_validate(
        {
            "name": "triage",
            "description": description,
            "program": {"path": "program.py"},
            "dataset": {"path": "data.jsonl", "inputs": ["text"]},
            "models": {"mini": {"model": "openai/mini"}},
            "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
            **config,
        }
    )
    rates = {"mini": Rates(input_usd=1.0, output_usd=10.0, source="experiment file")}
    infos = {key: info(key, len(rows)) for key, rows in runs.items()}
    summary = summarize(
        experiment,
        {
            key: RunRows(info=infos[key], rows=iter(rows), total=infos[key].total)
            for key, rows in runs.items()
        },
        rates=rates,
        config_hash="0" * 64,
        git=GitState(commit="abcdef0123456789", branch="main", dirty=False),
        created_at="2026-01-02T03:04:05+00:00",
        versions={"dspylab": "0.1.0", "dspy": "3.4.1"},
    )
    return dict(to_json(summary))


def info(key: str, total: int) -> RunInfo:
    name, _, seed = key.partition("-s")
    coordinates: dict[str, Any] = {"model": name, **({"seed": int(seed)} if seed else {})}
    return RunInfo(
        run=key,
        coordinates=coordinates,
        total=total,
        config_hash="1" * 64,
        model={},
        engine="native",
        rates={"mini": None},
        versions={"dspy": "3.4.1"},
    )


@dataclass(frozen=True, kw_only=True)
class KeptResults(StoredResults):
    """Results whose rows are in memory."""

    kept: Mapping[str, Sequence[Row]]

    def rows(self, run: str) -> Iterator[Row]:
        return iter(self.kept[run])


def results_of(summary: Row, rows: Mapping[str, Sequence[Row]]) -> StoredResults:
    files = {key: Path(key) for key in rows}
    return KeptResults(
        name="workspace", summary=summary, files=files, digests={}, remedy="`dvc pull`", kept=rows
    )


def material_of(runs: Mapping[str, Sequence[Row]], **settings: Any) -> Material:
    return gather(results_of(summary_of(runs, **settings), runs))


def page_of(material: Material, most_examples: int = 5000, **fields: Any) -> str:
    """The page of an experiment."""
    usual: dict[str, Any] = {
        "verdict": verdict(material),
        "plots": plots(material),
        "programs": {},
    }
    return render_html(Page(material=material, most_examples=most_examples, **{**usual, **fields}))


def write_results(folder: Path, runs: Mapping[str, Sequence[Row]], **settings: Any) -> None:
    """The files that `dspylab run` would leave behind."""
    write_json(folder / "summary.json", summary_of(runs, **settings))
    for key, rows in runs.items():
        write_atomically(folder / "results" / key / "raw.jsonl", (encode(row) + b"\n" for row in rows))
        write_json(folder / "results" / key / "run.json", to_json(info(key, len(rows))))
