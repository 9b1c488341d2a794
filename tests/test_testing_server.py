"""The fake server and the experiment builder that ship to users, over real HTTP and with real clients."""

from __future__ import annotations

import asyncio
import enum
import hashlib
import http.client
import json
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pydantic
import pytest

from dspylab.config.models import Experiment
from dspylab.errors import EnvironmentProblem
from dspylab.testing import (
    ChatRequest,
    FakeServer,
    Fault,
    Faults,
    Reply,
    RequestRecord,
    ServerProcess,
    ToolCall,
    Usage,
    answer_key,
    experiment,
    reply_fields,
    server_process,
    tickets,
)
from dspylab.testing.answers import default_answer
from dspylab.testing.experiment import merged
from dspylab.testing.prompts import sample

KEY = "sk-canary-0123456789"
HELLO = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
FULL = Reply(
    "one two three",
    reasoning="let me think",
    tool_calls=(ToolCall(name="look", arguments={"word": "x y"}), ToolCall(name="stop", id="call_1")),
)


@pytest.fixture(autouse=True)
def no_price_list_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPy and LiteLLM fetch one at their first use unless this is set."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


@contextmanager
def connected(server: FakeServer | ServerProcess) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(server.url).netloc, timeout=20)
    try:
        yield connection
    finally:
        connection.close()


def ask(
    server: FakeServer | ServerProcess,
    body: dict[str, Any] | str = HELLO,
    *,
    path: str = "/v1/chat/completions",
    key: str | None = KEY,
    **extra: Any,
) -> tuple[int, dict[str, str], str]:
    """Send one request; return status, headers in lower case, and the whole body."""
    sent = body if isinstance(body, str) else json.dumps({**body, **extra})
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with connected(server) as connection:
        connection.request("POST", path, sent, headers)
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, text


def get(server: FakeServer | ServerProcess, path: str) -> Any:
    with connected(server) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        return json.load(response)


