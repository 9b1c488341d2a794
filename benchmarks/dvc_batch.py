"""What DVC costs per run: the batch of `dspylab run` beside DVC's own loop, and a check with nothing to do.

    python benchmarks/dvc_batch.py            # loop at 50 and 100 runs, about two minutes
    python benchmarks/dvc_batch.py --full     # also at 300 runs, some minutes more
    python benchmarks/dvc_batch.py --loop     # without the loop

The runs themselves cost nothing here: a shell script stands in for `dspylab` and writes their files. The
loop is `dvc repro` on new stages, process start included. The batch is what `dspylab run` does around the
execution (check, restore, commit) in a new process, its import of DVC included. So is nothing to do: the
check alone. CPU times say more than wall times when the machine is busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath

import yaml

from dspylab.config.models import Experiment
from dspylab.pipeline.dvcfile import upsert
from dspylab.pipeline.stages import PipelineEntry, build
from dspylab.plan.matrix import expand

CONFIG = PurePosixPath("experiments/bench/experiment.yaml")
FAKE = """#!/bin/sh
folder=experiments/bench
if [ "$1" = run-one ]; then
  run=$folder/results/model$4
  run=$(echo "$run" | sed 's/modelmodel=//')-seed${5#seed=}
  mkdir -p "$run"
  for row in 1 2 3 4 5 6 7 8 9; do echo "{\\"row\\": $row, \\"of\\": \\"$*\\"}"; done > "$run/raw.jsonl"
  echo "{\\"run\\": \\"$*\\"}" > "$run/run.json"
else
  echo '{"runs": {}}' > $folder/summary.json
  echo '{"bench": {"accuracy": 0.5}}' > $folder/metrics.json
  mkdir -p $folder/plots
  for plot in score pareto latency; do echo '[]' > $folder/plots/$plot.json; done
fi
"""


def document(runs: int) -> dict[str, object]:
    """An experiment of so many runs, of the size that people write."""
    return {
        "name": "bench",
        "program": {"path": "program.py", "args": {"style": "predict"}},
        "dataset": {"path": "rows.jsonl", "inputs": ["text"], "split": {"train": 0.3, "seed": 7}},
        "models": {
            name: {"model": f"openai/{name}", "temperature": 0.0, "max_tokens": 64, "max_concurrency": 8}
            for name in ("one", "two")
        },
        "matrix": {"model": ["one", "two"], "seed": list(range(runs // 2))},
        "metrics": {
            "accuracy": {"type": "exact_match", "field": "label"},
            "helpful": {"type": "path", "ref": "program.py:helpful"},
        },
        "execution": {"max_concurrency": 64},
    }


def experiment_entry(runs: int) -> PipelineEntry:
    """Its entry in DVC's files."""
    content = document(runs)
    experiment = Experiment.model_validate(content)
    folder = CONFIG.parent
    return build(
        experiment,
        expand(experiment),
        config=CONFIG,
        code=[str(folder / "program.py"), str(folder / "helper.py")],
        data=[str(folder / "rows.jsonl")],
        training=[],
        document=content,
        endpoints={},
    )


def new_repository(root: Path, runs: int) -> None:
    """A repository with the experiment, committed, nothing executed."""
    folder = root / CONFIG.parent
    folder.mkdir(parents=True)
    (root / CONFIG).write_text(yaml.safe_dump(document(runs), sort_keys=False))
    for name in ("program.py", "helper.py", "rows.jsonl"):
        (folder / name).write_text("{}\n")
    script = root / "bin" / "dspylab"
    script.parent.mkdir()
    script.write_text(FAKE)
    script.chmod(0o755)
    for command in (
        "git init --quiet",
        "git config user.name Bench",
        "git config user.email bench@example.org",
        "dvc init --quiet",
    ):
        subprocess.run(command.split(), cwd=root, env=environment(root), check=True)
    upsert(root, experiment_entry(runs))
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "bench"], cwd=root, check=True)


