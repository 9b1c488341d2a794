from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import dspylab.redact
from dspylab.config.models import Model
from dspylab.errors import EnvironmentProblem
from dspylab.lm.keys import find_keys, read_environment, usual_variables
from dspylab.redact import redact

NAMES = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "MINE", "GROQ_API_KEY")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dspylab.redact, "_known", ())
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(root: Path, **files: str | bytes) -> dict[str, str]:
    """The environment with a `.env` at the root and one in the experiment's folder."""
    for place, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (root / {"at_root": ".env", "in_folder": "x/.env"}[place]).write_bytes(data)
    return read_environment(root / "x", root)


def models(**entries: Any) -> dict[str, Model]:
    return {
        name: Model.model_validate(entry if isinstance(entry, dict) else {"model": entry})
        for name, entry in entries.items()
    }


# Where variables come from.


def test_the_nearer_place_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"at_root": "A=root\nB=root\nC=root\n", "in_folder": "B=folder\nC=folder\n"}
    monkeypatch.setenv("C", "process")
    found = environment(root, **files)
    assert (found["A"], found["B"], found["C"]) == ("root", "folder", "process")


def test_set_to_nothing_is_not_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "")
    found = environment(root, at_root="A=root\nB=root\n", in_folder="B=\nC\n")
    assert (found["A"], found["B"]) == ("root", "root")
    assert "C" not in found


def test_nothing_is_put_into_the_process_and_no_file_is_needed(root: Path) -> None:
    assert read_environment(root / "x", root) == {name: value for name, value in os.environ.items() if value}
    environment(root, at_root="MINE=value")
    assert "MINE" not in os.environ


@pytest.mark.parametrize(
    "line",
    [
        "MINE=a-value",
        "export MINE=a-value",
        'MINE="a-value"',
        "MINE='a-value' # comment",
        "  MINE = a-value",
        "# comment\r\n\r\nMINE=a-value\r\n",
        "\ufeffMINE=a-value",
        "BASE=a\nMINE=${BASE}-value",
        "?!\nMINE=a-value",
    ],
)
def test_forms_of_a_line(root: Path, line: str) -> None:
    assert environment(root, at_root=line)["MINE"] == "a-value"


def test_a_file_that_cannot_be_read(root: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"^\.env: is not UTF-8: save the file as UTF-8$"):
        environment(root, at_root=b"MINE=\xff\xfe\n")


# What is secret.


def test_values_are_masked_by_the_name_of_their_variable(root: Path) -> None:
    secret = {
        name: f"canary-of-{name.lower()}" for name in ("A_TOKEN", "MINE_KEY", "DB_PASSWORD", "APIKEY_2")
    }
    plain = {
        "MAX_TOKENS_A_DAY": "plain-text-of-tokens",
        "A_TOKEN_LIMIT": "100000000",
        "KEYBOARD": "plain-text-of-keyboard",
        "SSH_KEY_FILE": str(root),
        "SHORT_KEY": "local",
    }
    environment(root, at_root="".join(f"{name}={value}\n" for name, value in {**secret, **plain}.items()))
    for value in secret.values():
        assert redact(f"x {value} y") == "x [secret] y"
    for value in plain.values():
        assert redact(f"x {value} y") == f"x {value} y"


def test_a_key_is_masked_whatever_its_variable_is_called(root: Path) -> None:
    found = environment(root, in_folder="MINE=canary-value\n")
    assert redact("canary-value") == "canary-value"
    find_keys(models(a={"model": "openai/x", "api_key_env": "MINE"}), found)
    assert redact("canary-value") == "[secret]"


# Keys of models.


def test_each_model_gets_its_key() -> None:
    entries = models(
        usual="openai/gpt",
        second="gemini/flash",
        named={"model": "openai/gpt", "api_key_env": "MINE"},
        own_server={"model": "openai/gpt", "api_base": "http://127.0.0.1:1/v1"},
        own_server_named={"model": "openai/gpt", "api_base": "http://127.0.0.1:1/v1", "api_key_env": "MINE"},
        embedded="local/smollm2-135m-instruct",
        ollama="ollama/llama3",
        through_litellm="azure/gpt",
    )
    found = {"OPENAI_API_KEY": "open\n", "GOOGLE_API_KEY": "goog", "GEMINI_API_KEY": " ", "MINE": " mine "}
    assert find_keys(entries, found) == {
        "usual": "open",
        "second": "goog",
        "named": "mine",
        # A server of the user's own must not be sent the key of another.
        "own_server": None,
        "own_server_named": "mine",
        "embedded": None,
        "ollama": None,
        "through_litellm": None,
    }


def test_all_missing_keys_are_named_at_once() -> None:
    entries = models(
        a="openai/gpt",
        b="anthropic/claude",
        c="gemini/flash",
        d={"model": "openai/gpt", "api_key_env": "MINE"},
        e="groq/llama",
        f="local/smollm2-135m-instruct",
    )
    with pytest.raises(EnvironmentProblem) as caught:
        find_keys(entries, {"GROQ_API_KEY": "canary-value", "OPENAI_API_KEY": ""})
    assert str(caught.value) == (
        "API keys: models.a (openai/gpt) needs OPENAI_API_KEY; "
        "models.b (anthropic/claude) needs ANTHROPIC_API_KEY; "
        "models.c (gemini/flash) needs GEMINI_API_KEY or GOOGLE_API_KEY; "
        "models.d (openai/gpt) needs MINE: "
        "export the variable, or put it into a .env file beside the experiment or at the root"
    )
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("value", ["sk-canary…value", "sk-canary\nvalue", "sk-canary\x00value"])
def test_a_key_that_no_header_can_hold_is_told_and_not_shown(value: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        find_keys(models(a="openai/gpt"), {"OPENAI_API_KEY": value})
    assert "models.a: OPENAI_API_KEY holds a character that no key has" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_usual_variables() -> None:
    found = models(a="openai/gpt", b={"model": "openai/gpt", "engine": "litellm"}, c="azure/gpt", d="local/x")
    assert {name: usual_variables(model) for name, model in found.items()} == {
        "a": ("OPENAI_API_KEY",),
        "b": (),
        "c": (),
        "d": (),
    }