def events(text: str) -> list[Any]:
    """The payloads of server-sent events; the last one of a chat stream is the string [DONE]."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def deltas(text: str, choice: int = 0) -> list[dict[str, Any]]:
    found = [one for event in events(text)[:-1] for one in event["choices"] if one["index"] == choice]
    return [one["delta"] for one in found if one["finish_reason"] is None]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited 10 s in vain"
        time.sleep(0.005)


# The two formats


def test_a_whole_chat_completion() -> None:
    with FakeServer("four words of text") as server:
        status, _, text = ask(server)
    body = json.loads(text)
    assert status == 200
    assert body["id"] == "chatcmpl-0"
    assert body["object"] == "chat.completion"
    assert body["model"] == "fake"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "four words of text"}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == 4
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 4


def test_a_streamed_chat_completion_has_one_delta_a_token_and_ends_with_done() -> None:
    with FakeServer("four words of text") as server:
        _, headers, text = ask(server, stream=True)
    assert headers["content-type"] == "text/event-stream"
    assert headers["transfer-encoding"] == "chunked"
    assert [delta["content"] for delta in deltas(text)] == ["four", " words", " of", " text"]
    *chunks, done = events(text)
    assert done == "[DONE]"
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-0"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_ends_the_stream_when_it_is_asked_for() -> None:
    with FakeServer("two words") as server:
        _, _, text = ask(server, stream=True, stream_options={"include_usage": True})
    last = events(text)[-2]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2


def test_reasoning_and_tool_calls_stream_around_the_content() -> None:
    with FakeServer(FULL) as server:
        _, _, text = ask(server, stream=True)
    found = deltas(text)
    assert "".join(delta.get("reasoning_content", "") for delta in found) == "let me think"
    assert "".join(delta.get("content", "") for delta in found) == "one two three"
    calls = [call for delta in found for call in delta.get("tool_calls", [])]
    arguments = [
        "".join(call["function"]["arguments"] for call in calls if call["index"] == i) for i in (0, 1)
    ]
    assert [json.loads(text) for text in arguments] == [{"word": "x y"}, {}]
    assert [call["function"]["name"] for call in calls if "id" in call] == ["look", "stop"]
    assert events(text)[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_reply_decides_how_it_is_sent() -> None:
    with FakeServer(lambda request: request.body["reply"]) as server:

        def stream_of(reply: Reply) -> str:
            server.answer = reply
            return ask(server, stream=True, stream_options={"include_usage": True})[2]

        text = stream_of(Reply("a b", empty_first_chunk=True))
        assert [delta["content"] for delta in deltas(text)] == ["", "a", " b"]
        text = stream_of(Reply("a b", reasoning="r", one_chunk=True))
        assert deltas(text) == [{"role": "assistant", "content": "a b", "reasoning_content": "r"}]
        assert events(text)[-2]["usage"]["completion_tokens"] == 3
        text = stream_of(Reply("abc", tokens=("ab", "c")))
        assert [delta["content"] for delta in deltas(text)] == ["ab", "c"]
        assert events(stream_of(Reply("a", omit_usage_chunk=True)))[-2]["choices"]
        assert events(stream_of(Reply("a", usage=None)))[-2]["choices"]
        assert deltas(stream_of(Reply(""))) == []
        text = stream_of(Reply("a", usage=Usage(prompt_tokens=1000, cached_tokens=600, reasoning_tokens=7)))
        usage = events(text)[-2]["usage"]
        assert (usage["prompt_tokens"], usage["prompt_tokens_details"]) == (1000, {"cached_tokens": 600})
        assert usage["completion_tokens_details"] == {"reasoning_tokens": 7}
        assert (
            events(stream_of(Reply("a", finish_reason="length")))[-3]["choices"][0]["finish_reason"]
            == "length"
        )


def test_each_choice_is_asked_for_by_its_number() -> None:
    with FakeServer(lambda request: " ".join(["word"] * (request.choice + 1))) as server:
        whole = json.loads(ask(server, n=3)[2])
        _, _, streamed = ask(server, n=3, stream=True)
    assert [choice["message"]["content"].split() for choice in whole["choices"]] == [
        ["word"] * n for n in (1, 2, 3)
    ]
    assert whole["usage"]["completion_tokens"] == 1 + 2 + 3
    assert [len(deltas(streamed, choice)) for choice in range(3)] == [1, 2, 3]


def test_every_reply_can_be_cut_into_a_given_number_of_tokens() -> None:
    with FakeServer(lambda request: request.text, tokens=8) as server:
        for said in ("hello", "a longer text that is cut"):
            _, _, text = ask(server, messages=[{"role": "user", "content": said}], stream=True)
            parts = [delta["content"] for delta in deltas(text)]
            assert len(parts) == 8
            assert all(parts)
            assert "".join(parts).rstrip() == said


# Real clients


@contextmanager
def engine_on(server: FakeServer, model_type: Literal["chat", "responses"]) -> Iterator[tuple[Any, Any]]:
    """DSPy's own client and a request for it."""
    from dspy.clients.engines.lm15_engine import LM15Engine
    from dspy.lm15 import Message, Request, RouterConfig, TextPart

    provider = {"chat": "openai-chat", "responses": "openai"}[model_type]
    engine = LM15Engine(
        RouterConfig(base_urls={provider: server.url}, api_keys={provider: KEY}), model_type=model_type
    )
    request = Request(
        model="openai/fake", messages=(Message(role="user", parts=(TextPart(text="hello there"),)),)
    )
    try:
        yield engine, request
    finally:
        engine.close()


@pytest.mark.parametrize("model_type", ["chat", "responses"])
def test_dspys_own_client_reads_both_formats(model_type: Literal["chat", "responses"]) -> None:
    with FakeServer(FULL) as server, engine_on(server, model_type) as (engine, request):
        streamed, whole = list(engine.stream(request)), engine.complete(request)
    parts = [event.delta for event in streamed if event.type == "delta"]
    assert "".join(part.text for part in parts if part.type == "thinking") == "let me think"
    assert "".join(part.text for part in parts if part.type == "text") == "one two three"
    assert "".join(part.input for part in parts if part.type == "tool_call") == '{"word": "x y"}{}'
    end = streamed[-1]
    assert (end.type, end.finish_reason) == ("end", "tool_call")
    for usage in (end.usage, whole.usage):
        assert usage.output_tokens == 3 + 3 + 3 + 1
        assert usage.reasoning_tokens == 3
    assert [part.type for part in whole.message.parts] == ["thinking", "text", "tool_call", "tool_call"]
    assert whole.id.endswith("1")
    assert [(record.number, record.endpoint, record.stream) for record in server.requests] == [
        (0, model_type, True),
        (1, model_type, False),
    ]


