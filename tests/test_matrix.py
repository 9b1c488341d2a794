"""The matrix: which runs it has, what they are called, and what decides their results."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from dspylab.config.models import Experiment
from dspylab.config.values import canonical
from dspylab.pipeline.stages import arguments, parse_coordinate
from dspylab.plan.compiles import compiles, distinct_compiles
from dspylab.plan.identity import compile_addresses, config_hash, digest, param_addresses, resolved_model
from dspylab.plan.matrix import MAX_KEY_LENGTH, MatrixProblem, axis_values, canonical_order, expand, run_keys
from dspylab.records import RunSpec

MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"model": "local/smollm2-135m-instruct", "temperature": 0.0, "max_tokens": 64},
    "mini": {"model": "openai/gpt-4o-mini", "api_key_env": "KEY", "num_retries": 2, "params": {"top_p": 0.9}},
    "Mini": {"model": "openai/gpt-4o"},
    "con": {"model": "openai/gpt-4o"},
}
OPTIMIZERS = {
    "fewshot": {"type": "LabeledFewShot"},
    "gepa": {"type": "GEPA", "lms": {"reflection_lm": "mini"}},
}


def experiment(matrix: Mapping[str, Any], **changes: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "triage",
            "program": {"path": "program.py", "args": {"style": "predict", "depth": 1}, "adapter": "json"},
            "dataset": {"path": "tickets.jsonl", "inputs": ["text"], "split": {"train": 0.3}},
            "models": MODELS,
            "optimizers": OPTIMIZERS,
            "matrix": matrix,
            "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
            **changes,
        }
    )


def coordinates(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(run.coordinates) for run in expand(experiment(matrix))]


def keys(matrix: Mapping[str, Any]) -> list[str]:
    return [run.key for run in expand(experiment(matrix))]


# Values that an axis of the program can have, the odd ones included.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=40),
    st.sampled_from(
        ["cot", "COT", "c.o.t", "a-b", "a", "b-a", "", "..", "con", "../../etc", "x" * 200, "ä", "\u202e"]
    ),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)
)


def axis(values: st.SearchStrategy[Any], size: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=size, unique_by=canonical)


AXES: dict[str, st.SearchStrategy[list[Any]]] = {
    "model": axis(st.sampled_from(list(MODELS))),
    "compile_model": axis(st.sampled_from(list(MODELS)), 2),
    "optimizer": axis(st.sampled_from(["none", *OPTIMIZERS])),
    "adapter": axis(st.sampled_from(["chat", "json", "xml", "program.py:Short"]), 2),
    "seed": axis(st.integers(0, 9), 2),
    "program.style": axis(VALUES),
    "program.depth": axis(VALUES, 2),
    "lm.temperature": axis(st.sampled_from([0.0, 0.5, 1.0]), 2),
    "lm.top_p": axis(st.floats(0.1, 1.0), 2),
}


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, Any]:
    """Some axes in any order, entries that exclude some of their values, and further runs."""
    chosen = draw(st.lists(st.sampled_from(list(AXES)), unique=True, max_size=4))
    matrix: dict[str, Any] = {name: draw(AXES[name]) for name in chosen}
    values = {"model": list(MODELS), **matrix}

    def entry(names: list[str], *, several: bool) -> dict[str, Any]:
        found = {}
        for name in names:
            value = draw(st.sampled_from(values[name]))
            found[name] = [value] if several and draw(st.booleans()) else value
        return found

    rules = draw(st.lists(st.lists(st.sampled_from(list(values)), unique=True, min_size=1), max_size=2))
    matrix["exclude"] = [entry(names, several=True) for names in rules]
    matrix["include"] = [entry(list(values), several=False) for _ in range(draw(st.integers(0, 2)))]
    return matrix


def naive(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The runs as the documentation says it, without any cleverness."""
    axes = {name: values for name, values in matrix.items() if name not in ("exclude", "include")}
    axes = {"model": list(MODELS), **axes}
    product = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]

    def excluded(cell: Mapping[str, Any]) -> bool:
        for rule in matrix["exclude"]:
            hits = []
            for name, value in rule.items():
                wanted = [value, *value] if isinstance(value, list) else [value]
                hits.append(canonical(cell[name]) in map(canonical, wanted))
            if all(hits):
                return True
        return False

    def compiled(cell: Mapping[str, Any]) -> dict[str, Any]:
        """Without an optimizer there is no model that compiles."""
        has_optimizer = cell.get("optimizer", "none") != "none"
        return {name: value for name, value in cell.items() if has_optimizer or name != "compile_model"}

    kept = [compiled(cell) for cell in product if not excluded(cell)]
    distinct = list({canonical(cell): cell for cell in kept}.values())
    return (distinct if "compile_model" in axes else kept) + [compiled(cell) for cell in matrix["include"]]


