"""Models as the file describes them: which engine, what is sent, what it costs, over how many connections."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy._vendor.lm15.registry import lookup
from dspy._vendor.lm15.router import LITELLM_PROVIDER_PREFIXES
from dspy._vendor.lm15.sse import SSEEvent
from dspy.clients.engines import LM15Engine
from metered_calls import KEY, in_a_thread, models_of, recorded, said

from dspylab.config.models import Model
from dspylab.errors import EnvironmentProblem, UsageError
from dspylab.lm import pricing
from dspylab.lm.native import ResponsesDialect
from dspylab.lm.pricing import cost_usd, rates_for
from dspylab.lm.recorder import Recorder, predictor_names
from dspylab.lm.routing import NATIVE_ROUTES, engine_for, native_provider, wire_model
from dspylab.records import Rates
from dspylab.testing import ChatRequest, FakeServer, Fault, Reply
from dspylab.testing.connection import Connection

# LiteLLM's own, from code that it runs for every streamed chunk.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")


def model(name: str, **entry: Any) -> Model:
    return Model.model_validate({"model": name, **entry})


# Routing


@pytest.mark.parametrize("prefix", NATIVE_ROUTES)
def test_native_routes_are_those_of_dspy(prefix: str) -> None:
    route = NATIVE_ROUTES[prefix]
    engines = {kind: LM15Engine(lm15.RouterConfig(env={}), model_type=kind) for kind in ("chat", "responses")}
    definition = lookup(route.provider)
    assert engines["chat"].resolve(f"{prefix}/some-model").provider == route.provider
    assert definition.access.env_keys == route.variables
    assert definition.placeholder_key == route.placeholder_key
    if route.responses is None:
        with pytest.raises(lm15.UnsupportedFeatureError):
            engines["responses"].resolve(f"{prefix}/some-model")
    else:
        assert engines["responses"].resolve(f"{prefix}/some-model").provider == route.responses


def test_every_provider_that_dspy_knows_is_native_but_azure() -> None:
    assert set(LITELLM_PROVIDER_PREFIXES) - set(NATIVE_ROUTES) == {"azure"}


@pytest.mark.parametrize(
    ("entry", "engine", "provider"),
    [
        (model("openai/gpt-4o"), "native", "openai-chat"),
        (model("openai/gpt-4o", model_type="responses"), "native", "openai"),
        (model("openai/gpt-4o", engine="litellm"), "litellm", "openai-chat"),
        (model("anthropic/claude", engine="native"), "native", "anthropic"),
        (model("anthropic/claude", model_type="responses"), "litellm", None),
        (model("azure/gpt-4o"), "litellm", None),
        (model("mistral/small"), "litellm", None),
        (model("local/smollm2-135m-instruct", engine="litellm"), "native", "openai-chat"),
    ],
    ids=lambda value: getattr(value, "model", None),
)
def test_auto_takes_the_native_engine_where_it_knows_the_provider(
    entry: Model, engine: str, provider: str | None
) -> None:
    assert engine_for("a", entry) == engine
    assert native_provider(entry) == provider


def test_a_native_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        engine_for("a", model("mistral/small", engine="native"))
    assert caught.value.where == "models.a.engine"
    assert "'mistral/small'" in caught.value.message
    assert caught.value.remedy is not None
    assert "openai" in caught.value.remedy


def test_local_models_are_asked_for_as_an_openai_endpoint_serves_them() -> None:
    assert wire_model(model("local:weights.gguf")) == "openai/local"
    assert wire_model(model("groq/llama")) == "groq/llama"


# Pricing


@pytest.fixture
def table() -> dict[str, Any]:
    """LiteLLM's price table as it is installed."""
    import litellm

    path = Path(litellm.__file__).parent / "model_prices_and_context_window_backup.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_prices_come_from_litellms_table(table: dict[str, Any]) -> None:
    rates = rates_for(model("openai/gpt-4o-mini"))
    listed = table["gpt-4o-mini"]
    assert rates is not None
    assert rates.source.startswith("litellm 1.")
    assert rates.input_usd == pytest.approx(listed["input_cost_per_token"] * 1e6)
    assert rates.output_usd == pytest.approx(listed["output_cost_per_token"] * 1e6)
    assert rates.cached_input_usd == pytest.approx(listed["cache_read_input_token_cost"] * 1e6)
    assert rates.cache_write_usd is None


def test_a_model_listed_under_its_provider_is_found(table: dict[str, Any]) -> None:
    listed = next(
        name for name in table if name.startswith("groq/") and "output_cost_per_token" in table[name]
    )
    assert rates_for(model(listed)) is not None


