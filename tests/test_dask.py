"""Execution on a Dask cluster: real schedulers and workers, which die, join late or do not fit."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import API_KEY, Cli, InitRepository
from dask_cluster import DaskCluster

from dspylab.config.models import Experiment
from dspylab.execute import roster
from dspylab.execute.parcel import pack, unpack
from dspylab.execute.wire import outcome_of, outcome_to_json, todo_of, todo_to_json
from dspylab.execute.workers import Todo
from dspylab.laboratory import open_laboratory
from dspylab.records import (
    AbandonedExample,
    DataRow,
    ExampleError,
    ExampleFailure,
    ExampleResult,
    LMCall,
    Message,
)
from dspylab.testing import FakeServer, Laboratory, experiment, tickets
from dspylab.testing.answers import ChatRequest, default_answer

pytestmark = pytest.mark.xdist_group("dask")

#: What may differ from one execution to the next.
_VARIABLE = (
    "_s", "_at", "tokens_per_s", "throughput_tokens_per_s", "concurrency", "git", "config_hash",
)  # fmt: skip
#: Says where it was executed.
TELLING = """\
import os

import dspy

from helpers import lower


class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("text -> label")

    def forward(self, text):
        if text.startswith("DEADLY") and "DEADLY" in os.environ:
            os._exit(9)
        import late

        answer = self.answer(text=late.same(lower(text)))
        return dspy.Prediction(label=answer.label, process=os.getpid())


def build(style="predict"):
    return Program()
"""
HELPERS = {
    "helpers.py": "def lower(text):\n    return text.lower()\n",
    "late.py": "def same(text):\n    return text\n",
}

WAITING = """\
import os
import time
from pathlib import Path

ARRIVED = Path(os.environ["ARRIVED"])


def same(text):
    if "IS_LATE" in os.environ:
        ARRIVED.touch()
    for _ in range(1200):
        if ARRIVED.exists() or int(text.split()[1].strip(":")) < 10:
            break
        time.sleep(0.05)
    return text
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler and two workers, for tests that leave them alive."""
    with DaskCluster(tmp_path_factory.mktemp("shared")) as cluster:
        cluster.add_worker()
        cluster.add_worker()
        cluster.wait_for(2)
        yield cluster


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A scheduler without workers, for tests that end them."""
    with DaskCluster(tmp_path_factory.mktemp("own")) as cluster:
        yield cluster


def rows(lab: Laboratory, run: str = "fake") -> list[dict[str, Any]]:
    return [json.loads(line) for line in lab.raw(run).read_text().splitlines()]


def lasting(value: Any) -> Any:
    """A summary or a row without what differs between two executions."""
    if isinstance(value, dict):
        return {name: lasting(item) for name, item in value.items() if not name.endswith(_VARIABLE)}
    return [lasting(item) for item in value] if isinstance(value, list) else value


def telling(tmp_path: Path, server: FakeServer, count: int, **config: Any) -> Laboratory:
    lab = experiment(tmp_path, server_url=server.url, examples=tickets(count), config=config)
    lab.program.write_text(TELLING)
    for name, content in HELPERS.items():
        (lab.folder / name).write_text(content)
    return lab


def test_the_limits_are_shared_out_whole() -> None:
    """Together the parts are the limits: nothing is lost to rounding, and nothing is granted twice."""
    models = {
        "wide": {"model": "openai/a", "max_concurrency": 64, "requests_per_minute": 600},
        "narrow": {"model": "openai/b", "max_concurrency": 2},
        "slow": {"model": "openai/c", "requests_per_minute": 3, "tokens_per_minute": 900},
        "embedded": {"model": "local/smollm2-135m-instruct"},
    }
    document = {
        "name": "limits",
        "program": {"path": "program.py"},
        "dataset": {"path": "data.jsonl", "inputs": ["text"]},
        "models": models,
        "matrix": {"model": list(models)},
        "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
        "execution": {"max_concurrency": 10},
    }
    found = roster.parts(Experiment.model_validate(document), list(models), [f"w{n}" for n in range(7)])
    assert [part.total for part in found.values()] == [2, 2, 2, 1, 1, 1, 1]
    shares = {name: [part.models[name] for part in found.values() if name in part.models] for name in models}
    assert [share[0] for share in shares["wide"]] == [10, 9, 9, 9, 9, 9, 9]
    assert sum(share[1] or 0 for share in shares["wide"]) == pytest.approx(600)
    assert shares["narrow"] == [(1, None, None), (1, None, None)]
    assert [share[0] for share in shares["slow"]] == [4, 3, 3]
    assert [share[1:] for share in shares["slow"]] == [(1.0, 300.0)] * 3
    assert len({share[0] for share in shares["embedded"]}) == 1, "each worker has its own"
    assert len(shares["embedded"]) == 7


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_no_worker_is_left_without_any_example(workers: int) -> None:
    document = {
        "name": "limits",
        "program": {"path": "program.py"},
        "dataset": {"path": "data.jsonl", "inputs": ["text"]},
        "models": {"one": {"model": "openai/a"}},
        "matrix": {"model": ["one"]},
        "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
        "execution": {"max_concurrency": 4},
    }
    found = roster.parts(Experiment.model_validate(document), ["one"], [f"w{n}" for n in range(workers)])
    assert len(found) == min(4, workers)
    assert all(part.total and part.models["one"][0] for part in found.values())
    assert sum(part.total for part in found.values()) == 4