@pytest.mark.parametrize(
    ("fault", "error", "retry_after_s"),
    [
        (Fault("status", status=401, echo_key=True), "AuthError", None),
        (Fault("status", status=404), "UnsupportedModelError", None),
        (Fault("status", status=429, retry_after_s=0.25), "RateLimitError", 0.25),
        (Fault("status", status=503, body="<h1>Busy</h1>"), "ServerError", None),
        (Fault("cut"), "TransportError", None),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else None,
)
def test_dspys_own_client_takes_faults_for_what_they_are(
    fault: Fault, error: str, retry_after_s: float | None
) -> None:
    from dspy.lm15 import LM15Error

    with FakeServer("a b c", fail=lambda _: fault) as server, engine_on(server, "chat") as (engine, request):
        for call in (lambda: list(engine.stream(request)), lambda: engine.complete(request)):
            with pytest.raises(LM15Error) as caught:
                call()
            assert type(caught.value).__name__ == error
            assert getattr(caught.value, "retry_after", None) == retry_after_s
            assert (KEY in str(caught.value)) == fault.echo_key


def test_a_responses_stream_is_what_openais_client_expects() -> None:
    from openai import OpenAI

    with (
        FakeServer(FULL) as server,
        OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as client,
        client.responses.stream(model="fake", input="hello") as stream,
    ):
        kinds = Counter(event.type for event in stream)
        final = stream.get_final_response()
    assert final.output_text == "one two three"
    assert kinds["response.output_text.delta"] == 3
    assert kinds["response.output_item.done"] == 4
    assert kinds["response.completed"] == 1
    assert final.usage is not None
    assert final.usage.output_tokens == 10


def test_a_truncated_responses_stream_ends_incomplete() -> None:
    with FakeServer(Reply("cut short", finish_reason="length", one_chunk=True)) as server:
        _, _, text = ask(server, {"model": "fake", "input": "hello", "stream": True}, path="/v1/responses")
    last = events(text)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [event["sequence_number"] for event in events(text)] == list(range(len(events(text))))


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(pydantic.BaseModel):
    name: str
    count: int


def every_type() -> Any:
    import dspy

    types = {
        "reasoning": str,
        "label": Literal["bug", "payment"],
        "colour": Colour,
        "sure": bool,
        "count": int,
        "share": float,
        "parts": list[Item],
        "best": Item,
        "extra": dict[str, Any],
        "note": str | None,
    }
    outputs = {name: (kind, dspy.OutputField()) for name, kind in types.items()}
    return dspy.Signature({"text": (str, dspy.InputField()), **outputs}, "Make one of each.")


def predict(server: FakeServer, adapter: Any, signature: Any, text: str, model: str = "openai/fake") -> Any:
    import dspy

    lm = dspy.LM(model, api_base=server.url, api_key=KEY, cache=False, num_retries=0)
    with dspy.context(lm=lm, adapter=adapter):
        return dspy.Predict(signature)(text=text)


@pytest.mark.parametrize("name", ["ChatAdapter", "JSONAdapter", "XMLAdapter"])
def test_the_default_answer_satisfies_every_adapter_at_the_first_try(name: str) -> None:
    import dspy

    with FakeServer() as server:
        made = predict(server, getattr(dspy, name)(), every_type(), "anything")
        assert len(server.requests) == 1
    assert (made.label, made.colour, made.reasoning) == ("bug", Colour.RED, "ok")
    assert (made.sure, made.count, made.share) == (True, 1, 1.0)
    assert isinstance(made.parts[0], Item)
    assert isinstance(made.best, Item)
    assert isinstance(made.extra, dict)


@pytest.mark.parametrize("name", ["ChatAdapter", "JSONAdapter", "XMLAdapter"])
def test_given_fields_are_written_for_the_adapter_and_the_others_are_filled_in(name: str) -> None:
    import dspy

    fields = {"label": "payment", "reasoning": "1 < 2 & so on", "parts": [{"name": "x", "count": 3}]}
    seen: list[str | None] = []

    def answer(request: ChatRequest) -> str:
        seen.append(request.field("text"))
        return reply_fields(request, fields)

    with FakeServer(answer) as server:
        made = predict(server, getattr(dspy, name)(), every_type(), "first line\n\nsecond: line")
    assert seen == ["first line\n\nsecond: line"]
    assert (made.label, made.reasoning, made.parts) == ("payment", "1 < 2 & so on", [Item(name="x", count=3)])
    assert made.colour is Colour.RED


def test_prompts_that_explain_nothing_are_answered_as_their_demonstrations_are() -> None:
    """Those of `compact`, to a model that takes no JSON schema."""
    import dspy

    from dspylab.program.adapters import CompactAdapter

    program = dspy.Predict("text -> label")
    program.demos = [dspy.Example(text="a", label="bug"), dspy.Example(text="b", label="praise")]
    with FakeServer() as server:
        lm = dspy.LM("openai/fake", api_base=server.url, api_key=KEY, cache=False)
        with dspy.context(lm=lm, adapter=CompactAdapter()):
            assert program(text="c").label == "praise"
    (request,) = server.requests
    assert "response_format" not in (request.body or {})
    messages = [{"role": "assistant", "content": "no JSON"}, {"role": "user", "content": "hello"}]
    assert default_answer(ChatRequest(number=0, body={"messages": messages})) == "ok"


def test_a_json_schema_in_the_request_is_satisfied() -> None:
    import dspy

    with FakeServer() as server:
        made = predict(
            server, dspy.JSONAdapter(), "text -> label: bool, words: list[str]", "x", "openai/gpt-4o-mini"
        )
        (record,) = server.requests
    assert record.body is not None
    assert record.body["response_format"]["type"] == "json_schema"
    assert (made.label, made.words) == (True, ["ok"])


TREE = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
            "required": ["children", "next"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {
            "type": "object",
            "properties": {"a": {"enum": ["x", "y"]}, "b": {"const": 3}},
            "required": ["a", "b"],
        },
        {"type": "array", "items": {"type": "string", "minLength": 5}, "minItems": 2},
        {"type": "array", "items": {"type": "string"}, "maxItems": 0},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}]},
        {"type": "number", "minimum": 10, "maximum": 20},
        {"type": "integer", "exclusiveMinimum": 4},
        {"type": ["string", "null"], "maxLength": 1},
        {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, {"required": ["a"]}]},
        {"oneOf": [{"type": "null"}, {"type": "string"}]},
        {},
    ],
)
def test_a_sample_satisfies_its_schema(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(sample(schema))


def test_an_input_field_is_found_in_plain_prompts_too() -> None:
    def field(prompt: str, name: str) -> str | None:
        body = {"messages": [{"role": "user", "content": [{"type": "text", "text": prompt}]}]}
        return ChatRequest(number=0, body=body).field(name)

    assert field("Text: it broke\nagain\nLabel: ", "text") == "it broke\nagain"
    assert field("Text: it broke", "title") is None


def test_a_responses_request_reads_like_a_chat_request() -> None:
    body = {
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            {"type": "reasoning"},
        ],
        "text": {"format": {"type": "json_schema", "schema": {"type": "string"}}},
    }
    request = ChatRequest(number=0, body=body, endpoint="responses")
    assert (request.system, request.text, request.schema) == ("Be brief.", "hello", {"type": "string"})
    assert request.adapter == "json"
    assert ChatRequest(number=0, body={"input": "hello"}, endpoint="responses").text == "hello"


