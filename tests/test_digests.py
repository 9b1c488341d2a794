"""What the digests of runs and programs are taken of, to the letter.

Results are found again by these digests. A test that fails here means that the next release would take all
results that people have for outdated, or their compiled programs for lost. Where that is meant, change the
test and say so in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from dspylab.config.models import Experiment
from dspylab.plan.compiles import compiles, distinct_compiles
from dspylab.plan.identity import (
    answers_hash,
    compile_addresses,
    compile_hash,
    compile_models,
    config_hash,
    digest,
    param_addresses,
    resolved_model,
)
from dspylab.plan.matrix import expand
from dspylab.records import CompileSpec, RunSpec

FILES = {"program.py": "1", "tickets.jsonl": "2"}
VERSIONS = {"dspy": "3.4.1"}
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"model": "local/tiny", "max_concurrency": 2},
    "judge": {"model": "openai/judge", "api_key_env": "KEY", "pricing": {"input": 1, "output": 2}},
    "mini": {
        "model": "openai/mini",
        "temperature": 0.0,
        "max_tokens": 64,
        "params": {"top_p": 0.9},
        "timeout_s": 9,
        "num_retries": 2,
    },
}
ACCURACY = {"type": "exact_match", "field": "label"}
HELPFUL = {"type": "llm_judge", "model": "judge", "params": {"rubric": "It helps."}}
DOCUMENT: dict[str, Any] = {
    "name": "triage",
    "description": "Which one?",
    "program": {"path": "program.py", "args": {"style": "predict", "depth": 1}, "adapter": "json"},
    "dataset": {"path": "tickets.jsonl", "inputs": ["text"], "split": {"train": 0.3}, "limit": 9},
    "models": MODELS,
    "optimizers": {
        "fewshot": {"type": "LabeledFewShot", "params": {"k": 4}},
        "gepa": {"type": "GEPA", "metric": "helpful", "lms": {"reflection_lm": "mini"}},
        "both": {"type": "Ensemble", "params": {"programs": ["fewshot", "gepa", "fewshot"]}},
    },
    "matrix": {
        "model": ["mini"],
        "optimizer": ["both"],
        "adapter": ["xml"],
        "seed": [7],
        "program.style": ["cot"],
        "lm.temperature": [0.5],
        "lm.top_k": [3],
    },
    "metrics": {"accuracy": ACCURACY, "helpful": HELPFUL},
    "budget": {"max_calls": 5},
}
NO_METRIC: dict[str, Any] = {
    "type": None,
    "field": None,
    "label": None,
    "ref": None,
    "params": {},
    "model": None,
}
PROGRAM: dict[str, Any] = {
    "path": "program.py",
    "module": None,
    "factory": "build",
    "args": {"style": "predict", "depth": 1},
    "files": [],
    "adapter": "json",
}
TASK_MODEL = {
    "model": "openai/mini",
    "engine": "auto",
    "model_type": "chat",
    "temperature": 0.5,
    "max_tokens": 64,
    "params": {"top_p": 0.9, "top_k": 3},
    "stream": True,
}
PLAIN_MODEL = {"engine": "auto", "model_type": "chat", "params": {}, "stream": True}
ANSWERING = {
    "program": PROGRAM,
    "program_args": {"style": "cot", "depth": 1},
    "adapter": "xml",
    "seed": 7,
    "model": TASK_MODEL,
    "optimizer": "the digest of a program",
    "files": FILES,
    "versions": VERSIONS,
}


def made(**changes: Any) -> tuple[Experiment, RunSpec, CompileSpec]:
    """The experiment, its run, and what that needs compiled."""
    experiment = Experiment.model_validate({**DOCUMENT, **changes})
    (run,) = expand(experiment)
    (spec,) = distinct_compiles(compiles([run]))
    return experiment, run, spec


def sha256(value: Mapping[str, Any]) -> str:
    """The digest of a JSON value, without any of ours."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_what_decides_the_results_of_a_run() -> None:
    experiment, run, _ = made()
    decisive = {
        **ANSWERING,
        "dataset": {
            "path": "tickets.jsonl",
            "train": None,
            "validation": None,
            "test": None,
            "inputs": ["text"],
            "labels": None,
            "id": None,
            "split": {"train": 0.3, "validation": None, "seed": 0},
            "shuffle": None,
            "limit": 9,
        },
        "coordinates": {
            "model": "mini",
            "program.style": "cot",
            "lm.temperature": 0.5,
            "lm.top_k": 3,
            "adapter": "xml",
            "optimizer": "both",
            "seed": 7,
        },
        "judges": {"judge": {"model": "openai/judge", **PLAIN_MODEL}},
        "metrics": {"accuracy": {**NO_METRIC, **ACCURACY}, "helpful": {**NO_METRIC, **HELPFUL}},
    }
    assert config_hash(experiment, run, FILES, VERSIONS, "the digest of a program") == sha256(decisive)


def test_what_decides_the_answers_of_a_run() -> None:
    experiment, run, _ = made()
    decisive = {**ANSWERING, "inputs": ["text"], "is_seeded": True}
    assert answers_hash(experiment, run, FILES, VERSIONS, "the digest of a program") == sha256(decisive)


