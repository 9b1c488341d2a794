"""Writes a complete small laboratory into a folder: experiment file, program, data, git and DVC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LABELS = {
    "payment": "I was charged twice for my order",
    "bug": "the app crashes when I open the settings",
    "login": "I cannot sign in with my password",
    "delivery": "my parcel has not arrived yet",
}
API_KEY_ENV = "FAKE_API_KEY"

_PROGRAM = '''\
from typing import Literal

import dspy


class Triage(dspy.Signature):
    """Route a support ticket to the team that can help."""

    text: str = dspy.InputField()
    label: Literal["payment", "bug", "login", "delivery"] = dspy.OutputField()


def build(style="predict"):
    return {"predict": dspy.Predict, "cot": dspy.ChainOfThought}[style](Triage)
'''


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A folder with one experiment in it.

    Attributes:
        root: The folder; the repository once `init_repository` was called.
        name: Name of the experiment.
    """

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """The folder of the experiment."""
        return self.root / "experiments" / self.name

    @property
    def config(self) -> Path:
        """The experiment file."""
        return self.folder / "experiment.yaml"

    @property
    def program(self) -> Path:
        """The file with the factory."""
        return self.folder / "program.py"

    @property
    def dataset(self) -> Path:
        """The file with the examples."""
        return self.folder / "tickets.jsonl"

    @property
    def summary(self) -> Path:
        """Where the results are summed up."""
        return self.folder / "summary.json"

    def raw(self, run: str) -> Path:
        """Where the rows of a run are."""
        return self.folder / "results" / run / "raw.jsonl"

    def read(self) -> dict[str, Any]:
        """Read the experiment file as plain data."""
        content: dict[str, Any] = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        return content

    def change(self, changes: Mapping[str, Any]) -> None:
        """Lay changes over the experiment file, as ``config`` of `experiment` does."""
        _write_yaml(self.config, merged(self.read(), changes))

    def init_git(self) -> None:
        """Make the folder a git repository on branch main, with an identity of its own and no commit."""
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@example.com")
        self.git("config", "commit.gpgsign", "false")

    def init_dvc(self) -> None:
        """Make the git repository a DVC repository, with analytics off."""
        self.dvc("init", "--quiet")
        self.dvc("config", "core.analytics", "false")

    def init_repository(self) -> None:
        """Make the folder a git and DVC repository and commit everything."""
        self.init_git()
        self.init_dvc()
        self.commit("A laboratory")

    def commit(self, message: str) -> None:
        """Commit every change in the folder."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def git(self, *arguments: str) -> str:
        """Run git in the folder and return what it prints.

        Raises:
            subprocess.CalledProcessError: It failed.
        """
        return self._run("git", *arguments)

    def dvc(self, *arguments: str) -> str:
        """Run DVC in the folder and return what it prints; errors as for `git`."""
        return self._run(sys.executable, "-m", "dvc", *arguments)

    def _run(self, *command: str) -> str:
        environment = {API_KEY_ENV: "fake-key", **os.environ, "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(
            command, cwd=self.root, env=environment, check=True, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        return done.stdout


def experiment(
    root: Path,
    *,
    server_url: str,
    name: str = "triage",
    config: Mapping[str, Any] | None = None,
    examples: Sequence[Mapping[str, Any]] | None = None,
    files: Mapping[str, str] | None = None,
) -> Laboratory:
    """Write a complete small experiment: one program, one model, one metric.

    The program is ``build(style="predict" | "cot")`` over a signature ``text -> label``; the model is
    ``fake`` at the given server, with its key in FAKE_API_KEY; the metric is ``accuracy``.

    Args:
        root: Folder of the laboratory; made if need be. Several experiments may share it.
        server_url: ``url`` of a `FakeServer` or `ServerProcess`.
        name: Name of the experiment.
        config: Laid over the experiment file: mappings merge, other values replace, ``...`` removes a key.
        examples: Rows of the dataset; default: ``tickets(8)``.
        files: Further files, path relative to ``root`` to content; may replace those written here.

    Returns:
        Where everything is.
    """
    lab = Laboratory(root, name)
    lab.folder.mkdir(parents=True, exist_ok=True)
    _write_yaml(lab.config, merged(_default_config(name, server_url), config or {}))
    lab.program.write_text(_PROGRAM, encoding="utf-8")
    rows = tickets(8) if examples is None else examples
    lab.dataset.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for path, content in (files or {}).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    return lab


def tickets(count: int) -> list[dict[str, str]]:
    """Make support tickets, each different, the four labels in turn.

    Args:
        count: How many.

    Returns:
        Rows with ``text`` and ``label``.
    """
    kinds = list(LABELS.items())
    return [
        {"text": f"Ticket {number}: {text}.", "label": label}
        for number, (label, text) in ((number, kinds[number % len(kinds)]) for number in range(count))
    ]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changes over nested mappings: mappings merge, other values replace, ``...`` removes a key."""
    result = dict(base)
    for key, value in changes.items():
        if value is ...:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def _default_config(name: str, server_url: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "Which program should route our tickets?",
        "program": {"path": "program.py", "args": {"style": "predict"}, "adapter": "chat"},
        "dataset": {"path": "tickets.jsonl", "inputs": ["text"]},
        "models": {
            "fake": {
                "model": "openai/fake",
                "api_base": server_url,
                "api_key_env": API_KEY_ENV,
                "temperature": 0.0,
                "max_tokens": 64,
            }
        },
        "matrix": {"model": ["fake"]},
        "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
        "primary_metric": "accuracy",
        "execution": {"max_concurrency": 16},
    }


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