def test_what_travels_comes_back_as_it_was() -> None:
    row = DataRow(index=3, example_id="e3", inputs={"text": "a"}, labels={"label": "b"})
    call = LMCall(model="m", attempts=1, cost_usd=0.5, prompt=(Message(role="user", text="hi"),))
    known: dict[str, Any] = {
        "run": "r", "index": 3, "example_id": "e3", "inputs": row.inputs, "labels": row.labels,
    }  # fmt: skip
    result = ExampleResult(
        **known, prediction={"label": "b"}, metrics={"m": 1.0}, example_s=1.0, metric_s=0.1, started_at=5.0,
        calls=(call,),
    )  # fmt: skip
    error = ExampleError(type="ValueError", message="no", kind="program")
    failure = ExampleFailure(**known, error=error, example_s=1.0, started_at=5.0, calls=(call,))
    abandoned = AbandonedExample(abandoned=3, calls=(call,), answer=failure)
    for outcome in (result, failure, abandoned, AbandonedExample(abandoned=3, calls=()), None):
        sent = json.loads(json.dumps(outcome_to_json(outcome)))
        assert outcome_of(sent, "r", row) == outcome
    todo = Todo(row, {"index": 3, "prediction": {"label": "b"}})
    assert todo_of(json.loads(json.dumps(todo_to_json(todo)))) == todo


def test_an_archive_that_can_not_be_unpacked_leaves_nothing(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("file", "")
        archive.writestr("file/below", "")
    with pytest.raises(OSError, match="file"):
        unpack(content.getvalue(), tmp_path / "place")
    assert not list(tmp_path.iterdir())


def test_an_archive_is_unpacked_once_by_however_many(tmp_path: Path, server: FakeServer) -> None:
    lab = telling(tmp_path / "lab", server, 2, program={"files": ["corpus"]})
    (lab.folder / "corpus").mkdir()
    (lab.folder / "corpus" / "a.txt").write_text("A")
    (lab.folder / ".env").write_text("SECRET=1")
    lab.init_git()
    opened = open_laboratory(lab.config)
    parcel = pack(opened, with_dataset=False)
    assert parcel == pack(open_laboratory(lab.config), with_dataset=False)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: unpack(parcel.content, tmp_path / "place"), range(8)))
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    place = f"place/experiments/{lab.name}"
    assert {path for path in files if path.startswith("place")} == {
        f"{place}/{name}"
        for name in ("experiment.yaml", "program.py", "helpers.py", "late.py", "corpus/a.txt")
    }


def test_training_examples_travel_and_test_examples_do_not(tmp_path: Path, server: FakeServer) -> None:
    dataset = {"path": ..., "train": "train.jsonl", "validation": "dev.jsonl", "test": "tickets.jsonl"}
    lab = telling(tmp_path, server, 2, dataset=dataset)
    for name in ("train.jsonl", "dev.jsonl"):
        (lab.folder / name).write_text(json.dumps(tickets(1)[0]) + "\n")
    lab.init_git()
    with zipfile.ZipFile(
        io.BytesIO(pack(open_laboratory(lab.config), with_dataset=False).content)
    ) as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert names == {"experiment.yaml", "program.py", "helpers.py", "late.py", "train.jsonl", "dev.jsonl"}


