"""Answers that were paid for are scored again when only metrics were changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import date
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest
from conftest import Cli, InitRepository, rows, summary
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from dspylab.execute.rescore import answered_before, is_exact, output_types
from dspylab.jsonable import to_json
from dspylab.record.schema import raw_schema, run_schema
from dspylab.records import DataRow
from dspylab.testing import ChatRequest, FakeServer, Fault, Laboratory, answer_key, experiment, tickets

METRICS = "def length(example, prediction):\n    return len(str(prediction.label))\n"
LENGTH = {"type": "path", "ref": "metrics.py:length"}
JUDGE = {"type": "llm_judge", "model": "judge", "params": {"rubric": "It helps."}}


def make(root: Path, server: FakeServer, program: str | None = None, **config: Any) -> Laboratory:
    """A laboratory whose metric `length` has a module of its own."""
    files = {"experiments/triage/metrics.py": METRICS}
    if program is not None:
        files["experiments/triage/program.py"] = program
        config = {"program": {"args": ...}, **config}
    metrics = {"length": LENGTH, **config.pop("metrics", {})}
    return experiment(root, server_url=server.url, config={"metrics": metrics, **config}, files=files)


def change_metric(lab: Laboratory, factor: int = 2) -> None:
    (lab.folder / "metrics.py").write_text(METRICS.replace("len(", f"{factor} * len("))


@pytest.fixture
def lab(tmp_path: Path, server: FakeServer, init_repository: InitRepository) -> Laboratory:
    made = make(tmp_path, server)
    init_repository(made)
    return made


def test_a_changed_metric_is_computed_without_a_call(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    before = rows(lab)

    change_metric(lab)
    lab.change({"metrics": {"accuracy": {"params": {"case_sensitive": True}}}})
    plan = cli_inside("plan", "-c", lab.config, cwd=lab.root, COLUMNS="200")
    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert "8 answers are kept" in plan.out
    assert "8 scored again without calling the program" in done.out
    assert len(server.requests) == 8
    for old, new in zip(before, rows(lab), strict=True):
        assert new["metrics"]["length"] == 2 * old["metrics"]["length"]
        assert (old["rescored"], new["rescored"]) == (False, True)
        for kept in ("prediction", "calls", "example_s", "started_at", "parse_failures", "exact_prediction"):
            assert new[kept] == old[kept], kept
        assert not list(Draft202012Validator(raw_schema()).iter_errors(new))
    info = json.loads((lab.raw("fake").parent / "run.json").read_text())
    assert not list(Draft202012Validator(run_schema()).iter_errors(info))
    assert "nothing to do" in cli_inside("run", "-c", lab.config, cwd=lab.root).out
    assert "up to date" in lab.dvc("status")


def test_dvc_scores_again_too_and_forced_it_really_executes(
    lab: Laboratory, server: FakeServer, cli: Cli, cli_inside: Cli
) -> None:
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0

    change_metric(lab)
    repro = cli("repro", cwd=lab.root, program="dvc")
    assert repro.code == 0, repro.err + repro.out
    assert "8 scored again" in repro.out
    assert len(server.requests) == 8
    forced = cli("repro", "-f", "triage@fake", cwd=lab.root, program="dvc")
    assert forced.code == 0, forced.err + forced.out
    assert len(server.requests) == 16
    change = "experiments/triage/experiment.yaml:metrics.accuracy.type=contains"
    varied = cli("exp", "run", "-S", change, cwd=lab.root, program="dvc")
    assert varied.code == 0, varied.err + varied.out
    assert len(server.requests) == 16
    assert "nothing to do" in cli_inside("run", "-c", lab.config, cwd=lab.root).out


def test_an_axis_that_is_added_renames_runs_and_asks_for_nothing_again(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    lab.change({"matrix": {"program.style": ["predict", "cot"]}})

    plan = cli_inside("plan", "-c", lab.config, cwd=lab.root, COLUMNS="240")
    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert plan.out.count("never run under this name; 8 answers are kept") == 1, plan.out
    assert done.code == 0, done.err
    assert len(server.requests) == 8 + 8
    assert "8 scored again" in done.out
    assert {row["run"] for row in rows(lab, "fake-predict")} == {"fake-predict"}
    # The results under the old name are in DVC's cache, so they need not lie beside the new ones.
    assert not lab.raw("fake").exists()
    assert "nothing to do" in cli_inside("run", "-c", lab.config, cwd=lab.root).out
    assert "up to date" in lab.dvc("status")


def test_two_models_with_the_same_settings_ask_twice(
    tmp_path: Path, server: FakeServer, cli_inside: Cli
) -> None:
    entry = {"model": "openai/fake", "api_base": server.url, "api_key_env": "FAKE_API_KEY"}
    lab = make(tmp_path, server, models={"fake": entry, "twin": entry}, matrix={"model": ["fake", "twin"]})
    for model in ("fake", "twin"):
        assert cli_inside("run-one", f"model={model}", cwd=lab.root).code == 0
    assert len(server.requests) == 16


def test_fresh_that_is_killed_before_a_run_began_goes_on_with_that_too(
    tmp_path: Path, server: FakeServer, init_repository: InitRepository, cli_inside: Cli
) -> None:
    lab = make(tmp_path, server, matrix={"model": ["fake"], "seed": [0, 1]}, execution={"max_concurrency": 1})
    init_repository(lab)
    assert cli_inside("run", cwd=lab.root).code == 0
    asked = len(server.requests)
    server.fail = lambda request: Fault("status", status=401) if request.number > asked + 3 else None
    assert cli_inside("run", "--fresh", cwd=lab.root).code != 0
    server.fail = None
    kept = sum(
        len(path.read_text().splitlines()) > 1 for path in (lab.root / ".dspylab/journal").glob("*.jsonl")
    )
    assert kept >= 1

    plan = cli_inside("plan", cwd=lab.root, COLUMNS="240")
    done = cli_inside("run", cwd=lab.root)

    assert done.code == 0, done.err
    assert plan.out.count("to be executed anew (--fresh was interrupted)") == 2, plan.out
    assert "raw.jsonl" not in plan.out
    assert "2 runs, 2 to execute" in plan.out + plan.err
    answered = [record for record in server.requests if record.fault is None]
    assert len(answered) == asked + 16
    assert "nothing to do" in cli_inside("run", cwd=lab.root).out


def test_results_that_dvc_recorded_under_an_older_pipeline_are_taken_over(
    lab: Laboratory, server: FakeServer, cli: Cli, cli_inside: Cli
) -> None:
    assert cli_inside("run", cwd=lab.root).code == 0
    (lab.folder / "helper.py").write_text("WORD = 1\n")
    lab.program.write_text("import helper  # noqa: F401\n" + lab.program.read_text())
    # dvc.yaml does not name helper.py yet.
    assert cli("repro", cwd=lab.root, program="dvc").code == 0
    assert len(server.requests) == 16

    assert cli_inside("run", cwd=lab.root).code == 0
    assert len(server.requests) == 16
    assert "up to date" in lab.dvc("status")


def test_what_came_with_the_repository_is_scored_again(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    shutil.rmtree(lab.root / ".dspylab")
    change_metric(lab)
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert len(server.requests) == 8
    assert {row["rescored"] for row in rows(lab)} == {True}


@pytest.mark.parametrize(
    "changes",
    [
        {"program": {"adapter": "json"}},
        {"models": {"fake": {"temperature": 0.5}}},
        {"program": {"files": ["metrics.py"]}},
    ],
)
def test_what_decides_answers_asks_for_new_ones(
    tmp_path: Path, server: FakeServer, cli_inside: Cli, changes: Mapping[str, Any]
) -> None:
    lab = make(tmp_path, server)
    assert cli_inside("run-one", cwd=lab.folder).code == 0
    lab.change(changes)
    assert cli_inside("run-one", cwd=lab.folder).code == 0
    assert len(server.requests) == 16


#: What the program says of the dataset's file, by what is changed.
SPELLED = {
    "a file that the code names": "NAME = 'tickets.jsonl'\n",
    "a file of a kind that the code names": "KIND = '*.jsonl'\n",
}


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ("a label", 0),
        ("an id", 0),
        ("the order", 0),
        ("the name of the file", 0),
        ("one more", 1),
        ("one less", 0),
        ("an input", 1),
        ("the name of the model", 0),
        ("a file that the code names", 8),
        ("a file of a kind that the code names", 8),
        ("training examples", 8),
    ],
)
def test_an_answer_is_kept_as_long_as_the_program_would_be_asked_the_same(
    tmp_path: Path, server: FakeServer, cli_inside: Cli, change: str, asked: int
) -> None:
    lab = make(tmp_path, server)
    lab.program.write_text(SPELLED.get(change, "") + lab.program.read_text())
    if change == "training examples":
        (lab.folder / "train.jsonl").write_text('{"text": "solved", "label": "bug"}\n')
        lab.change({"dataset": {"path": ..., "train": "train.jsonl", "test": lab.dataset.name}})
    assert cli_inside("run-one", cwd=lab.folder).code == 0
    examples = [json.loads(line) for line in lab.dataset.read_text().splitlines()]
    file, run = lab.dataset, "fake"
    match change:
        case "an id":
            examples[3]["id"] = "three"
            lab.change({"dataset": {"id": "id"}})
            examples = [{"id": f"{number}", **example} for number, example in enumerate(examples)]
        case "the order":
            examples.reverse()
        case "the name of the file":
            file = lab.folder / "other.jsonl"
            lab.change({"dataset": {"path": "other.jsonl"}})
        case "one more":
            examples.insert(0, {**examples[0], "text": "something new"})
        case "one less":
            del examples[2]
        case "an input":
            examples[2]["text"] = "something else"
        case "the name of the model":
            run = "renamed"
            entry = lab.read()["models"]["fake"]
            lab.change({"models": {"fake": ..., "renamed": entry}, "matrix": {"model": ["renamed"]}})
        case "training examples":
            (lab.folder / "train.jsonl").write_text('{"text": "solved", "label": "login"}\n')
        case _:
            examples[0]["label"] = "corrected"
    file.write_text("".join(json.dumps(example) + "\n" for example in examples))

    done = cli_inside("run-one", cwd=lab.folder)

    assert done.code == 0, done.err
    assert len(server.requests) == 8 + asked
    found = rows(lab, run)
    assert [row["inputs"]["text"] for row in found] == [example["text"] for example in examples]
    assert [row["labels"]["label"] for row in found] == [example["label"] for example in examples]
    assert sum(row["rescored"] for row in found) == len(examples) - asked
    assert {row["run"] for row in found} == {run}
    assert {call["model"] for row in found for call in row["calls"]} == {run}


def test_a_metric_that_the_program_imports_is_part_of_it(
    tmp_path: Path, server: FakeServer, cli_inside: Cli
) -> None:
    lab = make(tmp_path, server)
    lab.program.write_text("import metrics\n" + lab.program.read_text())
    assert cli_inside("run-one", cwd=lab.folder).code == 0
    change_metric(lab)
    assert cli_inside("run-one", cwd=lab.folder).code == 0
    assert len(server.requests) == 16


def test_an_unfinished_run_whose_metric_was_changed_keeps_its_answers(
    tmp_path: Path, cli_inside: Cli
) -> None:
    broken = {"now": True}

    def fail(request: ChatRequest) -> Fault | None:
        return Fault("status", status=503) if broken["now"] and "Ticket 2" in request.text else None

    with FakeServer(fail=fail) as server:
        lab = make(tmp_path, server, models={"fake": {"num_retries": 0}})
        assert cli_inside("run-one", cwd=lab.folder).code == 1
        shutil.rmtree(lab.folder / "results")  # as after a kill, or as DVC does
        broken["now"] = False
        change_metric(lab)
        done = cli_inside("run-one", cwd=lab.folder)

        assert done.code == 0, done.err
        assert "7 scored again" in done.out
        assert len(server.requests) == 9
    assert [row["rescored"] for row in rows(lab)] == [index != 2 for index in range(8)]


def test_fresh_asks_for_everything_also_when_it_goes_on(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository
) -> None:
    broken = {"now": False}

    def fail(request: ChatRequest) -> Fault | None:
        return Fault("status", status=503) if broken["now"] and "Ticket 2" in request.text else None

    with FakeServer(fail=fail) as server:
        lab = make(tmp_path, server, models={"fake": {"num_retries": 0}})
        init_repository(lab)
        assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
        change_metric(lab)
        broken["now"] = True
        assert cli_inside("run", "--fresh", "-c", lab.config, cwd=lab.root).code == 1
        assert len(server.requests) == 16
        broken["now"] = False
        assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
        assert len(server.requests) == 17
    assert {row["rescored"] for row in rows(lab)} == {False}


def test_a_failure_of_the_program_is_taken_over(tmp_path: Path, cli_inside: Cli) -> None:
    examples = tickets(8)

    def answer(request: ChatRequest) -> str:
        return "no structure at all" if "Ticket 3" in request.text else answer_key(examples)(request)

    with FakeServer(answer=answer) as server:
        lab = make(tmp_path, server)
        assert cli_inside("run-one", cwd=lab.folder).code == 0
        asked, before = len(server.requests), rows(lab)
        change_metric(lab)
        done = cli_inside("run-one", cwd=lab.folder)
        assert done.code == 0, done.err
        assert "7 scored again without calling the program, 1 failed" in done.out
        assert len(server.requests) == asked
    assert rows(lab)[3] == {**before[3], "rescored": True}


def test_the_budget_counts_what_was_paid_once(
    tmp_path: Path, server: FakeServer, cli_inside: Cli, init_repository: InitRepository
) -> None:
    lab = make(
        tmp_path,
        server,
        models={"judge": {"model": "openai/judge", "api_base": server.url, "api_key_env": "FAKE_API_KEY"}},
        matrix={"model": ["fake"]},
        budget={"max_calls": 10},
        execution={"max_concurrency": 1},
    )
    init_repository(lab)
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0

    lab.change({"metrics": {"helpful": JUDGE}})
    stopped = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert stopped.code == 4, stopped.out + stopped.err
    assert [request.model for request in server.requests] == ["fake"] * 8 + ["judge"] * 2
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 4
    assert len(server.requests) == 10

    lab.change({"budget": {"max_calls": 17}})
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert [request.model for request in server.requests] == ["fake"] * 8 + ["judge"] * 8
    assert summary(lab)["runs"]["fake"]["calls"]["by_role"] == {"task": 8, "judge": 8}


def test_an_answer_that_the_budget_left_unscored_is_kept(
    tmp_path: Path, server: FakeServer, cli_inside: Cli
) -> None:
    lab = make(
        tmp_path,
        server,
        models={"judge": {"model": "openai/judge", "api_base": server.url, "api_key_env": "FAKE_API_KEY"}},
        matrix={"model": ["fake"]},
        metrics={"helpful": JUDGE},
        budget={"max_calls": 5},
        execution={"max_concurrency": 1},
    )
    assert cli_inside("run-one", cwd=lab.folder).code == 4
    assert [request.model for request in server.requests] == ["fake", "judge", "fake", "judge", "fake"]
    assert len(rows(lab)) == 2, "it is no result yet"
    lab.change({"budget": {"max_calls": 17}})
    done = cli_inside("run-one", cwd=lab.folder)
    assert done.code == 0, done.err
    assert [request.model for request in server.requests[5:]] == ["judge", *["fake", "judge"] * 5]
    assert "1 scored again without calling the program" in done.out


TYPED = """
from enum import Enum

