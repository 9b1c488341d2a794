"""CPU that one call costs this process: DSPy through the metered engine, beside DSPy alone.

    python benchmarks/cpu_per_call.py [--rounds 3] [--calls 640]

64 calls at once against a server in a process of its own (300 ms to the first token, 20 ms a token, 8
tokens). Each side runs in a process of its own, after a warm-up; the sides take turns. CPU is that of all
threads of the client, divided by its calls. The lowest of the rounds counts: other work on the machine can
only add. The whole program, with journal and progress, is measured in matrix.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dspylab.testing import server_process

WIDTH = 64
TTFT_S, ITL_S, TOKENS = 0.3, 0.02, 8
TARGET_MS = 3.0
#: What is measured: for the metered engine the entry of the model, for DSPy alone the arguments of dspy.LM.
SIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "dspy.LM, native": ("dspy", {}),
    "metered, native, streamed": ("metered", {}),
    "metered, native, whole": ("metered", {"stream": False}),
    "dspy.LM, LiteLLM": ("dspy", {"engine": "litellm"}),
    "metered, LiteLLM, whole": ("metered", {"engine": "litellm", "stream": False}),
    "metered, LiteLLM, streamed": ("metered", {"engine": "litellm"}),
}


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=640)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.url, options.calls)))
        return 0
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with server_process(ttft_s=TTFT_S, itl_s=ITL_S, tokens=TOKENS) as server:
        for _ in range(options.rounds):
            for side, rounds in results.items():
                rounds.append(in_a_process(side, server.url, options.calls))
    ideal_s = options.calls / WIDTH * (TTFT_S + (TOKENS - 1) * ITL_S)
    print(f"{options.calls} calls, {WIDTH} at once, ideal {ideal_s:.1f} s; lowest of {options.rounds} rounds")
    print(f"{'':28}{'CPU ms a call':>14}{'wall s':>8}{'beside dspy.LM':>16}")
    lowest = {side: min(r["cpu_ms"] for r in rounds) for side, rounds in results.items()}
    for side, rounds in results.items():
        alone = lowest["dspy.LM, LiteLLM" if "LiteLLM" in side else "dspy.LM, native"]
        wall_s = min(r["wall_s"] for r in rounds)
        print(f"{side:28}{lowest[side]:14.2f}{wall_s:8.2f}{lowest[side] / alone:15.2f}x")
    reached = lowest["metered, native, streamed"] <= TARGET_MS
    print(f"target for metered, native, streamed: {TARGET_MS:g} ms: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


def in_a_process(side: str, url: str, calls: int) -> dict[str, float]:
    """Measures a side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--url", url, "--calls", str(calls)]
    # DSPy and LiteLLM would fetch price lists.
    offline = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=offline)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(side: str, url: str, calls: int) -> dict[str, float]:
    """CPU in ms a call and wall time in s, in this process."""
    kind, options = SIDES[side]
    ask = metered(url, options) if kind == "metered" else dspy_alone(url, options)
    with ThreadPoolExecutor(WIDTH) as threads:
        list(threads.map(ask, range(2 * WIDTH)))
        started, cpu_s = time.perf_counter(), time.process_time()
        list(threads.map(ask, range(calls)))
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - started
    return {"cpu_ms": cpu_s / calls * 1e3, "wall_s": wall_s}


def dspy_alone(url: str, options: dict[str, Any]) -> Callable[[int], None]:
    """A program on a plain dspy.LM."""
    import dspy

    lm = dspy.LM("openai/fake", api_base=url, api_key="none", cache=False, num_retries=0, **options)
    program = dspy.Predict("question -> answer")

    def ask(number: int) -> None:
        with dspy.context(lm=lm, disable_history=True, trace=[]):
            program(question=f"number {number}")

    return ask


def metered(url: str, entry: dict[str, Any]) -> Callable[[int], None]:
    """The same program on the model of an experiment file, recorded as an example is."""
    import dspy

    from dspylab.config.models import Experiment
    from dspylab.lm.build import Models
    from dspylab.lm.recorder import Recorder, predictor_names

    experiment = Experiment.model_validate(
        {
            "name": "cpu",
            "program": {"path": "program.py"},
            "dataset": {"path": "data.jsonl", "inputs": ["question"]},
            "models": {"fake": {"model": "openai/fake", "api_base": url, **entry}},
            "metrics": {"right": {"type": "exact_match", "field": "answer"}},
        }
    )
    lm = Models(experiment, ["fake"], Path(), {}).lm("fake", {})
    program = dspy.Predict("question -> answer")
    names = predictor_names(program)

    def ask(number: int) -> None:
        recorder = Recorder(names=names)
        with recorder.context(lm=lm, adapter=None, trace=[], disable_history=True):
            program(question=f"number {number}")
        assert recorder.calls[0].error is None

    return ask


if __name__ == "__main__":
    sys.exit(main())
