"""How far measured time to first token and inter-token time are from what the server really did.

    python benchmarks/timing_accuracy.py

A server in a process of its own streams replies at a known pace and keeps its own clock per request. A
DSPy program asks it through the metered engine, one call or many at once. Calls are matched to requests
by their question, so every difference is of one request; on one machine both clocks are the same. Prints
measured beside true. The exit code is 1 when a median is off by more than 3% and 2 ms.

The client's figure counts from the moment before the request is written, the server's from the moment
after it was read, so measured is never below true; the difference holds what connecting, sending and
waking up cost, and whatever Python's scheduling adds.
"""

from __future__ import annotations

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

#: Time to first token and between tokens, in seconds: a hosted model, and a fast one.
PACES = ((0.25, 0.02), (0.1, 0.005))
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
    """Prints the tables; returns the exit code."""
    failed = 0
    for ttft_s, itl_s in PACES:
        print(f"\nserver: {ttft_s * 1e3:g} ms to the first token, {itl_s * 1e3:g} ms between tokens")
        print(f"{'':22}{'ttft_s (median, ms)':^30}{'itl_s (median, ms)':^34}{'off by, p95 (ms)':>18}")
        heads = ("measured", "true", "off")
        print(
            f"{'at once':>8}{'tokens':>8}{'n':>6}"
            + "".join(f"{head:>10}" for head in heads * 2)
            + "     ttft     itl"
        )
        for concurrency in CONCURRENCIES:
            for tokens in REPLY_TOKENS:
                failed += not measure(ttft_s, itl_s, concurrency, tokens)
    print(f"\nallowed: {ALLOWED_SHARE:.0%} or {ALLOWED_MS:g} ms; out of bounds: {failed}")
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
        assert call.itl_s is not None
        assert record.first_token_at is not None
        assert record.last_token_at is not None
        firsts.append(Pair(call.ttft_s * 1e3, (record.first_token_at - record.received_at) * 1e3))
        between_s = (record.last_token_at - record.first_token_at) / (record.tokens_sent - 1)
        betweens.append(Pair(call.itl_s * 1e3, between_s * 1e3))
    print(
        f"{concurrency:8}{tokens:8}{len(calls):6}",
        columns(firsts),
        columns(betweens),
        tails(firsts, betweens),
    )
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


def tails(*figures: Sequence[Pair]) -> str:
    """95th percentile of the differences, whatever their sign."""
    return "".join(
        f"{statistics.quantiles([abs(p.off_ms) for p in pairs], n=20)[-1]:8.2f}" for pairs in figures
    )


def within(pairs: Sequence[Pair]) -> bool:
    """Whether the median is as near to the true one as promised."""
    measured = statistics.median(pair.measured_ms for pair in pairs)
    true = statistics.median(pair.true_ms for pair in pairs)
    return abs(measured - true) <= max(ALLOWED_MS, ALLOWED_SHARE * true)


if __name__ == "__main__":
    sys.exit(main())
