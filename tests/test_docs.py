"""What README and docs show is true: commands exist, YAML is valid, Python compiles, messages are ours."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
import yaml
from jsonschema import Draft202012Validator

from dspylab.cli import app
from dspylab.config.load import load
from dspylab.config.models import Experiment
from dspylab.plan.compiles import compiles
from dspylab.plan.matrix import expand

ROOT = Path(__file__).parent.parent
EXAMPLES = (ROOT / "experiments").glob("*/README.md")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *EXAMPLES, *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCHEMA = json.loads((ROOT / "schema/experiment.schema.json").read_text())
#: Commands of others, whose options are theirs to check.
OTHERS = {
    "apt-get", "brew", "cat", "cd", "chmod", "cp", "curl", "dask", "docker", "dvc", "echo", "export", "gh",
    "git", "head", "jq", "kubectl", "less", "ls", "mkdir", "open", "pip", "pipx", "pytest", "python", "rm",
    "sbatch", "source", "ssh", "tail", "touch", "uv", "uvx", "xdg-open",
}  # fmt: skip
SEPARATORS = {"&&", "||", "|", ";", "&", ">", ">>", "2>&1"}


def blocks(*languages: str) -> list[Any]:
    """Code blocks of all pages, each as a parameter named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[1] in languages:
                line = text.count("\n", 0, match.start()) + 2
                found.append(pytest.param(match[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


@pytest.mark.parametrize("block", blocks("yaml", "yml"))
def test_yaml_is_a_valid_part_of_an_experiment_file(block: str) -> None:
    content = yaml.safe_load(block)
    assert isinstance(content, dict)
    if {"jobs", "stages", "steps", "repos", "spec"} & set(content):
        return  # of CI, DVC or Kubernetes
    errors = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in Draft202012Validator(SCHEMA).iter_errors(content)
        if error.validator != "required" or error.absolute_path
    ]
    assert errors == []
    if set(SCHEMA["required"]) <= set(content):
        Experiment.model_validate(content)


@pytest.mark.parametrize("block", blocks("sh", "bash", "console"))
def test_commands_exist_with_their_options(block: str) -> None:
    for line in block.replace("\\\n", " ").splitlines():
        for words in commands(line.removeprefix("$ ")):
            check(words)


def commands(line: str) -> Iterator[list[str]]:
    """The commands of a line, as words."""
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word in SEPARATORS:
            if words:
                yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


def check(words: list[str]) -> None:
    """Parses a command of ours, and looks up those of others."""
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if not words:
        return
    program = Path(words[0]).name
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word and not word.startswith("-")} <= set(targets)
    elif program == "dspylab":
        group = typer.main.get_command(app)
        context = typer.Context(group, info_name="dspylab")
        if words[1].startswith("-"):
            return
        command = group.get_command(context, words[1])  # type: ignore[attr-defined]
        assert command is not None, f"there is no command {words[1]}"
        arguments = [word for word in words[2:] if word != "…"]
        command.parse_args(typer.Context(command, info_name=words[1]), arguments)
    elif not program.endswith((".py", ".sh")):
        assert program in OTHERS | {"file.txt"}, f"{program}: an unknown command"


@pytest.mark.parametrize("block", blocks("python"))
def test_python_compiles(block: str) -> None:
    compile(block, "docs", "exec")


def test_troubleshooting_quotes_messages_that_exist() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "dspylab").rglob("*.py"))
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\*\*`([^`]+)`", text, re.MULTILINE)
    assert len(quoted) > 10
    for message in quoted:
        parts = re.split(r"…|'[^']*'|\d+|[A-Z_]{6,}", message)
        literal = max((part.strip() for part in parts), key=len)
        # DSPy's own, or put together from parts: then the first words stand in the code.
        assert literal in source or literal == "AdapterParseError" or literal[:12] in source, message


def test_runs_and_programs_of_the_demo_are_called_by_their_names() -> None:
    """Whoever tries what the README, a page or the help shows has only run the demo."""
    demo = load(ROOT / "experiments/triage/experiment.yaml").experiment
    runs = expand(demo)
    known = {run.key for run in runs} | {spec.key for spec in compiles(runs).values()}
    texts = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
    texts["--help"] = (ROOT / "dspylab/cli.py").read_text(encoding="utf-8")
    texts["the notebook"] = (ROOT / "docs/notebooks/results.ipynb").read_text(encoding="utf-8")
    named = {
        (where, name)
        for where, text in texts.items()
        for name in re.findall(r"\b(?:search-)?smollm2-(?:zero_shot|labels|balanced_demos|cot)[\w-]*", text)
    }
    assert len(named) > 10
    assert not {found for found in named if found[1] not in known}


def test_what_is_set_in_the_demo_stands_in_it() -> None:
    demo = yaml.safe_load((ROOT / "experiments/triage/experiment.yaml").read_text(encoding="utf-8"))
    address = re.compile(r"experiments/triage/experiment\.yaml:(\+?)([\w.]+)=")
    found = [match for page in PAGES for match in address.findall(page.read_text(encoding="utf-8"))]
    assert found
    for is_added, path in found:
        value: Any = demo
        *parents, key = path.split(".")
        for part in parents:
            value = value[part]
        assert (key in value) != bool(is_added), path


def test_the_extras_are_those_of_the_package() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(package["project"]["optional-dependencies"])
    told = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/install.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(told) == sorted(extras)
    for page in PAGES:
        for names in re.findall(r"(?:dspylab|checkout)\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= extras, page


def test_every_page_is_reachable() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w./-]+\.md", site))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if ROOT / "docs" in page.parents}
    assert pages <= listed
    generated = {f"reference/{name}.md" for name in ("config", "cli", "files")}
    assert listed - generated <= pages


def test_the_site_is_built_and_no_link_in_it_is_broken(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the group `docs` is not here")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    build += ["--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "reference" / "config" / "index.html").is_file()
