"""What Dask costs and what it brings: `dspylab run` on threads, on `local:2`, on two workers started apart.

Three tables, each side the same whole command in a fresh laboratory, DVC included, against a server on the
loopback. CPU is that of all processes together: the command's, the scheduler's and the workers', not the
server's. Every side is also run with 64 examples: what that takes is the start, and is subtracted from what
is said of one further example.

* many examples of no work: without a call, and with one call that is answered at once;
* 640 calls of 440 ms, 64 at once, which one process carries easily;
* 20 ms of Python an example, which two processes should do in half of the time.

    python benchmarks/scale.py [--parts work calls cpu] [--examples 10000] [--rounds 1]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from commands import taken

from dspylab.testing import experiment, server_process, tickets

THREADS, LOCAL, APART = "threads", "local:2", "2 workers apart"
SIDES = (THREADS, LOCAL, APART)
PARTS = ("work", "calls", "cpu")
WIDTH, WORKERS, THREADS_A_WORKER = 64, 2, 4
#: Examples of the command whose time and CPU count as the start.
FEW = 64
#: Seconds to the first token and between tokens, and tokens: 440 ms a call.
TTFT_S, ITL_S, TOKENS = 0.3, 0.02, 8
#: CPU of the program that computes, in seconds an example, on one thread of an idle machine.
HEAVY_S = 0.02
#: Targets: CPU a call and wall time that Dask adds to an example, in ms; speed-up of two processes.
CPU_MS, OVERHEAD_MS, SPEED_UP = 4.0, 1.0, 1.7

#: Of the processes of a cluster: the key, and no profiler of Dask's, as docs/scale.md advises.
ENVIRONMENT = {
    "FAKE_API_KEY": "fake",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}

NO_CALL = """
import dspy


class Echo(dspy.Module):
    def forward(self, text):
        return dspy.Prediction(label="bug")


def build():
    return Echo()
"""

#: The same work for every example. A loop until so much CPU time of its thread is spent would count as work
#: what the thread spends on waiting for Python's lock, and do less of it the more threads there are.
HEAVY = """
import dspy


class Heavy(dspy.Module):
    def forward(self, text):
        total = 0
        for number in range(ROUNDS):
            total += number * number % 7
        return dspy.Prediction(label="bug")


def build():
    return Heavy()
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a command took.

    Attributes:
        wall_s: Wall time.
        cpu_s: CPU time of all processes.
        peak_mb: Peak resident memory of the command, of its largest process with `local:2`, in 10^6 bytes.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float


def main() -> int:
    """Prints the tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--examples", type=int, nargs="+", default=[10_000], help="of the first table")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    reached = []
    if "work" in options.parts:
        for examples in options.examples:
            with server_process() as server:
                for name, program in {"no call": NO_CALL, "one call, answered at once": None}.items():
                    print(f"\n{examples:,} examples, {name}")
                    table = measure(options, server.url, examples, program)
                    reached.append(near_zero(table, examples, has_call=program is None))
    if "calls" in options.parts:
        with server_process(ttft_s=TTFT_S, itl_s=ITL_S, tokens=TOKENS) as server:
            examples = 640
            ideal_s = examples / WIDTH * (TTFT_S + (TOKENS - 1) * ITL_S)
            print(f"\n{examples} calls of 440 ms, {WIDTH} at once; ideal {ideal_s:.1f} s and the start")
            show(measure(options, server.url, examples, None), examples)
    if "cpu" in options.parts:
        examples = 1_000
        print(f"\n{examples:,} examples of {HEAVY_S * 1e3:.0f} ms of Python")
        program = f"ROUNDS = {rounds_of(HEAVY_S)}\n{HEAVY}"
        reached.append(heavy(measure(options, "http://127.0.0.1:9/v1", examples, program), examples))
    return 0 if all(reached) else 1


def rounds_of(seconds: float) -> int:
    """Rounds of the loop of `HEAVY` that take so much CPU here."""
    rounds, took = 200_000, []
    for _ in range(20):
        began = time.thread_time()
        total = 0
        for number in range(rounds):
            total += number * number % 7
        took.append(time.thread_time() - began)
    return round(rounds * seconds / statistics.median(took))


def measure(
    options: argparse.Namespace, url: str, examples: int, program: str | None
) -> dict[str, tuple[Figures, Figures]]:
    """Medians of each side for few examples, and for all; the sides take turns."""
    found: dict[str, tuple[list[Figures], list[Figures]]] = {side: ([], []) for side in options.sides}
    for _ in range(options.rounds):
        for side, (few, all_of_them) in found.items():
            few.append(one(side, url, FEW, program))
            all_of_them.append(one(side, url, examples, program))
    return {side: (median(few), median(all_of_them)) for side, (few, all_of_them) in found.items()}


def median(rounds: Sequence[Figures]) -> Figures:
    """Of each figure by itself."""
    return Figures(
        statistics.median(figures.wall_s for figures in rounds),
        statistics.median(figures.cpu_s for figures in rounds),
        statistics.median(figures.peak_mb for figures in rounds),
    )


def one(side: str, url: str, examples: int, program: str | None) -> Figures:
    """A first `dspylab run`."""
    with tempfile.TemporaryDirectory() as folder, cluster(side) as (address, processes):
        root, cluster_s = laboratory(Path(folder), url, examples, program), cpu_of(processes)
        dask = ["--dask", address] if address else []
        found = taken(["dspylab", "run", "-q", *dask], root)
        # A worker may still be ending the session: that belongs to the command.
        time.sleep(1.0 if processes else 0.0)
        return Figures(found.wall_s, found.cpu_s + cpu_of(processes) - cluster_s, found.peak_mb)


def laboratory(folder: Path, url: str, examples: int, program: str | None) -> Path:
    """A laboratory of one run."""
    path = "experiments/triage/program.py"
    lab = experiment(
        folder,
        server_url=url,
        examples=tickets(examples),
        config={
            **({"program": {"args": ...}} if program else {}),
            "matrix": {"model": ["fake"]},
            "execution": {"max_concurrency": WIDTH},
        },
        files={path: program} if program else {},
    )
    lab.init_repository()
    return lab.root


@contextlib.contextmanager
def cluster(side: str) -> Iterator[tuple[str, list[psutil.Process]]]:
    """What `--dask` is given, and the processes of the cluster; neither for threads."""
    if side != APART:
        yield ("" if side == THREADS else side), []
        return
    with contextlib.ExitStack() as ended, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        here = ["--host", "127.0.0.1", "--dashboard-address", ":0", "--scheduler-file", str(file)]
        started = [start(ended, folder, "scheduler", "--port", "0", *here)]
        while not file.exists():
            if not started[0].is_running() or started[0].status() == psutil.STATUS_ZOMBIE:
                raise SystemExit("the scheduler does not start: try `dask scheduler`")
            time.sleep(0.05)
        threads = ["--nthreads", str(THREADS_A_WORKER), "--no-nanny", "--memory-limit", "0"]
        workers = [start(ended, folder, "worker", *threads, *here) for _ in range(WORKERS)]
        if sys.platform == "linux":
            # One machine for both: each gets a core, as docs/scale.md advises and `local:N` does by itself.
            cores = sorted(os.sched_getaffinity(0))
            for number, worker in enumerate(workers):
                worker.cpu_affinity([cores[number % len(cores)]])
        started += workers
        yield str(file), started


def start(ended: contextlib.ExitStack, folder: str, *command: str) -> psutil.Process:
    """Starts a process of a Dask cluster, with the key in its environment; the stack ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *command],
        cwd=folder,
        env={**psutil.Process().environ(), **ENVIRONMENT},
        stderr=subprocess.DEVNULL,
    )
    ended.callback(process.wait)
    ended.callback(process.terminate)
    return psutil.Process(process.pid)


