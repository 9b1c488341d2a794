"""Resident memory and CPU of one run against the number of examples, without DVC.

The program makes no call, so what is measured is dspylab itself: dataset, scheduler, journal, raw.jsonl.

    python benchmarks/memory.py [--sizes 1000 10000 100000]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from commands import taken

from dspylab.testing import experiment, tickets

PROGRAM = """
import dspy

class Echo(dspy.Module):
    def forward(self, text):
        return dspy.Prediction(label="bug")

def build():
    return Echo()
"""


def main() -> None:
    """Prints a row a size; the last columns are what each further example adds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    print(f"{'examples':>9} {'wall s':>8} {'cpu s':>8} {'peak MB':>8} {'cpu us/example':>15}")
    for size in parser.parse_args().sizes:
        wall_s, cpu_s, peak_mb = measure(size)
        print(f"{size:9,} {wall_s:8.1f} {cpu_s:8.1f} {peak_mb:8.0f} {cpu_s / size * 1e6:15.0f}", flush=True)


def measure(size: int) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak resident megabytes of `dspylab run-one` over so many examples."""
    with tempfile.TemporaryDirectory() as folder:
        lab = experiment(
            Path(folder),
            server_url="http://127.0.0.1:9/v1",
            examples=tickets(size),
            config={"program": {"args": ...}},
            files={"experiments/triage/program.py": PROGRAM},
        )
        found = taken(["dspylab", "run-one", "-q"], lab.root)
        return found.wall_s, found.cpu_s, found.peak_mb


if __name__ == "__main__":
    main()
