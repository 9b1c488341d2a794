"""The whole command against four `dspy.Evaluate` in one script, Inspect and promptfoo, on the same server.

Four runs of 160 examples, 64 at once, against a server with 300 ms to the first token, 20 ms a token and
8 tokens: ideal is 10 waves of 440 ms = 4.4 s. Everything counts: start, plan, DVC, summary, experiment.
Tools that are not named are left out.

    python benchmarks/matrix.py [--rounds 3] [--inspect PATH] [--promptfoo PATH]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from collections.abc import Callable

from commands import laboratory, taken
from peers import time_evaluate, time_inspect, time_promptfoo

from dspylab.testing import server_process

RUNS, EXAMPLES, WIDTH = 4, 160, 64
TTFT_S, ITL_S, TOKENS = 0.3, 0.02, 8
IDEAL_S = RUNS * EXAMPLES / WIDTH * (TTFT_S + (TOKENS - 1) * ITL_S)


def main() -> None:
    """Runs all sides in turn and prints medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inspect", help="path of Inspect's command")
    parser.add_argument("--promptfoo", help="path of promptfoo's command")
    arguments = parser.parse_args()

    sides: dict[str, Callable[..., float]] = {
        "dspylab run, whole command": time_dspylab,
        f"{RUNS} x dspy.Evaluate in one script": time_evaluate,
    }
    if arguments.inspect:
        sides["inspect eval"] = functools.partial(time_inspect, arguments.inspect)
    if arguments.promptfoo:
        sides["promptfoo eval"] = functools.partial(time_promptfoo, arguments.promptfoo)
    times: dict[str, list[float]] = {name: [] for name in sides}
    with server_process(ttft_s=TTFT_S, itl_s=ITL_S, tokens=TOKENS) as server:
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                times[name].append(side(server.url, runs=RUNS, examples=EXAMPLES, at_once=WIDTH))

    print(
        f"{RUNS} runs x {EXAMPLES} examples, {WIDTH} at once; ideal {IDEAL_S:.1f} s; "
        f"medians of {arguments.rounds}"
    )
    ours_s, *_ = (statistics.median(each) for each in times.values())
    for name, each in times.items():
        median_s = statistics.median(each)
        print(
            f"{name:34} {median_s:6.2f} s   ({median_s - IDEAL_S:+.2f} s over ideal; "
            f"{median_s / ours_s:.2f} times dspylab)"
        )


def time_dspylab(url: str, *, runs: int, examples: int, at_once: int) -> float:
    """Seconds of a first `dspylab run` in a fresh laboratory."""
    with tempfile.TemporaryDirectory() as folder:
        lab = laboratory(folder, url, runs=runs, examples=examples, at_once=at_once)
        return taken(["dspylab", "run", "-q"], lab.root).wall_s


if __name__ == "__main__":
    main()