# Truth


def assert_in_order(record: RequestRecord) -> None:
    assert record.first_token_at is not None
    assert record.last_token_at is not None
    assert record.done_at is not None
    assert record.received_at <= record.first_token_at <= record.last_token_at <= record.done_at


def test_no_token_is_sent_before_it_is_due() -> None:
    with FakeServer("a b c d e", ttft_s=0.03, itl_s=0.01) as server:
        _, _, text = ask(server, stream=True)
        ask(server)
    streamed, whole = server.requests
    assert_in_order(streamed)
    assert streamed.first_token_at is not None
    assert streamed.last_token_at is not None
    assert whole.last_token_at is not None
    assert streamed.first_token_at - streamed.received_at >= 0.03
    assert streamed.last_token_at - streamed.received_at >= 0.03 + 4 * 0.01
    assert streamed.tokens_sent == whole.tokens_sent == 5
    assert whole.first_token_at is None
    assert whole.last_token_at - whole.received_at >= 0.03 + 4 * 0.01
    assert events(text)[0]["id"] == f"chatcmpl-{streamed.number}"


def test_a_reply_may_have_a_pace_of_its_own() -> None:
    with FakeServer(Reply("a b", ttft_s=0.02, itl_s=0.02), ttft_s=99, itl_s=99) as server:
        ask(server, stream=True)
    (record,) = server.requests
    assert record.last_token_at is not None
    assert record.last_token_at - record.received_at >= 0.04


