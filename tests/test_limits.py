"""Limits, retries, refusals and stops: what is sent, when, and how often. Over real HTTP."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import dspy
import pytest
from dspy import lm15
from hypothesis import given, settings
from hypothesis import strategies as st
from metered_calls import KEY, in_a_thread, models_of, said

from dspylab.lm import metered
from dspylab.lm.build import Models
from dspylab.lm.faults import FATAL, RETRYABLE, describe, normalized
from dspylab.lm.limits import Bucket, Gate, Stopped
from dspylab.lm.recorder import Recorder
from dspylab.records import LMCall
from dspylab.testing import ChatRequest, FakeServer, Fault, Faults, Reply

# LiteLLM's own, from code that it runs for every streamed chunk.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")

HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
QUOTA = {
    "error": {
        "message": "You exceeded your quota.",
        "type": "insufficient_quota",
        "code": "insufficient_quota",
    }
}
TOO_LONG = {"error": {"message": "maximum context length is 9", "code": "context_length_exceeded"}}
NO_MODEL = {
    "object": "error",
    "message": "The model `x` does not exist.",
    "type": "NotFoundError",
    "code": 404,
}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backoff and the first pause, shortened; what they are multiplied with stays."""
    monkeypatch.setattr(metered, "_BACKOFF_S", 0.01)
    monkeypatch.setattr("dspylab.lm.limits._FIRST_PAUSE_S", 0.01)


def first(faults: int, fault: Fault) -> Callable[[ChatRequest], Fault | None]:
    """A fault for the first so many requests."""
    return lambda request: fault if request.number < faults else None


def always(fault: Fault) -> Callable[[ChatRequest], Fault]:
    return lambda _: fault


def asked(server: FakeServer, **entry: Any) -> tuple[Any, LMCall]:
    """One call: what came of it and its record."""
    with models_of(server, a=entry) as models:
        outcome, record = said(models.lm("a", {}))
    (call,) = record.calls
    return outcome, call


def flood(models: Models, calls: int, model_id: str = "a", width: int = 32) -> list[LMCall]:
    """Many calls at once; returns their records. Failures are recorded, not raised."""
    lm = models.lm(model_id, {})
    with ThreadPoolExecutor(width) as threads:
        records = threads.map(lambda number: said(lm, f"question {number}")[1], range(calls))
        return [call for record in records for call in record.calls]


# The gate


def waiting(gate: Gate, threads: int) -> Iterator[None]:
    """Waits until so many threads queue at the gate."""
    while len(gate._queue) < threads:
        yield
        time.sleep(0.001)


class Crowd:
    """Threads that want a place, and what became of each."""

    def __init__(self, gate: Gate, size: int, tokens: int = 0) -> None:
        self.inside = 0
        self.peak = 0
        self.entered: list[int] = []
        self.refused: list[BaseException] = []
        self._gate = gate
        self._tokens = tokens
        self._lock = threading.Lock()
        self._leave = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._enter, args=(number,)) for number in range(size)]
        for number, thread in enumerate(self._threads):
            thread.start()
            # One after the other, so that the order in which they ask is known.
            while len(gate._queue) + len(self.entered) + len(self.refused) <= number:
                time.sleep(0.0005)

    def _enter(self, number: int) -> None:
        try:
            with self._gate.slot(self._tokens):
                with self._lock:
                    self.inside += 1
                    self.peak = max(self.peak, self.inside)
                    self.entered.append(number)
                self._leave.acquire()
                with self._lock:
                    self.inside -= 1
        except BaseException as error:  # noqa: BLE001 - Stopped is one
            self.refused.append(error)

    def until_inside(self, size: int) -> None:
        """Returns when so many are inside; hangs if they never are."""
        while self.inside != size:
            time.sleep(0.0005)

    def leave(self, size: int) -> None:
        """Has so many leave, as soon as they are inside."""
        for _ in range(size):
            self._leave.release()

    def gone(self) -> None:
        for thread in self._threads:
            thread.join()


