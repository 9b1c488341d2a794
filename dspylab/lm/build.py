"""Build the language models of an experiment: engines, limits, servers, and the `dspy.LM` of each run."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import dspy
from dspy.clients.call_result import CallResult
from dspy.clients.capabilities import Capabilities, capabilities
from dspy.clients.execution import IGNORED_CACHE_KEYS, _engine, prepare
from dspy.utils.exceptions import LMError

from dspylab.config.models import Experiment, Model
from dspylab.errors import UsageError
from dspylab.lm import local, recorder
from dspylab.lm.budget import Ledger, Spending
from dspylab.lm.faults import first_words
from dspylab.lm.gguf import locate
from dspylab.lm.keys import ambient_base, find_keys
from dspylab.lm.limits import Gate
from dspylab.lm.litellm_engine import litellm_engine
from dspylab.lm.metered import AsyncMeteredEngine, Endpoint, InnerEngine, MeteredEngine
from dspylab.lm.native import NativeEngine
from dspylab.lm.pricing import cost_usd, rates_for
from dspylab.lm.replies import asking
from dspylab.lm.routing import Engine, engine_for, native_provider, native_route, wire_model
from dspylab.lm.threads import prepare_for_threads
from dspylab.lm.timing import Tokens, reported_tokens
from dspylab.lm.transcript import Transcript, transcript, transcript_of_messages
from dspylab.plan.identity import resolved_model
from dspylab.records import JSON, LMCall, Rates

#: Longest silence of an endpoint when its entry does not say: what the providers' own clients wait.
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a model's limits that one of several processes may use.

    Attributes:
        concurrency: Calls in flight at once.
        requests_per_minute: Calls started per minute; None for no limit.
        tokens_per_minute: Tokens per minute, prompt and reply; None for no limit.
    """

    concurrency: int
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


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
        spent: What earlier sessions spent of the budget.

    Attributes:
        ledger: The budget that all calls count against.

    Raises:
        EnvironmentProblem: If keys, packages or model files are missing.
        UsageError: If a model's engine or settings cannot be used.
    """

    def __init__(
        self,
        experiment: Experiment,
        wanted: list[str],
        folder: Path,
        environment: Mapping[str, str],
        spent: Spending | None = None,
    ) -> None:
        self.ledger = Ledger(experiment.budget, spent or Spending())
        self._experiment = experiment
        self._folder = folder
        self._environment = environment
        self._endpoint_gates: dict[str, Gate] = {}
        entries = {model_id: experiment.models[model_id] for model_id in wanted}
        keys = find_keys(entries, environment)
        self.engines: dict[str, MeteredEngine] = {}
        self._async_engines: dict[str, AsyncMeteredEngine] = {}
        for model_id, model in entries.items():
            engine = self._engine(model_id, model, keys[model_id])
            self.engines[model_id] = engine
            self._async_engines[model_id] = AsyncMeteredEngine(engine, self.width(model_id))
        prepare_for_threads()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        local.close_all()

    def close(self) -> None:
        """Closes all connections, but no embedded model: others in this process may call it as well."""
        for waiting in self._async_engines.values():
            waiting.close()
        for engine in self.engines.values():
            engine.close()

    def lm(self, model_id: str, settings: Mapping[str, JSON], seed: int | None = None) -> MeteredLM:
        """The `dspy.LM` of a run.

        Args:
            model_id: Id of the model.
            settings: Request settings of the run.
            seed: Seed of the run, sent to endpoints that take one. It also keeps the repetitions of an
                experiment apart in DSPy's cache. None when the matrix has no seeds.

        Raises:
            UsageError: If DSPy refuses the settings for this model.
        """
        resolved = resolved_model(self._experiment, model_id, settings)
        params = dict(resolved.get("params") or {})  # type: ignore[arg-type]
        entry = self._experiment.models[model_id]
        if seed is not None:
            if "seed" in self.engines[model_id].supported_params:
                params.setdefault("seed", seed)
            if entry.cache and resolved.get("temperature"):
                params["rollout_id"] = seed
        try:
            lm = MeteredLM(
                self._name(model_id),
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
            _build_request(lm)
        except (LMError, ValueError, TypeError) as error:
            raise UsageError(
                first_words(error),
                where=f"models.{model_id}",
                remedy="correct the settings of the model or the lm.* axes",
            ) from error
        return lm

    def width(self, model_id: str) -> int:
        """Calls of a model that may be in flight at once."""
        return width_of(self._experiment, model_id)

    def rates(self, model_id: str) -> Rates | None:
        """Prices of a model, None when unknown."""
        return self.engines[model_id].endpoint.rates

    def limits(self) -> dict[str, tuple[int, int]]:
        """Model id to the calls that its endpoint takes at once now, and at most."""
        shared = {model_id: engine.endpoint.gates[-1] for model_id, engine in self.engines.items()}
        return {model_id: (gate.limit, gate.maximum) for model_id, gate in shared.items()}

    def share(self, shares: Mapping[str, Share]) -> None:
        """Keeps to parts of the limits, as others call the same models; may be called again.

        Args:
            shares: Part of each model, by id.
        """
        for model_id, share in shares.items():
            self.engines[model_id].endpoint.gates[0].restrict(
                share.concurrency, share.requests_per_minute, share.tokens_per_minute
            )
        for place in {engine.endpoint.gates[-1] for engine in self.engines.values()}:
            sharing = [engine.endpoint.gates for engine in self.engines.values()]
            place.restrict(sum(own.maximum for own, shared in sharing if shared is place))

    def stop(self) -> None:
        """Lets no further call start."""
        self.ledger.stop()
        for engine in self.engines.values():
            for gate in engine.endpoint.gates:
                gate.stop()

    def _name(self, model_id: str) -> str:
        """What DSPy calls the model. Its cache must not take one endpoint's answers for another's."""
        model = self._experiment.models[model_id]
        base = model.api_base or ambient_base(model, self._environment)
        if base is None or not model.cache:
            return model.model
        provider, _, name = model.model.partition("/")
        return f"{provider}@{urlsplit(base).netloc}/{name}"

    def _engine(self, model_id: str, model: Model, key: str | None) -> MeteredEngine:
        chosen = engine_for(model_id, model)
        address = self._address(model, key)
        width = self.width(model_id)
        own = Gate(width, model.requests_per_minute, model.tokens_per_minute)
        place = urlsplit(address.url).netloc if address.url else model.model.partition("/")[0]
        shared = self._endpoint_gates.setdefault(place, Gate(0))
        shared.allow(width)
        endpoint = Endpoint(
            id=model_id,
            wire_model=wire_model(model),
            provider=native_provider(model) if chosen == "native" else None,
            engine=chosen,
            stream=model.stream and (chosen == "native" or model.model_type == "chat"),
            num_retries=model.num_retries,
            timeout_s=model.timeout_s or _TIMEOUT_S,
            rates=rates_for(model),
            gates=(own, shared),
        )
        inner = self._inner(endpoint, model, address, width)
        return MeteredEngine(inner, endpoint, _capabilities(model, chosen, address), self.ledger)

    def _address(self, model: Model, key: str | None) -> _Address:
        if not model.is_local:
            return _Address(model.api_base or ambient_base(model, self._environment), key)
        options = model.local.model_dump() if model.local is not None else {}
        server = local.serve(locate(model.model, base=self._folder), local.serve_options(**options))
        return _Address(server.url, server.api_key)

    def _inner(self, endpoint: Endpoint, model: Model, address: _Address, width: int) -> InnerEngine:
        if endpoint.provider is None:
            return litellm_engine(
                endpoint.id,
                model,
                key=address.key,
                url=address.url,
                timeout_s=endpoint.timeout_s,
                environment=self._environment,
            )
        route = native_route(model)
        return NativeEngine(
            provider=endpoint.provider,
            key=address.key or (route.placeholder_key if route else None) or "no-key",
            url=address.url,
            model_type=model.model_type,
            timeout_s=endpoint.timeout_s,
            width=width,
            one_shot=model.is_local,
        )


class MeteredLM(dspy.LM):  # type: ignore[misc]  # dspy has no types
    """A `dspy.LM` that also records answers from DSPy's cache, which no engine sees."""

    is_metered = True  # see `unmetered.METERED`

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `dspy.LM`."""
        with recorder.engines_asked() as asked, self._asking(kwargs):
            answer = super().__call__(prompt, messages=messages, **kwargs)
        if kwargs.get("cache", self.cache) and not asked:
            self._record(prepare(self, prompt, messages, kwargs), asynchronous=False)
        return answer

    async def acall(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """As `dspy.LM`."""
        with recorder.engines_asked() as asked, self._asking(kwargs):
            answer = await super().acall(prompt, messages=messages, **kwargs)
        if kwargs.get("cache", self.cache) and not asked:
            self._record(prepare(self, prompt, messages, kwargs, asynchronous=True), asynchronous=True)
        return answer

    def _asking(self, kwargs: Mapping[str, Any]) -> AbstractContextManager[None]:
        """What the engine is not told, for a compile that gives replies again."""
        rollout_id = kwargs.get("rollout_id", self.kwargs.get("rollout_id"))
        # A caller that turns the cache off for one call wants a reply of its own.
        return asking(rollout_id, may_repeat=kwargs.get("cache") is not False)

    def _record(self, prepared: Any, *, asynchronous: bool) -> None:
        """Records what DSPy's cache answered: no timing, no cost, and what it would have cost.

        A call with n > 1 is one entry of the cache, and one record with the sums of its replies.
        """
        endpoint: Endpoint = self.engine.endpoint
        record = dspy.cache.get(prepared.key(self, asynchronous=asynchronous), IGNORED_CACHE_KEYS)
        replies = () if record is None else CallResult.load(record).responses
        counts = [reported_tokens(reply, endpoint.provider) for reply in replies]
        known = [tokens for tokens in counts if tokens is not None]
        complete = len(known) == len(replies) > 0
        watch = recorder.current()
        finish_reason = replies[-1].finish_reason if replies else None
        call = replace(watch.asks(endpoint.id), cost_usd=0.0, cached=True, finish_reason=finish_reason)
        watch.add(
            _with_savings(call, known, endpoint.rates) if complete else call,
            functools.partial(_said, prepared, replies),
        )


def _build_request(lm: MeteredLM) -> None:
    """Builds a request as each call does, and sends it nowhere: what DSPy refuses here fails every call.

    Raises:
        LMError, ValueError, TypeError: If DSPy can not build it.
    """
    # A tool that has to be called is one of the call's, and there is none here.
    names_tool = isinstance(lm.kwargs.get("tool_choice"), Mapping)
    _engine(lm, prepare(lm, "x", None, {"tool_choice": None} if names_tool else {}), asynchronous=False)


def _said(prepared: Any, replies: Sequence[Any]) -> Transcript:
    """What was said in a call that DSPy's cache answered."""
    if prepared.request is not None:
        return transcript(prepared.request, replies)
    return transcript_of_messages(prepared.legacy["messages"], replies)