def test_a_bare_name_is_not_another_providers() -> None:
    assert rates_for(model("openai/gpt-4o-mini")) is not None
    assert rates_for(model("hosted_vllm/gpt-4o-mini")) is None


@pytest.mark.parametrize("name", ["openai/no-such-model", "hosted_vllm/llama3", "openai/gpt-image-1"])
def test_an_unknown_price_is_none(name: str) -> None:
    assert rates_for(model(name)) is None


def test_the_files_own_prices_come_first() -> None:
    entry = model(
        "openai/gpt-4o-mini", pricing={"input": 3, "output": 5, "cached_input": 1, "cache_write": 4}
    )
    assert rates_for(entry) == Rates(
        input_usd=3, output_usd=5, cached_input_usd=1, cache_write_usd=4, source="experiment file"
    )


@pytest.mark.parametrize("name", ["local/smollm2-135m-instruct", "local:weights.gguf"])
def test_local_models_are_free(name: str) -> None:
    assert rates_for(model(name)) == Rates(input_usd=0.0, output_usd=0.0, source="local")


def test_the_table_is_read_only_when_it_is_needed_and_litellm_never() -> None:
    script = """if True:
        import sys
        from dspylab.config.models import Model
        from dspylab.lm import pricing
        pricing.rates_for(Model(model="local/x"))
        pricing.rates_for(Model(model="openai/x", pricing={"input": 1, "output": 1}))
        assert pricing._table.cache_info().currsize == 0
        assert pricing.rates_for(Model(model="openai/gpt-4o-mini")).input_usd > 0
        assert pricing._table.cache_info().currsize == 1
        assert not {"litellm", "dspy"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", script], check=True)


RATES = Rates(input_usd=10.0, output_usd=20.0, source="test")


def test_costs_are_per_million_tokens() -> None:
    assert cost_usd(RATES, 1000, 0, 0, 500) == pytest.approx(0.02)
    assert cost_usd(RATES, 0, 0, 0, 0) == 0.0


def test_cached_and_written_tokens_have_their_own_rates() -> None:
    rates = Rates(input_usd=10.0, output_usd=0.0, cached_input_usd=1.0, cache_write_usd=12.0, source="test")
    assert cost_usd(rates, 1000, 600, 300, 0) == pytest.approx((100 * 10 + 600 * 1 + 300 * 12) / 1e6)
    assert cost_usd(RATES, 1000, 600, 300, 0) == pytest.approx(0.01)


def test_an_unknown_factor_makes_an_unknown_cost() -> None:
    assert cost_usd(None, 1, 0, 0, 1) is None
    assert cost_usd(RATES, None, 0, 0, 1) is None
    assert cost_usd(RATES, 1, 0, 0, None) is None


def test_an_unpriced_call_costs_none(server: FakeServer) -> None:
    with models_of(server, a={"pricing": None}) as models:
        _, record = said(models.lm("a", {}))
        assert models.rates("a") is None
    assert record.calls[0].cost_usd is None
    assert record.calls[0].prompt_tokens is not None


# What is sent


def body_of(server: FakeServer, settings: dict[str, Any] | None = None, **entry: Any) -> dict[str, Any]:
    with models_of(server, a=entry) as models:
        outcome, _ = said(models.lm("a", settings or {}))
    assert not isinstance(outcome, Exception), outcome
    (request,) = server.requests
    assert request.body is not None
    return dict(request.body)


@pytest.mark.parametrize("engine", ["native", "litellm"])
def test_settings_reach_the_endpoint(server: FakeServer, engine: str) -> None:
    params = {"top_p": 0.9, "seed": 7}
    body = body_of(server, engine=engine, temperature=0.3, max_tokens=70, params=params)
    assert (body["model"], body["temperature"], body["top_p"], body["seed"]) == ("fake", 0.3, 0.9, 7)
    assert (body.get("max_tokens") or body.get("max_completion_tokens")) == 70
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_settings_of_the_run_come_before_those_of_the_model(server: FakeServer) -> None:
    body = body_of(server, {"temperature": 1.0, "top_p": 0.5}, temperature=0.0, params={"top_p": 0.9})
    assert (body["temperature"], body["top_p"]) == (1.0, 0.5)


def test_the_responses_api_is_called_when_the_file_says_so(server: FakeServer) -> None:
    assert "input" in body_of(server, model_type="responses")
    assert server.requests[0].endpoint == "responses"


@pytest.mark.parametrize("stream", [True, False])
def test_streaming_is_the_files_choice(server: FakeServer, stream: bool) -> None:  # noqa: FBT001 - a parameter
    body_of(server, stream=stream)
    assert server.requests[0].stream is stream


@pytest.mark.parametrize("engine", ["native", "litellm"])
def test_the_key_reaches_its_endpoint_alone(server: FakeServer, engine: str) -> None:
    body_of(server, engine=engine)
    with FakeServer() as other, models_of(other, a={"api_key_env": None, "engine": engine}) as models:
        said(models.lm("a", {}))
        sent = other.requests[0].key_sha256
    assert server.requests[0].key_sha256 == hashlib.sha256(KEY.encode()).hexdigest()[:12]
    assert sent == hashlib.sha256(b"no-key").hexdigest()[:12]


def test_an_endpoint_from_the_environment_is_used(server: FakeServer) -> None:
    entry = {"api_base": None, "api_key_env": "SOME_KEY"}
    environment = {"OPENAI_API_BASE": server.url, "SOME_KEY": KEY}
    with models_of(server, environment, a=entry) as models:
        assert said(models.lm("a", {}))[0] == ["ok"]
        assert models.engines["a"].endpoint.engine == "native"
    assert server.requests[0].key_sha256 == hashlib.sha256(KEY.encode()).hexdigest()[:12]


def test_a_proxy_from_the_environment_is_used(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with models_of(server, a={"api_base": "http://elsewhere.example/v1"}) as models:
        outcome, _ = said(models.lm("a", {}))
    assert "Unknown request URL: POST http://elsewhere.example/v1/chat/completions" in str(outcome)


def test_dspy_refuses_settings_before_the_first_call(server: FakeServer) -> None:
    with models_of(server, a={"model": "openai/o3", "temperature": 0.5}, b={}) as models:
        with pytest.raises(UsageError) as reasoning:
            models.lm("a", {})
        with pytest.raises(UsageError) as connection:
            models.lm("b", {"api_key": "sk-123"})
    assert reasoning.value.where == "models.a"
    assert "temperature" in reasoning.value.message
    assert "api_key" in connection.value.message


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reasoning_effort": "colossal"}, "unsupported reasoning effort: colossal"),
        ({"top_p": 5}, "top_p must be in [0, 1]"),
        ({"n": 0}, "n must be a positive integer"),
        ({"stop": 3}, "'int' object is not iterable"),
        ({"min_p": 0.1}, "'min_p' cannot be carried"),
    ],
)
@pytest.mark.parametrize("engine", ["native", "litellm"])
def test_what_the_builder_of_requests_refuses_is_refused_once(
    server: FakeServer, engine: str, settings: dict[str, Any], said: str
) -> None:
    with models_of(server, a={"engine": engine}) as models:
        with pytest.raises(UsageError) as refused:
            models.lm("a", settings)
        assert said in refused.value.message
        assert not server.requests
        models.lm("a", {"tool_choice": {"type": "function", "function": {"name": "search"}}, "stop": ["a"]})


# Capabilities


def sent_format(server: FakeServer, adapter: dspy.Adapter, **entry: Any) -> Any:
    with models_of(server, a=entry) as models:
        outcome, _ = recorded(dspy.Predict("question -> answer"), models.lm("a", {}), adapter, question="?")
    assert isinstance(outcome, dspy.Prediction), outcome
    body = server.requests[-1].body
    assert body is not None
    return body.get("response_format")


def test_an_endpoint_that_supports_schemas_is_sent_one(server: FakeServer) -> None:
    sent = sent_format(server, dspy.JSONAdapter(), supports={"response_schema": True})
    assert sent["type"] == "json_schema"
    assert list(sent["json_schema"]["schema"]["properties"]) == ["answer"]


def test_an_endpoint_of_which_nothing_is_known_is_sent_none(server: FakeServer) -> None:
    assert sent_format(server, dspy.JSONAdapter()) is None


def test_dspy_knows_what_models_support(server: FakeServer) -> None:
    with models_of(server, a={"model": "openai/gpt-4o-mini"}) as models:
        engine = models.engines["a"]
    assert engine.supports_response_schema
    assert engine.supports_function_calling
    assert "response_format" in engine.supported_params


def test_the_file_has_the_last_word_on_what_a_model_supports(server: FakeServer) -> None:
    said_so = {"response_schema": False, "function_calling": False, "params": ["temperature"]}
    with models_of(server, a={"model": "openai/gpt-4o-mini", "supports": said_so}) as models:
        engine = models.engines["a"]
    assert not engine.supports_response_schema
    assert not engine.supports_function_calling
    assert engine.supported_params == {"temperature"}


# LiteLLM's variables


def test_litellms_variables_are_found_in_the_given_environment(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    entry = {"model": "mistral/small", "api_base": None, "api_key_env": None}
    with pytest.raises(EnvironmentProblem, match="MISTRAL_API_KEY"):
        models_of(server, a=entry)
    monkeypatch.setenv("MISTRAL_API_KEY", "set, so that it is unset at the end")
    del os.environ["MISTRAL_API_KEY"]
    with models_of(server, {"MISTRAL_API_KEY": KEY}, a=entry):
        assert os.environ["MISTRAL_API_KEY"] == KEY


def test_a_package_that_litellm_lacks_is_named(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    entry = {"model": "anthropic/claude", "model_type": "responses"}
    with pytest.raises(EnvironmentProblem, match="mcp"):
        models_of(server, a=entry)


# The Responses API


def responses_events(*payloads: dict[str, Any]) -> list[Any]:
    dialect = ResponsesDialect(api_key=KEY)
    request = lm15.Request(model="fake", messages=(lm15.Message.user("hi"),))
    return [
        event
        for payload in payloads
        for event in dialect.parse_stream_events(request, SSEEvent(None, json.dumps(payload)))
    ]


def test_a_failure_in_a_responses_stream_says_what_failed() -> None:
    failed = {
        "type": "response.failed",
        "response": {"error": {"code": "server_error", "message": "It burns."}},
    }
    (event,) = responses_events(failed)
    assert (event.type, event.error.message) == ("error", "It burns.")


def test_a_responses_stream_that_moderation_ends_is_no_failure() -> None:
    with FakeServer(Reply("one two", finish_reason="content_filter")) as server:
        with models_of(server, a={"model_type": "responses"}) as models:
            _, record = said(models.lm("a", {}))
        assert len(server.requests) == 1
    assert record.calls[0].finish_reason == "content_filter"


# Connections


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that servers accept."""
    seen: list[Connection] = []
    made = Connection.connection_made

    def connection_made(self: Connection, transport: Any) -> None:
        seen.append(self)
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    return seen


