"""Execute experiment files with random changes: whatever stands in them, there is an answer and no traceback.

    python tests/torture/fuzz_config.py --files 10000

`tests/test_hostile_input.py` generates files that are hardly ever valid. These are changed less, so that many
are: those are executed with `run-one` against a fake endpoint. A bug is exit code 70, a traceback, a file
that takes longer than a minute, or a key on the screen.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import yaml

from dspylab.cli import execute_command_line
from dspylab.testing import FakeServer, Laboratory, experiment, tickets

KEY = "sk-proj-canary0of1the2fuzz3"
LONGEST_S = 60
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3.5, 10**30, -(10**30), 1e308, 1e-300, float("nan"), float("inf"), "",
    " ", "x", "text", "label", "fake", "none", "accuracy", "style", "0", "1e5", "true", "null", "x" * 5000,
    "../..", "/etc/passwd", "a.b", "a b", "é", "\x00", "\x1b[31m", "\u202e", "${HOME}", "{x}", "%s", "[bold]",
    "'", '"', "a\nb", [], {}, [None], [[]], {"": 1}, {"a": {"b": [1, {"c": None}]}}, ["text"], ["label"],
    ["x", "x"],
]  # fmt: skip
#: Addresses, with values that are right or nearly right there.
NEARLY_RIGHT: dict[str, list[Any]] = {
    "name": ["x", "a-b_c", "é", "CON", "0", "x" * 64],
    "description": ["anything", "\x1b[31mred", "", "x" * 5000],
    "program.factory": ["build", "Triage", "nope", "dspy", "__name__"],
    "program.args": [{}, {"style": "cot"}, {"style": 0}, {"nope": 1}],
    "program.adapter": ["chat", "json", "xml", "program.py:build", "program.py:nope", "json:JSONDecoder"],
    "dataset.limit": [1, 2, 10**9], "dataset.shuffle": [0, 1], "dataset.id": ["text", "label", "nope"],
    "dataset.labels": [["label"], [], ["nope"]], "dataset.inputs": [["text", "label"], ["nope"], ["label"]],
    "dataset.split": [{"train": 0.3}, {"train": 1, "seed": 2}, {"train": 0.999}, {"train": 0}],
    "dataset.path": ["program.py:build", "tickets.jsonl", "experiment.yaml", "program.py"],
    "models.fake.temperature": [0.5, 1e10, 0], "models.fake.max_tokens": [1, 10**12],
    "models.fake.params": [
        {"top_p": 0.1}, {"n": 2}, {"x": [{}]}, {"stop": ["a"]}, {"tools": []}, {"messages": []},
        {"model": "x"},
        {"stream": False}, {"response_format": {"type": "json_object"}}, {"cache": True}, {"": 1},
        {"seed": "x"},
    ],
    "models.fake.stream": [True, False], "models.fake.timeout_s": [0.001, 5, 1e9],
    "models.fake.max_concurrency": [1, 10**9], "models.fake.cache": [True, False],
    "models.fake.pricing": [{"input": 1, "output": 2}, {"input": 1e308, "output": 1e308, "cached_input": 0}],
    "models.fake.model_type": ["chat", "responses"], "models.fake.engine": ["native", "auto"],
    "models.fake.supports": [
        {"response_schema": True}, {"params": ["response_format"]}, {"function_calling": True}, {},
        {"reasoning": True, "params": []},
    ],
    "models.fake.model": ["openai/fake", "openai/", "groq/x", "nope/x", "openai/gpt-5", "anthropic/x", "o/é"],
    "matrix.seed": [[0, 1], [10**30], [-1]],
    "matrix.program.style": [["predict", "cot"], [0], ["nonsense"], [None], [{"a": 1}], [True, 1]],
    "matrix.program.nope": [[1]], "matrix.lm.temperature": [[0, 1.5], [None]],
    "matrix.lm.top_p": [[0.1, 0.2]],
    "matrix.lm.n": [[2]], "matrix.lm.stop": [[["a"], "b"]], "matrix.adapter": [["chat", "json", "xml"]],
    "matrix.exclude": [[{"model": "fake"}], [{}], [{"seed": 5}]], "matrix.include": [[{"model": "fake"}], []],
    "matrix.optimizer": [["none"], ["few"]], "optimizers": [{"few": {"type": "LabeledFewShot"}}],
    "budget": [{"max_calls": 2}, {"max_tokens": 10}, {"max_cost_usd": 1}, {}],
    "execution": [{"max_errors": 1}, {"max_concurrency": 10**9}, {"max_concurrency": 1}, {}],
    "metrics.accuracy.type": ["exact_match", "contains", "token_f1", "numeric", "regex", "json_schema"],
    "metrics.accuracy.field": ["label", "text", "nope"], "metrics.accuracy.label": ["label", "text", "nope"],
    "metrics.accuracy.params": [{"pattern": "("}, {"pattern": "b"}, {"schema": {}}, {"tolerance": 1}],
    "metrics.other": [
        {"type": "path", "ref": "program.py:build"}, {"type": "path", "ref": "program.py:nope"},
        {"type": "path", "ref": "json:dumps"},
        {"type": "llm_judge", "model": "fake", "params": {"rubric": "r"}},
        {"type": "semantic_f1", "model": "fake", "field": "label"}, {"type": "contains", "label": "label"},
        {"type": "token_f1"}, {"type": "numeric", "field": "label"}, {"type": "json_schema", "params": {}},
    ],
    "primary_metric": ["accuracy", "other", "nope"],
}  # fmt: skip
#: What must stay: calls go to the fake endpoint, and no retry takes long.
FIXED = frozenset({"api_base", "api_key_env", "num_retries"})


def change(tree: dict[str, Any], chance: random.Random) -> None:
    """Sets something nearly right, or breaks something."""
    if chance.random() < 0.8:
        address = chance.choice(list(NEARLY_RIGHT))
        put(tree, address, copy.deepcopy(chance.choice(NEARLY_RIGHT[address])))
        return
    place: Any = tree
    while True:
        key = chance.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.2:
            break
        place = place[key]
    action = chance.choice(["replace", "remove", "rename"])
    if key in FIXED or key in ("models", "fake"):
        return
    if action == "remove":
        del place[key]
    elif action == "rename" and isinstance(place, dict):
        place[str(chance.choice(ODD))] = place.pop(key)
    else:
        place[key] = copy.deepcopy(chance.choice(ODD))


def put(tree: dict[str, Any], address: str, value: Any) -> None:
    """Sets a key, unless something that is no mapping stands above it."""
    section, _, key = address.partition(".")
    # Names of axes hold a dot of their own.
    parts = [section, key] if section == "matrix" else address.split(".")
    place = tree
    for name in parts[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            return
    place[parts[-1]] = value


def execute(lab: Laboratory, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command in this process."""
    sys.argv = ["dspylab", *arguments, "--config", str(lab.config)]
    out = io.StringIO()
    signal.alarm(LONGEST_S)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            return execute_command_line(), out.getvalue()
    finally:
        signal.alarm(0)


