"""Run a matrix against an endpoint that fails 39% of the time, and count what was lost, retried and paid.

    python tests/torture/flaky.py --examples 1000

30% of the requests get status 429, 5% status 500, 2% are cut in the middle of the reply, 1% get broken JSON
and 1% are never answered. What still fails after all attempts must be a recorded failure, and the next run
must try those examples again and no others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kill import environment

from dspylab.testing import Laboratory, RequestRecord, ServerProcess, experiment, server_process, tickets

STYLES = ("predict", "cot")
TEMPERATURES = (0.0, 0.7)
RUNS = [f"fake-{style}-temperature{temperature:g}" for style in STYLES for temperature in TEMPERATURES]
#: What the endpoint may be asked for one call: once, and so many times again.
NUM_RETRIES = 3
TIMEOUT_S = 1.5
MOST_SESSIONS = 10


@dataclass
class Figures:
    """What came out.

    Attributes:
        examples: Examples of the whole matrix.
        requests: Requests for completions that the server saw.
        faults: What the server did wrong to how often.
        failed_after: Failures that were left after each session.
        most_requests: The most requests for one example within one session.
        wall_s: Duration of all sessions in seconds.
        wrong: What is not as it must be; empty when all is well.
    """

    examples: int
    requests: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    failed_after: list[int] = field(default_factory=list)
    most_requests: int = 0
    wall_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def torture(folder: Path, *, examples: int, seed: int = 0) -> Figures:
    """Runs a fresh laboratory until nothing is left to do.

    Args:
        folder: Where it is made.
        examples: Examples of the whole matrix, a multiple of four.
        seed: Of the server's faults.
    """
    rates = {"rate_429": 0.3, "rate_500": 0.05, "rate_cut": 0.02, "rate_garbage": 0.01, "rate_hang": 0.01}
    figures = Figures(examples=examples)
    with server_process(
        ttft_s=0.02, fault_retry_after_s=0.02, seed=seed, keep_bodies=True, **rates
    ) as server:
        model = {"num_retries": NUM_RETRIES, "timeout_s": TIMEOUT_S, "max_concurrency": 16}
        matrix = {"model": ["fake"], "program.style": list(STYLES), "lm.temperature": list(TEMPERATURES)}
        lab = experiment(
            folder / "lab",
            server_url=server.url,
            examples=tickets(examples // len(RUNS)),
            config={"models": {"fake": model}, "matrix": matrix},
        )
        lab.init_repository()
        began = time.monotonic()
        expected = {(run, index) for run in RUNS for index in range(examples // len(RUNS))}
        while expected and len(figures.failed_after) < MOST_SESSIONS:
            expected = _session(lab, server, figures, expected)
        figures.wall_s = time.monotonic() - began
        figures.faults = dict(Counter(record.fault for record in server.requests if record.fault))
    if expected:
        figures.wrong.append(f"{len(expected)} examples still fail")
    return figures


def _session(
    lab: Laboratory, server: ServerProcess, figures: Figures, expected: set[tuple[str, int]]
) -> set[tuple[str, int]]:
    """One `dspylab run`, which must ask for the expected examples alone; those that failed again."""
    before = figures.requests
    done = subprocess.run(
        [sys.executable, "-m", "dspylab", "run", "--quiet", "--config", str(lab.config)],
        cwd=lab.root, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    requests = server.requests
    figures.requests = len(requests)
    asked = Counter(example_of(record) for record in requests[before:])
    figures.most_requests = max(figures.most_requests, *asked.values())
    failed = {(run, row["index"]) for run in RUNS for row in _rows(lab, run) if row["error"]}
    figures.failed_after.append(len(failed))
    number = len(figures.failed_after)
    figures.wrong += [f"session {number}: {what}" for what in _wrong(lab, done, asked, expected)]
    return failed


def _wrong(
    lab: Laboratory,
    done: subprocess.CompletedProcess[str],
    asked: Counter[tuple[str, int]],
    expected: set[tuple[str, int]],
) -> Iterator[str]:
    if set(asked) != expected:
        yield f"asked for {len(set(asked) - expected)} others, not for {len(expected - set(asked))}"
    if "Traceback" in done.stderr:
        yield f"a traceback: {done.stderr}"
    failed = 0
    for run in RUNS:
        rows = list(_rows(lab, run))
        if [row["index"] for row in rows] != list(range(len(rows))) or run not in done.stdout:
            yield f"{run}: not each example once, in order"
        for row in rows:
            yield from _wrong_row(run, row, asked)
            failed += row["error"] is not None
    if done.returncode != (1 if failed else 0):
        yield f"{failed} failures, and exit code {done.returncode}: {done.stderr}"


def _wrong_row(run: str, row: dict[str, Any], asked: Counter[tuple[str, int]]) -> Iterator[str]:
    sent = asked.get((run, row["index"]))
    if sent is None:
        return
    if [call["attempts"] for call in row["calls"]] != [sent]:
        yield f"{run} {row['index']}: {sent} requests, but {row['calls']}"
    if sent > NUM_RETRIES + 1:
        yield f"{run} {row['index']}: {sent} requests"
    if row["error"] and (row["error"]["kind"] != "endpoint" or row["metrics"]):
        yield f"{run} {row['index']}: {row['error']}, {row['metrics']}"


def _rows(lab: Laboratory, run: str) -> Iterator[dict[str, Any]]:
    for line in lab.raw(run).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def example_of(record: RequestRecord) -> tuple[str, int]:
    """Which run and example a request was made for."""
    body = record.body or {}
    style = "cot" if "reasoning" in json.dumps(body["messages"][0]) else "predict"
    number = json.dumps(body["messages"][-1]).partition("Ticket ")[2].partition(":")[0]
    return f"fake-{style}-temperature{body['temperature']:g}", int(number)


def main() -> int:
    """Prints the figures as JSON; exits with 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=1000, help="of the whole matrix (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="make the laboratory in this folder and leave it there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dspylab-torture-") as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        figures = torture(folder, examples=options.examples, seed=options.seed)
        print(json.dumps(asdict(figures), indent=2))  # noqa: T201 - a script
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