def test_no_more_than_the_limit_are_inside_and_all_get_in() -> None:
    gate = Gate(3)
    crowd = Crowd(gate, 20)
    crowd.leave(20)
    crowd.gone()
    assert crowd.peak == 3
    assert len(crowd.entered) == 20


def test_who_asks_first_enters_first() -> None:
    gate = Gate(1)
    crowd = Crowd(gate, 10)
    crowd.leave(10)
    crowd.gone()
    assert crowd.entered == list(range(10))


def test_a_pause_loses_no_wake_up() -> None:
    """All who wait get in after a pause, up to the limit, although places came free during it."""
    gate = Gate(4)
    crowd = Crowd(gate, 12)
    crowd.until_inside(4)
    gate.throttle(time.monotonic(), 0.05)
    gate.allow(6)
    crowd.leave(4)
    crowd.until_inside(gate.limit)
    assert gate.limit == 4  # half of 4, and 2 more
    crowd.leave(8)
    crowd.gone()
    assert len(crowd.entered) == 12


def test_backoffs_take_no_wake_up_from_those_who_queue() -> None:
    gate = Gate(1)
    sleepers = [threading.Thread(target=gate.wait, args=(0.3,)) for _ in range(8)]
    for sleeper in sleepers:
        sleeper.start()
    crowd = Crowd(gate, 6)
    crowd.leave(6)
    crowd.gone()
    assert len(crowd.entered) == 6
    for sleeper in sleepers:
        sleeper.join()


def test_the_limit_falls_by_half_and_recovers() -> None:
    gate = Gate(32)
    gate.throttle(time.monotonic(), 0.0)
    assert gate.limit == 16
    gate.throttle(time.monotonic(), 0.0)
    assert (gate.limit, gate.throttled) == (8, 2)
    for _ in range(8):
        gate.succeed()
    assert gate.limit in {8, 9}  # about one more for a round of successes
    for _ in range(2000):
        gate.succeed()
    assert gate.limit == gate.maximum == 32


def test_refusals_of_calls_from_before_the_decrease_count_once() -> None:
    gate = Gate(32)
    granted = time.monotonic()
    for _ in range(10):
        gate.throttle(granted, 0.0)
    assert gate.limit == 16


def test_at_least_one_call_is_always_allowed() -> None:
    gate = Gate(2)
    for _ in range(10):
        gate.throttle(time.monotonic(), 0.0)
    assert gate.limit == 1


@pytest.mark.parametrize("error", [Stopped, lambda: lm15.ConfigurationError("no such model")])
def test_a_stop_reaches_those_who_wait_at_once(error: Callable[[], BaseException]) -> None:
    gate = Gate(2, requests_per_minute=3, tokens_per_minute=10)
    gate.throttle(time.monotonic(), 60.0)
    crowd = Crowd(gate, 6)
    sleeper = threading.Thread(target=lambda: in_a_thread(lambda: gate.wait(60.0)))
    sleeper.start()
    gate.stop(error)
    crowd.gone()
    sleeper.join()
    assert crowd.entered == []
    assert {type(refusal) for refusal in crowd.refused} == {type(error())}
    assert len(set(map(id, crowd.refused))) == 6


def test_a_stop_wins_over_a_refusal_that_comes_later() -> None:
    gate = Gate(1)
    gate.stop()
    gate.stop(lambda: lm15.ConfigurationError("no such model"))
    with pytest.raises(Stopped), gate.slot(0):
        pass


# Requests and tokens per minute, on a clock of the test's own


def taken_within_a_minute(per_minute: float, amounts: Iterator[float]) -> float:
    """What a greedy client gets out of a bucket in the first minute."""
    bucket, now, total = Bucket(per_minute, 0.0), 0.0, 0.0
    for amount in amounts:
        while (ready := bucket.ready_at(amount, now)) > now:
            now = ready
        if now >= 60.0 - 1e-6:
            break
        bucket.take(amount, now)
        total += amount
    return total


