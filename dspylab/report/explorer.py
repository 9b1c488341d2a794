"""The examples of a report as data for its page: an index that is read at once, and parts read when needed.

A part holds some examples over all runs. What was said in calls is apart from the answers, so that searching
the answers need not read it, and a text that many prompts share stands in the page once or twice.
"""

from __future__ import annotations

import base64
import functools
import gzip
import heapq
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspylab.aggregate.stats import sum_if_known
from dspylab.records import JSON
from dspylab.redact import redact
from dspylab.report.material import ExampleFigures, Material, RunMaterial
from dspylab.report.numbers import cost, count, duration, number
from dspylab.report.standing import standing_of

#: Rows of a part, over all runs.
_PART_ROWS = 1000
#: Characters of the inputs that the list of examples shows.
_PREVIEW = 160
#: What `state` of the index is made of.
_HAS_ROW, _FAILED, _SLOW = 1, 2, 4
#: Shortest wait before a call that is shown, in seconds.
_WORTH_TELLING_S = 0.001
#: Level of gzip: higher ones take twice the time for 2% less.
_COMPRESSION = 6
#: Texts that are redacted once although they occur again: the fixed parts of prompts.
_REMEMBERED_TEXTS = 4096


@dataclass
class Explorer:
    """The data of the page.

    Attributes:
        index: One entry an example and run, in figures.
        answers: For each part, packed, for each example: inputs, labels, and what each run made of it.
        calls: For each part, packed, for each example and run: its calls; and the texts that they refer to.
        shared: Texts that calls of several parts refer to, by negative numbers: -1 is the first.
    """

    index: dict[str, Any]
    answers: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)


def explorer(material: Material, most_examples: int) -> Explorer:
    """Makes the data of the page.

    Args:
        material: What the report is made from.
        most_examples: How many examples it has at most. Failed ones come first, then those on which runs
            differ, then those that come first in the dataset.
    """
    runs = [run for run in material.runs if run.rows is not None]
    chosen = _chosen(runs, most_examples)
    total = len({index for run in runs for index in run.outcomes})
    page = Explorer(_index(material, runs, chosen, total))
    part_size = page.index["part_size"]
    texts = _Texts(page.shared)
    examples = _examples(runs, frozenset(chosen))
    while part := list(itertools.islice(examples, part_size)):
        for rows in part:
            first = next(iter(rows.values()))
            page.index["ids"].append(redact(first["example_id"]))
            page.index["texts"].append(_preview(first["inputs"]))
        page.answers.append(packed([_answers(rows, len(runs)) for rows in part]))
        page.calls.append(packed(texts.part([_calls(rows, len(runs), texts) for rows in part])))
    return page


