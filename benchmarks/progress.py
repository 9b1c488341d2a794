"""What the live view costs: the same run on a terminal with it, and quiet.

The figure is the CPU time that the view adds, as a share of the wall time of the run.

    python benchmarks/progress.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import pty
import statistics
import tempfile
import threading

from commands import laboratory, taken

from dspylab.testing import server_process

EXAMPLES, WIDTH, RUNS = 640, 64, 4


def main() -> None:
    """Runs both sides in turn and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    sides: dict[str, list[tuple[float, float]]] = {"live view": [], "--quiet": []}
    with server_process(ttft_s=0.3, itl_s=0.02, tokens=8) as server:
        for _ in range(rounds):
            sides["live view"].append(measure(server.url))
            sides["--quiet"].append(measure(server.url, "--quiet"))
    print(f"{RUNS} runs x {EXAMPLES} examples, {WIDTH} at once; medians of {rounds}")
    medians = {}
    for name, values in sides.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*values, strict=True))
        medians[name] = wall_s, cpu_s
        print(f"{name:10} {wall_s:6.2f} s wall  {cpu_s:6.2f} s cpu")
    wall_s, added_s = medians["--quiet"][0], medians["live view"][1] - medians["--quiet"][1]
    print(f"the view adds {added_s / wall_s:.1%} of the wall time in CPU (target: 2%)")


def measure(url: str, *options: str) -> tuple[float, float]:
    """Wall and CPU seconds of a first `dspylab run` on a terminal."""
    with tempfile.TemporaryDirectory() as folder:
        lab = laboratory(folder, url, runs=RUNS, examples=EXAMPLES, at_once=WIDTH)
        ours, theirs = pty.openpty()
        reader = threading.Thread(target=drain, args=[ours], daemon=True)
        reader.start()
        found = taken(
            ["dspylab", "run", *options], lab.root, stdout=theirs, stderr=theirs, env={"TERM": "xterm"}
        )
        os.close(theirs)
        reader.join()
        os.close(ours)
        return found.wall_s, found.cpu_s


def drain(terminal: int) -> None:
    """Reads what a terminal shows until nobody writes to it."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # Linux says so when the other side is closed
        pass


if __name__ == "__main__":
    main()