@settings(deadline=None, max_examples=50)
@given(per_minute=st.integers(1, 10_000))
def test_no_minute_sees_more_requests_than_allowed_and_few_less(per_minute: int) -> None:
    requests = taken_within_a_minute(per_minute, (1.0 for _ in count()))
    assert per_minute - 1 <= requests <= per_minute


@settings(deadline=None, max_examples=50)
@given(per_minute=st.floats(100.0, 1e6), share=st.floats(0.001, 0.5))
def test_no_minute_sees_more_tokens_than_allowed_and_one_call(per_minute: float, share: float) -> None:
    amount = per_minute * share
    tokens = taken_within_a_minute(per_minute, (amount for _ in count()))
    assert tokens <= per_minute + 1 + amount + 1e-6


def test_a_call_larger_than_the_bucket_passes_and_leaves_a_debt() -> None:
    bucket = Bucket(60.0, 0.0)
    assert bucket.ready_at(30.0, 0.0) == 0.0
    bucket.take(30.0, 0.0)
    assert bucket.ready_at(1.0, 0.0) == pytest.approx(30.0)


def test_what_was_not_used_comes_back() -> None:
    bucket = Bucket(60.0, 0.0)
    bucket.take(30.0, 0.0)
    bucket.take(-29.0, 0.0)
    assert bucket.ready_at(1.0, 0.0) == pytest.approx(1.0)


def test_requests_per_minute_hold_at_the_server(server: FakeServer) -> None:
    with models_of(server, a={"requests_per_minute": 600}) as models:
        flood(models, 24)
    arrivals = sorted(record.received_at for record in server.requests)
    # Ten at once at most, then one every 60 / 591 s: of any 12, the last comes 0.2 s after the first.
    assert len(arrivals) == 24
    assert arrivals[-1] - arrivals[0] >= 14 * 60 / 591 - 0.05
    assert arrivals[11] - arrivals[0] >= 2 * 60 / 591 - 0.05


def test_tokens_per_minute_hold_at_the_server() -> None:
    # Each call uses 25 tokens of the prompt and 5 of the reply; the 20 of max_tokens that it does not use
    # come back. 24,000 tokens a minute are 400 a second.
    with FakeServer(Reply("one two three four five")) as server:
        with models_of(server, a={"tokens_per_minute": 24_000, "max_tokens": 25}) as models:
            lm = models.lm("a", {})
            with ThreadPoolExecutor(16) as threads:
                list(threads.map(lambda _: said(lm, "x" * 100), range(32)))
        arrivals = sorted(record.received_at for record in server.requests)
    assert len(arrivals) == 32
    assert arrivals[-1] - arrivals[0] >= (32 * 30 - 400 - 50) / 400


# Retries


