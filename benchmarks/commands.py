"""What several benchmarks need: a laboratory of some size, and what a command took."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspylab.testing import Laboratory, experiment, tickets


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took.

    Attributes:
        wall_s: Wall time.
        cpu_s: CPU time of the process and of those that it waited for.
        peak_mb: Peak resident memory in 10^6 bytes.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float


def laboratory(folder: str, url: str, *, runs: int, examples: int, at_once: int) -> Laboratory:
    """A fresh laboratory in a git and DVC repository, its runs being seeds of one model."""
    config = {
        "matrix": {"model": ["fake"], "seed": list(range(runs))},
        "execution": {"max_concurrency": at_once},
    }
    lab = experiment(Path(folder), server_url=url, examples=tickets(examples), config=config)
    lab.init_repository()
    return lab


def taken(command: list[str], folder: Path, **options: Any) -> Taken:
    """Runs a command that must succeed.

    Args:
        command: The command; one that begins with `dspylab` is that of this environment.
        folder: Where it runs.
        options: As for `subprocess.Popen`; its standard output goes nowhere by default.
    """
    if command[0] == "dspylab":
        command = [sys.executable, "-m", *command]
    extra = {"FAKE_API_KEY": "fake", "DVC_NO_ANALYTICS": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    environment = {**os.environ, **extra, **options.pop("env", {})}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, **{"stdout": subprocess.DEVNULL, **options}
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    # Linux counts it in kilobytes, macOS in bytes.
    peak_mb = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return Taken(wall_s, usage.ru_utime + usage.ru_stime, peak_mb)