def test_what_decides_a_compiled_program() -> None:
    experiment, _, spec = made()
    accuracy = {**NO_METRIC, **ACCURACY, "name": "accuracy"}
    decisive = {
        "program": PROGRAM,
        "program_args": {"style": "cot", "depth": 1},
        "adapter": "xml",
        "optimizer": {
            "type": "Ensemble",
            "path": None,
            "params": {"programs": ["fewshot", "gepa", "fewshot"]},
            "lms": {},
        },
        "nested": {
            "fewshot": {
                "type": "LabeledFewShot",
                "path": None,
                "params": {"k": 4},
                "metric": None,
                "lms": {},
            },
            "gepa": {
                "type": "GEPA",
                "path": None,
                "params": {},
                "metric": "helpful",
                "lms": {"reflection_lm": "mini"},
            },
        },
        "metrics": {
            "both": accuracy,
            "fewshot": accuracy,
            "gepa": {**NO_METRIC, **HELPFUL, "name": "helpful"},
        },
        "models": {
            "task": TASK_MODEL,
            "gepa.reflection_lm": {
                "model": "openai/mini",
                **PLAIN_MODEL,
                "temperature": 0,
                "max_tokens": 64,
                "params": {"top_p": 0.9},
            },
            "gepa.judge": {"model": "openai/judge", **PLAIN_MODEL},
        },
        "seed": 7,
        "training": "the digest of the examples",
        "files": FILES,
        "versions": VERSIONS,
    }
    assert compile_hash(experiment, spec, FILES, "the digest of the examples", VERSIONS) == sha256(decisive)


def test_a_digest_is_of_any_text() -> None:
    assert digest({"b": "ä", "a": [1.0, None]}) == sha256({"a": [1, None], "b": "ä"})
    # A lone surrogate, as a file name may hold, is no UTF-8.
    assert digest("\ud800") == hashlib.sha256(b'"\xed\xa0\x80"').hexdigest()


def test_max_tokens_of_a_run_replaces_that_of_its_model() -> None:
    experiment, _, _ = made()
    assert resolved_model(experiment, "mini", {"max_tokens": 8})["max_tokens"] == 8
    assert resolved_model(experiment, "mini", {"max_tokens": 8})["params"] == {"top_p": 0.9}


def test_the_models_that_a_compile_calls() -> None:
    experiment, _, spec = made()
    roles = {"task": "mini", "gepa.reflection_lm": "mini", "gepa.judge": "judge"}
    assert compile_models(experiment, spec) == roles
    alone = made(matrix={"model": ["tiny"], "optimizer": ["gepa"]})
    assert compile_models(alone[0], alone[2]) == {"task": "tiny", "reflection_lm": "mini", "judge": "judge"}


def test_addresses_that_a_run_reads() -> None:
    experiment, run, _ = made()
    assert param_addresses(experiment, run, DOCUMENT) == [
        *("program", "dataset", "metrics"),
        *("models.mini.model", "models.mini.temperature", "models.mini.max_tokens", "models.mini.params"),
        "models.judge.model",
    ]
    # DVC refuses what does not stand in the file.
    assert param_addresses(experiment, run, {}) == ["program", "dataset", "metrics"]


@pytest.mark.parametrize("primary", [{}, {"primary_metric": "accuracy"}])
def test_addresses_that_a_compile_reads(primary: dict[str, str]) -> None:
    experiment, _, spec = made(**primary)
    read = [
        *("program", "dataset.path", "dataset.inputs", "dataset.split"),
        *("optimizers.both", "optimizers.fewshot", "optimizers.gepa"),
        *("metrics.accuracy", "metrics.helpful", *primary),
        *("models.mini.model", "models.mini.temperature", "models.mini.max_tokens", "models.mini.params"),
        "models.judge.model",
    ]
    assert compile_addresses(experiment, spec, {**DOCUMENT, **primary}) == read


def test_a_metric_of_several_numbers_is_read_by_its_own_name() -> None:
    primary = {"primary_metric": "helpful.clarity"}
    experiment, _, spec = made(matrix={"model": ["tiny"], "optimizer": ["fewshot"]}, **primary)
    addresses = compile_addresses(experiment, spec, {"metrics": {}, **primary})
    assert addresses == ["program", "optimizers.fewshot", "metrics.helpful", "primary_metric"]
    assert compile_models(experiment, spec) == {"task": "tiny", "judge": "judge"}
    helpful = {**NO_METRIC, **HELPFUL, "name": "helpful.clarity"}
    assert compile_hash(experiment, spec, {}, "", {}) == sha256(
        {
            "program": PROGRAM,
            "program_args": {"style": "predict", "depth": 1},
            "adapter": "json",
            "optimizer": {"type": "LabeledFewShot", "path": None, "params": {"k": 4}, "lms": {}},
            "nested": {},
            "metrics": {"fewshot": helpful},
            "models": {
                "task": {"model": "local/tiny", **PLAIN_MODEL},
                "judge": {"model": "openai/judge", **PLAIN_MODEL},
            },
            "seed": None,
            "training": "",
            "files": {},
            "versions": {},
        }
    )


def test_a_metric_that_is_named_makes_the_primary_one_nothing_to_read() -> None:
    experiment, _, spec = made(matrix={"model": ["tiny"], "optimizer": ["gepa"]}, primary_metric="accuracy")
    addresses = compile_addresses(experiment, spec, {"primary_metric": "accuracy"})
    assert addresses == ["program", "optimizers.gepa", "metrics.helpful"]
