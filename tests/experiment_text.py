"""An experiment file that uses every section, for tests that change one thing in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspylab.config.load import LoadedExperiment, load
from dspylab.errors import InvalidExperiment

VALID = """\
name: triage
description: Which program and model should route our tickets?
program:
  path: program.py
  factory: build
  args: {style: predict}
  adapter: json
dataset:
  path: tickets.jsonl
  inputs: [text]
  labels: [label]
  split: {train: 0.3, seed: 7}
  limit: null
models:
  tiny: {model: local/smollm2-135m-instruct, temperature: 0.0, max_tokens: 64}
  mini: {model: openai/gpt-4o-mini, api_key_env: OPENAI_API_KEY, stream: true}
optimizers:
  fewshot: {type: LabeledFewShot, params: {k: 4}}
  gepa: {type: GEPA, metric: accuracy, lms: {reflection_lm: mini}}
matrix:
  model: [tiny, mini]
  program.style: [predict, cot]
  lm.temperature: [0.0, 0.7]
  optimizer: [none, fewshot]
  seed: [0, 1]
  exclude: [{model: tiny, optimizer: fewshot}]
  include: [{model: mini, optimizer: gepa, seed: 0, program.style: cot, lm.temperature: 0.0}]
metrics:
  accuracy: {type: exact_match, field: label}
  helpful: {type: path, ref: "program.py:helpful"}
  rated: {type: llm_judge, model: mini, params: {rubric: politeness}}
primary_metric: accuracy
budget: {max_cost_usd: 5.0}
execution: {max_concurrency: 64, max_errors: 10}
"""
#: What stands beside the experiment file.
FILES = ("program.py", "tickets.jsonl", "test.jsonl", "tickets.xlsx", "tickets", "pulled.jsonl.dvc")


def write(folder: Path, text: str | bytes) -> Path:
    """Write the experiment file and the files that it names."""
    for name in FILES:
        (folder / name).touch()
    (folder / "folder.py").mkdir(exist_ok=True)
    path = folder / "experiment.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(folder: Path, text: str | bytes) -> LoadedExperiment:
    """Load an experiment file of this text."""
    return load(write(folder, text))


def findings(folder: Path, text: str | bytes) -> list[str]:
    """What `load` finds wrong with a text, each as ``line: where: problem: remedy``."""
    path = write(folder, text)
    with pytest.raises(InvalidExperiment) as caught:
        load(path)
    return [str(finding).removeprefix(f"{path}:") for finding in caught.value.findings]


def changed(old: str, new: str) -> str:
    """The valid text with one part of it replaced."""
    assert VALID.count(old) == 1, f"{old!r} stands {VALID.count(old)} times"
    return VALID.replace(old, new)