def test_a_file_that_is_not_sent_is_told_how_to_be(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster, server: FakeServer
) -> None:
    lab = telling(tmp_path, server, 2)
    (lab.folder / "words.txt").write_text("bug")
    reading = (
        "from pathlib import Path\n\n\ndef build(style):\n    Path(__file__).with_name('words.txt').open()"
    )
    lab.program.write_text(f"{TELLING}\n{reading}\n    return Program()\n")
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
    assert done.code == 2, done.out + done.err
    assert "files that the code reads are sent to workers if program.files names them" in done.err
    lab.change({"program": {"files": ["words.txt"]}})
    done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
    assert done.code == 0, done.out + done.err


def test_threads_processes_and_a_cluster_that_loses_a_worker_give_the_same(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, own: DaskCluster
) -> None:
    victim: list[int] = []
    asked = 0

    def answer(request: ChatRequest) -> Any:
        nonlocal asked
        asked += 1
        # In the middle of the second run, a worker dies with what it is doing.
        if asked == 90 and victim:
            os.kill(victim.pop(), signal.SIGKILL)
        return default_answer(request)

    summaries, raws = [], []
    with FakeServer(answer, ttft_s=0.02) as server:
        matrix = {"program.style": ["predict", "cot"]}
        lab = experiment(tmp_path, server_url=server.url, examples=tickets(60), config={"matrix": matrix})
        init_repository(lab)
        first = own.add_worker()
        own.add_worker()
        own.wait_for(2)
        for place in ("threads", "local:2", str(own.file)):
            options = [] if place == "threads" else ["--dask", place]
            asked = 0
            if place == str(own.file):
                victim.append(first)
            done = cli_inside("run", "-c", lab.config, "--fresh", *options, cwd=lab.root)
            assert done.code == 0, done.out + done.err
            summaries.append(lasting(json.loads(lab.summary.read_text())))
            raws.append([lasting(row) for run in ("predict", "cot") for row in rows(lab, f"fake-{run}")])
            assert asked == 120 if place != str(own.file) else 120 < asked < 220
    assert own.workers[0].exitcode == -signal.SIGKILL, "one worker was killed"
    assert own.workers[1].is_alive()
    assert summaries[0] == summaries[1] == summaries[2]
    assert raws[0] == raws[1] == raws[2]
    assert [row["index"] for row in raws[2]] == [*range(60), *range(60)]


def test_processes_of_one_command_have_cores_of_their_own(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, server: FakeServer
) -> None:
    mine: set[int] = set()
    if sys.platform == "linux":
        mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("needs two cores, and Linux")
    lab = telling(tmp_path, server, 40)
    where = "process=os.getpid(), cores=sorted(os.sched_getaffinity(0))"
    lab.program.write_text(TELLING.replace("process=os.getpid()", where))
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", "local:2", cwd=lab.root)
    assert done.code == 0, done.out + done.err
    cores = {row["prediction"]["process"]: set(row["prediction"]["cores"]) for row in rows(lab)}
    assert len(cores) == 2, cores
    first, second = cores.values()
    assert first
    assert second
    assert not first & second
    assert first | second == mine


def test_processes_that_do_not_end_in_time_change_nothing_of_what_is_done(
    tmp_path: Path,
    cli_inside: Cli,
    init_repository: InitRepository,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dspylab.execute import cluster

    monkeypatch.setattr(cluster, "_GOODBYE_S", 0.001)
    lab = telling(tmp_path, server, 4)
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", "local:1", cwd=lab.root)
    assert done.code == 0, done.out + done.err
    assert len(rows(lab)) == 4


def test_code_data_and_keys_reach_workers_elsewhere(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster
) -> None:
    """The repository's modules and `program.files` travel; `.env` and keys do not."""
    with FakeServer("[[ ## label ## ]]\nbug\n\n[[ ## completed ## ]]", api_key=API_KEY) as server:
        lab = telling(tmp_path, server, 24, program={"files": ["corpus.txt"]})
        (lab.folder / "late.py").write_text(
            "from pathlib import Path\n\n\ndef same(text):\n"
            "    assert not Path(__file__).with_name('.env').exists()\n"
            "    return text + Path(__file__).with_name('corpus.txt').read_text()\n"
        )
        (lab.folder / "corpus.txt").write_text("CORPUS")
        (lab.folder / ".env").write_text("FAKE_API_KEY=not-the-key-of-the-workers\n")
        init_repository(lab)
        done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root, FAKE_API_KEY="")
        assert done.code == 0, done.out + done.err
        assert all("CORPUS" in (record.body or {})["messages"][-1]["content"] for record in server.requests)
        processes = Counter(row["prediction"]["process"] for row in rows(lab))
        assert set(processes) == {worker.pid for worker in shared.workers}
        again = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
        assert "nothing to do" in again.out + again.err
        assert len(server.requests) == 24


