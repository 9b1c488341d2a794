"""The engine that every call goes through: it limits, retries, times, counts and prices.

DSPy hands an engine one canonical request and expects one response. This one streams the inner engine
and assembles the reply itself, so that DSPy, for which the attempt stays atomic, needs no streaming path
of its own, while the clock is read at each delta.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import json
import math
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

from dspy import lm15
from dspy._vendor.lm15.result import StreamAccumulator
from dspy.clients.call_result import usage_dict

from dspylab.errors import EndpointError
from dspylab.lm import recorder
from dspylab.lm.limits import Gate
from dspylab.lm.pricing import cost_usd
from dspylab.records import LMCall, Rates
from dspylab.redact import redact

#: What another attempt may mend. A stream that breaks off or holds no JSON is among them.
RETRYABLE = (
    lm15.RateLimitError, lm15.ServerError, lm15.TimeoutError, lm15.TransportError, lm15.StreamAssemblyError,
    json.JSONDecodeError, ConnectionError, TimeoutError,
)  # fmt: skip
#: What no attempt of any example can mend: the model is stopped.
FATAL = (lm15.AuthError, lm15.BillingError, lm15.UnsupportedModelError, lm15.ConfigurationError)

_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 30.0
#: Characters a token stands for, roughly, where nobody counted.
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Endpoint:
    """How one model of the experiment is called.

    Attributes:
        id: Id of the model entry.
        wire_model: What the inner engine is asked for, such as `openai/gpt-4o-mini`.
        provider: lm15's name of the provider, which decides how usage is counted; None for LiteLLM.
        engine: Which inner engine answers.
        stream: Whether calls are streamed.
        num_retries: Further attempts after a transient failure.
        rates: Prices, None when unknown.
        gates: Limits of the model and of its endpoint, in the order in which they are passed.
    """

    id: str
    wire_model: str
    provider: str | None
    engine: Literal["native", "litellm"]
    stream: bool
    num_retries: int
    rates: Rates | None
    gates: tuple[Gate, ...]


@dataclass
class _Timing:
    """When the deltas of one attempt came, in nanoseconds of `perf_counter_ns`; None for never."""

    sent: int
    first: int | None = None
    first_output: int | None = None
    last: int | None = None
    deltas: int = 0

    def note(self, delta: Any) -> None:
        now = time.perf_counter_ns()
        kind = delta.type
        if kind in ("text", "thinking"):
            if not delta.text:
                return
        elif kind == "tool_call":
            if not (delta.input or delta.name):
                return
        elif kind not in ("audio", "image"):
            return
        self.deltas += 1
        self.last = now
        if self.first is None:
            self.first = now
        if self.first_output is None and kind != "thinking":
            self.first_output = now


class MeteredEngine:
    """A DSPy engine around another one. Thread-safe.

    Args:
        inner: The engine that does the call (`complete(request)`, `stream(request)`).
        endpoint: How the model is called.
        capabilities: What the model supports, as DSPy's adapters ask for it.

    Attributes:
        refusal: Why the endpoint refuses every call of this model (wrong key, unknown model); None if
            it does not. Once set, further calls fail at once.
    """

    def __init__(self, inner: Any, endpoint: Endpoint, capabilities: Any) -> None:
        self.inner = inner
        self.endpoint = endpoint
        self.supports_function_calling: bool = capabilities.function_calling
        self.supports_reasoning: bool = capabilities.reasoning
        self.supports_response_schema: bool = capabilities.response_schema
        self.supported_params: frozenset[str] = capabilities.params
        self.refusal: EndpointError | None = None

    def complete(self, request: lm15.Request) -> lm15.Response:
        """One call, with attempts until one succeeds or none may follow.

        Raises:
            lm15.LM15Error: The last attempt's failure.
            Stopped: If the run was stopped.
        """
        watch = recorder.current()
        adapter, fallback = recorder.adapter_now()
        call = LMCall(
            model=self.endpoint.id,
            role=watch.role,
            predictor=watch.predictor(),
            adapter=adapter,
            fallback=fallback,
        )
        wire = replace(request, model=self.endpoint.wire_model)
        expected = _expected_tokens(request)
        queue_s = retry_wait_s = granted = 0.0
        for attempt in range(1, self.endpoint.num_retries + 2):
            started = time.monotonic()
            try:
                with contextlib.ExitStack() as held:
                    for gate in self.endpoint.gates:
                        granted = held.enter_context(gate.slot(expected))
                    queue_s += time.monotonic() - started
                    call = replace(call, attempts=attempt, queue_s=queue_s, started_at=time.time())
                    response, timing = self._attempt(wire)
            except Exception as error:
                pause_s = self._after_failure(error, attempt, granted)
                if pause_s is None:
                    watch.calls.append(replace(call, retry_wait_s=retry_wait_s, error=describe(error)))
                    raise
                paused = time.monotonic()
                self.endpoint.gates[0].wait(pause_s)
                retry_wait_s += time.monotonic() - paused
            else:
                done = self._measured(replace(call, retry_wait_s=retry_wait_s), response, timing, request)
                self._after_success(done, expected)
                watch.calls.append(done)
                return response
        raise AssertionError("unreachable: the last attempt returns or raises")

    def stream(self, request: lm15.Request) -> Iterator[Any]:
        """The reply as canonical events, for programs that stream. The call itself is atomic."""
        return iter(lm15.response_to_events(self.complete(request)))

    def close(self) -> None:
        """Closes the inner engine's connections."""
        self.inner.close()

    def _attempt(self, request: lm15.Request) -> tuple[lm15.Response, _Timing]:
        if self.refusal is not None:
            raise lm15.ConfigurationError(self.refusal.message)
        if not self.endpoint.stream:
            timing = _Timing(sent=time.perf_counter_ns())
            response = self.inner.complete(request)
            timing.last = time.perf_counter_ns()
            return response, timing
        accumulator = StreamAccumulator(request)
        timing = _Timing(sent=time.perf_counter_ns())
        for event in self.inner.stream(request):
            if event.type == "delta":
                timing.note(event.delta)
            accumulator.push(event)
        return accumulator.response(), timing

    def _after_failure(self, error: Exception, attempt: int, granted: float) -> float | None:
        """Seconds to wait before the next attempt, or None when there is to be none."""
        if isinstance(error, FATAL):
            if self.refusal is None:
                self.refusal = EndpointError(
                    _first_line(error),
                    where=f"models.{self.endpoint.id}",
                    remedy="correct the model or its key",
                )
            return None
        if not isinstance(error, RETRYABLE) or attempt > self.endpoint.num_retries:
            return None
        retry_after_s = getattr(error, "retry_after", None)
        if isinstance(error, lm15.RateLimitError):
            # The gate holds everybody back, this call included, so it needs no pause of its own.
            self.endpoint.gates[-1].throttle(granted, retry_after_s)
            return 0.0
        backoff_s = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        return backoff_s if retry_after_s is None else max(backoff_s, float(retry_after_s))

    def _after_success(self, call: LMCall, expected: int) -> None:
        used = (call.prompt_tokens or 0) + (call.completion_tokens or 0)
        for gate in self.endpoint.gates:
            gate.succeed()
            gate.settle(used - expected)

    def _measured(
        self, call: LMCall, response: lm15.Response, timing: _Timing, request: lm15.Request
    ) -> LMCall:
        usage = usage_dict(response, self.endpoint.provider)
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        source: Literal["provider", "estimate"] = "provider"
        if prompt is None or completion is None:
            source = "estimate"
            prompt = _prompt_tokens(request) if prompt is None else prompt
            completion = _completion_tokens(response, timing.deltas) if completion is None else completion
        inputs = usage.get("prompt_tokens_details") or {}
        cached, written = inputs.get("cached_tokens") or 0, inputs.get("cache_creation_tokens") or 0
        reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        return replace(
            call,
            **_figures(timing, completion),
            prompt_tokens=prompt,
            cached_tokens=cached,
            cache_write_tokens=written,
            completion_tokens=completion,
            reasoning_tokens=reasoning,
            token_source=source,
            cost_usd=cost_usd(self.endpoint.rates, prompt, cached, written, completion),
            streamed=self.endpoint.stream,
            finish_reason=response.finish_reason,
        )


