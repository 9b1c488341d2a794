"""The embedded model at several widths: examples a second, and what its queue does to the first token.

Two runs of the demo, whose prompts are long with demonstrations and short with labels only; the prompts'
common beginning is read from the model's cache, as in every experiment.

    python benchmarks/embedded.py [--rounds 3] [--at-once 1 2 4]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path

import yaml
from commands import taken

DEMO = Path(__file__).parent.parent / "experiments" / "triage"
STYLES = ("balanced_demos", "labels")


def main() -> None:
    """Prints a row a width; medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    heads = [f"{style + ': examples/s':>28} {'TTFT p50 ms':>12}" for style in STYLES]
    print(f"{'at once':>8}" + "".join(heads))
    measured: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for _ in range(options.rounds):
        for width in options.at_once:
            for style in STYLES:
                measured.setdefault((width, style), []).append(measure(width, style))
    for width in options.at_once:
        cells = []
        for style in STYLES:
            pace, ttft_s = (statistics.median(column) for column in zip(*measured[width, style], strict=True))
            cells.append(f"{pace:28.1f} {ttft_s * 1e3:12.0f}")
        print(f"{width:8}" + "".join(cells))


def measure(width: int, style: str) -> tuple[float, float]:
    """Examples a second from the first call to the last token, and the median time to first token in s."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder, "triage")
        shutil.copytree(DEMO, lab, ignore=shutil.ignore_patterns("results", "__pycache__"))
        config = yaml.safe_load((lab / "experiment.yaml").read_text())
        config["models"]["smollm2"]["max_concurrency"] = width
        (lab / "experiment.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        command = ["dspylab", "run-one", "-q", "-c", str(lab / "experiment.yaml")]
        taken([*command, "model=smollm2", f"program.style={style}"], lab)
        rows = [json.loads(line) for line in next(lab.glob("results/*/raw.jsonl")).open()]
        began = min(row["started_at"] for row in rows)
        ended = max(row["started_at"] + row["example_s"] for row in rows)
        first = [call["ttft_s"] for row in rows for call in row["calls"] if call["ttft_s"] is not None]
        return len(rows) / (ended - began), statistics.median(first)


if __name__ == "__main__":
    main()
