"""What is wrong with the parameters of an optimizer is known before the first call, and has a line."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
from conftest import Cli, InitRepository

from dspylab.config.annotations import annotated, declared
from dspylab.config.models import Optimizer
from dspylab.config.optimizers import check_type, dspy_signature
from dspylab.optimize.build import signature_of
from dspylab.optimize.sizes import Sizes, too_few
from dspylab.testing import FakeServer, Fault, answer_key, experiment, tickets

ROWS = tickets(16)
OWN = """

def first_ones(student, trainset, k: int = 1):
    raise RuntimeError("no luck today")
"""


def refused(kind: str, **params: Any) -> list[str]:
    entry = Optimizer.model_validate({"type": kind, "params": params})
    found = check_type(entry, ("optimizers", "o"))
    return [f"{defect.address[-1]} {defect.problem}: {defect.remedy}" for defect in found]


@pytest.mark.parametrize(
    ("kind", "params", "problem"),
    [
        (
            "LabeledFewShot",
            {"k": "four"},
            "k must be a whole number, not 'four': write digits, without a unit",
        ),
        ("LabeledFewShot", {"k": True}, "k must be a whole number, not true: write a whole number"),
        (
            "SIMBA",
            {"bsize": None},
            "bsize has no value; it must be a whole number: give it one, or take it out",
        ),
        ("MIPROv2", {"auto": "lite"}, "auto 'lite' is not known here: did you mean light?"),
        ("GEPA", {"gepa_kwargs": 3}, "gepa_kwargs must be a mapping (key: value) or null, not the number 3"),
        (
            "KNNFewShot",
            {"max_rounds": "2"},
            "max_rounds must be a whole number, not '2': take the quotes away",
        ),
    ],
)
def test_a_value_that_dspys_own_source_says_is_none(kind: str, params: dict[str, Any], problem: str) -> None:
    (found,) = refused(kind, **params)
    assert found.startswith(problem)


def test_what_dspy_takes_is_not_refused() -> None:
    assert refused("LabeledFewShot", k=4) == []
    assert refused("MIPROv2", auto=None, max_errors=None, init_temperature=1, verbose=True) == []
    assert refused("GEPA", component_selector="all", instruction_proposer="program.py:propose") == []
    assert refused("LabeledFewShot", trainset=3) == [
        "trainset is not set here: it is the training examples of dataset"
    ]


@pytest.mark.parametrize("name", ["LabeledFewShot", "BootstrapFewShotWithRandomSearch", "MIPROv2", "COPRO"])
def test_the_defaults_of_dspy_are_what_its_source_says(name: str) -> None:
    from dspy import teleprompt

    signature = dspy_signature(name)
    assert signature is not None
    parameters = inspect.signature(getattr(teleprompt, name).__init__).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.name in signature.params}
    assert refused(name, **{each: value for each, value in defaults.items() if value is not None}) == []


@pytest.mark.parametrize(
    ("annotation", "optional", "schema"),
    [
        ("int", False, {"type": ["integer"]}),
        ("int", True, {"type": ["integer", "null"]}),
        ("float | None", True, {"type": ["number", "null"]}),
        ("typing.Optional[dict[str, int]]", False, {"type": ["object", "null"]}),
        ("Union[str, List[str]]", False, {"type": ["string", "array"]}),
        ("'bool | None'", False, {"type": ["boolean", "null"]}),
        ("Literal['a']", False, {"enum": ["a"]}),
        ("Literal['a', 'b'] | None", False, {"enum": ["a", "b", None]}),
        ("Literal['a'] | int", False, None),
        ("Literal[NAMES]", False, None),
        ("Literal[b'a']", False, None),
        ("Literal[()]", False, None),
        ("Literal[None, 1]", False, {"enum": [None, 1]}),
        ("None", True, None),
        ("Optional[None]", False, None),
        ("Float[ndarray, 'n']", False, None),
        ("int | Proposal", False, None),
        ("Callable[[int], int]", False, None),
        ("make()", False, None),
        ("'no annotation'", False, None),
        ("no annotation", False, None),
    ],
)
def test_annotations(annotation: str, *, optional: bool, schema: dict[str, Any] | None) -> None:
    assert annotated(annotation, is_optional=optional) == schema


def test_defaults_speak_where_no_annotation_does() -> None:
    (function,) = ast.parse("def f(a, /, b=1, c: X = 2, *d, e=0.5, g=None, h, i='x', j=[]): ...").body
    assert isinstance(function, ast.FunctionDef)
    types = {name: schema["type"] for name, schema in declared(function.args).items()}
    assert types == {"b": ["integer"], "e": ["number"], "i": ["string"]}


def test_of_an_optimizer_of_ones_own_only_annotations_count() -> None:
    class Own:
        def __init__(self, k: int = 1, mode: Literal["x"] = "x", **rest: int) -> None: ...

        def compile(self, student: Any, *, share: Optional[float] = None) -> None: ...  # noqa: UP045

    assert signature_of(Own).values == {
        "k": {"type": ["integer"]},
        "mode": {"enum": ["x"]},
        "share": {"type": ["number", "null"]},
    }


@pytest.mark.parametrize(
    ("entry", "sizes", "problem"),
    [
        ({"type": "SIMBA"}, (32, 0), None),
        ({"type": "SIMBA"}, (11, 0), "SIMBA needs 32 training examples (bsize), there are 11"),
        ({"type": "SIMBA", "params": {"bsize": 12}}, (11, 0), "SIMBA needs 12 training examples"),
        ({"type": "MIPROv2"}, (8, 0), None),
        ({"type": "MIPROv2"}, (1, 0), "MIPROv2 needs two training examples"),
        ({"type": "MIPROv2", "params": {"auto": None}}, (20, 0), "needs 35 validation examples"),
        ({"type": "MIPROv2", "params": {"auto": None}}, (20, 35), None),
        ({"type": "MIPROv2", "params": {"auto": None, "minibatch": False}}, (20, 0), None),
        ({"type": "Ensemble", "params": {"programs": ["simba"]}}, (10, 0), "SIMBA needs 10"),
        ({"type": "BetterTogether", "params": {"optimizers": {"p": "simba"}}}, (10, 0), "there are 9"),
        ({"type": "BetterTogether", "params": {"optimizers": {"p": "simba"}}}, (10, 5), None),
        (
            {"type": "BetterTogether", "params": {"optimizers": {"p": "simba", "q": "few"}, "strategy": "q"}},
            (9, 0),
            None,
        ),
    ],
)  # fmt: skip
def test_examples_that_an_optimizer_needs(
    entry: dict[str, Any], sizes: tuple[int, int], problem: str | None
) -> None:
    simba = 11 if entry["type"] == "Ensemble" else 10
    entries = {
        "o": entry,
        "simba": {"type": "SIMBA", "params": {"bsize": simba}},
        "few": {"type": "LabeledFewShot"},
    }
    known = {name: Optimizer.model_validate(each) for name, each in entries.items()}
    found = [defect.problem for defect in too_few(known, "o", Sizes(*sizes))]
    if problem is None:
        assert found == []
    else:
        (said,) = found
        assert problem.replace("SIMBA needs 10", "SIMBA needs 11") in said


def test_it_is_said_before_the_first_call_with_its_line(
    tmp_path: Path, server: FakeServer, cli_inside: Cli, init_repository: InitRepository
) -> None:
    optimizers = {
        "simba": {"type": "SIMBA"},
        "own": {"path": "program.py:first_ones", "params": {"k": "one"}},
    }
    config = {"optimizers": optimizers, "matrix": {"optimizer": ["none", "simba"]}}
    dataset = {"path": "tickets.jsonl", "inputs": ["text"], "split": {"train": 0.5, "seed": 1}}
    lab = experiment(tmp_path, server_url=server.url, config={"dataset": dataset}, examples=ROWS)
    lab.change(config)
    lab.program.write_text(lab.program.read_text() + OWN)
    init_repository(lab)
    lines = lab.config.read_text().splitlines()
    for command in ("run", "doctor"):
        done = cli_inside(command, cwd=lab.root)
        line = lines.index("  simba:") + 1
        assert f"experiment.yaml:{line}: optimizers.simba: SIMBA needs 32" in done.out + done.err
    lab.change({"matrix": {"optimizer": ["none", "own"]}})
    lines = lab.config.read_text().splitlines()
    done = cli_inside("run", cwd=lab.root)
    assert done.code == 2
    line = lines.index("      k: one") + 1
    assert f"experiment.yaml:{line}: optimizers.own.params.k: must be a whole number, not 'one'" in done.err
    assert not server.requests


def test_what_is_found_while_compiling_names_the_entry_and_the_code(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository
) -> None:
    optimizers = {
        "own": {"path": "program.py:first_ones"},
        "few": {"type": "LabeledFewShot", "params": {"k": -1}},
    }
    config = {"optimizers": optimizers, "matrix": {"optimizer": ["own", "few"]}}
    dataset = {"path": "tickets.jsonl", "inputs": ["text"], "split": {"train": 0.5, "seed": 1}}
    with FakeServer(answer=answer_key(ROWS)) as server:
        lab = experiment(tmp_path, server_url=server.url, config={"dataset": dataset}, examples=ROWS)
        lab.change(config)
        lab.program.write_text(lab.program.read_text() + OWN)
        init_repository(lab)
        lines = lab.config.read_text().splitlines()
        own, few = lines.index("  own:") + 1, lines.index("  few:") + 1
        done = cli_inside("run", "-q", cwd=lab.root)
    code = len(lab.program.read_text().splitlines())
    file = lab.config.relative_to(lab.root)
    program = lab.program.relative_to(lab.root)
    assert f"no luck today ({file}:{own}: optimizers.own: correct its entry, or {program}:{code})" in done.err
    assert f"({file}:{few}: optimizers.few: correct its entry)" in done.err


@pytest.mark.parametrize(
    ("rows", "said"),
    # With fewer examples than errors that DSPy puts up with, the optimizer goes on without any.
    [(24, "LMServerError: "), (16, "none of its 8 calls was answered: ")],
)
def test_an_endpoint_that_fails_is_no_fault_of_the_entry(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository, rows: int, said: str
) -> None:
    config = {
        "models": {"fake": {"num_retries": 0}},
        "optimizers": {"o": {"type": "BootstrapFewShot"}},
        "matrix": {"optimizer": ["o"]},
        "dataset": {"path": "tickets.jsonl", "inputs": ["text"], "split": {"train": 0.5, "seed": 1}},
    }
    with FakeServer(fail=lambda _: Fault("status", status=500)) as server:
        lab = experiment(tmp_path, server_url=server.url, config=config, examples=tickets(rows))
        init_repository(lab)
        done = cli_inside("run", "-q", cwd=lab.root)
    assert f"its program o-fake is not compiled: {said}" in done.err
    assert "correct its entry" not in done.err
