"""No key is in any file that we, git or DVC keep, nor on the screen: canaries wherever keys come from."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import API_KEY, Cli, InitRepository

from dspylab.testing import ChatRequest, FakeServer, Fault, Laboratory, experiment, tickets

#: What must not be seen again, by where it is planted.
CANARIES = {
    "environment": API_KEY,
    "usual variable": "sk-proj-canary1Usual2Variable3",
    "root .env": "canary-root-dotenv-5566778899",
    "folder .env": "canary-folder-dotenv-99887766",
    "other variable": 'canary other: it\'s "quoted" 12',
    "password in a URL": "canaryUrlPassword42",
    "litellm": "gsk_canary0Litellm1Key2canary",
}
VARIABLES = {
    "FAKE_API_KEY": CANARIES["environment"],
    "OPENAI_API_KEY": CANARIES["usual variable"],
    "DATABASE_PASSWORD": CANARIES["other variable"],
    "LITE_KEY": CANARIES["litellm"],
}
PROGRAM = """
import logging, os, sys
import dspy

class Telling(dspy.Module):
    def __init__(self):
        super().__init__()
        self.route = dspy.Predict("text -> label")

    def forward(self, text):
        if text.startswith("Ticket 1:"):
            raise RuntimeError(f"I tell it all: {dict(os.environ)}")
        if text.startswith("Ticket 2:"):
            logging.getLogger("program").error("environment %s", dict(os.environ))
            raise ValueError({"Authorization": "Bearer " + os.environ["FAKE_API_KEY"]})
        return self.route(text=text)

def build():
    return Telling()

def leaky(example, prediction, trace=None):
    raise KeyError(os.environ["OPENAI_API_KEY"])
