"""Kill dspylab again and again at random moments, then count what was lost and what was paid twice.

    python tests/torture/kill.py --kills 50 --examples 400

A matrix of two runs is executed by `dspylab run` and, now and then, by `dvc repro`. Each session is killed:
by SIGKILL, SIGTERM or Ctrl-C, sometimes twice, while it starts, while calls are in flight, or after the last
call, when results are published and recorded. At the end the matrix is completed and everything is counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from dspylab.testing import Laboratory, ServerProcess, experiment, server_process, tickets

CONCURRENCY = 4
STYLES = ("predict", "cot")
#: How long a call takes, in seconds: long enough that kills find some in flight.
TTFT_S = 0.2
#: How long publishing and recording take at most, in seconds: a kill that comes later finds nobody.
AFTER_S = 1.5
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
#: What a session may exit with: done, interrupted, killed, or `dvc repro` whose stage was interrupted.
EXPECTED_CODES = {0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
#: 252 is what DVC itself exits with on Ctrl-C.
REPRO_CODES = EXPECTED_CODES | {1, 252, 255}

Phase = Literal["start", "calls", "after"]


@dataclass
class Figures:
    """What came out.

    Attributes:
        examples: Examples of the whole matrix.
        kills: Sessions that were killed.
        concurrency: Calls in flight at once.
        requests: Requests for completions that the server saw.
        allowed: The most that it may have seen.
        rows: Rows in the results at the end.
        wrong: What is not as it must be; empty when all is well.
        signals: Signal to how often it was sent.
        phases: Phase to kills in it.
        wall_s: Duration in seconds.
    """

    examples: int
    kills: int
    concurrency: int
    requests: int = 0
    rows: int = 0
    wrong: list[str] = field(default_factory=list)
    signals: dict[str, int] = field(default_factory=dict)
    phases: dict[str, int] = field(default_factory=dict)
    wall_s: float = 0.0

    @property
    def allowed(self) -> int:
        return self.examples + self.kills * self.concurrency


class Torture:
    """One laboratory that is killed again and again."""

    def __init__(self, lab: Laboratory, server: ServerProcess, figures: Figures, seed: int) -> None:
        self.lab = lab
        self.server = server
        self.random = random.Random(seed)
        self.figures = figures
        self.log = lab.root.parent / "sessions.log"

    def suffer(self) -> Figures:
        """Is killed as often as asked, goes on to the end, and counts."""
        began = time.monotonic()
        killed = 0
        while killed < self.figures.kills:
            phase = self._phase(killed)
            died = self._session(phase, killed)
            killed += died
            if died:
                count(self.figures.phases, phase)
        self._complete()
        self._count()
        self.figures.wall_s = time.monotonic() - began
        return self.figures

    def _phase(self, killed: int) -> Phase:
        """Mostly while calls are made, some at start-up; the last fifth after the last call."""
        if killed >= self.figures.kills * 4 // 5:
            return "after"
        return "start" if self.random.random() < 0.2 else "calls"

    def _session(self, phase: Phase, killed: int) -> bool:
        """Starts a session and kills it; says whether it was alive to be killed."""
        is_repro = self.random.random() < 0.3 and (self.lab.root / "dvc.yaml").exists()
        command = (
            [str(Path(sys.executable).parent / "dvc"), "repro"]
            if is_repro
            else [sys.executable, "-m", "dspylab", "run", "--config", str(self.lab.config)]
        )
        with self.log.open("ab") as log:
            log.write(f"\n--- {phase} {' '.join(command)}\n".encode())
            log.flush()
            process = subprocess.Popen(
                command, cwd=self.lab.root, env=environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            self._wait(process, phase, killed)
            number = self.random.choice(SIGNALS)
            alive = process.poll() is None
            if alive:
                count(self.figures.signals, number.name)
                send(process, number)
                if number != signal.SIGKILL and self.random.random() < 0.3:
                    time.sleep(self.random.uniform(0.05, 1.0))
                    send(process, number)
            code = self._end(process)
        # Whoever the signal did not reach must not go on by himself.
        send(process, signal.SIGKILL)
        if code not in (REPRO_CODES if is_repro else EXPECTED_CODES):
            self.figures.wrong.append(f"session {killed} ({phase}) exited with {code}")
        return alive

    def _wait(self, process: subprocess.Popen[bytes], phase: Phase, killed: int) -> None:
        if phase == "start":
            self._sleep(process, self.random.uniform(0.0, 3.0))
            return
        before, left = self._asked(), self.figures.kills * 4 // 5 - killed
        missing = max(self.figures.examples - before, 0)
        target = before + self.random.randint(1, max(2 * missing // max(left, 1), 1))
        goal = self.figures.examples if phase == "after" else min(target, self.figures.examples)
        deadline = time.monotonic() + 120
        while self._asked() < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        self._sleep(process, self.random.uniform(0.0, AFTER_S if phase == "after" else TTFT_S))

    def _sleep(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.figures.wrong.append("a session did not end within 60 s of its signal")
            send(process, signal.SIGKILL)
            return process.wait()

    def _complete(self) -> None:
        done = self._run("dspylab", "run", "--config", str(self.lab.config))
        if done.returncode != 0:
            self.figures.wrong.append(f"the last run exited with {done.returncode}: {done.stderr[-2000:]}")

    def _run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=self.lab.root, env=environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip

    def _count(self) -> None:
        self.figures.requests = self._asked()
        self.figures.wrong += [*self._wrong_rows(), *self._wrong_state()]

    def _wrong_rows(self) -> Iterator[str]:
        each = self.figures.examples // len(STYLES)
        for style in STYLES:
            lines = self.lab.raw(f"fake-{style}").read_text().splitlines()
            self.figures.rows += len(lines)
            rows = [json.loads(line) for line in lines]
            if [row["index"] for row in rows] != list(range(each)):
                yield f"fake-{style}: not each example once, in order"
            if failed := sum(row["error"] is not None for row in rows):
                yield f"fake-{style}: {failed} failures"
        if self.figures.requests > self.figures.allowed:
            yield f"{self.figures.requests} requests, {self.figures.allowed} are allowed"

    def _wrong_state(self) -> Iterator[str]:
        status = self._run("dvc", "status")
        if "up to date" not in status.stdout:
            yield f"dvc status: {status.stdout}{status.stderr}"
        again = self._run("dspylab", "run", "--config", str(self.lab.config))
        if "nothing to do" not in again.stdout:
            yield f"a further run had something to do: {again.stdout}{again.stderr}"
        if (asked := self._asked()) > self.figures.requests:
            yield f"a further run made {asked - self.figures.requests} requests"
        wanted = {"raw.jsonl", "run.json"}
        stray = [path for path in self.lab.folder.rglob("results/*/*") if path.name not in wanted]
        journals = list((self.lab.root / ".dspylab").glob("journal/*"))
        if stray or journals:
            yield f"left over: {', '.join(map(str, [*stray, *journals]))}"
        # Not those of Python and DVC themselves, which Ctrl-C may hit while they start.
        tracebacks = self.log.read_text(errors="replace").split("Traceback")[1:]
        yield from (f"a traceback: {text[:3000]}" for text in tracebacks if "dspylab/" in text)

    def _asked(self) -> int:
        return int(self.server.health["requests"])


def count(tally: dict[str, int], name: str) -> None:
    tally[name] = tally.get(name, 0) + 1


def send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the process and all that it started, as a terminal does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def environment() -> dict[str, str]:
    """With the programs of this interpreter's environment on PATH, as DVC needs it."""
    binaries = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "FAKE_API_KEY": "fake-key-of-the-torture",
        "DVC_NO_ANALYTICS": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def torture(folder: Path, *, kills: int, examples: int, seed: int) -> Figures:
    """Kills sessions of a fresh laboratory.

    Args:
        folder: Where it is made.
        kills: How many sessions are killed.
        examples: Examples of the whole matrix, an even number.
        seed: Of the moments and signals.
    """
    with server_process(ttft_s=TTFT_S, keep_bodies=False) as server:
        lab = experiment(
            folder / "lab",
            server_url=server.url,
            examples=tickets(examples // len(STYLES)),
            config={
                "matrix": {"model": ["fake"], "program.style": list(STYLES)},
                "execution": {"max_concurrency": CONCURRENCY},
            },
        )
        lab.init_repository()
        figures = Figures(examples=examples, kills=kills, concurrency=CONCURRENCY)
        return Torture(lab, server, figures, seed).suffer()


def main() -> int:
    """Prints the figures as JSON; exits with 1 when anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--examples", type=int, default=400, help="of the whole matrix (default: 400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="make the laboratory in this folder and leave it there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dspylab-torture-") as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        figures = torture(folder, kills=options.kills, examples=options.examples, seed=options.seed)
        print(json.dumps({**asdict(figures), "allowed": figures.allowed}, indent=2))  # noqa: T201 - a script
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