def unordered(cells: list[dict[str, Any]]) -> list[str]:
    return sorted(map(canonical, cells))


@given(matrix=matrices())
def test_the_runs_are_the_product_less_exclude_plus_include(matrix: dict[str, Any]) -> None:
    expected = naive(matrix)
    if not expected or len(set(unordered(expected))) < len(expected):
        with pytest.raises(MatrixProblem):
            expand(experiment(matrix))
    else:
        assert unordered(coordinates(matrix)) == unordered(expected)


def runs_or_none(matrix: Mapping[str, Any]) -> tuple[RunSpec, ...]:
    try:
        return expand(experiment(matrix))
    except MatrixProblem:
        reject()


@given(matrix=matrices())
@example(matrix={"program.style": ["a-b", "a"], "program.depth": ["c", "b-c"]})
@example(matrix={"model": ["mini", "Mini"]})
@example(matrix={"model": ["con"]})
@example(matrix={"program.style": ["x" * 200, "x" * 201]})
def test_keys_are_unique_and_safe_everywhere(matrix: dict[str, Any]) -> None:
    found = [run.key for run in runs_or_none(matrix)]
    assert len({key.casefold() for key in found}) == len(found)
    for key in found:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", key)
        assert 0 < len(key) <= MAX_KEY_LENGTH
        assert not key.endswith((".", "-"))
        assert key.partition(".")[0].casefold() not in {"con", "nul", "aux", "prn"}


@given(matrix=matrices(), seed=st.randoms(use_true_random=False))
def test_the_order_of_keys_in_the_file_changes_nothing(matrix: dict[str, Any], seed: Any) -> None:
    names = list(matrix)
    seed.shuffle(names)
    assert runs_or_none(matrix) == runs_or_none({name: matrix[name] for name in names})


@given(matrix=matrices())
def test_a_run_has_what_its_coordinates_say(matrix: dict[str, Any]) -> None:
    for run in runs_or_none(matrix):
        at = run.coordinates
        assert list(at) == canonical_order(at)
        assert run.model == at["model"]
        assert run.optimizer == at.get("optimizer", "none")
        assert run.compile_model == at.get("compile_model")
        assert run.adapter == at.get("adapter", "json")
        assert run.seed == at.get("seed", 0)
        assert run.program_args == {
            "style": at.get("program.style", "predict"),
            "depth": at.get("program.depth", 1),
        }
        assert run.lm_settings == {
            name.removeprefix("lm."): value for name, value in at.items() if name.startswith("lm.")
        }


@given(matrix=matrices())
def test_what_the_stage_command_says_is_read_back(matrix: dict[str, Any]) -> None:
    for run in runs_or_none(matrix):
        parsed = dict(map(parse_coordinate, shlex.split(arguments(run))))
        assert parsed == run.coordinates


@given(matrix=matrices())
def test_a_run_that_goes_leaves_the_other_keys_alone(matrix: dict[str, Any]) -> None:
    """Only a key that two runs would have shared may get shorter."""
    runs = runs_or_none(matrix)
    cells = [run.coordinates for run in runs]
    before = dict(zip(map(canonical, cells), run_keys(cells), strict=True))
    for left in range(len(cells)):
        rest = cells[:left] + cells[left + 1 :]
        gone = before[canonical(cells[left])]
        for cell, key in zip(rest, run_keys(rest), strict=True):
            kept = before[canonical(cell)]
            assert key == kept or (
                kept.startswith(f"{key}-") and gone.casefold().startswith(f"{key.casefold()}-")
            )


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ({}, ["tiny", "mini-#", "Mini-#", "con-#"]),
        ({"model": ["tiny"]}, ["tiny"]),
        ({"model": ["tiny"], "program.style": ["predict", "cot"]}, ["tiny-predict", "tiny-cot"]),
        ({"model": ["tiny"], "lm.temperature": [0.0, 0.7]}, ["tiny-temperature0", "tiny-temperature0.7"]),
        (
            {"model": ["tiny"], "seed": [0, 1], "optimizer": ["fewshot"]},
            ["tiny-fewshot-seed0", "tiny-fewshot-seed1"],
        ),
        ({"model": ["tiny"], "compile_model": ["mini"], "optimizer": ["gepa"]}, ["tiny-mini-gepa"]),
        ({"model": ["tiny"], "program.style": [True, None]}, ["tiny-style-true", "tiny-style-null"]),
        ({"model": ["tiny"], "program.style": ["A b", ""]}, ["tiny-A-b-#", "tiny-style-#"]),
        (
            {"model": ["tiny"], "adapter": ["json", "program.py:Short"]},
            ["tiny-json", "tiny-program.py-Short-#"],
        ),
    ],
)
def test_keys_are_readable(matrix: dict[str, Any], expected: list[str]) -> None:
    """A # stands for a digest."""
    assert [re.sub(r"-[0-9a-f]{8}$", "-#", key) for key in keys(matrix)] == expected


