"""The same matrix as the other tools run it, for `matrix.py`: each a whole command in a fresh folder.

All send the texts of the same tickets to the same server, as many at once, and score the answers by a rule.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from commands import taken

from dspylab.testing import tickets

LABELS = "payment, bug, login or delivery"

EVALUATE = """
import json, sys, warnings
from typing import Literal
import dspy

class Triage(dspy.Signature):
    text: str = dspy.InputField()
    label: Literal["payment", "bug", "login", "delivery"] = dspy.OutputField()

url, rows = sys.argv[1], [json.loads(line) for line in open("tickets.jsonl")]
devset = [dspy.Example(**row).with_inputs("text") for row in rows]
lm = dspy.LM("openai/fake", api_base=url, api_key="fake", temperature=0.0, max_tokens=64, cache=False)
dspy.configure(lm=lm)
for run in range(int(sys.argv[2])):
    evaluate = dspy.Evaluate(devset=devset, metric=lambda e, p, trace=None: e.label == p.label,
                             num_threads=int(sys.argv[3]), display_progress=False)
    print(evaluate(dspy.Predict(Triage)).score)
"""

INSPECT = f"""
import json
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate, system_message

@task
def triage():
    rows = [json.loads(line) for line in open("tickets.jsonl")]
    return Task(
        dataset=[Sample(input=row["text"], target=row["label"]) for row in rows],
        solver=[system_message("Answer with one label: {LABELS}."), generate(temperature=0.0, max_tokens=64)],
        scorer=match(),
    )
"""


def time_evaluate(url: str, *, runs: int, examples: int, at_once: int) -> float:
    """Seconds of a script that evaluates the same program once a run, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        _write_tickets(folder, examples)
        return taken([sys.executable, "-c", EVALUATE, url, str(runs), str(at_once)], Path(folder)).wall_s


def time_inspect(command: str, url: str, *, runs: int, examples: int, at_once: int) -> float:
    """Seconds of one `inspect eval` of as many tasks as there are runs, all at once.

    Args:
        command: Path of Inspect's `inspect`, in an environment that has the `openai` package, too.
        url: Base address of the server.
        runs: How many tasks.
        examples: Samples of each.
        at_once: Bound of its connections and samples.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write_tickets(folder, examples)
        Path(folder, "tasks.py").write_text(INSPECT, encoding="utf-8")
        bounds = ["--max-connections", str(at_once), "--max-samples", str(at_once), "--max-tasks", str(runs)]
        return taken(
            [
                command,
                "eval",
                *["tasks.py@triage"] * runs,
                "--model",
                "openai/fake",
                *bounds,
                "--display",
                "none",
            ],
            Path(folder),
            env={"OPENAI_API_KEY": "fake", "OPENAI_BASE_URL": url},
        ).wall_s


def time_promptfoo(command: str, url: str, *, runs: int, examples: int, at_once: int) -> float:
    """Seconds of one `promptfoo eval` of as many prompts as there are runs, without its cache and telemetry.

    Args:
        command: Path of `promptfoo`.
        url: Base address of the server.
        runs: How many prompts.
        examples: Tests of each.
        at_once: Bound of its concurrency.
    """
    settings = {"apiBaseUrl": url, "apiKey": "fake", "temperature": 0, "max_tokens": 64}
    config = {
        "prompts": [f"[{run}] Answer with one label: {LABELS}. {{{{text}}}}" for run in range(runs)],
        "providers": [{"id": "openai:chat:fake", "config": settings}],
        "tests": [
            {"vars": {"text": row["text"]}, "assert": [{"type": "contains", "value": row["label"]}]}
            for row in tickets(examples)
        ],
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "promptfooconfig.json").write_text(json.dumps(config), encoding="utf-8")
        return taken(
            [command, "eval", "-c", "promptfooconfig.json", "--no-cache", "--max-concurrency", str(at_once),
             "--no-progress-bar", "--no-table"],
            Path(folder),
            env={
                "PROMPTFOO_CONFIG_DIR": folder,
                "PROMPTFOO_DISABLE_TELEMETRY": "1",
                "PROMPTFOO_DISABLE_UPDATE": "1",
                "PROMPTFOO_FAILED_TEST_EXIT_CODE": "0",
            },
        ).wall_s  # fmt: skip


def _write_tickets(folder: str, count: int) -> None:
    lines = [json.dumps(row) + "\n" for row in tickets(count)]
    Path(folder, "tickets.jsonl").write_text("".join(lines), encoding="utf-8")
