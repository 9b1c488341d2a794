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
import logging
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self

from dspy import lm15
from dspy._vendor.lm15.result import StreamAccumulator

from dspylab.errors import EndpointError, UnreachableEndpoint
from dspylab.lm import recorder
from dspylab.lm.budget import Ledger, Spending
from dspylab.lm.faults import FATAL, RETRYABLE, describe, first_words, normalized
from dspylab.lm.limits import LONGEST_PAUSE_S, Gate, Stopped
from dspylab.lm.pricing import cost_usd
from dspylab.lm.timing import Timing, Tokens, estimated_tokens, prompt_estimate, reported_tokens
from dspylab.lm.transcript import transcript
from dspylab.records import LMCall, Rates

logger = logging.getLogger(__name__)

_REMEDIES: dict[type[Exception], str] = {
    lm15.AuthError: "check the key, and that it may use this model",
    lm15.BillingError: "check the credit and the quota of the account",
    lm15.UnsupportedModelError: "correct the model's name or its api_base",
    lm15.TransportError: "start the server, correct api_base, or see whether the network is there",
}
#: What a reply is expected to take of the budget when the request does not bound it.
_UNBOUNDED_REPLY_TOKENS = 1024
_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 30.0


class InnerEngine(Protocol):
    """What a metered engine needs of the engine that it meters."""

    def complete(self, request: lm15.Request) -> lm15.Response:
        """One call, one attempt."""

    def stream(self, request: lm15.Request) -> Iterator[Any]:
        """One call, one attempt, as canonical events."""

    def sent(self) -> int | None:
        """When this thread's last request was sent, in nanoseconds of `perf_counter_ns`; None if unknown."""

    def arrived(self) -> int:
        """When what was last yielded to this thread arrived, in nanoseconds of `perf_counter_ns`."""

    def close(self) -> None:
        """Closes its connections."""


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
        timeout_s: Longest silence of the endpoint.
        rates: Prices, None when unknown.
        gates: Limits of the model and of its endpoint, in the order in which they are passed.
    """

    id: str
    wire_model: str
    provider: str | None
    engine: Literal["native", "litellm"]
    stream: bool
    num_retries: int
    timeout_s: float
    rates: Rates | None
    gates: tuple[Gate, ...]


@dataclass
class _Progress:
    """What has become of a call so far.

    Attributes:
        attempts: How often it was sent.
        started_at: When it was last sent, in seconds since the epoch.
        queue_s: Wait before the first attempt.
        retry_wait_s: Wait between attempts: the backoff, and again for our own limits.
        waiting_since: Monotonic time at which the present wait began.
        granted: Monotonic time at which the last attempt was admitted.
    """

    waiting_since: float
    attempts: int = 0
    started_at: float | None = None
    queue_s: float = 0.0
    retry_wait_s: float = 0.0
    granted: float = 0.0

    def sent(self) -> None:
        """The wait is over: the call is sent."""
        waited_s = time.monotonic() - self.waiting_since
        if self.attempts == 0:
            self.queue_s = waited_s
        else:
            self.retry_wait_s += waited_s
        self.attempts += 1
        self.started_at = time.time()

    def onto(self, call: LMCall) -> LMCall:
        """The record of the call with what is known so far."""
        return replace(
            call,
            attempts=self.attempts,
            started_at=self.started_at,
            queue_s=self.queue_s,
            retry_wait_s=self.retry_wait_s,
        )


class MeteredEngine:
    """A DSPy engine around another one. Thread-safe.

    Args:
        inner: The engine that does the call.
        endpoint: How the model is called.
        capabilities: What the model supports, as DSPy's adapters ask for it.
        ledger: The budget that its calls count against.

    Attributes:
        refusal: Why the endpoint refuses every call of this model (wrong key, unknown model, nobody there);
            None if it does not. Once set, further calls fail at once.
    """

    def __init__(self, inner: InnerEngine, endpoint: Endpoint, capabilities: Any, ledger: Ledger) -> None:
        self.inner = inner
        self.endpoint = endpoint
        self.supports_function_calling: bool = capabilities.function_calling
        self.supports_reasoning: bool = capabilities.reasoning
        self.supports_response_schema: bool = capabilities.response_schema
        self.supported_params: frozenset[str] = capabilities.params
        self.refusal: EndpointError | None = None
        self._refused_with: type[lm15.LM15Error] = lm15.ConfigurationError
        self._has_answered = False
        self._is_told = False
        self._ledger = ledger

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        # Copies of a program that holds its model share the connections and the limits.
        return self

    def complete(self, request: lm15.Request, asked_at: float | None = None) -> lm15.Response:
        """One call, with attempts until one succeeds or none may follow.

        Args:
            request: What DSPy asks.
            asked_at: Monotonic time since which the call waits, in seconds; None for now.

        Raises:
            lm15.LM15Error: The last attempt's failure.
            Stopped: If the run was stopped, or the budget is exhausted.
        """
        watch = recorder.current()
        try:
            if watch.replies is None:
                return self._paid(request, asked_at)
            key = watch.replies.key(self.endpoint.id, request)
            with watch.replies.turn(key) as known:
                self._ledger.go_on()
                return self._paid(request, asked_at, key) if known is None else known
        except Stopped:
            # A program that catches everything must not make an answer of it.
            watch.was_stopped.set()
            raise

    def _paid(self, request: lm15.Request, asked_at: float | None, key: str | None = None) -> lm15.Response:
        with self._ledger.admit(self._expected(request)) as costs:
            # A call that fails, or whose reply is lost, counts as a call all the same.
            costs.append(Spending(calls=1))
            response, call = self._called(request, asked_at or time.monotonic(), key)
            tokens = (call.prompt_tokens or 0) + (call.completion_tokens or 0)
            costs[:] = [Spending(call.cost_usd or 0.0, tokens, 1)]
            return response

    def _expected(self, request: lm15.Request) -> Spending:
        prompt, completion = prompt_estimate(request), request.config.max_tokens or _UNBOUNDED_REPLY_TOKENS
        cost = cost_usd(self.endpoint.rates, prompt, 0, 0, completion)
        return Spending(cost or 0.0, prompt + completion, 1)

    def _called(
        self, request: lm15.Request, asked_at: float, key: str | None
    ) -> tuple[lm15.Response, LMCall]:
        recorder.note_asked(self.endpoint.id)
        watch = recorder.current()
        call = watch.asks(self.endpoint.id)
        wire = replace(request, model=self.endpoint.wire_model)
        progress = _Progress(asked_at)
        while True:
            try:
                response, timing, tokens = self._admitted(wire, progress)
            except Exception as error:  # noqa: BLE001 - what is not transient is raised below
                failure = normalized(error, self.endpoint.timeout_s)
            else:
                done = self._measured(progress.onto(call), response, timing, tokens)
                watch.add(done, functools.partial(transcript, request, [response]), key, response)
                return response, done
            if not self._may_retry(failure, progress):
                failed = replace(progress.onto(call), error=describe(failure))
                watch.add(failed, functools.partial(transcript, request, []))
                raise failure

    def stream(self, request: lm15.Request) -> Iterator[Any]:
        """The reply as canonical events, for programs that stream. The call itself is atomic."""
        return iter(lm15.response_to_events(self.complete(request)))

    def close(self) -> None:
        """Closes the inner engine's connections."""
        self.inner.close()

    def _admitted(self, request: lm15.Request, progress: _Progress) -> tuple[lm15.Response, Timing, Tokens]:
        """One attempt, once the limits let it through."""
        expected = prompt_estimate(request) + (request.config.max_tokens or 0)
        gates = self.endpoint.gates
        with contextlib.ExitStack() as held:
            for gate in gates:
                progress.granted = held.enter_context(gate.slot(expected))
            if self.refusal is not None:
                raise self._refused_with(self.refusal.message)
            progress.sent()
            used = 0
            try:
                response, timing = self._attempt(request)
                tokens = reported_tokens(response, self.endpoint.provider) or estimated_tokens(
                    request, response, timing.deltas
                )
                used = tokens.prompt + tokens.completion
            finally:
                for gate in gates:
                    gate.settle(used - expected)
        self._has_answered = True
        for gate in gates:
            gate.succeed()
        return response, timing, tokens

    def _attempt(self, request: lm15.Request) -> tuple[lm15.Response, Timing]:
        timing = Timing(sent=time.perf_counter_ns())
        if self.endpoint.stream:
            accumulator = StreamAccumulator(request)
            for event in self.inner.stream(request):
                if event.type == "delta":
                    timing.note(event.delta, self.inner.arrived())
                accumulator.push(event)
            response = accumulator.response()
        else:
            response = self.inner.complete(request)
            timing.last = time.perf_counter_ns()
        timing.sent = self.inner.sent() or timing.sent
        return response, timing

    def _may_retry(self, error: Exception, progress: _Progress) -> bool:
        """Whether another attempt may follow, after whatever wait it needs.

        Raises:
            Stopped: If the run was stopped meanwhile.
        """
        progress.waiting_since = time.monotonic()
        if self._is_refusal(error):
            self._refuse(error)
            return False
        if (
            self.refusal is not None
            or not isinstance(error, RETRYABLE)
            or recorder.current().has_ended.is_set()
        ):
            return False
        limited, retry_after_s = isinstance(error, lm15.RateLimitError), error.retry_after
        if limited:
            self.endpoint.gates[-1].throttle(progress.granted, retry_after_s)
        never_reached = isinstance(error, lm15.TransportError) and not self._has_answered
        if progress.attempts > self.endpoint.num_retries:
            if never_reached:
                # All others would wait as long for the same end.
                self._refuse(error)
            return False
        if never_reached and not self._is_told:
            self._is_told = True
            logger.warning(
                "models.%s: %s: trying again (num_retries: %d)",
                self.endpoint.id, first_words(error), self.endpoint.num_retries,
            )  # fmt: skip
        if limited:
            return True  # the gate holds everybody back, this call included: it needs no pause of its own
        backoff_s = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2 ** (progress.attempts - 1))
        pause_s = max(backoff_s * random.uniform(0.5, 1.0), min(retry_after_s or 0.0, LONGEST_PAUSE_S))
        self.endpoint.gates[0].wait(pause_s)
        return True

    def _is_refusal(self, error: Exception) -> bool:
        """Whether the endpoint would refuse every call like this one."""
        if self._has_answered and (
            (isinstance(error, lm15.AuthError) and error.status == 403)
            or isinstance(error, lm15.UnsupportedModelError)
        ):
            # The key and the model are good: it is this prompt that was refused, by moderation or policy, or
            # one of the servers behind the endpoint that does not know the model yet.
            return False
        return isinstance(error, FATAL)

    def _refuse(self, error: lm15.LM15Error) -> None:
        if self.refusal is None:
            message = first_words(error)
            remedies = (remedy for kind, remedy in _REMEDIES.items() if isinstance(error, kind))
            kind = UnreachableEndpoint if isinstance(error, lm15.TransportError) else EndpointError
            self._refused_with = type(error)
            self.refusal = kind(
                message,
                where=f"models.{self.endpoint.id}",
                remedy=next(remedies, "correct the model's entry"),
            )
            # What was never sent fails of the same cause as what was.
            self.endpoint.gates[0].stop(lambda: self._refused_with(message))

    def _measured(self, call: LMCall, response: lm15.Response, timing: Timing, tokens: Tokens) -> LMCall:
        return replace(
            call,
            **timing.figures(tokens),
            prompt_tokens=tokens.prompt,
            cached_tokens=tokens.cached,
            cache_write_tokens=tokens.written,
            completion_tokens=tokens.completion,
            reasoning_tokens=tokens.reasoning,
            token_source=tokens.source,
            cost_usd=cost_usd(
                self.endpoint.rates, tokens.prompt, tokens.cached, tokens.written, tokens.completion
            ),
            streamed=self.endpoint.stream,
            finish_reason=response.finish_reason,
        )


class AsyncMeteredEngine:
    """The same engine for programs that call asynchronously: one code path, run in threads of its own.

    A task that is cancelled does not interrupt its call: it is finished, paid for and recorded.

    Args:
        engine: The engine.
        width: Calls that may be in flight at once.
    """

    def __init__(self, engine: MeteredEngine, width: int) -> None:
        self.engine = engine
        self._threads = ThreadPoolExecutor(width, thread_name_prefix="dspylab-acall")

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """As `MeteredEngine.complete`."""
        context = contextvars.copy_context()
        work = functools.partial(context.run, self.engine.complete, request, time.monotonic())
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def stream(self, request: lm15.Request) -> Any:
        """As `MeteredEngine.stream`."""
        for event in lm15.response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def close(self) -> None:
        """Lets the threads go; the inner engine is closed by its owner."""
        self._threads.shutdown(wait=False, cancel_futures=True)