def test_runs_stand_in_file_order_with_the_last_axis_fastest() -> None:
    found = coordinates({"seed": [1, 0], "model": ["mini", "tiny"], "include": [{"model": "con", "seed": 5}]})
    assert found == [
        {"model": "mini", "seed": 1},
        {"model": "mini", "seed": 0},
        {"model": "tiny", "seed": 1},
        {"model": "tiny", "seed": 0},
        {"model": "con", "seed": 5},
    ]


def test_one_model_or_many_by_default() -> None:
    assert axis_values(experiment({})) == {"model": list(MODELS)}
    assert axis_values(experiment({"model": None, "seed": [3]})) == {"model": list(MODELS), "seed": [3]}


def test_exclude_takes_a_list_as_any_of_its_values_or_as_itself() -> None:
    assert coordinates({"model": ["tiny"], "seed": [0, 1, 2], "exclude": [{"seed": [0, 2]}]}) == [
        {"model": "tiny", "seed": 1}
    ]
    assert coordinates(
        {"model": ["tiny"], "program.style": [[1, 2], [3]], "exclude": [{"program.style": [1, 2]}]}
    ) == [{"model": "tiny", "program.style": [3]}]


def test_a_whole_number_is_the_same_with_and_without_a_point() -> None:
    assert keys({"model": ["tiny"], "lm.temperature": [0.0, 0.7]}) == keys(
        {"model": ["tiny"], "lm.temperature": [0, 0.7]}
    )
    assert keys({"model": ["tiny"], "lm.temperature": [0.0, 0.7], "exclude": [{"lm.temperature": 0}]}) == [
        "tiny-temperature0.7"
    ]
    assert canonical([1.0, {"a": -0.0}]) == canonical([1, {"a": 0}])
    assert len({canonical(value) for value in (1, True, "1", 1.5)}) == 4


@pytest.mark.parametrize(
    ("matrix", "address", "problem", "remedy"),
    [
        (
            {"exclude": [{"model": list(MODELS)}]},
            ("matrix",),
            "the matrix has no run",
            "exclude less, or include a run",
        ),
        (
            {"include": [{"model": "tiny"}]},
            ("matrix", "include", 0),
            "the run model=tiny stands twice",
            "take one of the two out: each run must be distinct",
        ),
        (
            {"include": [{"model": "tiny", "program.style": "predict", "adapter": "json"}]},
            ("matrix", "include", 0),
            "the run model=tiny program.style=predict adapter=json stands twice",
            "take one of the two out: each run must be distinct",
        ),
        (
            {"seed": [0], "include": [{"model": "tiny", "seed": 1}, {"seed": 1}]},
            ("matrix", "include", 1),
            "does not say its model",
            "add model: one of tiny, mini, Mini, con",
        ),
        (
            {"model": ["tiny"], "seed": [0, 1], "include": [{"model": "mini"}]},
            ("matrix", "include", 0),
            "does not say its seed",
            "add seed: one of 0, 1",
        ),
    ],
)
def test_what_is_no_set_of_runs(
    matrix: dict[str, Any], address: tuple[str | int, ...], problem: str, remedy: str
) -> None:
    with pytest.raises(MatrixProblem) as caught:
        expand(experiment(matrix))
    assert (caught.value.address, caught.value.problem, caught.value.remedy) == (address, problem, remedy)


def test_an_include_takes_what_it_does_not_say_from_axes_of_one_value() -> None:
    matrix = {"model": ["tiny"], "seed": [7], "include": [{"model": "mini", "optimizer": "gepa"}]}
    assert coordinates(matrix)[-1] == {"model": "mini", "optimizer": "gepa", "seed": 7}


def test_digests_do_not_collide_in_a_large_matrix() -> None:
    cells = [
        {"model": "tiny", "program.prompt": "Answer the question. " * 10 + str(number)}
        for number in range(30_000)
    ]
    assert len(set(run_keys(cells))) == len(cells)