def environment(root: Path) -> dict[str, str]:
    """The fake `dspylab` first on the path, then the `dvc` of this Python."""
    path = [str(root / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(root.parent / "site"),
    }


def loop_s(root: Path) -> float:
    """Seconds that `dvc repro` takes."""
    started = time.perf_counter()
    subprocess.run(["dvc", "repro", "--quiet"], cwd=root, env=environment(root), check=True)
    return time.perf_counter() - started


def write_results(root: Path, runs: int) -> None:
    """What the execution leaves behind."""
    for item in experiment_entry(runs).stages["bench"]["foreach"].values():
        command = ["dspylab", "run-one", "--config", str(CONFIG), *item["args"].split()]
        subprocess.run(command, cwd=root, env=environment(root), check=True)
    subprocess.run(["dspylab", "aggregate"], cwd=root, env=environment(root), check=True)


def batch_s(root: Path, runs: int, *, commit: bool) -> dict[str, float]:
    """Seconds of a new process that checks, and commits what is not done: by part, and `total`."""
    started = time.perf_counter()
    command = [sys.executable, __file__, "--child", str(root), str(runs), "commit" if commit else "check"]
    done = subprocess.run(command, env=environment(root), stdout=subprocess.PIPE, check=True)
    total = time.perf_counter() - started
    return {**json.loads(done.stdout), "total": total}


def child(root: Path, runs: int, what: str) -> None:
    """The process that `batch_s` measures; prints the seconds of its parts as JSON."""
    started = time.perf_counter()
    from dspylab.pipeline.repo import open_repository

    entry = experiment_entry(runs)
    keys = list(entry.stages["bench"]["foreach"])
    repository = open_repository(root)
    opened = time.perf_counter()
    states = repository.states(entry, keys)
    stale = [key for key in keys if states[key].state != "done"]
    checked = time.perf_counter()
    if what == "commit":
        restored = repository.restore(entry, stale)
        recorded = repository.commit(entry, [key for key in stale if key not in restored])
        assert len(recorded) == runs, f"{len(recorded)} of {runs} runs were recorded"
    else:
        assert not stale, f"{len(stale)} of {runs} runs are not done"
        assert repository.summary_state(entry).state == "done"
    ended = time.perf_counter()
    cpu = time.process_time()
    print(
        json.dumps(
            {"open": opened - started, "check": checked - opened, "commit": ended - checked, "cpu": cpu}
        )
    )


def main() -> None:
    """Measures and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--full", action="store_true", help="run DVC's loop at 300 runs too")
    parser.add_argument("--loop", type=int, nargs="*", default=[50, 100], help="sizes at which the loop runs")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        root, runs, what = options.child
        child(Path(root), int(runs), what)
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{'runs':>6} {'loop s':>8} {'batch s':>8} {'ratio':>6} "
        f"{'check s':>8} {'commit s':>9} {'ms/run':>7} {'cpu s':>6}"
    )
    idle = {}
    for runs in (20, 50, 100, 300, 1000):
        with tempfile.TemporaryDirectory(prefix="dvc-batch-") as folder:
            batch_root, loop_root = Path(folder, "batch"), Path(folder, "loop")
            new_repository(batch_root, runs)
            write_results(batch_root, runs)
            batch = batch_s(batch_root, runs, commit=True)
            if runs in (20, 300, 1000):
                idle[runs] = batch_s(batch_root, runs, commit=False)
            loop = None
            if runs in options.loop or (runs == 300 and options.full):
                new_repository(loop_root, runs)
                loop = loop_s(loop_root)
            each_ms = 1000 * (batch["check"] + batch["commit"]) / runs
            loop_text = f"{loop:8.1f}" if loop else f"{'-':>8}"
            ratio = f"{loop / batch['total']:6.1f}" if loop else f"{'-':>6}"
            print(
                f"{runs:6} {loop_text} {batch['total']:8.1f} {ratio} "
                f"{batch['check']:8.2f} {batch['commit']:9.2f} {each_ms:7.1f} {batch['cpu']:6.1f}",
                flush=True,
            )
    print("\nNothing to do, seconds of the whole process:")
    for runs, found in idle.items():
        parts = f"open {found['open']:.2f}, check {found['check']:.2f}, all CPU {found['cpu']:.2f}"
        print(f"{runs:6} runs {found['total']:6.2f} ({parts})")


if __name__ == "__main__":
    main()