def test_records_can_be_fetched_and_hold_no_key() -> None:
    with FakeServer() as server:
        ask(server)
        ask(server, key=None)
        rows = get(server, "/requests")["requests"]
        assert [RequestRecord(**row) for row in rows] == server.requests
        assert KEY not in json.dumps(rows)
        assert KEY not in repr(server)
    assert rows[0]["key_sha256"] == hashlib.sha256(KEY.encode()).hexdigest()[:12]
    assert rows[1]["key_sha256"] is None
    assert rows[0]["body"] == HELLO


def test_bodies_need_not_be_kept() -> None:
    with FakeServer(keep_bodies=False) as server:
        ask(server)
    assert server.requests[0].body is None


# Limits, refusals and faults


def test_a_wrong_key_and_an_unknown_model_are_refused_as_openai_does() -> None:
    with FakeServer(api_key=KEY, models=["fake"]) as server:
        assert ask(server)[0] == 200
        status, _, text = ask(server, key="sk-wrong")
        assert (status, json.loads(text)["error"]["code"]) == (401, "invalid_api_key")
        assert ask(server, key=None)[0] == 401
        status, _, text = ask(server, model="other")
        assert (status, json.loads(text)["error"]["code"]) == (404, "model_not_found")
        assert [record.fault for record in server.requests] == [None, "api_key", "api_key", "model"]
        status, _, text = ask(server, path="/v1/elsewhere")
        assert (status, json.loads(text)["error"]["code"]) == (404, "unknown_url")
        with connected(server) as connection:
            for key, expected in ((KEY, 200), ("sk-wrong", 401)):
                connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                answered = json.load(response)
                assert response.status == expected
                assert ("error" in answered) == (expected == 401)
    with FakeServer(models=["a", "b"]) as server:
        assert [model["id"] for model in get(server, "/v1/models")["data"]] == ["a", "b"]


def test_more_requests_at_once_than_the_limit_get_429() -> None:
    with FakeServer(Reply("late", ttft_s=30), concurrency_limit=2, retry_after_s=0.25) as server:
        with connected(server) as one, connected(server) as two:
            for number, connection in enumerate((one, two)):
                connection.request("POST", "/v1/chat/completions", json.dumps(HELLO))
                until(lambda number=number: server.concurrency_now == number + 1)  # type: ignore[misc]
            status, headers, text = ask(server)
            assert (status, headers["retry-after"]) == (429, "0.250")
            assert json.loads(text)["error"]["code"] == "rate_limit_exceeded"
        until(lambda: server.concurrency_now == 0)
        server.answer = "soon"
        assert ask(server)[0] == 200
    assert server.concurrency_peak == 3
    assert [record.client_left for record in server.requests] == [True, True, False, False]


def test_more_requests_a_second_than_the_limit_get_429() -> None:
    refused: list[dict[str, str]] = []

    def is_refused() -> bool:
        status, headers, _ = ask(server)
        refused.extend([headers] if status == 429 else [])
        return len(refused) > 2

    with FakeServer(requests_per_second_limit=2) as server:
        until(is_refused)
    assert all(0 < float(headers["retry-after"]) <= 1 for headers in refused)
    served = [record.received_at for record in server.requests if record.status == 200]
    assert all(later - earlier > 1 for earlier, later in zip(served, served[2:], strict=False))