def test_a_digest_that_two_runs_share_gets_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of one digit many agree, so that it takes no four billion runs.
    monkeypatch.setattr("dspylab.plan.matrix._DIGITS", 1)
    cells = [{"model": "tiny", "program.style": text} for text in ("A b", "a b", "c d", "c d ", "e f")]
    found = run_keys(cells)
    assert len({key.casefold() for key in found}) == len(cells)
    few = [re.sub(r"-[0-9a-f]+$", "", key) for key in found]
    assert few == ["tiny-A-b", "tiny-a-b", "tiny-c-d", "tiny-c-d", "tiny-e-f"]


def run_of(lab: Experiment, **coordinates: Any) -> RunSpec:
    return next(run for run in expand(lab) if run.coordinates == coordinates)


def hash_of(lab: Experiment, **coordinates: Any) -> str:
    return config_hash(lab, run_of(lab, **coordinates), {"program.py": "1"}, {"dspy": "3.4.1"})


BASE = experiment({"model": ["tiny", "mini"]})


@pytest.mark.parametrize(
    ("changes", "decides"),
    [
        ({"description": "other"}, False),
        ({"name": "other"}, False),
        ({"budget": {"max_calls": 5}}, False),
        ({"execution": {"max_concurrency": 1}}, False),
        ({"primary_metric": "accuracy"}, False),
        ({"models": {**MODELS, "tiny": {**MODELS["tiny"], "num_retries": 9, "max_concurrency": 3}}}, False),
        ({"models": {**MODELS, "tiny": {**MODELS["tiny"], "timeout_s": 9, "requests_per_minute": 3}}}, False),
        ({"models": {**MODELS, "mini": {"model": "openai/other"}}}, False),
        ({"models": {**MODELS, "tiny": {**MODELS["tiny"], "temperature": 0}}}, False),
        ({"models": {**MODELS, "tiny": {**MODELS["tiny"], "temperature": 0.1}}}, True),
        ({"models": {**MODELS, "tiny": {**MODELS["tiny"], "params": {"top_k": 1}}}}, True),
        ({"models": {**MODELS, "tiny": {**MODELS["tiny"], "api_base": "http://other"}}}, True),
        ({"program": {"path": "program.py", "args": {"style": "cot"}}}, True),
        ({"dataset": {"path": "tickets.jsonl", "inputs": ["text"], "limit": 5}}, True),
        ({"metrics": {"accuracy": {"type": "contains", "field": "label"}}}, True),
    ],
)
def test_the_hash_changes_with_what_decides_results(changes: dict[str, Any], decides: bool) -> None:  # noqa: FBT001
    after = experiment({"model": ["tiny", "mini"]}, **changes)
    assert (hash_of(after, model="tiny") != hash_of(BASE, model="tiny")) is decides


def test_code_data_and_versions_decide() -> None:
    run = run_of(BASE, model="tiny")
    hashes = {
        config_hash(BASE, run, {"program.py": digest_of}, {"dspy": version})
        for digest_of in "12"
        for version in ("3.4.1", "3.4.2")
    }
    assert len(hashes) == 4


def test_settings_of_the_run_lie_over_those_of_the_model() -> None:
    settings = {"temperature": 0.7, "top_k": 3}
    assert resolved_model(BASE, "mini", settings) == {
        "model": "openai/gpt-4o-mini",
        "engine": "auto",
        "model_type": "chat",
        "stream": True,
        "temperature": 0.7,
        "params": {"top_p": 0.9, "top_k": 3},
    }


def test_a_run_reads_the_keys_that_decide_it_and_stand_in_the_file() -> None:
    lab = experiment({"model": ["tiny"], "optimizer": ["none", "gepa"]})
    document = {"models": MODELS}
    plain, optimized = (param_addresses(lab, run, document) for run in expand(lab))
    assert [address for address in plain if address.startswith("models.")] == [
        "models.tiny.model",
        "models.tiny.temperature",
        "models.tiny.max_tokens",
    ]
    # What decides its program is read by the compile, which the run depends on through that program.
    assert optimized == plain
    (spec,) = distinct_compiles(compiles(expand(lab)))
    compiled = compile_addresses(lab, spec, document)
    assert {"models.mini.model", "models.mini.params", "optimizers.gepa"} <= set(compiled)
    assert "models.mini.num_retries" not in compiled


@given(value=VALUES)
def test_a_digest_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    turned = dict(reversed(value.items())) if isinstance(value, dict) else value
    assert digest(value) == digest(turned)
    assert canonical(value) == canonical(turned)
