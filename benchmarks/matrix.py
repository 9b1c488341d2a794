"""The whole command against four `dspy.Evaluate` calls in one script, on the same server.

Four runs of 160 examples, 64 at once, against a server with 300 ms to the first token, 20 ms a token and
8 tokens: ideal is 10 waves of 440 ms = 4.4 s. Everything counts: start, plan, DVC, summary, experiment.

    python benchmarks/matrix.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from commands import laboratory, taken

from dspylab.testing import experiment, server_process, tickets

RUNS, EXAMPLES, WIDTH = 4, 160, 64
TTFT_S, ITL_S, TOKENS = 0.3, 0.02, 8
IDEAL_S = RUNS * EXAMPLES / WIDTH * (TTFT_S + (TOKENS - 1) * ITL_S)

EVALUATE = """
import json, sys, warnings
from typing import Literal
import dspy

class Triage(dspy.Signature):
    text: str = dspy.InputField()
    label: Literal["payment", "bug", "login", "delivery"] = dspy.OutputField()

url, rows = sys.argv[1], [json.loads(line) for line in open(sys.argv[2])]
devset = [dspy.Example(**row).with_inputs("text") for row in rows]
lm = dspy.LM("openai/fake", api_base=url, api_key="fake", temperature=0.0, max_tokens=64, cache=False)
dspy.configure(lm=lm)
for run in range(int(sys.argv[3])):
    evaluate = dspy.Evaluate(devset=devset, metric=lambda e, p, trace=None: e.label == p.label,
                             num_threads=int(sys.argv[4]), display_progress=False)
    print(evaluate(dspy.Predict(Triage)).score)
"""


def main() -> None:
    """Runs both sides in turn and prints medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    ours, theirs = [], []
    with server_process(ttft_s=TTFT_S, itl_s=ITL_S, tokens=TOKENS) as server:
        for _ in range(rounds):
            ours.append(time_dspylab(server.url))
            theirs.append(time_evaluate(server.url))
    print(f"{RUNS} runs x {EXAMPLES} examples, {WIDTH} at once; ideal {IDEAL_S:.1f} s; medians of {rounds}")
    ours_s, theirs_s = statistics.median(ours), statistics.median(theirs)
    print(f"dspylab run, whole command      {ours_s:6.2f} s   ({ours_s - IDEAL_S:+.2f} s over ideal)")
    print(f"4 x dspy.Evaluate in one script {theirs_s:6.2f} s   ({theirs_s - IDEAL_S:+.2f} s over ideal)")
    print(f"ratio dspylab / dspy.Evaluate   {ours_s / theirs_s:6.2f}")


def time_dspylab(url: str) -> float:
    """Seconds of a first `dspylab run` in a fresh laboratory."""
    with tempfile.TemporaryDirectory() as folder:
        lab = laboratory(folder, url, runs=RUNS, examples=EXAMPLES, at_once=WIDTH)
        return taken(["dspylab", "run", "-q"], lab.root).wall_s


def time_evaluate(url: str) -> float:
    """Seconds of a script that evaluates the same program four times."""
    with tempfile.TemporaryDirectory() as folder:
        lab = experiment(Path(folder), server_url=url, examples=tickets(EXAMPLES))
        command = [sys.executable, "-c", EVALUATE, url, str(lab.dataset), str(RUNS), str(WIDTH)]
        return taken(command, lab.root).wall_s


if __name__ == "__main__":
    main()
