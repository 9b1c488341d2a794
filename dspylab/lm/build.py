"""Build the language models of an experiment: engines, limits, servers, and the `dspy.LM` of each run."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import dspy
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.clients.engines import LiteLLMEngine, LM15Engine
from dspy.clients.engines.lm15_engine import timeouts_for
from dspy.clients.execution import IGNORED_CACHE_KEYS, prepare
from dspy.lm15 import RouterConfig
from dspy.utils.exceptions import LMConfigurationError

from dspylab.config.models import Experiment, Model
from dspylab.errors import EnvironmentProblem, UsageError
from dspylab.lm import local, recorder
from dspylab.lm.gguf import is_local, locate
from dspylab.lm.keys import find_keys
from dspylab.lm.limits import Gate
from dspylab.lm.metered import AsyncMeteredEngine, Endpoint, MeteredEngine
from dspylab.lm.pricing import cost_usd, rates_for
from dspylab.lm.routing import engine_for, native_provider, native_route, wire_model
from dspylab.plan.identity import resolved_model
from dspylab.records import JSON, LMCall, Rates


@dataclass(frozen=True)
class _Address:
    """Where a model is served and with which key (None when none is needed)."""

    url: str | None
    key: str | None


class Models:
    """The models of an experiment that are going to be called. Use as a context manager.

    Args:
        experiment: The experiment.
        wanted: Ids of the models that will be called; the others are neither built nor served.
        folder: Folder of the experiment file, for paths of model files.
        environment: Variables that hold keys.

    Raises:
        EnvironmentProblem: If keys, packages or model files are missing.
        UsageError: If a model's engine or settings cannot be used.
    """

    def __init__(
        self, experiment: Experiment, wanted: list[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._experiment = experiment
        self._folder = folder
        self._endpoint_gates: dict[str, Gate] = {}
        entries = {model_id: experiment.models[model_id] for model_id in wanted}
        keys = find_keys(entries, environment)
        self.engines: dict[str, MeteredEngine] = {}
        self._async_engines: dict[str, AsyncMeteredEngine] = {}
        for model_id, model in entries.items():
            engine = self._engine(model_id, model, keys[model_id])
            self.engines[model_id] = engine
            self._async_engines[model_id] = AsyncMeteredEngine(engine, self.width(model_id))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self.engines.values():
            engine.close()
        local.close_all()

    def lm(self, model_id: str, settings: Mapping[str, JSON]) -> MeteredLM:
        """The `dspy.LM` of a run.

        Args:
            model_id: Id of the model.
            settings: Request settings of the run.

        Raises:
            UsageError: If DSPy refuses the settings for this model.
        """
        resolved = resolved_model(self._experiment, model_id, settings)
        params = dict(resolved.get("params") or {})  # type: ignore[arg-type]
        entry = self._experiment.models[model_id]
        try:
            return MeteredLM(
                str(resolved["model"]) if not is_local(entry.model) else wire_model(entry),
                model_type=entry.model_type,
                temperature=resolved.get("temperature"),
                max_tokens=resolved.get("max_tokens"),
                cache=entry.cache,
                # One layer retries, so that all waiting is measured: the engine's.
                num_retries=0,
                engine=self.engines[model_id],
                async_engine=self._async_engines[model_id],
                **params,
            )
        except (LMConfigurationError, ValueError, TypeError) as error:
            raise UsageError(
                str(error),
                where=f"models.{model_id}",
                remedy="correct the settings of the model or the lm.* axes",
            ) from error

    def width(self, model_id: str) -> int:
        """Calls of a model that may be in flight at once."""
        return width_of(self._experiment, model_id)

    def rates(self, model_id: str) -> Rates | None:
        """Prices of a model, None when unknown."""
        return self.engines[model_id].endpoint.rates

    def stop(self) -> None:
        """Lets no further call start."""
        for engine in self.engines.values():
            for gate in engine.endpoint.gates:
                gate.stop()

    def _engine(self, model_id: str, model: Model, key: str | None) -> MeteredEngine:
        chosen = engine_for(model_id, model)
        address = self._address(model, key)
        width = self.width(model_id)
        own = Gate(width, model.requests_per_minute, model.tokens_per_minute)
        place = urlsplit(address.url).netloc if address.url else model.model.partition("/")[0]
        shared = self._endpoint_gates.setdefault(place, Gate(0))
        shared.allow_more(width)
        endpoint = Endpoint(
            id=model_id,
            wire_model=wire_model(model),
            provider=native_provider(model) if chosen == "native" else None,
            engine=chosen,
            stream=model.stream and (chosen == "native" or model.model_type == "chat"),
            num_retries=model.num_retries,
            rates=rates_for(model),
            gates=(own, shared),
        )
        inner = _native(model, address, width) if chosen == "native" else _litellm(model_id, model, address)
        return MeteredEngine(inner, endpoint, _capabilities(model, address))

    def _address(self, model: Model, key: str | None) -> _Address:
        if not is_local(model.model):
            return _Address(model.api_base or _ambient_base(model), key)
        options = model.local.model_dump() if model.local is not None else {}
        server = local.serve(locate(model.model, base=self._folder), local.serve_options(**options))
        return _Address(server.url, server.api_key)


class MeteredLM(dspy.LM):  # type: ignore[misc]  # dspy has no types
    """A `dspy.LM` that also records answers from DSPy's cache, which no engine sees."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `dspy.LM`."""
        watch = recorder.current()
        before = len(watch.calls)
        answer = super().__call__(prompt, messages=messages, **kwargs)
        if len(watch.calls) == before and kwargs.get("cache", self.cache):
            watch.calls.append(self._cached(watch, prompt, messages, kwargs, asynchronous=False))
        return answer

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `dspy.LM`."""
        watch = recorder.current()
        before = len(watch.calls)
        answer = await super().acall(prompt, messages=messages, **kwargs)
        if len(watch.calls) == before and kwargs.get("cache", self.cache):
            watch.calls.append(self._cached(watch, prompt, messages, kwargs, asynchronous=True))
        return answer

    def _cached(
        self,
        watch: recorder.Recorder,
        prompt: Any,
        messages: Any,
        kwargs: dict[str, Any],
        *,
        asynchronous: bool,
    ) -> LMCall:
        """What DSPy's cache answered: no timing, no cost, and what it would have cost."""
        endpoint: Endpoint = self._engine_spec.endpoint
        adapter, fallback = recorder.adapter_now()
        call = prepare(self, prompt, messages, kwargs, asynchronous=asynchronous)
        record = dspy.cache.get(call.key(self, asynchronous), IGNORED_CACHE_KEYS)
        usage = (record.get("usage") if isinstance(record, dict) else None) or {}
        details = usage.get("prompt_tokens_details") or {}
        read, written = details.get("cached_tokens") or 0, details.get("cache_creation_tokens") or 0
        prompt_tokens, completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return LMCall(
            model=endpoint.id,
            role=watch.role,
            predictor=watch.predictor(),
            adapter=adapter,
            fallback=fallback,
            started_at=time.time(),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            token_source="provider" if prompt_tokens is not None else None,
            cost_usd=0.0,
            saved_usd=cost_usd(endpoint.rates, prompt_tokens, read, written, completion_tokens),
            cached=True,
        )


