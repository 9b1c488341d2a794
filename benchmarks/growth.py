"""How the whole command grows with runs, with examples and with the calls in flight.

Three tables, each `dspylab run` in a fresh laboratory, DVC included, against a server on the loopback:

* more runs of 4 examples, and
* more examples of one run, against a server that answers at once: what remains is dspylab's own work;
* more calls in flight, 2 a slot, against a server that takes 2 s a call: beside the ideal of 4 s.

    python benchmarks/growth.py [--runs 1 10 100 300] [--examples 100 1000 10000] [--at-once 16 64 256 512]
"""

from __future__ import annotations

import argparse
import tempfile

from commands import laboratory, taken

from dspylab.testing import server_process

EXAMPLES_A_RUN, CALLS_A_SLOT, LATENCY_S = 4, 2, 2.0


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="*", default=[1, 10, 100, 300])
    parser.add_argument("--examples", type=int, nargs="*", default=[100, 1_000, 10_000])
    parser.add_argument("--at-once", type=int, nargs="*", default=[16, 64, 256, 512])
    sizes = parser.parse_args()
    with server_process() as server:
        print(f"{'runs':>9} {'wall s':>8} {'cpu s':>8} {'peak MB':>8} {'cpu ms/run':>12}")
        for runs in sizes.runs:
            wall_s, cpu_s, peak = measure(server.url, runs=runs, examples=EXAMPLES_A_RUN, at_once=64)
            print(f"{runs:9,} {wall_s:8.1f} {cpu_s:8.1f} {peak:8.0f} {cpu_s / runs * 1e3:12.0f}", flush=True)
        print(f"{'examples':>9} {'wall s':>8} {'cpu s':>8} {'peak MB':>8} {'cpu ms/call':>12}")
        for count in sizes.examples:
            wall_s, cpu_s, peak = measure(server.url, runs=1, examples=count, at_once=64)
            each_ms = cpu_s / count * 1e3
            print(f"{count:9,} {wall_s:8.1f} {cpu_s:8.1f} {peak:8.0f} {each_ms:12.1f}", flush=True)
    print(f"{'at once':>9} {'wall s':>8} {'cpu s':>8} {'peak MB':>8} {'calls':>8} {'most at once':>12}")
    for width in sizes.at_once:
        calls = width * CALLS_A_SLOT
        with server_process(ttft_s=LATENCY_S) as server:  # each time another, for it keeps the peak
            wall_s, cpu_s, peak = measure(server.url, runs=1, examples=calls, at_once=width)
            most = server.health["concurrency_peak"]
        print(f"{width:9,} {wall_s:8.1f} {cpu_s:8.1f} {peak:8.0f} {calls:8,} {most:12,}", flush=True)
    print(f"ideal of the last table: {CALLS_A_SLOT * LATENCY_S:.1f} s and the start")


def measure(url: str, *, runs: int, examples: int, at_once: int) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident megabytes of a first `dspylab run`."""
    with tempfile.TemporaryDirectory() as folder:
        lab = laboratory(folder, url, runs=runs, examples=examples, at_once=at_once)
        found = taken(["dspylab", "run", "-q"], lab.root)
        return found.wall_s, found.cpu_s, found.peak_mb


if __name__ == "__main__":
    main()