def test_two_experiments_at_once_keep_to_their_own_modules(
    tmp_path: Path, cli: Cli, init_repository: InitRepository, shared: DaskCluster
) -> None:
    """Both import a module of the same name at call time, from a folder that only dspylab's search knows."""
    with FakeServer("[[ ## label ## ]]\nbug\n\n[[ ## completed ## ]]", ttft_s=0.05) as server:
        labs = []
        for name in ("one", "other"):
            lab = telling(tmp_path / name, server, 40, execution={"max_concurrency": 4})
            (lab.folder / "late.py").unlink()
            (lab.root / "src").mkdir()
            (lab.root / "src" / "late.py").write_text(f"def same(text):\n    return text + ' FROM {name}'\n")
            init_repository(lab)
            labs.append(lab)

        def run(lab: Laboratory) -> Any:
            source = str(lab.root / "src")
            return cli("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root, PYTHONPATH=source)

        with ThreadPoolExecutor(2) as threads:
            for done in threads.map(run, labs):
                assert done.code == 0, done.out + done.err
    for lab in labs:
        prompts = [str(row["calls"][0]["prompt"]) for row in rows(lab)]
        assert len(prompts) == 40
        assert all(f"FROM {lab.root.name}" in prompt for prompt in prompts)


def test_a_worker_that_would_call_another_endpoint_is_not_used(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster, server: FakeServer
) -> None:
    lab = telling(tmp_path, server, 4, models={"fake": {"api_base": ...}})
    (lab.folder / ".env").write_text(f"OPENAI_API_BASE={server.url}\n")
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
    assert done.code == 3, done.out + done.err
    assert f"is called at its usual endpoint here, at {server.url} where dspylab runs" in done.err


def test_the_file_can_name_the_cluster_and_stages_use_it(
    tmp_path: Path, cli: Cli, init_repository: InitRepository, shared: DaskCluster, server: FakeServer
) -> None:
    lab = telling(tmp_path, server, 8, execution={"dask": str(shared.file)})
    init_repository(lab)
    assert cli("sync", "-c", lab.config, cwd=lab.root).code == 0
    done = cli("repro", cwd=lab.root, program="dvc")
    assert done.code == 0, done.out + done.err
    assert {row["prediction"]["process"] for row in rows(lab)} <= {worker.pid for worker in shared.workers}
    # Where it was executed decides nothing: without the cluster there is nothing to do.
    lab.change({"execution": {"dask": ...}})
    assert "nothing to do" in cli("run", "-c", lab.config, cwd=lab.root).out


def test_all_workers_together_keep_the_limits(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster
) -> None:
    with FakeServer("[[ ## label ## ]]\nbug\n\n[[ ## completed ## ]]", ttft_s=0.05) as server:
        lab = telling(tmp_path, server, 40, models={"fake": {"max_concurrency": 5}})
        init_repository(lab)
        done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
        assert done.code == 0, done.out + done.err
        assert server.concurrency_peak == 5


@pytest.mark.parametrize("bound", [{"max_calls": 12}, {"max_tokens": 3000}, {"max_cost_usd": 0.03}])
def test_all_workers_together_keep_the_budget(
    tmp_path: Path,
    cli_inside: Cli,
    init_repository: InitRepository,
    shared: DaskCluster,
    *,
    server: FakeServer,
    bound: dict[str, float],
) -> None:
    config = {
        "models": {"fake": {"pricing": {"input": 10.0, "output": 10.0}, "max_tokens": 16}},
        "budget": bound,
        "execution": {"max_concurrency": 4, "dask": str(shared.file)},
    }
    lab = telling(tmp_path, server, 40, **config)
    init_repository(lab)

    stopped = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert stopped.code == 4, stopped.out + stopped.err
    asked = len(server.requests)
    # The bounds are those of 12 to 20 calls; what is in flight at the end may go beyond them.
    assert 8 < asked < 25
    assert len(rows(lab)) == asked, "every answer that was paid for is kept"
    lab.change({"budget": {name: value * 100 for name, value in bound.items()}})
    done = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert done.code == 0, done.out + done.err
    assert len(server.requests) == 40


def test_without_a_dollar_workers_make_no_call_that_costs(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster, server: FakeServer
) -> None:
    priced = {"pricing": {"input": 10.0, "output": 10.0}, "max_tokens": 16}
    config = {"models": {"fake": priced}, "budget": {"max_cost_usd": 0}}
    lab = telling(tmp_path, server, 40, execution={"dask": str(shared.file)}, **config)
    init_repository(lab)

    stopped = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert stopped.code == 4, stopped.out + stopped.err
    assert not server.requests
    free = {**lab.read()["models"]["fake"], "model": "openai/free", "pricing": {"input": 0, "output": 0}}
    lab.change({"models": {"free": free}, "matrix": {"model": ["fake", "free"]}})
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 4
    assert len(server.requests) == 40
    assert len(rows(lab, "free")) == 40


def test_a_refused_key_ends_it_as_without_a_cluster(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster
) -> None:
    with FakeServer(api_key="another-key-0123456789") as server:
        lab = telling(tmp_path, server, 40)
        init_repository(lab)
        done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
    assert done.code == 3, done.out + done.err
    assert "Incorrect API key" in done.err
    assert API_KEY not in done.out + done.err


def test_what_is_wrong_with_the_program_is_said_by_the_workers(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster, server: FakeServer
) -> None:
    lab = telling(tmp_path, server, 4)
    lab.program.write_text("def build(style):\n    raise ValueError('no such style')\n")
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
    assert done.code == 2, done.out + done.err
    assert "no such style" in done.err
    assert "Traceback" not in done.err
    assert not server.requests


def test_what_does_not_fit_the_program_is_found_by_a_worker_before_the_first_call(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster, server: FakeServer
) -> None:
    metric = {"type": "exact_match", "field": "lable", "label": "label"}
    lab = telling(tmp_path, server, 4, metrics={"right": metric})
    lab.program.write_text("import dspy\ndef build(style):\n    return dspy.Predict('text, hint -> label')\n")
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
    assert done.code == 2, done.out + done.err
    assert (
        "metrics.right.field: answers of the program have no field 'lable': did you mean label?" in done.err
    )
    assert not server.requests
    lab.change({"metrics": {"right": {"field": "label"}}})
    done = cli_inside("run", "-c", lab.config, "--dask", str(shared.file), cwd=lab.root)
    assert done.code == 0, done.out + done.err
    assert "the program's input hint is not among these" in done.err


def test_optimized_programs_and_changed_metrics(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, shared: DaskCluster, server: FakeServer
) -> None:
    config = {
        "dataset": {"split": {"train": 0.4, "seed": 1}},
        "optimizers": {"shots": {"type": "LabeledFewShot", "params": {"k": 2}}},
        "matrix": {"model": ["fake"], "optimizer": ["none", "shots"]},
        "execution": {"dask": str(shared.file)},
    }
    lab = experiment(tmp_path, server_url=server.url, examples=tickets(20), config=config)
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert done.code == 0, done.out + done.err
    assert len(server.requests) == 24
    demonstrated = [len((record.body or {})["messages"]) for record in server.requests]
    assert sorted(Counter(demonstrated).values()) == [12, 12], "half of the prompts have demonstrations"

    lab.change({"metrics": {"close": {"type": "token_f1", "field": "label"}}})
    again = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert again.code == 0, again.out + again.err
    assert len(server.requests) == 24, "answers that are known are scored again, not asked for"
    assert {"accuracy", "close"} == set(rows(lab, "fake-shots")[0]["metrics"])


def test_a_worker_without_the_key_or_with_another_dspy_is_named(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, own: DaskCluster, server: FakeServer
) -> None:
    lab = telling(tmp_path, server, 4)
    init_repository(lab)
    other = own.folder / "other" / "dspy-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: dspy\nVersion: 9.9.9\n")
    own.add_worker(FAKE_API_KEY=None)
    own.add_worker(PYTHONPATH=str(other.parent))
    own.wait_for(2)
    done = cli_inside("run", "-c", lab.config, "--dask", str(own.file), cwd=lab.root)
    assert done.code == 3, done.out + done.err
    assert "2 of 2 workers can not be used" in done.err
    assert "models.fake (openai/fake) needs FAKE_API_KEY" in done.err
    assert "has dspy 9.9.9 instead of" in done.err
    assert not server.requests


