"""The experiments that the repository ships, each through the command line in a copy of the repository.

Answers that are known come from a fake endpoint, so that every figure of the program and of its metrics can
be told beforehand; of two experiments an example goes to the embedded model.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Cli, InitRepository

from dspylab.testing import ChatRequest, FakeServer, Laboratory

ROOT = Path(__file__).parents[1]
Copy = Callable[[str], Laboratory]


@pytest.fixture
def copied(tmp_path: Path, init_repository: InitRepository) -> Copy:
    """Copies the pipeline and one experiment into a repository of their own."""

    def copy(name: str) -> Laboratory:
        results = shutil.ignore_patterns("results", "__pycache__", "summary.json", "metrics.json")
        shutil.copytree(ROOT / "experiments" / name, tmp_path / "experiments" / name, ignore=results)
        for file in ("dvc.yaml", "params.yaml"):
            shutil.copy(ROOT / file, tmp_path)
        lab = Laboratory(tmp_path, name)
        init_repository(lab)
        return lab

    return copy


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def at(server: FakeServer) -> dict[str, Any]:
    """Changes to an experiment that put a fake endpoint in the place of the embedded model."""
    fake = {"model": "openai/fake", "api_base": server.url, "supports": {"response_schema": True}}
    return {"models": {"smollm2": {**fake, "temperature": 0.0}}}


def means(lab: Laboratory) -> dict[str, dict[str, float]]:
    """Run to metric to its mean."""
    summary = json.loads(lab.summary.read_text())
    return {
        run: {name: metric["mean"] for name, metric in found["metrics"].items()}
        for run, found in summary["runs"].items()
    }


@pytest.mark.parametrize("name", ["retrieval", "extraction", "agent"])
def test_an_example_is_small_real_and_not_part_of_the_pipeline_until_it_is_run(name: str) -> None:
    folder = ROOT / "experiments" / name
    config = yaml.safe_load((folder / "experiment.yaml").read_text())
    questions = rows(folder / (config["dataset"].get("test") or config["dataset"]["path"]))
    inputs = [json.dumps([row[field] for field in config["dataset"]["inputs"]]) for row in questions]

    assert len(set(inputs)) == len(inputs) >= 40
    assert (folder / "README.md").is_file()
    # Its stages would leave `dvc status` unclean for everybody who has run the demo alone.
    assert name not in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_retrieval(copied: Copy, cli_inside: Cli) -> None:
    lab = copied("retrieval")
    corpus = {row["id"]: row for row in rows(lab.folder / "corpus.jsonl")}

    def reader(request: ChatRequest) -> str:
        """Rewrites nothing well; quotes all that it was shown."""
        if "Write down the words" in request.system:
            return '{"query": "opening hours"}'
        return json.dumps({"answer": request.question})

    with FakeServer(reader) as server:
        lab.change({**at(server), "dataset": {"limit": 12}})
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert done.code == 0, done.err

    found = means(lab)
    assert len(found) == 6
    for run in found:
        for row in rows(lab.raw(run)):
            retrieved = row["prediction"]["passages"]
            assert len(set(retrieved)) == {"k1": 1, "k3": 3}[run.split("-")[1]] or "none" in run
            assert set(retrieved) <= corpus.keys()
            assert row["metrics"]["retrieval.recall"] == (row["labels"]["source"] in retrieved)
            if row["labels"]["source"] in retrieved:
                assert row["metrics"]["answered"] == 1.0, row
    assert found["smollm2-k1-question-none"]["answered"] == 0.0
    assert found["smollm2-k3-question-bm25"]["retrieval.recall"] > 0.7
    assert found["smollm2-k1-rewritten-bm25"]["retrieval.recall"] < 0.5

    # The corpus is no part of the dataset, and yet the runs depend on it.
    (lab.folder / "corpus.jsonl").write_text((lab.folder / "corpus.jsonl").read_text().replace("42", "43"))
    assert "corpus.jsonl" in cli_inside("plan", "-c", lab.config, cwd=lab.root).out


def test_extraction(copied: Copy, cli_inside: Cli) -> None:
    lab = copied("extraction")
    events = {row["text"]: row["event"] for row in rows(lab.folder / "test.jsonl")}

    def extractor(request: ChatRequest) -> str:
        """Right but for every venue; dates as they are wanted, or as they are written."""
        event = {**events[request.question], "venue": "nowhere"}
        if '"number"' not in json.dumps(request.schema):
            year, month, day = event["date"].split("-")
            months = "January February March April May June July August September October November December"
            event["date"] = f"on {int(day)} {months.split()[int(month) - 1]} {year}"
            event["price"] = f"{event['price']} euros" if event["price"] else "Free of charge."
        return json.dumps({"event": event})

    with FakeServer(extractor) as server:
        lab.change({**at(server), "dataset": {"limit": 8}})
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert done.code == 0, done.err

    found = means(lab)
    assert len(found) == 6
    for figures in found.values():
        assert figures["fields"] == pytest.approx(0.8)
        assert (figures["fields.venue"], figures["exact"], figures["valid"]) == (0.0, 0.0, 1.0)
        assert {figures[f"fields.{name}"] for name in ("title", "date", "start", "price")} == {1.0}


def test_the_agent_by_the_command_of_its_readme(copied: Copy) -> None:
    lab = copied("agent")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    lab.config.write_text(lab.config.read_text().replace("8377", port))
    lab.change({"dataset": {"limit": 24}})
    script = "experiments/agent/endpoint.py:answer"
    serving = [sys.executable, "-m", "dspylab.testing", "--port", port, "--answer-with", script, "--"]
    dspylab = str(Path(sys.executable).with_name("dspylab"))
    running = [dspylab, "run", "-q", "-c", "experiments/agent/experiment.yaml"]
    subprocess.run([*serving, *running], cwd=lab.root, check=True, stdout=subprocess.DEVNULL)

    found = means(lab)
    assert {run: round(figures["right"] * 24) for run, figures in found.items()} == {
        "careful-max_iters2-tool": 20,
        "careful-max_iters4-tool": 22,
        "careful-max_iters8-tool": 23,
        "careful-max_iters8-head": 16,
        "hasty-max_iters2-tool": 13,
        "hasty-max_iters4-tool": 13,
        "hasty-max_iters8-tool": 13,
    }
    assert found["careful-max_iters8-tool"]["tools.errors"] == 0
    assert found["hasty-max_iters8-tool"]["tools.errors"] > 0


@pytest.mark.local
@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("retrieval", ["model=smollm2", "program.retriever=bm25", "program.k=1", "program.query=rewritten"]),
        ("extraction", ["model=smollm2", "program.normalize=code", "program.demos=2"]),
    ],
)
def test_one_example_goes_to_the_embedded_model(
    name: str, run: list[str], copied: Copy, cli_inside: Cli
) -> None:
    lab = copied(name)
    lab.change({"dataset": {"limit": 1}})

    done = cli_inside("run-one", "-c", lab.config, *run, cwd=lab.root)

    assert done.code == 0, done.err
    (written,) = lab.folder.glob("results/*/raw.jsonl")
    assert [row["error"] for row in rows(written)] == [None]