TRANSIENT = {
    "500": Fault("status", status=500),
    "503, with a hint": Fault("status", status=503, retry_after_s=0.01),
    "502 as a page": Fault("status", status=502, body=HTML),
    "504": Fault("status", status=504),
    "408": Fault("status", status=408),
    "529": Fault("status", status=529),
    "429": Fault("status", status=429),
    "429, with a hint": Fault("status", status=429, retry_after_s=0.01),
    "200 as a page": Fault("status", status=200, body=HTML),
    "200, empty": Fault("status", status=200, body=""),
    "cut": Fault("cut"),
    "cut before the first token": Fault("cut", after_tokens=0),
    "garbage": Fault("garbage"),
    "garbage at once": Fault("garbage", after_tokens=0),
    "hang": Fault("hang"),
}
ENGINES: dict[str, dict[str, Any]] = {
    "native": {},
    "native, whole": {"stream": False},
    "responses": {"model_type": "responses"},
    "litellm": {"engine": "litellm"},
    "litellm, whole": {"engine": "litellm", "stream": False},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", TRANSIENT)
def test_what_may_pass_is_tried_again(engine: str, fault: str) -> None:
    with FakeServer("one two", fail=first(2, TRANSIENT[fault])) as server:
        outcome, call = asked(server, timeout_s=0.2, **ENGINES[engine])
        assert outcome in (["one two"], [{"text": "one two"}])
        assert len(server.requests) == 3
    assert call.attempts == 3
    assert call.error is None
    assert call.retry_wait_s > 0
    assert call.completion_tokens == 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", ["500", "429", "cut", "garbage", "hang"])
def test_attempts_never_exceed_the_retries_and_one(engine: str, fault: str) -> None:
    with FakeServer(fail=always(TRANSIENT[fault])) as server:
        outcome, call = asked(server, timeout_s=0.2, num_retries=2, **ENGINES[engine])
        assert len(server.requests) == call.attempts == 3
    assert isinstance(outcome, dspy.LMError)
    assert call.error is not None
    assert call.latency_s is None


def test_nothing_is_retried_when_the_file_says_so() -> None:
    with FakeServer(fail=always(TRANSIENT["500"])) as server:
        _, call = asked(server, num_retries=0)
        assert len(server.requests) == call.attempts == 1
    assert call.retry_wait_s == 0.0


def test_waits_are_kept_apart_from_the_latency() -> None:
    with FakeServer(
        "one two", ttft_s=0.02, fail=first(1, Fault("status", status=500, retry_after_s=0.2))
    ) as server:
        _, call = asked(server)
        refused, answered = server.requests
    assert refused.done_at is not None
    assert answered.first_token_at is not None
    assert call.ttft_s is not None
    assert call.latency_s is not None
    # The wait lies between the end of the first attempt and the start of the second, the latency after it.
    assert call.retry_wait_s >= 0.2
    assert call.ttft_s >= answered.first_token_at - answered.received_at
    assert call.latency_s <= time.perf_counter() - refused.done_at - 0.2
    assert call.queue_s < call.retry_wait_s


def test_waiting_for_a_place_is_queueing() -> None:
    with FakeServer("one", ttft_s=0.05) as server, models_of(server, a={"max_concurrency": 1}) as models:
        calls = flood(models, 4, width=4)
        ends = [record.done_at or 0.0 for record in server.requests]
        assert server.concurrency_peak == 1
    # Whoever came last waited for all that the server did before, less what it came later than the first.
    assert max(call.queue_s for call in calls) >= 2 * 0.05
    assert {call.retry_wait_s for call in calls} == {0.0}
    assert all(call.latency_s is not None and call.latency_s <= max(ends) - min(ends) + 1 for call in calls)


def test_waiting_after_a_refusal_is_waiting_for_a_retry() -> None:
    with FakeServer(fail=first(1, Fault("status", status=429, retry_after_s=0.2))) as server:
        _, call = asked(server)
    assert call.retry_wait_s >= 0.2
    assert call.queue_s < 0.2


def test_no_endpoint_is_waited_for_longer_than_a_minute_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metered, "LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr("dspylab.lm.limits.LONGEST_PAUSE_S", 0.05)
    for status in (429, 503):
        with FakeServer(fail=first(1, Fault("status", status=status, retry_after_s=86_400.0))) as server:
            outcome, call = asked(server)
        assert outcome == ["ok"]
        assert call.retry_wait_s >= 0.05


# The adaptive limit


def test_a_429_slows_the_endpoint_down_and_it_recovers() -> None:
    server = FakeServer(ttft_s=0.005, concurrency_limit=4, retry_after_s=0.01)
    entry = {"max_concurrency": 32, "num_retries": 50}
    with server, models_of(server, a=entry) as models:
        own, shared = models.engines["a"].endpoint.gates
        calls = flood(models, 200)
        assert shared.throttled > 0
        assert own.limit == own.maximum == 32
        refused = sum(record.fault == "concurrency" for record in server.requests)
        server.concurrency_limit = None
        flood(models, 600)
        assert shared.limit == shared.maximum == 32
    assert [call.error for call in calls] == [None] * 200
    assert sum(call.attempts for call in calls) == 200 + refused


def test_outages_do_not_lower_the_limit() -> None:
    faults = Faults(rate_500=0.2, rate_cut=0.1, rate_garbage=0.1, rate_hang=0.05, seed=3)
    with FakeServer("one two", faults=faults) as server:
        with models_of(server, a={"timeout_s": 0.3, "num_retries": 20}) as models:
            calls = flood(models, 100)
            gates = models.engines["a"].endpoint.gates
            assert [gate.throttled for gate in gates] == [0, 0]
            assert [gate.limit for gate in gates] == [gate.maximum for gate in gates]
        assert sum(call.attempts for call in calls) == len(server.requests)
    assert [call.error for call in calls] == [None] * 100


def test_two_models_at_one_endpoint_share_its_limit() -> None:
    with FakeServer() as server, FakeServer() as other:
        entries: dict[str, Any] = {
            "a": {"max_concurrency": 8},
            "b": {"max_concurrency": 8},
            "c": {"api_base": other.url},
        }
        with models_of(server, **entries) as models:
            shared = {model_id: engine.endpoint.gates[-1] for model_id, engine in models.engines.items()}
            assert shared["a"] is shared["b"]
            assert shared["a"].maximum == 8
            server.fail = first(1, Fault("status", status=429, retry_after_s=0.0))
            said(models.lm("a", {}))
            assert shared["b"].throttled == 1
            assert shared["b"].limit == 4
            assert shared["c"].throttled == 0


# Refusals


REFUSALS = {
    "401": Fault("status", status=401),
    "402": Fault("status", status=402),
    "403": Fault("status", status=403),
    "404": Fault("status", status=404, body=NO_MODEL),
    "404 as text": Fault("status", status=404, body="404 page not found"),
    "429 for good": Fault("status", status=429, body=QUOTA),
}


@pytest.mark.parametrize("engine", ["native", "litellm"])
@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_stops_the_model_after_one_request(engine: str, fault: str) -> None:
    with FakeServer(fail=always(REFUSALS[fault])) as server, models_of(server, a=ENGINES[engine]) as models:
        outcome, record = said(models.lm("a", {}))
        refusal = models.engines["a"].refusal
        assert isinstance(outcome, dspy.LMError)
        assert record.calls[0].attempts == 1
        assert refusal is not None
        assert refusal.where == "models.a"
        calls = flood(models, 8)
        assert len(server.requests) == 1
        assert models.engines["a"].refusal is refusal
    assert [call.attempts for call in calls] == [0] * 8
    assert all(call.error is not None and refusal.message in call.error for call in calls)


def test_calls_that_queue_when_the_model_is_refused_fail_at_once() -> None:
    entry = {"max_concurrency": 1, "requests_per_minute": 1}
    with FakeServer(fail=always(Fault("status", status=401))) as server, models_of(server, a=entry) as models:
        calls = flood(models, 16, width=16)
        assert len(server.requests) == 1
    assert sorted(call.attempts for call in calls) == [0] * 15 + [1]


def test_a_refused_model_leaves_the_others_alone() -> None:
    server = FakeServer(models=["fake"])
    with server, models_of(server, a={"model": "openai/unknown"}, b={}) as models:
        said(models.lm("a", {}))
        outcome, _ = said(models.lm("b", {}))
        assert models.engines["b"].refusal is None
    assert outcome == ["ok"]


def test_a_prompt_that_moderation_refuses_does_not_stop_a_model_that_has_answered() -> None:
    def flagged(request: ChatRequest) -> Fault | None:
        return Fault("status", status=403) if "bad words" in request.text else None

    with FakeServer(fail=flagged) as server, models_of(server, a={}) as models:
        lm = models.lm("a", {})
        said(lm, "hello")
        refused, record = said(lm, "bad words")
        again, _ = said(lm, "hello")
        assert models.engines["a"].refusal is None
    assert isinstance(refused, dspy.LMAuthError)
    assert record.calls[0].attempts == 1
    assert again == ["ok"]


@pytest.mark.parametrize("engine", ["native", "litellm"])
def test_an_endpoint_where_nobody_is_is_given_up_after_the_attempts_of_one_call(
    engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeServer() as server:
        pass
    with models_of(server, a={**ENGINES[engine], "num_retries": 2}) as models:
        outcome, record = said(models.lm("a", {}))
        refusal = models.engines["a"].refusal
        calls = flood(models, 8)
    assert isinstance(outcome, dspy.LMError)
    assert record.calls[0].attempts == 3
    assert refusal is not None
    assert refusal.where == "models.a"
    assert "start the server" in (refusal.remedy or "")
    assert [call.attempts for call in calls] == [0] * 8
    (told,) = [line for line in caplog.messages if line.startswith("models.a: ")]
    assert told.startswith("models.a: failed to connect")
    assert told.count("failed to connect") == 1
    assert told.endswith(": trying again (num_retries: 2)")


def test_an_endpoint_that_has_answered_and_breaks_off_is_not_given_up() -> None:
    def cut(request: ChatRequest) -> Fault | None:
        return Fault("cut") if 0 < request.number < 10 else None

    with FakeServer("one two", fail=cut) as server, models_of(server, a={"num_retries": 2}) as models:
        lm = models.lm("a", {})
        outcomes = [said(lm, f"question {number}")[0] for number in range(5)]
        assert models.engines["a"].refusal is None
    assert [isinstance(outcome, dspy.LMError) for outcome in outcomes] == [False, True, True, True, False]


@pytest.mark.parametrize("body", [None, TOO_LONG], ids=["bad request", "too long"])
@pytest.mark.parametrize("engine", ["native", "litellm"])
def test_a_bad_request_is_neither_retried_nor_a_refusal(engine: str, body: dict[str, Any] | None) -> None:
    fault = Fault("status", status=400, body=body)
    with FakeServer(fail=first(1, fault)) as server, models_of(server, a=ENGINES[engine]) as models:
        outcome, record = said(models.lm("a", {}))
        expected = dspy.ContextWindowExceededError if body else dspy.LMInvalidRequestError
        assert isinstance(outcome, expected)
        assert record.calls[0].attempts == len(server.requests) == 1
        assert models.engines["a"].refusal is None
        assert said(models.lm("a", {}))[0] == ["ok"]


def test_a_provider_of_which_litellm_has_never_heard_stops_the_model_at_once() -> None:
    entry = {"model": "nosuch/fake", "engine": "litellm", "num_retries": 3}
    with FakeServer() as server, models_of(server, a=entry) as models:
        outcome, record = said(models.lm("a", {}))
        again, later = said(models.lm("a", {}))
        refusal = models.engines["a"].refusal
        assert not server.requests
    assert isinstance(outcome, dspy.LMUnsupportedModelError)
    assert isinstance(again, dspy.LMUnsupportedModelError)
    assert [call.attempts for call in (*record.calls, *later.calls)] == [1, 0]
    assert refusal is not None
    assert refusal.message.startswith("LiteLLM knows no provider of this name")


def test_all_calls_of_a_model_that_refuses_them_fail_of_the_same_cause() -> None:
    with FakeServer(api_key="another-key") as server, models_of(server, a={}) as models:
        outcomes = [said(models.lm("a", {}))[0] for _ in range(3)]
        assert len(server.requests) == 1
    assert [type(outcome) for outcome in outcomes] == [dspy.LMAuthError] * 3

    with models_of(server, a={"num_retries": 0}) as models:
        outcomes = [said(models.lm("a", {}))[0] for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [dspy.LMTransportError] * 3


# Errors as people read them


@pytest.mark.parametrize("engine", ["native", "responses", "litellm"])
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_no_error_carries_the_key(engine: str, status: int) -> None:
    with FakeServer(fail=always(Fault("status", status=status, echo_key=True))) as server:
        outcome, call = asked(server, num_retries=0, **ENGINES[engine])
    assert call.error is not None
    error: BaseException | None = outcome
    seen = [call.error]
    while error is not None:
        seen += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    assert len(seen) > 1
    assert KEY not in "".join(seen)
    assert "You sent: " in call.error


def test_an_error_is_described_in_one_line() -> None:
    error = lm15.ServerError("first\nline\x1b[31m red\x00\n\n  To fix:\n    - pay")
    assert describe(error) == "ServerError: first line [31m red"
    assert describe(ValueError()) == "ValueError: ValueError"
    assert len(describe(ValueError("x" * 10_000))) < 600


def test_a_silent_endpoint_is_described_as_such() -> None:
    with FakeServer(fail=always(Fault("hang"))) as server:
        outcome, call = asked(server, timeout_s=0.2, num_retries=0)
    assert isinstance(outcome, dspy.LMTimeoutError)
    assert call.error == "TimeoutError: the endpoint was silent for 0.2 s (timeout_s)"


# Stops


def test_a_stop_ends_waiting_calls_at_once_and_lets_those_in_flight_finish() -> None:
    with FakeServer(ttft_s=0.3) as server, models_of(server, a={"max_concurrency": 2}) as models:
        lm = models.lm("a", {})
        outcomes: Counter[str] = Counter()

        def ask() -> None:
            with Recorder(names={}).context(disable_history=True):
                try:
                    lm("hello")
                except Stopped:
                    outcomes["stopped"] += 1
                else:
                    outcomes["answered"] += 1

        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        while server.concurrency_now < 2:
            time.sleep(0.001)
        models.stop()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 2
    assert outcomes == {"answered": 2, "stopped": 8}


def test_a_stop_ends_a_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metered, "_BACKOFF_S", 30.0)
    with FakeServer(fail=always(Fault("status", status=500))) as server, models_of(server, a={}) as models:
        with ThreadPoolExecutor(1) as thread:
            outcome = thread.submit(said, models.lm("a", {}))
            while not server.requests or server.concurrency_now:
                time.sleep(0.001)
            time.sleep(0.05)
            models.stop()
            assert isinstance(outcome.result(timeout=10)[0], Stopped)
        assert len(server.requests) == 1


def test_closing_ends_calls_in_flight() -> None:
    with FakeServer(fail=always(Fault("hang"))) as server:
        models = models_of(server, a={"num_retries": 0})
        with ThreadPoolExecutor(1) as thread:
            outcome = thread.submit(said, models.lm("a", {}))
            while not server.concurrency_now:
                time.sleep(0.001)
            models.__exit__()
            assert isinstance(outcome.result(timeout=10)[0], dspy.LMTransportError)


@pytest.mark.parametrize(
    "told",
    [
        lm15.TransportError("SSE line exceeds limit (70000 > 65536)"),
        lm15.UnsupportedFeatureError(
            "LiteLLM streaming fields have no implemented lm15 event mapping: ['x']"
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_streamed_is_not_tried_again_and_says_what_to_do(told: lm15.LM15Error) -> None:
    error = normalized(told, 600.0)
    assert not isinstance(error, (*RETRYABLE, *FATAL))
    assert describe(error).endswith("set stream: false")


def test_limits_can_change_while_calls_are_made() -> None:
    gate = Gate(4, requests_per_minute=6000)
    with gate.slot(0), gate.slot(0), gate.slot(0):
        gate.restrict(2, requests_per_minute=60)
        assert (gate.limit, gate.maximum) == (2, 2)
        let_in = threading.Event()

        def ask() -> None:
            with gate.slot(0):
                let_in.set()

        waiting = threading.Thread(target=ask)
        waiting.start()
        assert not let_in.wait(0.05), "three are in flight, two are allowed"
        gate.restrict(5, requests_per_minute=6000)
        assert let_in.wait(10)
    waiting.join()
    assert gate.limit == 5
    with gate.slot(0) as granted:
        gate.throttle(granted, 0.0)
    gate.restrict(4)
    assert gate.limit < 4, "what the endpoint can not take stays known"


def test_a_bucket_keeps_what_was_taken_when_its_limit_changes() -> None:
    bucket = Bucket(600, now=0.0)
    bucket.take(10, now=0.0)
    bucket.change(60, now=0.0)
    assert bucket.ready_at(1, now=0.0) == pytest.approx(1.0)
    bucket.change(6000, now=0.0)
    assert bucket.ready_at(1, now=0.0) == pytest.approx(0.01, rel=0.05)
