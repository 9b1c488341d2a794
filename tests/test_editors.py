"""What an editor makes of an experiment file: the YAML language server, over its protocol.

`make editors-test` installs the server; without it these tests are skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "build/editors/node_modules/yaml-language-server/bin/yaml-language-server"
#: Nothing is fetched: the schema that the file names is all there is.
SETTINGS = {"yaml": {"schemaStore": {"enable": False}, "completion": True, "hover": True, "validate": True}}

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not SERVER.is_file(), reason="needs node and `make editors-test`"
)


class LanguageServer:
    """A language server on the pipes of a process: requests, and the notices that come between."""

    def __init__(self, root: Path) -> None:
        self._process = subprocess.Popen(
            ["node", SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._last_id = 0
        self.diagnostics: dict[str, list[dict[str, Any]]] = {}
        capabilities = {"workspace": {"configuration": True}, "textDocument": {"publishDiagnostics": {}}}
        self.request(
            "initialize", {"processId": None, "rootUri": root.as_uri(), "capabilities": capabilities}
        )
        self._notify("initialized", {})

    def close(self) -> None:
        self.request("shutdown", None)
        self._notify("exit", None)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(timeout=30)

    def open(self, path: Path, text: str) -> list[dict[str, Any]]:
        """Opens a file with a text that need not be on the disk; what the server finds wrong in it."""
        document = {"uri": path.as_uri(), "languageId": "yaml", "version": 1, "text": text}
        self._notify("textDocument/didOpen", {"textDocument": document})
        while path.as_uri() not in self.diagnostics:
            self._handle(self._read())
        return self.diagnostics[path.as_uri()]

    def at(self, what: str, path: Path, line: int, character: int) -> Any:
        position = {"line": line, "character": character}
        return self.request(
            f"textDocument/{what}", {"textDocument": {"uri": path.as_uri()}, "position": position}
        )

    def request(self, method: str, params: Any) -> Any:
        self._last_id += 1
        self._send({"id": self._last_id, "method": method, "params": params})
        while True:
            message = self._read()
            if message.get("id") == self._last_id and "method" not in message:
                assert "error" not in message, message
                return message["result"]
            self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        """What the server says or asks by itself."""
        if message.get("method") == "textDocument/publishDiagnostics":
            self.diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif message.get("method") == "workspace/configuration":
            sections = [item.get("section", "") for item in message["params"]["items"]]
            self._send({"id": message["id"], "result": [SETTINGS.get(section) for section in sections]})
        elif "id" in message and "method" in message:
            self._send({"id": message["id"], "result": None})

    def _notify(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        length = 0
        while (line := stdout.readline().strip()) or not length:
            assert self._process.poll() is None, "the server has ended"
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        message: dict[str, Any] = json.loads(stdout.read(length))
        return message


@pytest.fixture
def config(tmp_path: Path, cli_inside: Cli) -> Path:
    assert cli_inside("init", cwd=tmp_path).code == 0
    return tmp_path / "experiments" / "topics" / "experiment.yaml"


@pytest.fixture
def editor(config: Path) -> Iterator[LanguageServer]:
    server = LanguageServer(config.parents[2])
    yield server
    server.close()


def line_of(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines()) if part in line)


def labels(completion: Any) -> list[str]:
    return [item["label"] for item in (completion["items"] if isinstance(completion, dict) else completion)]


def test_the_example_has_nothing_wrong(editor: LanguageServer, config: Path) -> None:
    assert editor.open(config, config.read_text()) == []


def test_mistakes_are_underlined(editor: LanguageServer, config: Path) -> None:
    text = config.read_text().replace("temperature: 0.0\n", "temprature: 0.0\n", 1)
    text = text.replace("type: exact_match", "type: exactly")

    found = {finding["range"]["start"]["line"]: finding["message"] for finding in editor.open(config, text)}

    assert "temprature" in found[line_of(text, "temprature")]
    assert "exact_match" in found[line_of(text, "exactly")]


def test_keys_and_values_are_completed(editor: LanguageServer, config: Path) -> None:
    text = config.read_text() + "execution:\n  \noptimizers:\n  few:\n    \n"
    text = text.replace("{type: exact_match, field: topic}", "\n    type: ")
    editor.open(config, text)

    execution = editor.at("completion", config, line_of(text, "execution:") + 1, 2)
    optimizer = editor.at("completion", config, line_of(text, "  few:") + 1, 4)
    metric = editor.at("completion", config, line_of(text, "    type: "), len("    type: "))

    assert {"max_concurrency", "max_errors"} <= set(labels(execution))
    assert {"type", "params", "metric", "lms"} <= set(labels(optimizer))
    assert {"exact_match", "llm_judge"} <= set(labels(metric))


def test_keys_are_explained(editor: LanguageServer, config: Path) -> None:
    text = config.read_text()
    editor.open(config, text)

    hover = editor.at("hover", config, line_of(text, "primary_metric:"), 3)

    assert "ranks the runs" in str(hover["contents"])
