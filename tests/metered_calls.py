"""What the tests of metering share: models of an experiment file, and one program call with its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy

from dspylab.config.models import Experiment
from dspylab.lm.build import MeteredLM, Models
from dspylab.lm.recorder import Recorder, predictor_names
from dspylab.testing import FakeServer

KEY = "sk-canary-0123456789abcdef"


def models_of(server: FakeServer, environment: Mapping[str, str] | None = None, **entries: Any) -> Models:
    """The models of an experiment whose entries default to the fake model on the server."""
    experiment = Experiment.model_validate(
        {
            "name": "metering",
            "program": {"path": "program.py"},
            "dataset": {"path": "data.jsonl", "inputs": ["question"]},
            "models": {
                model_id: {
                    "model": "openai/fake",
                    "api_base": server.url,
                    "api_key_env": "FAKE_API_KEY",
                    "pricing": {"input": 1.0, "output": 2.0},
                    **entry,
                }
                for model_id, entry in entries.items()
            },
            "metrics": {"right": {"type": "exact_match", "field": "answer"}},
        }
    )
    return Models(experiment, list(entries), Path(), {"FAKE_API_KEY": KEY, **(environment or {})})


def recorded(
    program: dspy.Module, lm: MeteredLM, adapter: dspy.Adapter | None = None, **inputs: Any
) -> tuple[Any, Recorder]:
    """Calls a program as an example does; returns its prediction, or what it raised, and the record."""
    recorder = Recorder(names=predictor_names(program), keep_prompts=True)

    def run() -> Any:
        with recorder.context(lm=lm, adapter=adapter, trace=[], disable_history=True):
            return program(**inputs)

    return in_a_thread(run), recorder


def said(lm: MeteredLM, prompt: str = "hello", **settings: Any) -> tuple[Any, Recorder]:
    """Asks a model without a program; returns its outputs, or what it raised, and the record."""
    recorder = Recorder(names={})

    def run() -> Any:
        with recorder.context(disable_history=True):
            return lm(prompt, **settings)

    return in_a_thread(run), recorder


def in_a_thread(run: Callable[[], Any]) -> Any:
    """What a callable returns or raises in a thread of its own, where examples are executed.

    In the main thread LiteLLM makes an event loop and never closes it.
    """
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(run)
        return future.exception() or future.result()