def packed(value: Any) -> str:
    """A JSON value, compressed, as text that neither HTML nor JavaScript can take for anything else."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    content = gzip.compress(text.encode("utf-8", "backslashreplace"), _COMPRESSION, mtime=0)
    return base64.b64encode(content).decode("ascii")


def _chosen(runs: Sequence[RunMaterial], most: int) -> list[int]:
    """Indexes of the examples of the page, in the order of the dataset."""
    found: dict[int, list[ExampleFigures]] = {}
    for run in runs:
        for index, outcome in run.outcomes.items():
            found.setdefault(index, []).append(outcome)

    def dull(index: int) -> tuple[bool, bool, int]:
        outcomes = found[index]
        failed = any(outcome.failed for outcome in outcomes)
        differ = len({outcome.score for outcome in outcomes}) > 1
        return not failed, not differ, index

    return sorted(sorted(found, key=dull)[:most])


def _index(
    material: Material, runs: Sequence[RunMaterial], chosen: Sequence[int], total: int
) -> dict[str, Any]:
    scores = [outcome.score for run in runs for outcome in run.outcomes.values()]
    return {
        "primary": material.primary,
        "pass_fail": all(score in (0.0, 1.0) for score in scores if score is not None),
        "runs": [
            {
                "key": run.key,
                "rank": material.runs.index(run) + 1,
                "standing": standing_of(material, run),
                "score": [_outcome(run, index).score for index in chosen],
                "state": [_state(run, index) for index in chosen],
                "seconds": [round(_outcome(run, index).example_s, 4) for index in chosen],
            }
            for run in runs
        ],
        "total": total,
        "indexes": chosen,
        "ids": [],
        "texts": [],
        "part_size": max(1, _PART_ROWS // max(1, len(runs))),
    }


_ABSENT = ExampleFigures(None, failed=False, example_s=0.0)


def _outcome(run: RunMaterial, index: int) -> ExampleFigures:
    return run.outcomes.get(index, _ABSENT)


def _state(run: RunMaterial, index: int) -> int:
    outcome = run.outcomes.get(index)
    if outcome is None:
        return 0
    return _HAS_ROW + _FAILED * outcome.failed + _SLOW * (outcome.example_s > run.slow_s)


def _examples(runs: Sequence[RunMaterial], chosen: frozenset[int]) -> Iterator[dict[int, Mapping[str, Any]]]:
    """For each chosen example the rows that it has, by position of the run. One row a run is held at once."""
    streams = [_rows(run, position, chosen) for position, run in enumerate(runs)]
    merged = heapq.merge(*streams, key=lambda entry: entry[:2])
    for _, entries in itertools.groupby(merged, key=lambda entry: entry[0]):
        yield {position: row for _, position, row in entries}


def _rows(
    run: RunMaterial, position: int, chosen: frozenset[int]
) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    for row in run.rows() if run.rows else ():
        if row["index"] in chosen:
            yield row["index"], position, row


def _answers(rows: Mapping[int, Mapping[str, Any]], runs: int) -> dict[str, JSON]:
    first = next(iter(rows.values()))
    return {
        "inputs": _clean(first["inputs"]),
        "labels": _clean(first["labels"]),
        "runs": [_answer(rows[position]) if position in rows else None for position in range(runs)],
    }


def _answer(row: Mapping[str, Any]) -> dict[str, JSON]:
    """What a run made of an example; what is empty is left out."""
    error = row["error"]
    calls = row["calls"]
    spent = sum_if_known([call["cost_usd"] for call in calls])
    figures = [duration(row["example_s"]), f"{count(len(calls))} {'call' if len(calls) == 1 else 'calls'}"]
    if spent:
        figures.append(cost(spent))
    if row["parse_failures"]:
        figures.append(f"{count(row['parse_failures'])} unparsable")
    answer = {
        "prediction": _clean(row["prediction"]),
        "metrics": {name: number(value) for name, value in row["metrics"].items()},
        "error": error and redact(f"{error['type']}: {error['message']}"),
        "metric_errors": _clean(row["metric_errors"]),
        "details": _clean(row["metric_details"]),
        "figures": figures,
    }
    return {name: value for name, value in answer.items() if value}


def _calls(rows: Mapping[int, Mapping[str, Any]], runs: int, texts: _Texts) -> list[JSON]:
    return [
        [_call(call, texts) for call in rows[position]["calls"]] if position in rows else []
        for position in range(runs)
    ]


def _call(call: Mapping[str, Any], texts: _Texts) -> dict[str, JSON]:
    """A call for people; rows of an earlier version have nothing of what was said."""
    prompt, response, reasoning = call.get("prompt"), call.get("response"), call.get("reasoning")
    who = [call["predictor"] or "no predictor", call["model"], call["adapter"]]
    marks = [
        call["role"] if call["role"] != "task" else "",
        "fallback" if call["fallback"] else "",
        "cached" if call["cached"] else "",
        f"{call['attempts']} attempts" if call["attempts"] > 1 else "",
        "cut at the token limit" if call["finish_reason"] == "length" else "",
    ]
    waited_s = call["queue_s"] + call["retry_wait_s"]
    figures = {
        "latency": duration(call["latency_s"]),
        "TTFT": duration(call["ttft_s"]),
        "prompt": f"{count(call['prompt_tokens'])} tokens",
        "reply": f"{count(call['completion_tokens'])} tokens",
        "cost": cost(call["cost_usd"]),
    }
    if waited_s >= _WORTH_TELLING_S:
        figures["waited"] = duration(waited_s)
    said = {
        "who": " · ".join(filter(None, who)),
        "marks": [mark for mark in marks if mark],
        "figures": list(figures.items()),
        "error": call["error"] and redact(call["error"]),
        "prompt": prompt and [[message["role"], texts.refer(message["text"])] for message in prompt],
        "reasoning": None if reasoning is None else texts.refer(reasoning),
        "response": None if response is None else texts.refer(response),
    }
    return {name: value for name, value in said.items() if value is not None and value != []}


class _Texts:
    """Texts by number: those of one part have their own, those of several parts are shared."""

    def __init__(self, shared: list[str]) -> None:
        self._shared = shared
        #: Text of an earlier part to its number among the shared ones; None while no other part has it.
        self._earlier: dict[str, int | None] = {}
        self._part: dict[str, int] = {}

    def refer(self, text: str) -> int:
        """The number of a text. One that an earlier part had is shared from now on."""
        if text not in self._earlier:
            return self._part.setdefault(text, len(self._part))
        known = self._earlier[text]
        if known is None:
            self._shared.append(_clean_text(text))
            known = self._earlier[text] = -len(self._shared)
        return known

    def part(self, examples: list[JSON]) -> dict[str, JSON]:
        """Ends a part: its calls, and the texts that only they refer to."""
        own = list(self._part)
        self._earlier.update(dict.fromkeys(own))
        self._part = {}
        return {"examples": examples, "texts": [_clean_text(text) for text in own]}


def _preview(inputs: Mapping[str, Any]) -> str:
    words = " · ".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in inputs.values()
    )
    return redact(" ".join(words[: 4 * _PREVIEW].split())[:_PREVIEW])


def _clean(value: Any) -> JSON:
    """A JSON value without secrets in its texts."""
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, dict):
        return {_clean_text(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    plain: JSON = value
    return plain


@functools.lru_cache(maxsize=_REMEMBERED_TEXTS)
def _clean_text(text: str) -> str:
    return redact(text)