def verdict(code: int, said: str) -> str | None:
    """What is wrong with an answer."""
    if code not in (0, 1, 2, 3, 4):
        return f"exit code {code}"
    if "Traceback" in said:
        return "a traceback"
    if KEY in said:
        return "the key is on the screen"
    if code and not said.strip():
        return "no word"
    return None


def fuzz(folder: Path, files: int, seed: int) -> dict[str, Any]:
    """Executes so many files; the figures, and the files that are answered wrongly."""
    chance = random.Random(seed)
    codes: Counter[str] = Counter()
    wrong: list[dict[str, Any]] = []
    began = time.monotonic()
    with FakeServer() as server:
        lab = experiment(folder, server_url=server.url, examples=tickets(3))
        lab.change({"models": {"fake": {"num_retries": 0}}})
        tree = lab.read()
        for number in range(files):
            changed = copy.deepcopy(tree)
            for _ in range(chance.choice([1, 1, 2, 3])):
                change(changed, chance)
            text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
            lab.config.write_text(text, encoding="utf-8", errors="surrogatepass")
            commands = [["validate"], ["run-one", "model=fake", "--fresh"], ["aggregate"]]
            for command in commands:
                code, said = execute(lab, *command)
                codes[f"{command[0]} {code}"] += 1
                if (problem := verdict(code, said)) is not None:
                    wrong.append({"number": number, "problem": problem, "said": said[-1500:], "file": text})
                if code == 2:
                    break
            shutil.rmtree(lab.folder / "results", ignore_errors=True)
    figures = {"files": files, "commands": dict(sorted(codes.items())), "requests": len(server.requests)}
    return {**figures, "wall_s": round(time.monotonic() - began), "wrong": wrong}


def main() -> int:
    """Prints the figures as JSON; exits with 1 when any file is answered wrongly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["FAKE_API_KEY"] = KEY
    signal.signal(signal.SIGALRM, _too_long)
    _stay_on_this_machine()
    importlib.import_module("litellm")  # takes seconds, which are no fault of the first file that needs it
    with tempfile.TemporaryDirectory(prefix="dspylab-fuzz-") as folder:
        os.chdir(folder)
        figures = fuzz(Path(folder), options.files, options.seed)
        os.chdir("/")
    print(json.dumps(figures, indent=2))  # noqa: T201 - a script
    return 1 if figures["wrong"] else 0


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise RuntimeError(f"longer than {LONGEST_S} s")


def _stay_on_this_machine() -> None:
    """A file may name any endpoint; none but the fake one is called."""
    look_up = socket.getaddrinfo

    def local_only(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror("the fuzz stays on this machine")
        return look_up(host, *arguments, **options)

    socket.getaddrinfo = local_only


if __name__ == "__main__":
    raise SystemExit(main())