def test_connections_are_reused_and_closed(server: FakeServer, accepted: list[Connection]) -> None:
    with models_of(server, a={"max_concurrency": 4}) as models:
        lm = models.lm("a", {})
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda number: said(lm, f"question {number}"), range(64)))
        assert len(server.requests) == 64
        assert 1 <= len(accepted) <= 4
    while server._connections:
        time.sleep(0.001)


def test_a_failed_call_leaves_its_connection_usable_or_closed(accepted: list[Connection]) -> None:
    def refuse_every_other(request: ChatRequest) -> Fault | None:
        return Fault("status", status=500) if request.number % 2 == 0 else None

    with FakeServer(fail=refuse_every_other) as server, models_of(server, a={"num_retries": 0}) as models:
        outcomes = [said(models.lm("a", {}))[0] for _ in range(6)]
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [True, False] * 3
    assert len(accepted) == 1


def test_512_calls_are_in_flight_at_once() -> None:
    def hang(request: ChatRequest) -> Fault | None:
        return Fault("hang") if "wait" in request.text else None

    entries: dict[str, Any] = {"a": {"max_concurrency": 512, "num_retries": 0}, "b": {"max_concurrency": 512}}
    with FakeServer(fail=hang, keep_bodies=False) as server:
        models = models_of(server, **entries)
        with ThreadPoolExecutor(512) as threads:
            hanging = [threads.submit(said, models.lm("a", {}), "wait") for _ in range(512)]
            while server.concurrency_now < 512:
                assert not any(future.done() for future in hanging)
                time.sleep(0.01)
            models.engines["a"].close()
            assert all(isinstance(future.result()[0], dspy.LMError) for future in hanging)
            outcomes = list(threads.map(lambda number: said(models.lm("b", {}), str(number))[0], range(512)))
        models.__exit__()
        assert outcomes == [["ok"]] * 512


def test_nothing_is_left_of_the_threads_of_asynchronous_programs(server: FakeServer) -> None:
    program = dspy.Predict("question -> answer")

    async def run(record: Recorder, lm: dspy.LM) -> None:
        with record.context(lm=lm, trace=[], disable_history=True):
            await asyncio.gather(*(program.acall(question=str(number)) for number in range(8)))

    with models_of(server, a={"max_concurrency": 4}) as models:
        record = Recorder(names=predictor_names(program))
        assert in_a_thread(lambda: asyncio.run(run(record, models.lm("a", {})))) is None
        assert len(record.calls) == 8
        waiting = [thread for thread in threading.enumerate() if thread.name.startswith("dspylab-acall")]
        assert 1 <= len(waiting) <= 4
    for thread in waiting:
        thread.join()


def test_the_table_survives_a_litellm_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "_TABLE", "no-such-file.json")
    pricing._table.cache_clear()
    try:
        assert rates_for(model("openai/gpt-4o-mini")) is None
    finally:
        pricing._table.cache_clear()