"""


def echo(request: ChatRequest) -> Fault | None:
    """What a careless provider says to each model."""
    if request.model == "refused":
        return Fault("status", status=401, echo_key=True)
    if request.model in ("failing", "fake-litellm"):
        return Fault("status", status=500, echo_key=True)
    if request.model == "html":
        return Fault("status", status=403, body=f"<html>{dict(request.headers)}</html>")
    return None


def laboratory(folder: Path, url: str) -> Laboratory:
    password = CANARIES["password in a URL"]
    models: dict[str, Any] = {
        "refused": {"model": "openai/refused", "api_base": url, "api_key_env": "ROOT_KEY"},
        "failing": {
            "model": "openai/failing", "api_base": url, "api_key_env": "FOLDER_KEY", "num_retries": 0,
        },
        "html": {"model": "openai/html", "api_base": url, "api_key_env": "FAKE_API_KEY"},
        "usual": {"model": "openai/usual"},
        "url": {"model": "groq/url", "num_retries": 0},
        "lite": {
            "model": "openai/fake-litellm", "api_base": url, "api_key_env": "LITE_KEY", "engine": "litellm",
            "num_retries": 0,
        },
    }  # fmt: skip
    config = {
        "models": models,
        "matrix": {"model": ["fake", *models]},
        "program": {"args": ...},
        "metrics": {"leaky": {"type": "path", "ref": "program.py:leaky"}},
        "execution": {"max_errors": 4},
    }
    return experiment(
        folder,
        server_url=url,
        config=config,
        examples=tickets(4),
        files={
            "experiments/triage/program.py": PROGRAM,
            "experiments/triage/.env": f"FOLDER_KEY={CANARIES['folder .env']}\n",
            ".env": f"ROOT_KEY={CANARIES['root .env']}\nGROQ_API_KEY={CANARIES['root .env']}\n"
            f"OPENAI_API_BASE={url}\nGROQ_API_BASE={url.replace('127', f'user:{password}@127')}\n",
            ".gitignore": ".env\n",
        },
    )


def kept(root: Path) -> Iterator[tuple[str, bytes]]:
    """All that stands in the folder: every file, and what git has packed away."""
    for path in root.rglob("*"):
        if path.is_file() and path.name != ".env":
            yield str(path), path.read_bytes()
    command = ["git", "cat-file", "--batch", "--batch-all-objects"]
    yield "git", subprocess.run(command, cwd=root, capture_output=True, check=True).stdout


def forms(canary: str) -> set[bytes]:
    """A secret, as it is and as JSON or repr() write it."""
    return {form.encode() for form in (canary, json.dumps(canary)[1:-1], repr(canary)[1:-1])}


def test_canaries_are_nowhere_to_be_seen(
    tmp_path: Path, cli_inside: Cli, init_repository: InitRepository
) -> None:
    with FakeServer(fail=echo) as server:
        lab = laboratory(tmp_path, server.url)
        init_repository(lab)
        commands: list[list[str]] = [
            ["plan"],
            ["run", "-v"],
            ["run", "--json"],
            ["doctor", "-v", "--call"],
            *(["run-one", "-v", f"model={model}"] for model in ("lite", "url")),
            ["run-one", "--fresh", "--quiet", "model=fake"],
            ["aggregate", "-v"],
        ]
        done = {" ".join(each): cli_inside(*each, cwd=lab.root, **VARIABLES) for each in commands}
        keys = {record.key_sha256 for record in server.requests}

    assert done["run -v"].code == 1, done["run -v"].err
    # Each key was really sent, and the failures were really recorded.
    assert len(keys) >= 5
    rows = {
        model: lab.raw(model).read_text() for model in ("fake", "refused", "failing", "html", "lite", "url")
    }
    assert "You sent: " in rows["refused"] + rows["failing"] + rows["lite"]
    assert "I tell it all" in rows["fake"]
    assert "[secret]" in rows["fake"]
    places = [
        *kept(lab.root),
        *((f"screen of {name}", (end.out + end.err).encode()) for name, end in done.items()),
    ]
    for planted, canary in CANARIES.items():
        for place, content in places:
            for form in forms(canary):
                assert form not in content, f"the canary of {planted} is in {place}"
    for name, end in done.items():
        assert "Traceback" not in end.err, name


def test_a_key_in_the_experiment_file_is_refused_and_not_repeated(
    tmp_path: Path, server: FakeServer, cli_inside: Cli
) -> None:
    lab = experiment(tmp_path, server_url=server.url)
    text = lab.config.read_text()
    canary = "sk-proj-canary1Usual2Variable3"
    for written in (
        text.replace("api_key_env: FAKE_API_KEY", f"api_key: {canary}"),
        text.replace("api_key_env: FAKE_API_KEY", f"api_key_env: {canary}"),
        text.replace("description:", f"# {canary}\ndescription:"),
        text.replace("http://", f"http://user:{canary}@"),
        text.replace("models:", f"models:\n  {canary}: {{model: openai/x}}"),
        text.replace("models:", f"models: [ # {canary}"),
        text.replace("max_tokens: 64", f"params: {{extra_headers: {{Authorization: Bearer {canary}}}}}"),
    ):
        assert canary in written
        lab.config.write_text(written)
        for command in (["validate", "-v"], ["run-one", "-v", "model=fake"], ["plan"], ["doctor"]):
            done = cli_inside(*command, cwd=lab.root)
            assert done.code in (2, 3), done.out
            assert canary not in done.out + done.err
            assert "canary1" not in done.out + done.err
        assert [path for path in lab.root.rglob("*") if path.is_file() and ".dspylab" in path.parts] == []
    assert not server.requests


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_journal_is_private_and_other_files_follow_the_umask(
    tmp_path: Path, server: FakeServer, cli_inside: Cli, umask: int
) -> None:
    lab = experiment(tmp_path, server_url=server.url)
    before = os.umask(umask)
    try:
        assert cli_inside("run-one", "model=fake", cwd=lab.root).code == 0
        assert cli_inside("aggregate", cwd=lab.root).code == 0
    finally:
        os.umask(before)

    (journal,) = lab.root.rglob(".dspylab/journal/*.jsonl")
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    for path in (lab.raw("fake"), lab.raw("fake").with_name("run.json"), lab.summary):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path
