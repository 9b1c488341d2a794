"""Start-up: what a user waits before anything happens, beside the imports that can not be avoided.

python benchmarks/startup.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile

from commands import laboratory, taken

from dspylab.testing import server_process

RUNS = 20


def main() -> None:
    """Prints medians of whole processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, server_process() as server:
        lab = laboratory(folder, server.url, runs=RUNS, examples=8, at_once=16)
        dspylab = [sys.executable, "-m", "dspylab"]
        taken([*dspylab, "run", "-q"], lab.root)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import dvc.repo": [sys.executable, "-c", "import dvc.repo"],
            "import dspy": [sys.executable, "-c", "import dspy"],
            "dspylab --help": [*dspylab, "--help"],
            "dspylab validate": [*dspylab, "validate"],
            "dspylab plan, 20 runs": [*dspylab, "plan"],
            "dspylab run, 20 runs, nothing to do": [*dspylab, "run"],
            "dvc status, 20 runs": [sys.executable, "-m", "dvc", "status"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                seconds[name].append(taken(command, lab.root).wall_s)
    print(f"seconds of a whole process, median (lowest) of {rounds}")
    for name, values in seconds.items():
        print(f"{name:38} {statistics.median(values):6.2f} ({min(values):.2f})")


if __name__ == "__main__":
    main()