def _with_savings(call: LMCall, counts: Sequence[Tokens], rates: Rates | None) -> LMCall:
    total = [
        sum(column)
        for column in zip(*((t.prompt, t.cached, t.written, t.completion) for t in counts), strict=True)
    ]
    prompt, cached, written, completion = total
    return replace(
        call,
        prompt_tokens=prompt,
        cached_tokens=cached,
        cache_write_tokens=written,
        completion_tokens=completion,
        token_source="provider",
        saved_usd=cost_usd(rates, prompt, cached, written, completion),
    )


def width_of(experiment: Experiment, model_id: str) -> int:
    """Calls of a model that may be in flight at once, as the file or the default says."""
    model = experiment.models[model_id]
    if model.max_concurrency:
        return model.max_concurrency
    if not model.is_local:
        return experiment.execution.max_concurrency
    return local.default_concurrency(model.local.n_parallel if model.local is not None else None)


def _capabilities(model: Model, chosen: Engine, address: _Address) -> Capabilities:
    """What the model supports: the file's word, else what DSPy knows about it."""
    if model.is_local:
        known = Capabilities(response_schema=local.SUPPORTS_RESPONSE_SCHEMA, params=local.SUPPORTED_PARAMS)
    else:
        engine = "lm15" if chosen == "native" else "litellm"
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
