"""Completion, colours and help, as a shell and a terminal get them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from conftest import Cli

from dspylab.cli import app
from dspylab.commands.completion import coordinates, experiment_files
from dspylab.testing import FakeServer, Laboratory, experiment

DSPYLAB = Path(sys.executable).parent / "dspylab"
MATRIX = {"matrix": {"model": ["fake"], "program.style": ["predict", "cot"], "lm.temperature": [0.0, 0.7]}}
#: A sequence that sets a colour: one of 16, of 256, or a triple.
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laboratory:
    made = experiment(tmp_path, server_url="http://127.0.0.1:9/v1", config=MATRIX)
    monkeypatch.chdir(tmp_path)
    return made


def test_experiments_in_sight_are_offered_and_other_files_when_there_are_none(lab: Laboratory) -> None:
    config = str(lab.config.relative_to(lab.root))
    Path("other").mkdir()
    Path("other/mine.yml").touch()
    Path("other/notes.txt").touch()

    assert experiment_files("") == [config]
    assert experiment_files("exp") == [config]
    assert experiment_files("o") == ["other/"]
    assert experiment_files("other/") == ["other/mine.yml"]
    assert experiment_files("nowhere/") == []


def test_coordinates_that_are_left_are_offered(lab: Laboratory) -> None:
    assert coordinates(None, [], "") == [
        "model=fake",
        "program.style=predict",
        "lm.temperature=0.0",
        "lm.temperature=0.7",
        "program.style=cot",
    ]
    assert coordinates(lab.config, ["program.style=cot"], "lm") == [
        "lm.temperature=0.0",
        "lm.temperature=0.7",
    ]
    assert coordinates(lab.config, ["program.style=none"], "") == []
    assert coordinates(Path("nowhere.yaml"), [], "") == []
    lab.config.write_text("name: [")
    assert coordinates(lab.config, [], "") == []


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (
            "dspylab run-one --config {config} model=fake program.s",
            ["program.style=predict", "program.style=cot"],
        ),
        ("dspylab plan --config ", ["{config}"]),
        ("dspylab agg", ["aggregate"]),
    ],
)
def test_a_shell_is_answered(lab: Laboratory, cli: Cli, words: str, offered: list[str]) -> None:
    config = str(lab.config.relative_to(lab.root))
    words = words.format(config=config)

    done = cli(
        cwd=lab.root,
        _DSPYLAB_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )

    assert done.out.split() == [word.format(config=config) for word in offered], done.err


def test_a_completion_script_is_printed(tmp_path: Path, cli: Cli) -> None:
    script = cli("--show-completion", "bash", cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")

    assert script.code == 0, script.err
    assert "complete -o default -F _dspylab_completion dspylab" in script.out


@pytest.mark.parametrize("no_colour", [False, True])
def test_a_terminal_gets_colours_unless_it_asks_for_none(
    tmp_path: Path, server: FakeServer, *, no_colour: bool
) -> None:
    lab = experiment(tmp_path, server_url=server.url)
    environment = {**os.environ, "FAKE_API_KEY": "fake-key", "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    reading, terminal = pty.openpty()
    process = subprocess.Popen(
        [DSPYLAB, "run-one", "-c", lab.config],
        cwd=lab.root, env=environment | ({"NO_COLOR": "1"} if no_colour else {}),
        stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while data := os.read(reading, 65536):
            shown += data
    except OSError:
        pass  # Linux says so when the program has gone
    os.close(reading)

    assert process.wait(60) == 0, shown
    assert b"8/8" in shown
    assert bool(COLOUR.search(shown.decode())) is not no_colour


def test_every_command_says_what_it_does_and_shows_an_example() -> None:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        first = (command.help or "").partition(".")[0]
        assert 10 < len(first) < 60, name
        assert re.search(rf"^(Example: |  )dspylab {name}", command.epilog or "", re.MULTILINE), name