def test_a_fault_of_a_status_says_what_it_is_told_to() -> None:
    faults = [
        Fault("status", status=401, echo_key=True),
        Fault("status", status=503, body="<h1>Busy</h1>"),
        Fault("status", status=429, retry_after_s=2, body={"error": {"message": "slow down"}}),
    ]
    with FakeServer(fail=lambda request: faults[request.number]) as server:
        answers = [ask(server) for _ in faults]
    assert [status for status, _, _ in answers] == [401, 503, 429]
    assert f"Bearer {KEY}" in json.loads(answers[0][2])["error"]["message"]
    assert answers[1][2] == "<h1>Busy</h1>"
    assert answers[2][1]["retry-after"] == "2.000"
    assert json.loads(answers[2][2]) == {"error": {"message": "slow down"}}
    assert [record.fault for record in server.requests] == ["status 401", "status 503", "status 429"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_a_cut_breaks_the_reply_off(path: str) -> None:
    body = {**HELLO, "input": "hello"}
    with FakeServer("a b c", fail=lambda _: Fault("cut", after_tokens=2)) as server:
        for stream in (True, False):
            with pytest.raises(http.client.IncompleteRead) as cut:
                ask(server, body, path=path, stream=stream)
            assert cut.value.partial
    streamed, whole = server.requests
    assert (streamed.tokens_sent, whole.tokens_sent) == (2, 0)
    assert (streamed.fault, whole.fault) == ("cut", "cut")


def test_garbage_is_broken_json() -> None:
    with FakeServer("a b c", fail=lambda _: Fault("garbage")) as server:
        for stream in (True, False):
            status, _, text = ask(server, stream=stream)
            assert status == 200
            last = text.split("data: ")[-2] if stream else text
            with pytest.raises(json.JSONDecodeError):
                json.loads(last)
    assert server.requests[0].tokens_sent == 1


def test_a_hanging_request_ends_when_the_client_leaves_or_the_server_stops() -> None:
    with FakeServer(fail=lambda _: Fault("hang")) as server, connected(server) as staying:
        with connected(server) as leaving:
            leaving.request("POST", "/v1/chat/completions", json.dumps(HELLO))
            until(lambda: server.concurrency_now == 1)
        until(lambda: server.concurrency_now == 0)
        staying.request("POST", "/v1/chat/completions", json.dumps(HELLO))
        until(lambda: server.concurrency_now == 1)
        server.stop()
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            staying.getresponse()
    assert [(record.status, record.client_left) for record in server.requests] == [(None, True)] * 2


def test_faults_at_random_come_at_their_rates_and_repeat_with_their_seed() -> None:
    def fates(seed: int) -> list[str | None]:
        faults = Faults(rate_429=0.3, rate_500=0.2, rate_cut=0.1, rate_garbage=0.1, seed=seed)
        generator = faults.generator()
        return [fault.name if fault else None for fault in (faults.draw(generator) for _ in range(2000))]

    assert fates(7) == fates(7)
    assert fates(7) != fates(8)
    counts = Counter(fates(7))
    expected = {"status 429": 600, "status 500": 400, "cut": 200, "garbage": 200, None: 600}
    assert all(abs(counts[name] - count) < 80 for name, count in expected.items())


def test_the_server_draws_faults_in_order_of_arrival() -> None:
    faults = Faults(rate_429=0.5, rate_500=0.2, retry_after_s=0.5, seed=3)
    generator = faults.generator()
    expected = [fault.status if fault else None for fault in (faults.draw(generator) for _ in range(20))]
    with FakeServer(faults=faults) as server:
        statuses = [ask(server) for _ in range(20)]
    assert [None if status == 200 else status for status, _, _ in statuses] == expected
    assert {headers.get("retry-after") for status, headers, _ in statuses if status == 429} == {"0.500"}


def test_an_answer_that_raises_is_a_500_that_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with FakeServer(lambda request: str(request.body["absent"])) as server:
        status, _, text = ask(server)
    assert status == 500
    assert "KeyError: 'absent'" in json.loads(text)["error"]["message"]
    assert server.requests[0].fault == "answer"
    assert "raised" in caplog.text


# HTTP


def test_connections_are_kept_and_requests_may_come_in_pieces_or_together() -> None:
    body = json.dumps(HELLO)
    request = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    with FakeServer() as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            for piece in (request[:10], request[10:60], request[60:] + request + request):
                client.sendall(piece)
                time.sleep(0.01)
            received = b""
            while received.count(b'"chat.completion"') < 3:
                received += client.recv(65536)
        assert [received.index(b"chatcmpl-%d" % number) for number in range(3)] == sorted(
            received.index(b"chatcmpl-%d" % number) for number in range(3)
        )
        with connected(server) as connection:
            ports = set()
            for _ in range(3):
                connection.request("POST", "/v1/chat/completions", json.dumps({**HELLO, "stream": True}))
                connection.getresponse().read()
                ports.add(connection.sock.getsockname())
            assert len(ports) == 1


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, b"400"),
        (b"GET /elsewhere HTTP/1.1\r\nConnection: close\r\n\r\n", b"404"),
        (b"GET /health HTTP/1.0\r\n\r\n", b"200"),
    ],
)
def test_odd_requests_get_an_answer_and_the_connection_ends(sent: bytes, status: bytes) -> None:
    with FakeServer() as server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(sent)
        received = b""
        while part := client.recv(65536):
            received += part
    assert received.split(b" ")[1] == status