def test_workers_that_join_late_help_unless_they_do_not_fit(
    tmp_path: Path,
    cli_inside: Cli,
    init_repository: InitRepository,
    own: DaskCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrived = str(own.folder / "arrived")
    own.add_worker(threads=1, ARRIVED=arrived)
    own.wait_for(1)

    def answer(request: ChatRequest) -> str:
        if len(server.requests) == 3:
            own.add_worker(threads=1, FAKE_API_KEY=None)
        return "[[ ## label ## ]]\nbug\n\n[[ ## completed ## ]]"

    def on_warning(record: logging.LogRecord) -> bool:
        if "is not used: API keys: models.fake (openai/fake) needs FAKE_API_KEY" in record.getMessage():
            own.add_worker(threads=1, ARRIVED=arrived, IS_LATE="1")
        return True

    monkeypatch.setattr(roster.logger, "filters", [on_warning])
    with FakeServer(answer) as server:
        lab = telling(tmp_path, server, 60, execution={"max_concurrency": 4})
        # The first worker waits in the middle of its work until the other has begun some.
        (lab.folder / "late.py").write_text(WAITING)
        init_repository(lab)
        done = cli_inside("run", "-c", lab.config, "--dask", str(own.file), cwd=lab.root)
        assert done.code == 0, done.out + done.err
        assert server.concurrency_peak <= 4
        assert len(server.requests) == 60
    processes = {row["prediction"]["process"] for row in rows(lab)}
    assert processes == {own.workers[0].pid, own.workers[2].pid}


def test_a_worker_without_a_way_to_the_endpoint_is_set_aside(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, own: DaskCluster
) -> None:
    with FakeServer("[[ ## label ## ]]\nbug\n\n[[ ## completed ## ]]", ttft_s=0.02) as server:
        # A firewall: the endpoint refuses that worker, once it has answered the other one.
        (tmp_path / "walled").mkdir()
        (tmp_path / "walled" / "sitecustomize.py").write_text(
            "import socket, time\n"
            "connect = socket.socket.connect\n"
            "def walled(self, address):\n"
            f"    if isinstance(address, tuple) and address[1] == {server.port}:\n"
            "        time.sleep(1)\n"
            "        raise ConnectionRefusedError(111, 'walled off')\n"
            "    return connect(self, address)\n"
            "socket.socket.connect = walled\n"
        )
        own.add_worker()
        own.add_worker(PYTHONPATH=str(tmp_path / "walled"))
        own.wait_for(2)
        lab = telling(tmp_path / "lab", server, 60, models={"fake": {"num_retries": 0}})
        init_repository(lab)
        done = cli_inside("run", "-c", lab.config, "--dask", str(own.file), cwd=lab.root)
    assert done.code == 0, done.out + done.err
    assert "is not used any more: models.fake: " in done.err
    assert len(rows(lab)) == 60
    assert all(row["error"] is None for row in rows(lab))


def test_a_frozen_worker_does_not_hold_up_the_others(
    tmp_path: Path,
    cli_inside: Cli,
    init_repository: InitRepository,
    own: DaskCluster,
    *,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roster, "_SILENCE_S", 2.0)
    frozen = own.add_worker()
    own.add_worker()
    own.wait_for(2)
    os.kill(frozen, signal.SIGSTOP)
    lab = telling(tmp_path, server, 20)
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", str(own.file), cwd=lab.root)
    assert done.code == 0, done.out + done.err
    assert "has been silent for 2 s: not waited for" in done.err
    assert len(rows(lab)) == 20


def test_an_example_that_kills_its_workers_is_a_failure_and_the_others_are_not(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, server: FakeServer
) -> None:
    lab = telling(tmp_path, server, 30)
    deadly = [{"text": "DEADLY", "label": "bug"}]
    lab.dataset.write_text("".join(json.dumps(row) + "\n" for row in tickets(20) + deadly + tickets(39)[20:]))
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", "local:2", cwd=lab.root, DEADLY="1")
    found = rows(lab)
    assert len(found) == 40, done.err
    failed = [row for row in found if row["error"]]
    assert [row["index"] for row in failed] == [20]
    assert failed[0]["error"]["type"] == "KilledWorker"
    assert done.code == 0, done.out + done.err


def stopped_midway(lab: Laboratory, cluster: DaskCluster, end: Callable[[], None]) -> tuple[int, str]:
    """Runs on a cluster, to which something happens once some examples are kept."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("dspylab"), "run", "-c", lab.config, "--dask", str(cluster.file)],
        cwd=lab.root,
        env={**os.environ, "FAKE_API_KEY": API_KEY},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    journals = lab.root / ".dspylab" / "journal"
    while process.poll() is None and time.monotonic() < deadline:
        if sum(path.read_bytes().count(b"\n") for path in journals.glob("*.jsonl")) > 10:
            break
        time.sleep(0.02)
    end_at = time.monotonic()
    end()
    out, _ = process.communicate(timeout=120)
    assert time.monotonic() - end_at < 60
    return process.returncode, out


@pytest.mark.parametrize("how", ["scheduler dies", "interrupted"])
def test_an_execution_that_ends_early_goes_on(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, own: DaskCluster, how: str
) -> None:
    own.add_worker()
    own.add_worker()
    own.wait_for(2)
    with FakeServer("[[ ## label ## ]]\nbug\n\n[[ ## completed ## ]]", ttft_s=0.1) as server:
        lab = telling(tmp_path, server, 200)
        init_repository(lab)

        def end() -> None:
            if how == "scheduler dies":
                own.scheduler.kill()
            else:
                os.kill(children(lab), signal.SIGINT)

        def children(lab: Laboratory) -> int:
            found = subprocess.run(
                ["pgrep", "-f", f"run -c {lab.config}"], capture_output=True, text=True, check=True
            )
            return int(found.stdout.split()[0])

        code, out = stopped_midway(lab, own, end)
        assert "Traceback" not in out
        if how == "scheduler dies":
            assert code == 3, out
            assert "the scheduler is gone: what is finished is kept" in out
        else:
            assert code == 130, out
        kept = len(rows(lab))
        assert 0 < kept < 200
        asked = len(server.requests)
        # All that was asked is kept, but for what was in flight when the scheduler died.
        assert kept == asked if how == "interrupted" else kept >= asked - 48
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)
        assert done.code == 0, done.out + done.err
        assert len(rows(lab)) == 200
        assert len(server.requests) == asked + 200 - kept


def test_a_frozen_scheduler_is_noticed(
    tmp_path: Path,
    cli_inside: Cli,
    init_repository: InitRepository,
    own: DaskCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(roster, "_SILENCE_S", 2.0)
    own.add_worker()
    own.wait_for(1)

    def answer(request: ChatRequest) -> str:
        if len(server.requests) == 20:
            assert own.scheduler.pid is not None
            os.kill(own.scheduler.pid, signal.SIGSTOP)
        return "[[ ## label ## ]]\nbug\n\n[[ ## completed ## ]]"

    with FakeServer(answer, ttft_s=0.05) as server:
        lab = telling(tmp_path, server, 200, execution={"max_concurrency": 4})
        init_repository(lab)
        done = cli_inside("run", "-c", lab.config, "--dask", str(own.file), cwd=lab.root)
    assert done.code == 3, done.out + done.err
    assert "has not answered for 2 s" in done.err


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://127.0.0.1:9", "no scheduler answers at tcp://127.0.0.1:9"),
        ("nowhere", "is no address of a Dask scheduler"),
        ("local:0", "is no address of a Dask scheduler"),
        ("absent.json", "no scheduler answers at absent.json"),
    ],
)
def test_addresses_that_lead_nowhere(
    tmp_path: Path,
    cli_inside: Cli,
    init_repository: InitRepository,
    server: FakeServer,
    *,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    said: str,
) -> None:
    from dspylab.execute import cluster

    monkeypatch.setattr(cluster, "_CONNECTING_S", 1.0)
    lab = experiment(tmp_path, server_url=server.url)
    init_repository(lab)
    done = cli_inside("run", "-c", lab.config, "--dask", address, cwd=lab.root)
    assert done.code in (2, 3), done.out + done.err
    assert said in done.err
    assert not server.requests