def cpu_of(processes: Sequence[psutil.Process]) -> float:
    """CPU time of processes so far, in seconds."""
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))


def show(table: Mapping[str, tuple[Figures, Figures]], examples: int) -> dict[str, tuple[float, float]]:
    """Prints a table; returns wall and CPU of one further example, in ms, for each side."""
    each: dict[str, tuple[float, float]] = {}
    names = ("start s", "wall s", "cpu s", "peak MB", "wall ms each", "cpu ms each")
    print(f"{'':18}" + "".join(f"{name:>{max(9, len(name) + 2)}}" for name in names))
    for side, (few, figures) in table.items():
        wall_ms = (figures.wall_s - few.wall_s) / (examples - FEW) * 1e3
        cpu_ms = (figures.cpu_s - few.cpu_s) / (examples - FEW) * 1e3
        each[side] = wall_ms, cpu_ms
        print(
            f"{side:18}{few.wall_s:9.1f}{figures.wall_s:9.1f}{figures.cpu_s:9.1f}{figures.peak_mb:9.0f}"
            f"{wall_ms:14.2f}{cpu_ms:13.2f}",
            flush=True,
        )
    return each


def near_zero(table: Mapping[str, tuple[Figures, Figures]], examples: int, *, has_call: bool) -> bool:
    """Prints the table of examples without work; returns whether the targets are reached."""
    each = show(table, examples)
    reached = True
    for side, (_, figures) in table.items():
        if side == THREADS:
            continue
        if THREADS in each:
            wall_ms, cpu_ms = (there - here for here, there in zip(each[THREADS], each[side], strict=True))
            reached &= wall_ms <= OVERHEAD_MS
            print(f"{side}: adds {wall_ms:.2f} ms of wall (target: {OVERHEAD_MS:g}), {cpu_ms:.2f} of CPU")
        if has_call:
            whole_ms = figures.cpu_s / examples * 1e3
            reached &= whole_ms <= CPU_MS
            print(f"{side}: {whole_ms:.2f} ms of CPU a call, the start included (target: {CPU_MS:g})")
    return reached


def heavy(table: Mapping[str, tuple[Figures, Figures]], examples: int) -> bool:
    """Prints the table of a program that computes; returns whether the target is reached."""
    each = show(table, examples)
    reached = True
    for side, (_, figures) in table.items():
        if side != THREADS and THREADS in table:
            speed_up, whole = each[THREADS][0] / each[side][0], table[THREADS][1].wall_s / figures.wall_s
            reached &= speed_up >= SPEED_UP
            print(f"{side}: {speed_up:.2f} times as fast (target: {SPEED_UP:g}), {whole:.2f} with the start")
    return reached


if __name__ == "__main__":
    sys.exit(main())