import dspy
from pydantic import BaseModel


class Team(Enum):
    PAYMENT = "payment"
    BUG = "bug"
    LOGIN = "login"
    DELIVERY = "delivery"


class Triage(dspy.Signature):
    text: str = dspy.InputField()
    label: Team = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self):
        super().__init__()
        self.route = dspy.Predict(Triage)

    def forward(self, text):
        label = self.route(text=text).label
        return dspy.Prediction(label=LABEL)


def build():
    return Program()
"""
KIND = "def length(example, prediction):\n    return len(prediction.label.name)\n"


@pytest.mark.parametrize(("label", "calls"), [("label", 8), ("type('Odd', (), {'name': label.name})()", 16)])
def test_typed_predictions_are_had_back_or_asked_for_again(
    tmp_path: Path, cli_inside: Cli, label: str, calls: int
) -> None:
    with FakeServer(answer=answer_key(tickets(8))) as server:
        lab = make(tmp_path, server, program=TYPED.replace("LABEL", label), metrics={"accuracy": ...})
        lab.change({"primary_metric": "length"})
        (lab.folder / "metrics.py").write_text(KIND)
        assert cli_inside("run-one", cwd=lab.folder).code == 0
        (lab.folder / "metrics.py").write_text(KIND.replace("len(", "10 * len("))
        done = cli_inside("run-one", cwd=lab.folder)
        assert done.code == 0, done.err
        assert len(server.requests) == calls
    assert [row["metrics"]["length"] for row in rows(lab)] == [70, 30, 50, 80] * 2


# --- what is exact


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 1


class Person(BaseModel):
    name: str
    born: date | None = None
    secret: str = Field("x", exclude=True)


def program(**fields: Any) -> dspy.Module:
    outputs = {name: (kind, dspy.OutputField()) for name, kind in fields.items()}
    return dspy.Predict(dspy.Signature({"text": (str, dspy.InputField()), **outputs}))


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (str, "red", True),
        (str, Colour.RED, False),
        (Colour, Colour.RED, True),
        (Colour, "red", False),
        (int, Level.HIGH, False),
        (Level, Level.HIGH, True),
        (float, 1, True),
        (float, float("nan"), False),
        (Any, {"a": [1, None, True, 0.5]}, True),
        (Any, (1, 2), False),
        (tuple[int, str], (1, "a"), True),
        (set[str], {"a", "b"}, True),
        (dict[int, str], {1: "a"}, True),
        (dict[str, list[Literal["a"]]], {"x": ["a"]}, True),
        (Person, Person(name="Ada", born=date(1815, 12, 10)), True),
        (Person, Person(name="Ada"), False),  # its JSON says that `born` was set
        (Person, Person(name="Ada", born=None, secret="y"), False),
        (list[Person], [Person(name="Ada", born=None)], True),
        (str, object(), False),
        (object, object(), False),
    ],
)
def test_a_prediction_is_exact_when_its_json_gives_the_same_values(
    kind: Any, value: Any, *, expected: bool
) -> None:
    types = output_types(program(label=kind))
    prediction = dspy.Prediction(label=value)
    recorded = {"label": to_json(value)}
    assert is_exact(prediction, recorded, types) is expected
    if expected:
        row = DataRow(index=0, example_id="a", inputs={"text": "t"}, labels={})
        stored = {
            "index": 0, "example_id": "a", "inputs": {"text": "t"}, "prediction": recorded, "example_s": 1.0,
            "exact_prediction": True, "started_at": 2.0, "parse_failures": 0, "calls": [],
        }  # fmt: skip
        again = answered_before(row, json.loads(json.dumps(stored)), types, "fake")
        assert again is not None
        assert again.prediction.toDict() == prediction.toDict()
        assert type(again.prediction.label) is type(value)
        assert answered_before(row, {**stored, "inputs": {"text": "other"}}, types, "fake") is None
        assert answered_before(row, {**stored, "exact_prediction": False}, types, "fake") is None


def test_more_than_fields_is_not_exact() -> None:
    class Verdict(dspy.Prediction):  # type: ignore[misc]  # dspy has no types
        pass

    recorded = {"label": "bug"}
    two = dspy.Prediction.from_completions([{"label": "bug"}, {"label": "login"}])
    one = dspy.Prediction.from_completions([{"label": "bug"}])
    assert is_exact(one, recorded, {})
    assert not is_exact(two, recorded, {})
    assert not is_exact(Verdict(label="bug"), recorded, {})


def test_a_field_with_two_types_has_none() -> None:
    class Two(dspy.Module):  # type: ignore[misc]  # dspy has no types
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = program(label=Colour, other=Colour), program(label=Level)

    assert set(output_types(Two())) == {"other"}


BROKEN = "def length(example, prediction):\n    return right\n"


def test_a_metric_that_raises_on_every_example_is_no_success(
    tmp_path: Path, server: FakeServer, init_repository: InitRepository, cli_inside: Cli
) -> None:
    matrix = {"model": ["fake"], "program.style": ["predict", "cot"]}
    lab = make(tmp_path, server, matrix=matrix, primary_metric="length")
    (lab.folder / "metrics.py").write_text(BROKEN)
    lab.change({"checks": {"length": {"min": 0.5}}})
    init_repository(lab)
    said = "length has no value for any example: NameError: name 'right' is not defined (on "

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 1
    (ended,) = (line for line in done.out.splitlines() if line.startswith("fake-predict: answered in "))
    assert ", but not scored: " in ended
    assert "mend the metric and run the same command again: the answers are kept" in done.err
    assert f"fake-predict, fake-cot: 16/16 examples, {said}" in done.err
    assert [run["complete"] for run in summary(lab)["runs"].values()] == [False, False]
    compared = cli_inside("compare", "-c", lab.config, cwd=lab.root)
    assert said in compared.err
    assert "dvc checkout" not in compared.err
    both = cli_inside("compare", "fake-cot", "fake-predict", "-c", lab.config, cwd=lab.root, COLUMNS="300")
    assert f"fake-cot: {said}" in both.out
    checked = cli_inside("check", "-c", lab.config, cwd=lab.root)
    assert checked.code == 1
    assert said in checked.out
    # Nothing is called again, and it is said again.
    again = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert again.code == 1
    assert said in again.err
    (lab.folder / "metrics.py").write_text(METRICS)
    mended = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert mended.code == 0, mended.err
    assert len(server.requests) == 16
    assert [run["complete"] for run in summary(lab)["runs"].values()] == [True, True]
    assert "every run has complete results" in cli_inside("check", "-c", lab.config, cwd=lab.root).out


def test_what_a_metric_lacked_outside_of_the_repository_is_no_reason_to_pay_again(
    tmp_path: Path, server: FakeServer, init_repository: InitRepository, cli_inside: Cli
) -> None:
    lab = make(tmp_path / "lab", server, primary_metric="length")
    word = tmp_path / "word.txt"
    (lab.folder / "metrics.py").write_text(
        f"from pathlib import Path\ndef length(*_):\n    return len(Path({str(word)!r}).read_text())\n"
    )
    init_repository(lab)
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 1
    word.write_text("four")

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert len(server.requests) == 8
    assert {row["metrics"]["length"] for row in rows(lab)} == {4.0}


def test_a_primary_metric_that_gives_only_parts_is_no_success(
    tmp_path: Path, server: FakeServer, init_repository: InitRepository, cli_inside: Cli
) -> None:
    lab = make(tmp_path, server, primary_metric="length")
    parts = 'def length(example, prediction):\n    return {"a": 1, "b": 2}\n'
    (lab.folder / "metrics.py").write_text(parts)
    init_repository(lab)

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 1
    assert "length has no value for any example: it gives length.a, length.b; name one of them" in done.err
    compared = cli_inside("compare", "-c", lab.config, cwd=lab.root)
    assert "length: has no value of its own: it gives length.a, length.b" in compared.err
    lab.change({"primary_metric": "length.b"})
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert len(server.requests) == 8
    assert summary(lab)["runs"]["fake"]["complete"]
    # DVC has recorded it by now. That nothing ranks it is said all the same, as often as it is asked.
    lab.change({"primary_metric": "length"})
    for _ in range(2):
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)
        assert done.code == 1
        assert "1 of 1 run has no score: mend the metric" in done.err
        assert "fake: length has no value for any example: it gives length.a" in done.err
