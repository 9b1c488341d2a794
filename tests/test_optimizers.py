"""Optimizers from the command line to the compiled program: DVC, HTTP and DSPy's own optimizers, all real."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
import pytest
from conftest import API_KEY, Cli, InitRepository, summary
from jsonschema import Draft202012Validator

from dspylab.config.models import Experiment
from dspylab.errors import EnvironmentProblem, RepositoryError
from dspylab.execute import cluster
from dspylab.lm.build import Models
from dspylab.lm.recorder import Recorder
from dspylab.lm.replies import Replies, noted
from dspylab.record.schema import compile_schema, summary_schema
from dspylab.records import LMCall
from dspylab.testing import (
    ChatRequest,
    FakeServer,
    Fault,
    Laboratory,
    answer_key,
    experiment,
    reply_fields,
    tickets,
)

ROWS = tickets(16)
#: Own optimizers, some of which go wrong.
OWN = """

def embed(texts):
    import numpy

    return numpy.array([[len(text), text.count("e"), text.count("a")] for text in texts], dtype=float)


def first_ones(student, trainset, k=1, seed=None):
    program = student.deepcopy()
    for predictor in program.predictors():
        predictor.demos = trainset[:k]
        predictor.signature = predictor.signature.with_instructions(f"Seed {seed}.")
    return program


class Own:
    def __init__(self, k=1):
        self.k = k

    def compile(self, student, *, trainset):
        return first_ones(student, trainset, self.k)


def broken(student, trainset):
    raise RuntimeError("no luck today")


def careless(student, trainset):
    for example in trainset:
        try:
            student(**example.inputs())
        except BaseException:
            pass
    return student


def around(student, trainset):
    class Around(dspy.Module):
        def __init__(self):
            super().__init__()
            self.inner = student

    return Around()