def width_of(experiment: Experiment, model_id: str) -> int:
    """Calls of a model that may be in flight at once, as the file or the default says."""
    model = experiment.models[model_id]
    default = local.default_concurrency() if is_local(model.model) else experiment.execution.max_concurrency
    return model.max_concurrency or default


def _native(model: Model, address: _Address, width: int) -> LM15Engine:
    provider = str(native_provider(model))
    route = native_route(model)
    placeholder = (route.placeholder_key if route else None) or "no-key"
    config = RouterConfig(
        api_keys={provider: address.key or placeholder},
        base_urls={provider: address.url} if address.url else None,
        timeouts=timeouts_for(model.timeout_s),
        max_connections=max(width, 1),
    )
    return LM15Engine(config, model_type=model.model_type)


def _litellm(model_id: str, model: Model, address: _Address) -> LiteLLMEngine:
    litellm = _litellm_library()
    if address.key is None and address.url is None:
        missing = litellm.validate_environment(model.model).get("missing_keys") or []
        if missing:
            raise EnvironmentProblem(
                f"{model.model} needs {' and '.join(missing)}",
                where=f"models.{model_id}",
                remedy="export the variables, or name the key's variable in api_key_env",
            )
    options: dict[str, Any] = {}
    if address.key is not None or address.url is not None:
        options["api_key"] = address.key or "no-key"
    if address.url is not None:
        options["api_base"] = address.url
    if model.timeout_s is not None:
        options["timeout"] = model.timeout_s
    return LiteLLMEngine(model_type=model.model_type, **options)


@functools.cache
def _litellm_library() -> Any:
    """LiteLLM, silent and warm: what it loads at its first call must not count as latency."""
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    hello = [{"role": "user", "content": "hello"}]
    for _ in litellm.completion("openai/none", hello, mock_response="hello", stream=True, api_key="none"):
        pass
    return litellm


def _capabilities(model: Model, address: _Address) -> Capabilities:
    """What the model supports: the file's word, else what DSPy knows about it."""
    if is_local(model.model):
        known = Capabilities(response_schema=local.SUPPORTS_RESPONSE_SCHEMA, params=local.SUPPORTED_PARAMS)
    else:
        engine = "litellm" if model.engine == "litellm" else "auto"
        clients = {"api_base": address.url} if address.url else {}
        known = capabilities(
            dspy.LM(model.model, model_type=model.model_type, engine=engine, api_key="unused", **clients)
        )
    said = model.supports
    if said is None:
        return known
    params = known.params if said.params is None else frozenset(said.params)
    if said.response_schema:
        params |= {"response_format"}
    return Capabilities(
        function_calling=known.function_calling if said.function_calling is None else said.function_calling,
        reasoning=known.reasoning if said.reasoning is None else said.reasoning,
        response_schema=known.response_schema if said.response_schema is None else said.response_schema,
        params=params,
    )


def _ambient_base(model: Model) -> str | None:
    """The endpoint that LiteLLM's users set in the environment, such as OPENAI_API_BASE."""
    prefix = model.model.partition("/")[0].upper()
    return os.environ.get(f"{prefix}_API_BASE") or os.environ.get(f"{prefix}_BASE_URL")
