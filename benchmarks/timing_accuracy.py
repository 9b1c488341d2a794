"""How far measured time to first token and inter-token time are from what the server really did.

    python benchmarks/timing_accuracy.py [--ttft-ms 250] [--itl-ms 20]

A server in a process of its own streams replies at a known pace and keeps its own clock per request. A
DSPy program asks it through the metered engine, one call or many at once. Calls are matched to requests
by their question, so every difference is of one request; on one machine both clocks are the same. Prints
measured beside true. The exit code is 1 when a median is off by more than 3% and 2 ms.

The client counts from the moment before it sends, the server from the moment after it has read, so what
is measured is never below what is true. The difference is what sending and waking up cost, and what
Python's scheduling adds. Run it on a machine that does nothing else: it measures the machine too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from dspylab.config.models import Experiment
from dspylab.lm.build import MeteredLM, Models
from dspylab.lm.recorder import Recorder
from dspylab.records import LMCall
from dspylab.testing import RequestRecord, ServerProcess, server_process

CONCURRENCIES = (1, 16, 64)
REPLY_TOKENS = (8, 128)
ALLOWED_SHARE, ALLOWED_MS = 0.03, 2.0
QUESTION = "question number {}"


@dataclass(frozen=True)
class Pair:
    """One figure of one request, in milliseconds: what was measured and what was true."""

    measured_ms: float
    true_ms: float

    @property
    def off_ms(self) -> float:
        """Measured less true."""
        return self.measured_ms - self.true_ms


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ttft-ms", type=float, default=250.0, help="the server's time to the first token")
    parser.add_argument("--itl-ms", type=float, default=20.0, help="the server's time between tokens")
    pace = parser.parse_args()
    print(f"server: {pace.ttft_ms:g} ms to the first token, {pace.itl_ms:g} ms between tokens")
    print(f"{'':22}{'ttft_s, median in ms':^30}{'itl_s, median in ms':^30}{'p95 of off, ms':>16}")
    heads = ("measured", "true", "off")
    print(
        f"{'at once':>8}{'tokens':>8}{'calls':>6}"
        + "".join(f"{head:>10}" for head in heads * 2)
        + f"{'ttft':>8}{'itl':>8}{'unseen':>8}"
    )
    failed = 0
    for concurrency in CONCURRENCIES:
        for tokens in REPLY_TOKENS:
            failed += not measure(pace.ttft_ms / 1e3, pace.itl_ms / 1e3, concurrency, tokens)
    print("unseen: calls whose tokens arrived together, before Python looked; they have no itl_s")
    print(f"allowed are {ALLOWED_SHARE:.0%} or {ALLOWED_MS:g} ms; lines out of bounds: {failed}")
    return 1 if failed else 0


def measure(ttft_s: float, itl_s: float, concurrency: int, tokens: int) -> bool:
    """Prints one line; returns whether both medians are within bounds."""
    count = max(8, concurrency * 4)
    with server_process(ttft_s=ttft_s, itl_s=itl_s, tokens=tokens, keep_bodies=True) as server:
        calls = ask(server, count, concurrency)
        requests = {question_of(record): record for record in server.requests}
    firsts, betweens = [], []
    for question, call in calls.items():
        record = requests[question]
        assert call.ttft_s is not None
        assert record.first_token_at is not None
        assert record.last_token_at is not None
        firsts.append(Pair(call.ttft_s * 1e3, (record.first_token_at - record.received_at) * 1e3))
        if call.itl_s is not None:
            between_s = (record.last_token_at - record.first_token_at) / (record.tokens_sent - 1)
            betweens.append(Pair(call.itl_s * 1e3, between_s * 1e3))
    unseen = len(firsts) - len(betweens)
    print(f"{concurrency:8}{tokens:8}{count:6}{columns(firsts)}{columns(betweens)}", end="")
    print(f"{tail(firsts):8.2f}{tail(betweens):8.2f}{unseen:8}", flush=True)
    return within(firsts) and within(betweens)


def ask(server: ServerProcess, count: int, concurrency: int) -> dict[str, LMCall]:
    """Question to the record of its call."""
    experiment = Experiment.model_validate(
        {
            "name": "accuracy",
            "program": {"path": "program.py"},
            "dataset": {"path": "data.jsonl", "inputs": ["question"]},
            "models": {"fake": {"model": "openai/fake", "api_base": server.url}},
            "metrics": {"right": {"type": "exact_match", "field": "answer"}},
        }
    )
    program = dspy.Predict("question -> answer")
    with Models(experiment, ["fake"], Path(), {}) as models, ThreadPoolExecutor(concurrency) as threads:
        lm = models.lm("fake", {})
        # Threads and connections are there before they are measured, as in the middle of a run.
        list(threads.map(lambda _: one(program, lm, "warm-up"), range(concurrency)))
        questions = [QUESTION.format(number) for number in range(count)]
        return dict(zip(questions, threads.map(lambda text: one(program, lm, text), questions), strict=True))


def one(program: dspy.Module, lm: MeteredLM, question: str) -> LMCall:
    """Asks one question; a reply that was cut into few tokens may not parse, which does not matter here."""
    recorder = Recorder(names={})
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    with recorder.context(lm=lm, adapter=adapter, trace=[], disable_history=True):
        program(question=question)
    (call,) = recorder.calls
    return call


def question_of(record: RequestRecord) -> str:
    """The question that a request carried."""
    assert record.body is not None
    messages: Any = record.body["messages"]
    return str(messages[-1]["content"]).partition("[[ ## question ## ]]\n")[2].partition("\n")[0]


def columns(pairs: Sequence[Pair]) -> str:
    """Medians: measured, true, and of the differences."""
    values = [
        statistics.median(value)
        for value in zip(*((p.measured_ms, p.true_ms, p.off_ms) for p in pairs), strict=True)
    ]
    return "".join(f"{value:10.3f}" for value in values)


def tail(pairs: Sequence[Pair]) -> float:
    """95th percentile of the differences, whatever their sign."""
    return statistics.quantiles([abs(pair.off_ms) for pair in pairs], n=20)[-1]


def within(pairs: Sequence[Pair]) -> bool:
    """Whether the median is as near to the true one as promised."""
    measured = statistics.median(pair.measured_ms for pair in pairs)
    true = statistics.median(pair.true_ms for pair in pairs)
    return abs(measured - true) <= max(ALLOWED_MS, ALLOWED_SHARE * true)


if __name__ == "__main__":
    sys.exit(main())