class AsyncMeteredEngine:
    """The same engine for programs that call asynchronously: one code path, run in threads of its own."""

    def __init__(self, engine: MeteredEngine, width: int) -> None:
        self.engine = engine
        self._threads = ThreadPoolExecutor(width, thread_name_prefix="dspylab-acall")
        for name in (
            "supports_function_calling",
            "supports_reasoning",
            "supports_response_schema",
            "supported_params",
        ):
            setattr(self, name, getattr(engine, name))

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """As `MeteredEngine.complete`."""
        context = contextvars.copy_context()
        work = functools.partial(context.run, self.engine.complete, request)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def stream(self, request: lm15.Request) -> Any:
        """As `MeteredEngine.stream`."""
        for event in lm15.response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """Lets the threads go; the inner engine is closed by its owner."""
        self._threads.shutdown(wait=False)


def describe(error: BaseException) -> str:
    """`Type: message` of an error, on one line and without secrets."""
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    # lm15 appends advice after an empty line; it speaks of its own API, not of ours.
    return redact(str(error).partition("\n\n")[0].strip() or type(error).__name__)


def _figures(timing: _Timing, tokens: int) -> dict[str, Any]:
    """The timings of DESIGN section 5 in seconds; None where a figure does not exist."""

    def seconds(moment: int | None) -> float | None:
        return None if moment is None else (moment - timing.sent) / 1e9

    latency_s, ttft_s = seconds(timing.last), seconds(timing.first)
    itl_s = None
    if timing.deltas > 1 and tokens > 1 and timing.first is not None and timing.last is not None:
        itl_s = (timing.last - timing.first) / 1e9 / (tokens - 1)
    return {
        "ttft_s": ttft_s,
        "ttfot_s": seconds(timing.first_output),
        "latency_s": latency_s,
        "itl_s": itl_s,
        "decode_tokens_per_s": 1.0 / itl_s if itl_s else None,
        "output_tokens_per_s": tokens / latency_s if latency_s and tokens else None,
    }


def _text_length(request: lm15.Request) -> int:
    system = request.system
    length = len(system) if isinstance(system, str) else sum(len(part.text) for part in system or ())
    return length + sum(len(message.text or "") for message in request.messages)


def _prompt_tokens(request: lm15.Request) -> int:
    return math.ceil(_text_length(request) / _CHARACTERS_PER_TOKEN)


def _completion_tokens(response: lm15.Response, deltas: int) -> int:
    """Deltas are the better guess: nearly every provider streams a token at a time."""
    return deltas if deltas > 1 else math.ceil(len(response.message.text or "") / _CHARACTERS_PER_TOKEN)


def _expected_tokens(request: lm15.Request) -> int:
    return _prompt_tokens(request) + (request.config.max_tokens or 0)