@pytest.mark.parametrize("body", ["{broken", "[]", '"text"'])
def test_a_body_that_is_no_json_object_is_refused(body: str) -> None:
    with FakeServer() as server:
        assert ask(server, body)[0] == 400
    assert server.requests[0].fault == "body"


def test_a_port_that_is_taken_is_an_error() -> None:
    with FakeServer() as server, pytest.raises(OSError, match="in use"):
        FakeServer(port=server.port).start()
    with pytest.raises(OverflowError):
        FakeServer(port=70_000).start()


def test_stopping_twice_does_nothing() -> None:
    with FakeServer() as server:
        server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server)


# The process


def test_the_process_serves_512_streams_at_once() -> None:
    body = json.dumps({**HELLO, "stream": True})
    request = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    async def stream(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        received = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return received

    async def crowd(port: int) -> list[bytes]:
        return await asyncio.gather(*(stream(port) for _ in range(512)))

    with server_process(ttft_s=1.0, itl_s=0.01, tokens=8) as server:
        port = urllib.parse.urlsplit(server.url).port
        assert port is not None
        received = asyncio.run(crowd(port))
        records = server.requests
    assert all(one.endswith(b"[DONE]\n\n\r\n0\r\n\r\n") for one in received)
    assert [record.tokens_sent for record in records] == [8] * 512
    for record in records:
        assert_in_order(record)


def test_the_process_takes_the_options_of_the_server() -> None:
    with server_process(
        fields={"label": "bug", "why": "so"}, api_key=KEY, models=["fake", "other"], keep_bodies=True
    ) as server:
        text = json.loads(ask(server, response_format={"type": "json_object"})[2])
        assert json.loads(text["choices"][0]["message"]["content"]) == {"label": "bug", "why": "so"}
        assert ask(server, key="wrong")[0] == 401
        assert ask(server, model="third")[0] == 404
        assert server.requests[0].body == {**HELLO, "response_format": {"type": "json_object"}}
        assert server.health["requests"] == 3
        assert server.health["cpu_s"] > 0
    with server_process(rate_500=1.0, answer="never said") as server:
        assert ask(server)[0] == 500
        assert server.requests[0].body is None


def test_the_process_is_gone_at_the_end_and_after_a_signal() -> None:
    with server_process() as server:
        assert ask(server)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        ask(server)
    command = [sys.executable, "-m", "dspylab.testing", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["url"].endswith("/v1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.parametrize("options", [{"unknown": 1}, {"fields": ["no-value"]}])
def test_a_wrong_option_of_the_process_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(EnvironmentProblem, match="did not start"), server_process(**options):
        pass


ECHO_MODEL = "def answer(request):\n    return f'{request.model} says {request.question}'\nNUMBER = 1\n"


def test_the_process_answers_with_a_function_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "endpoint.py"
    file.write_text(ECHO_MODEL)
    with server_process(answer_with=f"{file}:answer") as server:
        _, _, reply = ask(server)
    assert json.loads(reply)["choices"][0]["message"]["content"] == "fake says hello"


@pytest.mark.parametrize("name", ["gone.py:answer", "endpoint.py:other", "endpoint.py:NUMBER", "notes.md:x"])
def test_a_reference_without_a_function_is_an_error(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "endpoint.py").write_text(ECHO_MODEL)
    (tmp_path / "notes.md").touch()
    with (
        pytest.raises(EnvironmentProblem, match="did not start"),
        server_process(answer_with=f"{tmp_path}/{name}"),
    ):
        pass
    assert "argument --answer-with: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], 3),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 15)"], 143),
        (["no-such-command"], 127),
    ],
)
def test_the_process_serves_while_a_command_runs_and_ends_as_it_did(command: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-m", "dspylab.testing", "--", *command], check=False)
    assert done.returncode == code


def test_the_command_reaches_the_server_and_gets_the_signals(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = (
        "import signal, time, urllib.request\n"
        "def stop(*_):\n"
        f"    print(urllib.request.urlopen('http://127.0.0.1:{port}/health').status, flush=True)\n"
        "    raise SystemExit(5)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    python = sys.executable
    command = [python, "-m", "dspylab.testing", "--port", str(port), "--", python, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "200\n"
        assert process.wait(10) == 5


# The laboratory


def test_a_laboratory_is_a_valid_experiment_whose_program_runs(tmp_path: Path) -> None:
    import dspy

    rows = tickets(6)
    with FakeServer(answer_key(rows)) as server:
        lab = experiment(tmp_path, server_url=server.url, examples=rows)
        described = Experiment.model_validate(lab.read())
        build = runpy.run_path(str(lab.program))["build"]
        lm = dspy.LM(
            described.models["fake"].model,
            api_base=described.models["fake"].api_base,
            api_key=KEY,
            cache=False,
        )
        with dspy.context(lm=lm):
            for style in ("predict", "cot"):
                program = build(style)
                assert [program(text=row["text"]).label for row in rows] == [row["label"] for row in rows]
    assert [json.loads(line) for line in lab.dataset.read_text().splitlines()] == rows
    assert lab.summary.parent == lab.raw("x").parents[2] == tmp_path / "experiments" / "triage"


def test_an_answer_key_says_what_it_is_told_of_an_unknown_row() -> None:
    body = {"messages": [{"role": "user", "content": "Text: never seen"}]}
    assert answer_key(tickets(1), wrong="login")(ChatRequest(number=0, body=body)) == '{"label": "login"}'


def test_every_part_of_the_experiment_can_be_changed(tmp_path: Path) -> None:
    lab = experiment(
        tmp_path,
        server_url="http://127.0.0.1:1/v1",
        name="other",
        config={
            "models": {"fake": ..., "slow": {"model": "openai/slow"}},
            "matrix": {"model": ["slow"], "seed": [0, 1]},
        },
        files={"experiments/other/helper.py": "X = 1\n", "notes/a.md": "A\n"},
    )
    content = lab.read()
    assert content["models"] == {"slow": {"model": "openai/slow"}}
    assert content["matrix"] == {"model": ["slow"], "seed": [0, 1]}
    assert (tmp_path / "notes" / "a.md").read_text() == "A\n"
    assert (lab.folder / "helper.py").exists()
    lab.change({"description": "changed", "program": {"args": {"style": "cot"}}})
    assert lab.read()["description"] == "changed"
    assert lab.read()["program"] == {"path": "program.py", "args": {"style": "cot"}, "adapter": "chat"}


def test_merging_leaves_what_it_merges_alone() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": ...}, "d": {"e": 4}, "f": None}) == {
        "a": {"c": 2},
        "d": {"e": 4},
        "f": None,
    }
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_laboratory_becomes_a_git_and_dvc_repository(tmp_path: Path) -> None:
    lab = experiment(tmp_path, server_url="http://127.0.0.1:1/v1")
    lab.init_repository()
    assert lab.git("status", "--porcelain") == ""
    assert lab.git("branch", "--show-current").strip() == "main"
    assert "experiments/triage/experiment.yaml" in lab.git("ls-files")
    assert lab.dvc("config", "core.analytics").strip() == "false"
    assert lab.git("log", "--format=%an <%ae>").strip() == "Tester <tester@example.com>"
    with pytest.raises(subprocess.CalledProcessError):
        lab.git("no-such-command")


def test_a_port_that_is_in_use_is_said_to_be_so(server: FakeServer) -> None:
    command = [sys.executable, "-m", "dspylab.testing", "--port", str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = f"port {server.port} is in use: --port 0 takes a free one\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", said)