"""
BOOT: dict[str, Any] = {
    "type": "BootstrapFewShot",
    "params": {"max_bootstrapped_demos": 2, "max_labeled_demos": 2},
}
LABELED = {"type": "LabeledFewShot", "params": {"k": 2}}


Make = Callable[..., Laboratory]


@pytest.fixture
def make(tmp_path: Path, init_repository: InitRepository) -> Make:
    """Writes an experiment with eight training and eight test tickets, and with OWN in its program."""

    def make(
        url: str, config: Mapping[str, Any], rows: Sequence[Mapping[str, str]] = ROWS, name: str = "lab"
    ) -> Laboratory:
        prices = {"pricing": {"input": 1.0, "output": 2.0}}
        endpoint = {"model": "openai/other", "api_base": url, "api_key_env": "FAKE_API_KEY", "max_tokens": 64}
        base: dict[str, Any] = {
            "dataset": {"path": "tickets.jsonl", "inputs": ["text"], "split": {"train": 0.5, "seed": 1}},
            "models": {"fake": prices, "other": {**endpoint, **prices}},
        }
        lab = experiment(tmp_path / name, server_url=url, config=base, examples=rows)
        lab.change(config)
        lab.program.write_text(lab.program.read_text() + OWN)
        init_repository(lab)
        return lab

    return make


def record(lab: Laboratory, key: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((lab.folder / "programs" / f"{key}.record.json").read_text())
    return loaded


def program(lab: Laboratory, key: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((lab.folder / "programs" / f"{key}.json").read_text())
    return loaded


def assert_valid(schema: Mapping[str, Any], document: Any) -> None:
    problems = [error.message for error in Draft202012Validator(schema).iter_errors(document)]
    assert not problems, problems[:5]


def only_with_help(request: ChatRequest) -> str:
    """A model that knows the label when it is shown a solved ticket, and says payment otherwise."""
    has_demos = len(request.messages) > 2
    return answer_key(ROWS)(request) if has_demos else reply_fields(request, {"label": "payment"})


def test_a_whole_matrix_compiles_once_and_shows_cost_and_gain(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=only_with_help) as server:
        matrix = {
            "model": ["fake", "other"],
            "program.style": ["predict", "cot"],
            "optimizer": ["none", "fewshot", "boot"],
        }
        config = {"optimizers": {"fewshot": LABELED, "boot": BOOT}, "matrix": matrix}
        lab = make(server.url, config)
        done = cli_inside("run", "-q", cwd=lab.root)
        assert done.code == 0, done.err
        assert "compile" in done.out
        assert "gain" in done.out

        assert len(list((lab.folder / "programs").glob("*.record.json"))) == 8
        made = record(lab, "boot-fake-predict")
        assert_valid(compile_schema(), made)
        assert made["calls"] == 2
        assert made["cost_usd"] > 0
        assert [demo["augmented"] for demo in program(lab, "boot-fake-predict")["demos"]] == [True, True]
        document = summary(lab)
        assert_valid(summary_schema(), document)
        optimized = document["runs"]["fake-cot-boot"]["compile"]
        assert optimized["program"] == "boot-fake-cot"
        assert optimized["gain"]["baseline"] == "fake-cot-none"
        assert optimized["gain"]["difference"] > 0
        assert optimized["cost_per_point_usd"] == pytest.approx(
            optimized["cost_usd"] / (100 * optimized["gain"]["difference"])
        )
        assert document["runs"]["fake-cot-none"]["compile"] is None
        assert document["runs"]["fake-cot-boot"]["calls"]["by_role"] == {"task": 8}
        runs = document["runs"].values()
        total = sum(run["cost_usd"]["total"] for run in runs)
        compiled = {run["compile"]["program"]: run["compile"]["cost_usd"] for run in runs if run["compile"]}
        metrics = json.loads((lab.folder / "metrics.json").read_text())
        assert metrics["cost_usd"] == pytest.approx(total + sum(compiled.values()), rel=1e-5)
        # It is DSPy's own format.
        plain = dspy.ChainOfThought("text -> label")
        plain.load(lab.folder / "programs" / "boot-fake-cot.json")
        assert len(plain.predict.demos) == 2

        before = len(server.requests)
        again = cli_inside("run", cwd=lab.root)
        assert (again.code, len(server.requests)) == (0, before)
        assert "nothing to do" in again.out
        assert "up to date" in lab.dvc("status")
        planned = cli_inside("plan", cwd=lab.root)
        assert "8 programs, 0 to compile; 12 runs, nothing to do" in planned.out + planned.err

        # Another k compiles and runs again what uses it, and nothing else.
        lab.change({"optimizers": {"fewshot": {"params": {"k": 1}}}})
        planned = cli_inside("plan", cwd=lab.root)
        assert "8 programs, 4 to compile; 12 runs, 4 to execute" in planned.out + planned.err
        kept = program(lab, "boot-fake-cot")
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        assert len(program(lab, "fewshot-fake-predict")["demos"]) == 1
        assert program(lab, "boot-fake-cot") == kept
        assert len(server.requests) == before + 4 * 8

        difference = cli_inside("diff-program", "none", "fake-cot-fewshot", cwd=lab.root)
        assert difference.code == 0, difference.err
        assert "-no demonstrations" in difference.out
        assert "+demonstration 1 (labeled):" in difference.out
        same = cli_inside("diff-program", "boot-fake-cot", "fake-cot-boot", cwd=lab.root)
        assert "are the same" in same.out + same.err
        unknown = cli_inside("diff-program", "none", "boot-fake-cott", cwd=lab.root)
        assert unknown.code == 2
        assert "did you mean boot-fake-cot?" in unknown.err


def test_dvc_repro_does_the_same_as_run(make: Make, cli: Cli, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        config = {"optimizers": {"boot": BOOT}, "matrix": {"optimizer": ["none", "boot"]}}
        by_run = make(server.url, config, name="run")
        by_dvc = make(server.url, config, name="dvc")
        assert cli_inside("run", "-q", cwd=by_run.root).code == 0
        asked = len(server.requests)
        assert cli_inside("sync", cwd=by_dvc.root).code == 0
        repro = cli("repro", "--quiet", cwd=by_dvc.root, program="dvc")
        assert repro.code == 0, repro.err
        assert len(server.requests) == 2 * asked
        assert program(by_run, "boot-fake") == program(by_dvc, "boot-fake")
        ours, theirs = (record(lab, "boot-fake") for lab in (by_run, by_dvc))
        for made in (ours, theirs):
            del made["compile_s"]
        assert ours == theirs

        for lab in (by_run, by_dvc):
            again = cli_inside("run", cwd=lab.root)
            assert "nothing to do" in again.out, again.out + again.err
        # What `run` recorded is what `dvc repro` would have: it skips every stage.
        skipped = by_run.dvc("repro")
        assert "Running" not in skipped
        assert "triage-compile@boot-fake" in skipped
        assert len(server.requests) == 2 * asked


def test_other_test_examples_recompile_nothing(make: Make, cli: Cli, cli_inside: Cli) -> None:
    """Also when they stand in the file that the training examples come from, which DVC sees as a whole."""
    rows = [{"id": f"t{number}", **row} for number, row in enumerate(ROWS)]
    with FakeServer(answer=answer_key(ROWS)) as server:
        config = {
            "dataset": {"id": "id"},
            "optimizers": {"boot": BOOT},
            "matrix": {"optimizer": ["boot"]},
        }
        lab = make(server.url, config, rows)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        tested = {row["example_id"] for row in map(json.loads, lab.raw("fake-boot").read_text().splitlines())}
        assert len(server.requests) == 2 + 8
        changed = [{**row, "text": f"{row['text']} Really."} if row["id"] in tested else row for row in rows]
        lab.dataset.write_text("".join(json.dumps(row) + "\n" for row in changed))
        made = record(lab, "boot-fake")

        kept = cli_inside("compile-one", "optimizer=boot", cwd=lab.root)
        assert kept.code == 0
        assert "kept" in kept.out + kept.err
        repro = cli("repro", "--quiet", "triage-compile@boot-fake", cwd=lab.root, program="dvc")
        assert repro.code == 0, repro.err
        assert len(server.requests) == 2 + 8
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        assert len(server.requests) == 2 + 8 + 8
        assert record(lab, "boot-fake") == made
        assert "up to date" in lab.dvc("status")


def test_every_optimizer_compiles_a_program_that_runs(make: Make, cli_inside: Cli) -> None:
    def answer(request: ChatRequest) -> str:
        if request.field("text") is None:  # an optimizer asks for instructions, rules or summaries
            return reply_fields(request, {"new_instruction": "Read it twice."})
        if "Read it twice." in request.system:
            return answer_key(ROWS)(request)
        return only_with_help(request)

    few = {"max_bootstrapped_demos": 1, "max_labeled_demos": 1}
    optimizers: dict[str, Any] = {
        "labeled": LABELED,
        "boot": {**BOOT, "lms": {"teacher": "other"}},
        "search": {
            "type": "BootstrapFewShotWithRandomSearch",
            "params": {**few, "num_candidate_programs": 1},
        },
        "mipro": {
            "type": "MIPROv2",
            "params": {"auto": None, "num_candidates": 2, "num_trials": 1, "minibatch": False, **few},
            "lms": {"prompt_model": "other"},
        },
        "copro": {"type": "COPRO", "params": {"breadth": 2, "depth": 1}},
        "simba": {
            "type": "SIMBA",
            "params": {"bsize": 4, "num_candidates": 2, "max_steps": 1, "max_demos": 1},
        },
        "gepa": {"type": "GEPA", "params": {"max_metric_calls": 30}, "lms": {"reflection_lm": "other"}},
        "knn": {"type": "KNNFewShot", "params": {"k": 2, "vectorizer": "program.py:embed", **few}},
        "together": {
            "type": "BetterTogether",
            "params": {"optimizers": {"a": "labeled", "b": "boot"}, "strategy": "a -> b"},
        },
        "ensemble": {"type": "Ensemble", "params": {"programs": ["labeled", "boot"]}},
        "rules": {"type": "InferRules", "params": {"num_candidates": 1, **few}},
        "function": {"path": "program.py:first_ones", "params": {"k": 2}},
        "class": {"path": "program.py:Own", "params": {"k": 2}},
    }
    with FakeServer(answer=answer) as server:
        config = {
            "dataset": {"split": {"train": 0.5, "validation": 0.2, "seed": 1}},
            "optimizers": optimizers,
            "matrix": {"model": ["fake"], "optimizer": list(optimizers), "seed": [3]},
        }
        lab = make(server.url, config)
        done = cli_inside("run", "-q", cwd=lab.root)
        assert done.code == 0, done.out + done.err
        assert "Bootstrapped" not in done.out
        assert "Average Metric" not in done.out + done.err

        for name in optimizers:
            made = record(lab, f"{name}-fake-seed3")
            assert_valid(compile_schema(), made)
            assert (made["seed"], made["train"], made["validation"]) == (3, 8, 3)
            assert made["validation_score"]["score"]["n"] + made["validation_score"]["failed"] == 3
        assert all(run["examples"]["failed"] == 0 for run in summary(lab)["runs"].values())
        gepa = program(lab, "gepa-fake-seed3")
        assert gepa["signature"]["instructions"] == "Read it twice."
        assert summary(lab)["runs"]["fake-gepa-seed3"]["metrics"]["accuracy"]["mean"] == 1.0
        assert record(lab, "gepa-fake-seed3")["models"] == {"task": "fake", "reflection_lm": "other"}
        assert program(lab, "function-fake-seed3")["signature"]["instructions"] == "Seed 3."
        assert {"programs[0]", "programs[1]"} <= program(lab, "ensemble-fake-seed3").keys()
        assert any(request.body and request.body["model"] == "other" for request in server.requests)
        before = len(server.requests)
        assert "nothing to do" in cli_inside("run", cwd=lab.root).out
        assert len(server.requests) == before


def test_a_run_without_its_program_says_what_compiles_it(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        matrix = {"model": ["fake"], "optimizer": ["labeled"], "lm.stop": ["the end"]}
        lab = make(server.url, {"optimizers": {"labeled": LABELED}, "matrix": matrix})
        refused = cli_inside("run-one", "-q", cwd=lab.root)
        assert refused.code == 2
        advised = refused.err.partition("compile it first: dspylab ")[2]
        assert cli_inside(*shlex.split(advised), cwd=lab.root).code == 0, advised
        assert cli_inside("run-one", "-q", cwd=lab.root).code == 0


def test_a_program_that_compiles_badly_fails_its_own_runs_only(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        optimizers = {
            "broken": {"path": "program.py:broken"},
            "around": {"path": "program.py:around"},
            "labeled": LABELED,
        }
        config = {"optimizers": optimizers, "matrix": {"model": ["fake"], "optimizer": ["none", *optimizers]}}
        lab = make(server.url, config)
        done = cli_inside("run", "-q", cwd=lab.root)
        assert done.code == 1
        assert "fake-broken: 0/8 examples, its program broken-fake is not compiled: RuntimeError" in done.err
        assert "no luck today" in done.err
        assert "with other predictors than the factory's" in done.err
        assert set(summary(lab)["runs"]) == {"fake-none", "fake-labeled"}
        one = cli_inside("compile-one", "optimizer=broken", "-q", cwd=lab.root)
        assert one.code == 1
        assert "no luck today" in one.err
        early = cli_inside("run-one", "optimizer=broken", "-q", cwd=lab.root)
        assert early.code == 2
        assert "dspylab compile-one --config" in early.err


def test_only_a_compile_that_was_paid_for_is_saved_when_its_runs_fail(make: Make, cli_inside: Cli) -> None:
    labels = answer_key(ROWS)
    optimizers = {
        "labeled": LABELED,
        "careless": {"path": "program.py:careless"},
    }
    with FakeServer(answer=labels) as server:
        lab = make(
            server.url,
            {
                "optimizers": optimizers,
                "matrix": {"model": ["fake"], "optimizer": ["none", "labeled"]},
                "metrics": {"own": {"type": "path", "ref": "program.py:broken"}},
                "primary_metric": "own",
            },
        )
        done = cli_inside("run", cwd=lab.root)
        assert done.code == 1
        assert "labeled-fake: compiled" in done.out
        assert "not saved as a DVC experiment: no run was completed and recorded" in done.out
        lab.change({"matrix": {"model": ["fake"], "optimizer": ["none", "careless"]}})
        assert "saved as the DVC experiment" in cli_inside("run", cwd=lab.root).out


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"type": "GEPA"}, "GEPA refuses it: Exactly one of max_metric_calls"),
        (
            {"path": "program.py:broken", "params": {"q": 1}},
            "params.q: program.py:broken has no such parameter",
        ),
        ({"path": "program.py:brokn"}, "did you mean broken?"),
    ],
)
def test_what_an_optimizer_refuses_is_said_before_anything_runs(
    make: Make,
    server: FakeServer,
    cli_inside: Cli,
    entry: dict[str, Any],
    problem: str,
) -> None:
    config = {"optimizers": {"o": entry}, "matrix": {"optimizer": ["none", "o"]}}
    lab = make(server.url, config)
    done = cli_inside("run", "-q", cwd=lab.root)
    assert done.code == 2
    assert problem in done.err
    assert "experiment.yaml:" in done.err or "program.py" in done.err
    assert not server.requests


def test_the_budget_ends_a_compile_and_what_it_spent_counts(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        config = {
            "optimizers": {"careless": {"path": "program.py:careless"}},
            "matrix": {"model": ["fake"], "optimizer": ["careless"]},
            "budget": {"max_calls": 3},
        }
        lab = make(server.url, config)
        for _ in range(2):  # the second time nothing is left of it
            done = cli_inside("run", "-q", cwd=lab.root)
            assert done.code == 4
            assert "max_calls of 3 is reached" in done.err
            assert len(server.requests) == 3
            assert not (lab.folder / "programs" / "careless-fake.json").exists()
        lab.change({"budget": {"max_calls": 100}})
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        assert len(server.requests) == 8 + 8
        assert record(lab, "careless-fake")["calls"] == 8


@pytest.mark.parametrize("trouble", ["no key", "no cluster"])
def test_a_fresh_that_can_not_begin_keeps_what_there_is(
    make: Make, cli_inside: Cli, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(cluster, "_CONNECTING_S", 1.0)
    with FakeServer(answer=answer_key(ROWS)) as server:
        config = {
            "optimizers": {"careless": {"path": "program.py:careless"}},
            "matrix": {"model": ["fake"], "optimizer": ["none", "careless"]},
        }
        lab = make(server.url, config)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        options = ["--dask", "tcp://127.0.0.1:9"] if trouble == "no cluster" else []
        variables = {"FAKE_API_KEY": ""} if trouble == "no key" else {}
        failed = cli_inside("run", "-q", "--fresh", *options, cwd=lab.root, **variables)
        assert failed.code == 3, failed.out + failed.err
        assert "nothing to do" in cli_inside("run", cwd=lab.root).out


def test_a_fresh_compile_that_was_stopped_goes_on(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        config = {
            "optimizers": {"careless": {"path": "program.py:careless"}},
            "matrix": {"model": ["fake"], "optimizer": ["careless"]},
        }
        lab = make(server.url, config)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        assert len(server.requests) == 8 + 8
        lab.change({"budget": {"max_calls": 3}})
        assert cli_inside("run", "-q", "--fresh", cwd=lab.root).code == 4
        assert len(server.requests) == 16 + 3
        lab.change({"budget": {"max_calls": 100}})

        assert cli_inside("run", "-q", cwd=lab.root).code == 0

        # The other five calls of the compile, and its run anew unless the program is the same again.
        assert len(server.requests) in {16 + 8, 16 + 8 + 8}
        assert not list((lab.root / ".dspylab" / "compile").glob("*/anew"))
        assert "nothing to do" in cli_inside("run", cwd=lab.root).out


def test_the_metric_of_a_nested_optimizer_decides_the_program(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        config = {
            "metrics": {"own": {"type": "contains", "field": "label"}},
            "optimizers": {
                "few": {**BOOT, "metric": "own"},
                "both": {
                    "type": "BetterTogether", "metric": "accuracy",
                    "params": {"optimizers": {"p": "few"}, "strategy": "p"},
                },
            },
            "matrix": {"model": ["fake"], "optimizer": ["both"]},
        }  # fmt: skip
        lab = make(server.url, config)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        asked = len(server.requests)
        lab.change({"metrics": {"own": {"params": {"case_sensitive": True}}}})
        assert "0 to compile" not in cli_inside("plan", cwd=lab.root).out
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        assert len(server.requests) > asked


def test_a_wrong_key_is_no_program(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS), api_key="another") as server:
        config = {"optimizers": {"boot": BOOT}, "matrix": {"model": ["fake"], "optimizer": ["boot"]}}
        lab = make(server.url, config)
        done = cli_inside("run", "-q", cwd=lab.root)
        assert done.code == 3
        assert "check the key" in done.err
        assert not (lab.folder / "programs").exists()


def test_what_an_outage_left_unanswered_is_not_charged_to_the_next_session(
    make: Make, cli_inside: Cli
) -> None:
    down = [Fault("status")] * 50
    with FakeServer(answer=answer_key(ROWS), fail=lambda _: down.pop() if down else None) as server:
        config = {
            "models": {"fake": {"num_retries": 0}},
            "optimizers": {"boot": BOOT},
            "matrix": {"model": ["fake"], "optimizer": ["boot"]},
        }
        lab = make(server.url, config)
        failed = cli_inside("compile-one", cwd=lab.root)
        assert failed.code == 1
        assert "calls was answered" in failed.err
        (folder,) = (lab.root / ".dspylab" / "compile").iterdir()
        (folder / "boot").mkdir()

        down[:] = []
        done = cli_inside("compile-one", cwd=lab.root)

        assert done.code == 0, done.err
        assert "not answered" not in done.err
        assert record(lab, "boot-fake")["failed_calls"] == 0
        asked = len(server.requests)
        assert record(lab, "boot-fake")["calls"] == asked

        down[:] = [Fault("status")]
        done = cli_inside("compile-one", "--fresh", cwd=lab.root)
        assert done.code == 0, done.err
        calls = len(server.requests) - asked
        assert f"boot-fake: 1 of {calls} calls were not answered (" in done.err
        assert (record(lab, "boot-fake")["failed_calls"], record(lab, "boot-fake")["calls"]) == (1, calls)


def test_the_time_of_a_session_ends_with_its_last_reply(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    lines = [
        {"session": 100.0},
        {"call": {"error": None, "started_at": 101.0, "latency_s": 1.0}},
        {"call": {"error": "down", "started_at": 150.0, "latency_s": None}},
        {"session": 200.0},
        {"call": {"error": "down", "started_at": 230.0, "latency_s": None}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert noted(path).duration_s == 2.0
    assert noted(path).unanswered == ["down"]
    path.write_text(path.read_text() + '{"session": 300.0}\n')
    assert noted(path).unanswered == []
    assert len(noted(path).calls) == 3


def test_a_killed_compile_goes_on_and_pays_for_no_call_twice(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS), ttft_s=0.02) as server:
        search = {"max_bootstrapped_demos": 1, "max_labeled_demos": 1, "num_candidate_programs": 1}
        config = {
            "models": {"fake": {"max_concurrency": 1}},
            "optimizers": {"search": {"type": "BootstrapFewShotWithRandomSearch", "params": search}},
            "matrix": {"model": ["fake"], "optimizer": ["search"]},
        }
        lab = make(server.url, config)
        binary = Path(sys.executable).parent / "dspylab"
        for ending in (signal.SIGKILL, signal.SIGINT):
            enough = len(server.requests) + 6
            process = subprocess.Popen(
                [binary, "compile-one", "-q"], cwd=lab.root, env={**os.environ, "FAKE_API_KEY": API_KEY}
            )
            while len(server.requests) < enough:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(ending)
            assert process.wait(timeout=60) == (-signal.SIGKILL if ending == signal.SIGKILL else 130)
            assert not (lab.folder / "programs").exists()
        assert cli_inside("compile-one", "-q", cwd=lab.root).code == 0
        asked = Counter(json.dumps(request.body, sort_keys=True) for request in server.requests)
        # The one call that was in flight at the kill is lost; nobody knows its answer.
        assert sum(asked.values()) - len(asked) <= 1
        assert record(lab, "search-fake")["calls"] == len(asked)
        assert not list((lab.root / ".dspylab" / "compile").iterdir())


def test_gepa_goes_on_from_its_own_state(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS[:4])) as server:
        gepa = {"type": "GEPA", "params": {"max_metric_calls": 40}}
        config = {
            "optimizers": {"gepa": gepa},
            "matrix": {"model": ["fake"], "optimizer": ["gepa"]},
            "budget": {"max_calls": 10},
        }
        lab = make(server.url, config)
        assert cli_inside("compile-one", "-q", cwd=lab.root).code == 4
        assert list((lab.root / ".dspylab" / "compile").glob("*/gepa/gepa_state*"))
        lab.change({"budget": ...})
        assert cli_inside("compile-one", "-q", cwd=lab.root).code == 0
        asked = Counter(json.dumps(request.body, sort_keys=True) for request in server.requests)
        assert record(lab, "gepa-fake")["calls"] == len(server.requests)
        assert max(asked.values()) == 1


def test_one_compile_serves_several_models(make: Make, cli_inside: Cli) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        matrix = {"model": ["fake", "other"], "compile_model": ["other"], "optimizer": ["none", "boot"]}
        config = {"optimizers": {"boot": BOOT}, "matrix": matrix}
        lab = make(server.url, config)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        assert [path.name for path in (lab.folder / "programs").glob("*.record.json")] == [
            "boot-other.record.json"
        ]
        runs = summary(lab)["runs"]
        assert set(runs) == {"fake-none", "other-none", "fake-other-boot", "other-other-boot"}
        assert runs["fake-other-boot"]["compile"]["gain"]["baseline"] == "fake-none"
        assert runs["fake-other-boot"]["compile"]["program"] == "boot-other"
        assert len(server.requests) == 2 + 4 * 8


def test_a_test_example_among_the_validation_examples_is_an_error(
    make: Make, server: FakeServer, cli_inside: Cli
) -> None:
    files = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "tickets.jsonl"}
    config = {
        "dataset": {"path": ..., "split": ..., **files},
        "optimizers": {"labeled": LABELED},
        "matrix": {"optimizer": ["labeled"]},
    }
    lab = make(server.url, config)
    others = tickets(20)[16:]
    (lab.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    (lab.folder / "dev.jsonl").write_text(json.dumps(ROWS[3]) + "\n")
    done = cli_inside("run", "-q", cwd=lab.root)
    assert done.code == 2
    assert "is also validation example" in done.err


def test_a_compile_asks_for_each_reply_once(tmp_path: Path) -> None:
    with FakeServer(answer="four") as server:
        document = {
            "name": "x",
            "program": {"path": "program.py"},
            "dataset": {"path": "rows.jsonl", "inputs": ["text"]},
            "models": {"fake": {"model": "openai/fake", "api_base": server.url, "api_key_env": "KEY"}},
            "metrics": {"accuracy": {"type": "exact_match"}},
        }
        path = tmp_path / "calls.jsonl"

        def session(*calls: dict[str, Any]) -> list[Any]:
            with (
                Models(Experiment.model_validate(document), ["fake"], tmp_path, {"KEY": "k"}) as models,
                Replies(path) as replies,
                Recorder(names={}, role="optimizer", replies=replies).context(disable_history=True),
            ):
                lm = models.lm("fake", {})
                return [lm("two and two?", **call) for call in calls]

        assert session({}, {}) == [["four"], ["four"]]
        assert len(server.requests) == 1
        # Another rollout, another temperature, and a caller that wants no cache, get replies of their own.
        session(
            {"rollout_id": 1, "temperature": 1.0}, {"rollout_id": 2, "temperature": 1.0}, {"cache": False}
        )
        assert len(server.requests) == 4
        # Several candidates are several calls, and a later session finds all of them again.
        assert session({"n": 2, "temperature": 1.0}) == [["four", "four"]]
        assert len(server.requests) == 6
        path.write_bytes(path.read_bytes() + b'{"key": "torn')
        session({}, {"rollout_id": 2, "temperature": 1.0}, {"n": 2, "temperature": 1.0})
        assert len(server.requests) == 6
        assert len(noted(path).calls) == 6
        assert all(call["role"] == "optimizer" for call in noted(path).calls)


def test_replies_of_one_compile_are_of_one_process(tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef" / "calls.jsonl"
    with Replies(path) as held:
        said = "compile 0123456789ab: is being compiled by another process: wait until it is done"
        with pytest.raises(RepositoryError, match=said), Replies(path):
            pass
        held.note(LMCall(model="m", cached=True))
        held.note(LMCall(model="m", cost_usd=0.5))
    # It came after the end of a compile that was stopped.
    held.note(LMCall(model="m", cost_usd=9.0))
    assert [call["cost_usd"] for call in noted(path).calls] == [0.5]


def test_replies_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match="calls"), Replies(tmp_path / "file" / "calls.jsonl"):
        pass
    path = tmp_path / "calls.jsonl"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Replies(path) as replies:
        replies.note(LMCall(model="m"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, hard))
        try:
            for _ in range(2):  # half a line would spoil the next one, too
                with pytest.raises(EnvironmentProblem, match=r"calls\.jsonl"):
                    replies.note(LMCall(model="m" * 2000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        replies.note(LMCall(model="after"))
    assert [call["model"] for call in noted(path).calls] == ["m", "after"]
