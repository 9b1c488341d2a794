"""What is recorded of a call: its figures, its tokens, and who made it. Over real HTTP."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from dspy import lm15
from metered_calls import models_of, recorded, said

from dspylab.lm.build import MeteredLM, Models
from dspylab.lm.limits import Stopped
from dspylab.lm.recorder import Recorder, predictor_names
from dspylab.lm.timing import Timing, Tokens
from dspylab.records import LMCall
from dspylab.testing import ChatRequest, FakeServer, Fault, Reply, ToolCall, Usage, reply_fields

# LiteLLM's own, from code that it runs for every streamed chunk.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")

TIMINGS = ("ttft_s", "ttfot_s", "latency_s", "itl_s", "decode_tokens_per_s", "output_tokens_per_s")
MS = 1_000_000
#: Model entries for every way to reach the server.
WAYS: dict[str, dict[str, Any]] = {
    "native": {},
    "native, whole": {"stream": False},
    "responses": {"model_type": "responses"},
    "litellm": {"engine": "litellm"},
    "litellm, whole": {"engine": "litellm", "stream": False},
}
STREAMED = [way for way in WAYS if "whole" not in way]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=STREAMED)
def streamed_way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call_of(server: FakeServer, way: str = "native", prompt: str = "hello", **settings: Any) -> LMCall:
    """The record of one successful call."""
    with models_of(server, a=WAYS[way]) as models:
        outputs, record = said(models.lm("a", {}), prompt, **settings)
    assert not isinstance(outputs, Exception), outputs
    (call,) = record.calls
    assert call.error is None
    return call


def counted(completion: int, reasoning: int | None = None) -> Tokens:
    return Tokens(
        prompt=10, cached=0, written=0, completion=completion, reasoning=reasoning, source="provider"
    )


def timing_of(*deltas: tuple[int, Any]) -> Timing:
    """Deltas with the milliseconds after which they arrived."""
    timing = Timing(sent=0)
    for moment, delta in deltas:
        timing.note(delta, moment * MS)
    return timing


# The definitions


def test_figures_follow_their_definitions() -> None:
    text = lm15.TextDelta(text="x")
    figures = timing_of((300, text), (320, text), (360, text)).figures(counted(5))
    assert figures == {
        "ttft_s": 0.3,
        "ttfot_s": 0.3,
        "latency_s": 0.36,
        "itl_s": pytest.approx(0.06 / 4),
        "decode_tokens_per_s": pytest.approx(4 / 0.06),
        "output_tokens_per_s": pytest.approx(5 / 0.36),
    }


def test_reasoning_is_a_first_token_but_no_first_output_token() -> None:
    figures = timing_of((100, lm15.ThinkingDelta(text="hm")), (400, lm15.TextDelta(text="x"))).figures(
        counted(2)
    )
    assert (figures["ttft_s"], figures["ttfot_s"], figures["latency_s"]) == (0.1, 0.4, 0.4)


def test_a_reply_that_is_all_reasoning_has_no_first_output_token() -> None:
    thought = lm15.ThinkingDelta(text="hm")
    figures = timing_of((100, thought), (200, thought)).figures(counted(2, reasoning=2))
    assert (figures["ttft_s"], figures["ttfot_s"], figures["itl_s"]) == (0.1, None, 0.1)


def test_a_tool_call_is_output() -> None:
    named = lm15.ToolCallDelta(name="look", id="1", input="")
    figures = timing_of((100, named), (200, lm15.ToolCallDelta(input="{}"))).figures(counted(2))
    assert (figures["ttft_s"], figures["ttfot_s"], figures["latency_s"]) == (0.1, 0.1, 0.2)


@pytest.mark.parametrize(
    "nothing",
    [
        lm15.TextDelta(text=""),
        lm15.ThinkingDelta(text=""),
        lm15.ToolCallDelta(input="", id="1"),
        lm15.CitationDelta(title="source"),
    ],
    ids=lambda delta: delta.type,
)
def test_empty_deltas_are_not_noted(nothing: Any) -> None:
    text = lm15.TextDelta(text="x")
    figures = timing_of((50, nothing), (100, text), (200, text), (900, nothing)).figures(counted(2))
    assert (figures["ttft_s"], figures["latency_s"], figures["itl_s"]) == (0.1, 0.2, 0.1)


@pytest.mark.parametrize(
    ("moments", "tokens"), [((100,), 8), ((100, 100, 100), 8), ((100, 200), 1)], ids=["one", "at once", "N=1"]
)
def test_there_is_no_time_between_tokens_that_were_not_seen_apart(
    moments: tuple[int, ...], tokens: int
) -> None:
    figures = timing_of(*((moment, lm15.TextDelta(text="x")) for moment in moments)).figures(counted(tokens))
    assert figures["itl_s"] is None
    assert figures["decode_tokens_per_s"] is None


def test_reasoning_that_was_not_streamed_does_not_shorten_the_time_between_tokens() -> None:
    text = lm15.TextDelta(text="x")
    timing = timing_of((1000, text), (1100, text), (1200, text))
    assert timing.figures(counted(503, reasoning=500))["itl_s"] == pytest.approx(0.1)
    assert timing.figures(counted(503, reasoning=500))["output_tokens_per_s"] == pytest.approx(503 / 1.2)


def test_nothing_exists_for_a_reply_without_content() -> None:
    assert set(timing_of().figures(counted(0)).values()) == {None}


# Over HTTP: against the server's own clock, which on one machine is ours


def test_timings_are_those_of_the_server(streamed_way: str) -> None:
    with FakeServer("one two three four", ttft_s=0.04, itl_s=0.01) as server:
        began = time.perf_counter()
        call = call_of(server, streamed_way)
        elapsed = time.perf_counter() - began
        (true,) = server.requests
    assert true.first_token_at is not None
    assert true.last_token_at is not None
    assert call.ttft_s is not None
    assert call.latency_s is not None
    assert call.itl_s is not None
    # The client can see nothing before it was sent, and has sent before the server received.
    assert true.first_token_at - true.received_at <= call.ttft_s < call.latency_s < elapsed
    assert true.last_token_at - true.received_at <= call.latency_s
    assert call.itl_s * 3 == pytest.approx(call.latency_s - call.ttft_s)
    assert call.decode_tokens_per_s == pytest.approx(1 / call.itl_s)
    assert call.output_tokens_per_s == pytest.approx(4 / call.latency_s)
    assert call.ttfot_s == call.ttft_s
    assert call.streamed


def test_a_call_that_was_not_streamed_has_a_latency_only() -> None:
    for way in ("native, whole", "litellm, whole"):
        with FakeServer("one two three four", ttft_s=0.02, itl_s=0.01) as server:
            call = call_of(server, way)
            (true,) = server.requests
        assert not true.stream
        assert true.last_token_at is not None
        assert call.latency_s is not None
        assert call.latency_s >= true.last_token_at - true.received_at
        assert call.output_tokens_per_s == pytest.approx(4 / call.latency_s)
        assert (call.ttft_s, call.ttfot_s, call.itl_s, call.decode_tokens_per_s) == (None,) * 4
        assert not call.streamed


def test_a_reply_in_one_chunk_has_no_time_between_tokens(streamed_way: str) -> None:
    with FakeServer(Reply("one two three four", one_chunk=True)) as server:
        call = call_of(server, streamed_way)
    assert call.ttft_s == call.latency_s
    assert call.ttft_s is not None
    assert (call.itl_s, call.decode_tokens_per_s) == (None, None)
    assert call.completion_tokens == 4


def test_chunks_that_arrive_together_have_no_time_between_tokens() -> None:
    with FakeServer("one two three four") as server:
        call = call_of(server)
    assert call.completion_tokens == 4
    assert (call.itl_s, call.decode_tokens_per_s) == (None, None)


def test_reasoning_comes_before_the_first_output_token(streamed_way: str) -> None:
    with FakeServer(Reply("yes", reasoning="let me think"), itl_s=0.02) as server:
        call = call_of(server, streamed_way)
    assert call.ttft_s is not None
    assert call.ttfot_s is not None
    assert call.ttft_s < call.ttfot_s
    assert (call.completion_tokens, call.reasoning_tokens) == (4, 3)


def test_tool_calls_are_timed(streamed_way: str) -> None:
    reply = Reply(tool_calls=(ToolCall(name="look", arguments={"word": "x y z"}),))
    with FakeServer(reply, itl_s=0.02) as server:
        call = call_of(server, streamed_way)
    assert call.ttft_s is not None
    assert call.latency_s is not None
    assert call.ttft_s == call.ttfot_s
    assert call.ttft_s < call.latency_s
    assert call.finish_reason == "tool_call"


def test_an_empty_first_chunk_is_no_first_token(streamed_way: str) -> None:
    with FakeServer(Reply("one two", empty_first_chunk=True), ttft_s=0.05, itl_s=0.02) as server:
        call = call_of(server, streamed_way)
        (true,) = server.requests
    assert true.first_token_at is not None
    assert call.ttft_s is not None
    assert call.ttft_s >= true.first_token_at - true.received_at


def test_usage_is_the_providers(way: str) -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=50, cached_tokens=600, reasoning_tokens=20)
    with FakeServer(Reply("one two", usage=usage)) as server:
        call = call_of(server, way)
    assert (call.prompt_tokens, call.cached_tokens, call.completion_tokens) == (1000, 600, 50)
    assert call.reasoning_tokens == 20
    assert call.token_source == "provider"
    # Without a rate for cached tokens they cost what others do.
    assert call.cost_usd == pytest.approx((1000 * 1.0 + 50 * 2.0) / 1e6)


def test_tokens_are_estimated_when_the_provider_does_not_count(way: str) -> None:
    reply = Reply("one two three four", usage=None, omit_usage_chunk=True)
    with FakeServer(reply, itl_s=0.002) as server:
        call = call_of(server, way, "x" * 400)
    assert call.token_source == "estimate"
    assert call.prompt_tokens == 100
    assert call.completion_tokens == (4 if call.streamed else 5)
    assert call.reasoning_tokens is None
    assert call.cost_usd is not None


def test_a_provider_that_counts_beyond_reason_has_not_counted(way: str) -> None:
    with FakeServer(Reply("one two", usage=Usage(prompt_tokens=10**400, completion_tokens=1))) as server:
        call = call_of(server, way, "x" * 400)
    assert (call.token_source, call.prompt_tokens, call.error) == ("estimate", 100, None)


def test_several_choices_are_several_calls() -> None:
    with FakeServer("one two") as server, models_of(server, a={}) as models:
        outputs, record = said(models.lm("a", {}), n=3)
        assert outputs == ["one two"] * 3
        assert len(server.requests) == len(record.calls) == 3
        assert {call.completion_tokens for call in record.calls} == {2}


def test_a_truncated_reply_says_so(way: str) -> None:
    with FakeServer(Reply("one two", finish_reason="length")) as server:
        assert call_of(server, way).finish_reason == "length"


def test_a_failed_call_has_no_figures() -> None:
    def bad_request(_: ChatRequest) -> Fault:
        return Fault("status", status=400)

    with FakeServer(fail=bad_request) as server, models_of(server, a={}) as models:
        error, record = said(models.lm("a", {}))
    (call,) = record.calls
    assert isinstance(error, dspy.LMInvalidRequestError)
    assert call.error == "InvalidRequestError: The fake server fails with 400. (openai-chat, HTTP 400)"
    assert [getattr(call, name) for name in TIMINGS] == [None] * len(TIMINGS)
    assert (call.cost_usd, call.prompt_tokens, call.attempts, call.streamed) == (None, None, 1, False)


def test_a_stream_without_a_reply_is_a_failure_with_litellm_too() -> None:
    def html(_: ChatRequest) -> Fault:
        return Fault("status", status=200, body="<html>We will be back soon</html>")

    for way in ("native", "litellm"):
        with FakeServer(fail=html) as server, models_of(server, a={**WAYS[way], "num_retries": 0}) as models:
            error, record = said(models.lm("a", {}))
        assert isinstance(error, dspy.LMStreamAssemblyError), way
        assert record.calls[0].error is not None


# Who made the call


class TwoSteps(dspy.Module):  # type: ignore[misc]  # dspy has no types
    def __init__(self) -> None:
        self.draft = dspy.Predict("question -> draft")
        self.refine = dspy.ChainOfThought("question, draft -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.refine(question=question, draft=self.draft(question=question).draft)


def two_calls(record: Recorder) -> list[tuple[str | None, str | None, bool]]:
    return [(call.predictor, call.adapter, call.fallback) for call in record.calls]


@pytest.fixture
def lm(server: FakeServer) -> Iterator[MeteredLM]:
    with models_of(server, a={}) as models:
        yield models.lm("a", {})


def test_calls_carry_the_name_of_their_predictor(lm: MeteredLM) -> None:
    _, record = recorded(TwoSteps(), lm, question="why?")
    assert two_calls(record) == [("draft", "ChatAdapter", False), ("refine.predict", "ChatAdapter", False)]
    assert {call.role for call in record.calls} == {"task"}
    assert record.parse_failures == []


def test_the_programs_own_predictor_is_called_self(lm: MeteredLM) -> None:
    _, record = recorded(dspy.Predict("question -> answer"), lm, question="why?")
    assert [call.predictor for call in record.calls] == ["self"]


def test_the_steps_of_an_agent_are_told_apart() -> None:
    def answer(request: ChatRequest) -> str:
        wanted = {"next_tool_name": "finish", "next_thought": "done", "next_tool_args": "{}"}
        return reply_fields(request, wanted if "next_tool_name" in request.system else {"answer": "42"})

    def look(word: str) -> str:
        """Looks a word up."""
        return word

    with FakeServer(answer) as server, models_of(server, a={}) as models:
        prediction, record = recorded(
            dspy.ReAct("question -> answer", tools=[look]), models.lm("a", {}), question="?"
        )
    assert prediction.answer == "42"
    assert [call.predictor for call in record.calls] == ["react", "extract.predict"]


def test_copies_of_a_predictor_keep_its_name(lm: MeteredLM) -> None:
    best = dspy.BestOfN(TwoSteps(), N=2, reward_fn=lambda *_: 0.0, threshold=1.0)
    _, record = recorded(best, lm, question="why?")
    assert [call.predictor for call in record.calls] == ["module.draft", "module.refine.predict"] * 2


def test_copies_that_the_program_holds_have_names_of_their_own(lm: MeteredLM) -> None:
    class Votes(dspy.Module):  # type: ignore[misc]  # dspy has no types
        def __init__(self) -> None:
            first = dspy.Predict("question -> answer")
            self.votes = [first, copy.deepcopy(first)]

        def forward(self, question: str) -> dspy.Prediction:
            return [vote(question=question) for vote in self.votes][-1]

    _, record = recorded(Votes(), lm, question="why?")
    assert [call.predictor for call in record.calls] == ["votes[0]", "votes[1]"]


def test_a_predictor_that_the_program_makes_as_it_runs_goes_by_its_class(lm: MeteredLM) -> None:
    class Late(dspy.Module):  # type: ignore[misc]  # dspy has no types
        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Predict("question -> answer")(question=question)

    _, record = recorded(Late(), lm, question="why?")
    assert [call.predictor for call in record.calls] == ["Predict"]


def test_a_bare_call_has_neither_predictor_nor_adapter(lm: MeteredLM) -> None:
    class Bare(dspy.Module):  # type: ignore[misc]  # dspy has no types
        def __init__(self) -> None:
            self.draft = dspy.Predict("question -> draft")

        def forward(self, question: str) -> dspy.Prediction:
            self.draft(question=question)
            return dspy.Prediction(answer=dspy.settings.lm(question)[0])

    _, record = recorded(Bare(), lm, question="why?")
    assert two_calls(record) == [("draft", "ChatAdapter", False), (None, None, False)]


class Terse(dspy.JSONAdapter):  # type: ignore[misc]  # dspy has no types
    """An adapter of a user's own, which DSPy wraps once more at every level of inheritance."""

    def format(self, signature: Any, demos: Any, inputs: Any) -> Any:
        return super().format(signature, demos, inputs)

    def parse(self, signature: Any, completion: str) -> Any:
        return super().parse(signature, completion)


ADAPTERS: list[Callable[[], dspy.Adapter]] = [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter, Terse]


@pytest.mark.parametrize("make", ADAPTERS)
def test_an_adapter_whose_first_reply_parses_makes_no_fallback(
    lm: MeteredLM, make: Callable[[], dspy.Adapter]
) -> None:
    adapter = make()
    _, record = recorded(TwoSteps(), lm, adapter, question="why?")
    name = type(adapter).__name__
    assert two_calls(record) == [("draft", name, False), ("refine.predict", name, False)]
    assert record.parse_failures == []


@pytest.mark.parametrize("make", [dspy.JSONAdapter, Terse])
def test_a_reply_that_cannot_be_parsed_is_counted_once(make: Callable[[], dspy.Adapter]) -> None:
    with FakeServer("no JSON at all") as server, models_of(server, a={}) as models:
        error, record = recorded(dspy.Predict("question -> answer"), models.lm("a", {}), make(), question="?")
    assert isinstance(error, dspy.AdapterParseError)
    assert len(record.calls) == len(record.parse_failures) == 1


def only_json(request: ChatRequest) -> str:
    return reply_fields(request, {}) if request.adapter == "json" else "I would rather not."


def test_a_fallback_is_marked_and_its_cause_counted() -> None:
    with FakeServer(only_json) as server, models_of(server, a={}) as models:
        prediction, record = recorded(TwoSteps(), models.lm("a", {}), question="why?")
    assert isinstance(prediction, dspy.Prediction)
    assert two_calls(record) == [
        ("draft", "ChatAdapter", False),
        ("draft", "JSONAdapter", True),
        ("refine.predict", "ChatAdapter", False),
        ("refine.predict", "JSONAdapter", True),
    ]
    assert record.parse_failures == ["ChatAdapter", "ChatAdapter"]


@pytest.mark.parametrize("text", ["nonsense", ""], ids=["nonsense", "empty"])
def test_both_failures_of_a_fallback_are_counted(text: str) -> None:
    with FakeServer(Reply(text)) as server, models_of(server, a={}) as models:
        error, record = recorded(dspy.Predict("question -> answer"), models.lm("a", {}), question="?")
    assert isinstance(error, dspy.AdapterParseError)
    assert [call.fallback for call in record.calls] == [False, True]
    assert record.parse_failures == ["ChatAdapter", "JSONAdapter"]


def test_a_failure_that_the_program_survives_is_counted() -> None:
    class Stubborn(dspy.Module):  # type: ignore[misc]  # dspy has no types
        def __init__(self) -> None:
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question: str) -> dspy.Prediction:
            try:
                return self.ask(question=question)
            except dspy.AdapterParseError:
                return dspy.Prediction(answer="none")

    with FakeServer("nonsense") as server, models_of(server, a={}) as models:
        prediction, record = recorded(Stubborn(), models.lm("a", {}), dspy.JSONAdapter(), question="?")
    assert prediction.answer == "none"
    assert record.parse_failures == ["JSONAdapter"]


def test_the_second_step_of_a_two_step_adapter_is_no_fallback() -> None:
    with FakeServer(only_json) as server, models_of(server, a={}, extractor={}) as models:
        adapter = dspy.TwoStepAdapter(models.lm("extractor", {}))
        _, record = recorded(dspy.Predict("question -> answer"), models.lm("a", {}), adapter, question="?")
    assert [(call.model, call.adapter, call.fallback) for call in record.calls] == [
        ("a", "TwoStepAdapter", False),
        ("extractor", "ChatAdapter", False),
        ("extractor", "JSONAdapter", True),
    ]


def test_judges_add_to_the_same_calls_under_their_role(lm: MeteredLM) -> None:
    record = Recorder(names={})
    program = dspy.Predict("question -> answer")
    with record.context(lm=lm, trace=[], disable_history=True):
        program(question="why?")
        with record.as_role("judge").context():
            program(question="was that right?")
        program(question="why not?")
    assert [call.role for call in record.calls] == ["task", "judge", "task"]


# Threads and tasks


class Fanned(dspy.Module):  # type: ignore[misc]  # dspy has no types
    """A program that makes its calls in threads and tasks of its own."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        questions = [f"{question} {number}" for number in range(4)]
        if self.how == "Parallel":
            pairs = [(self.ask, dspy.Example(question=each).with_inputs("question")) for each in questions]
            dspy.Parallel(num_threads=4, disable_progress_bar=True)(pairs)
        elif self.how == "asyncify":
            asyncio.run(self._gather(dspy.asyncify(self.ask), questions))
        else:
            asyncio.run(self._gather(self.ask.acall, questions))
        return dspy.Prediction(answer="done")

    async def _gather(self, ask: Any, questions: list[str]) -> None:
        await asyncio.gather(*(ask(question=question) for question in questions))


@pytest.mark.parametrize("how", ["Parallel", "asyncify", "acall"])
def test_calls_from_a_programs_own_threads_are_recorded_for_its_example(how: str) -> None:
    with FakeServer(only_json) as server, models_of(server, a={}) as models:
        lm, program = models.lm("a", {}), Fanned(how)
        with ThreadPoolExecutor(4) as examples:
            records = list(
                examples.map(lambda number: recorded(program, lm, question=f"of {number}"), range(4))
            )
        requests = len(server.requests)
    for prediction, record in records:
        assert getattr(prediction, "answer", prediction) == "done"  # else it is what the program raised
        assert sorted(two_calls(record)) == [
            *[("ask", "ChatAdapter", False)] * 4,
            *[("ask", "JSONAdapter", True)] * 4,
        ]
        assert record.parse_failures == ["ChatAdapter"] * 4
    assert requests == 4 * 8


def test_parallels_do_not_take_each_others_progress_bars_away(lm: MeteredLM) -> None:
    progress_bar = dspy.utils.parallelizer.tqdm.tqdm
    bar = progress_bar.__new__(progress_bar)
    progress_bar._instances.clear()  # what another thread's `dspy.Parallel` does when it begins
    bar.__init__(total=1, disable=True)


def test_asynchronous_programs_are_recorded(lm: MeteredLM) -> None:
    program = TwoSteps()
    program.aforward = _steps_of(program)
    record = Recorder(names=predictor_names(program))

    async def run() -> Any:
        with record.context(lm=lm, trace=[], disable_history=True):
            return await program.acall(question="why?")

    asyncio.run(run())
    assert two_calls(record) == [("draft", "ChatAdapter", False), ("refine.predict", "ChatAdapter", False)]
    assert all(call.ttft_s is not None for call in record.calls)


def _steps_of(program: TwoSteps) -> Callable[..., Any]:
    async def aforward(question: str) -> dspy.Prediction:
        draft = await program.draft.acall(question=question)
        return await program.refine.acall(question=question, draft=draft.draft)

    return aforward


def test_outside_of_any_example_calls_are_recorded_nowhere(lm: MeteredLM, server: FakeServer) -> None:
    with dspy.context(disable_history=True):
        assert lm("hello") == ["ok"]
    assert len(server.requests) == 1


# DSPy's cache


@pytest.fixture
def cached(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    """Models with the cache on, and a cache of the test's own."""
    from dspy.clients.cache import Cache

    own = Cache(enable_disk_cache=False, enable_memory_cache=True, disk_cache_dir="", disk_size_limit_bytes=0)
    monkeypatch.setattr(dspy, "cache", own)
    with models_of(server, a={"cache": True, "temperature": 1.0}, b={"cache": True}) as models:
        yield models


def is_free_and_timeless(call: LMCall) -> bool:
    timeless = all(getattr(call, name) is None for name in (*TIMINGS, "started_at"))
    return call.cached and call.cost_usd == 0.0 and timeless


def test_an_answer_from_the_cache_is_free_and_timeless(cached: Models, server: FakeServer) -> None:
    program, lm = dspy.Predict("question -> answer"), cached.lm("a", {})
    _, first = recorded(program, lm, question="why?")
    _, second = recorded(program, lm, question="why?")
    (paid,), (call,) = first.calls, second.calls
    assert len(server.requests) == 1
    assert not paid.cached
    assert paid.saved_usd is None
    assert is_free_and_timeless(call)
    assert call.saved_usd == paid.cost_usd
    assert (call.attempts, call.predictor, call.adapter) == (0, "self", "ChatAdapter")
    assert (call.prompt_tokens, call.completion_tokens) == (paid.prompt_tokens, paid.completion_tokens)
    assert call.finish_reason == paid.finish_reason


def test_the_cache_is_seen_by_asynchronous_calls(cached: Models, server: FakeServer) -> None:
    program, lm = dspy.Predict("question -> answer"), cached.lm("a", {})
    record = Recorder(names=predictor_names(program))

    async def run() -> None:
        with record.context(lm=lm, trace=[], disable_history=True):
            await program.acall(question="why?")
            await program.acall(question="why?")

    asyncio.run(run())
    assert [call.cached for call in record.calls] == [False, True]
    assert is_free_and_timeless(record.calls[1])
    assert len(server.requests) == 1


def test_another_rollout_is_another_question(cached: Models, server: FakeServer) -> None:
    lm = cached.lm("a", {})
    program = dspy.Predict("question -> answer")
    record = Recorder(names={})
    with record.context(lm=lm, trace=[], disable_history=True):
        for rollout in (1, 2, 1):
            program(question="why?", config={"rollout_id": rollout})
    assert [call.cached for call in record.calls] == [False, False, True]
    assert len(server.requests) == 2


def test_several_choices_from_the_cache_are_one_record_of_their_sum(cached: Models) -> None:
    lm = cached.lm("a", {})
    _, first = said(lm, n=3)
    _, second = said(lm, n=3)
    (call,) = second.calls
    assert is_free_and_timeless(call)
    assert call.saved_usd == pytest.approx(sum(paid.cost_usd or 0 for paid in first.calls))


def test_one_endpoints_answers_are_not_taken_for_anothers(cached: Models) -> None:
    with FakeServer("from the other server") as other, models_of(other, a={"cache": True}) as others:
        here, _ = said(cached.lm("b", {}))
        there, record = said(others.lm("a", {}))
    assert here == ["ok"]
    assert there == ["from the other server"]
    assert not record.calls[0].cached


def test_cached_answers_are_recorded_when_other_threads_pay(cached: Models) -> None:
    """One recorder, many threads: a call that is paid for meanwhile must not hide a cached one."""
    lm = cached.lm("a", {})
    said(lm, "known")
    record = Recorder(names={})
    asked = threading.Barrier(8)

    def ask(number: int) -> None:
        with record.context(disable_history=True):
            asked.wait()
            lm("known" if number % 2 else f"new {number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))
    assert sorted(call.cached for call in record.calls) == [False] * 4 + [True] * 4


# Copies


def test_copies_of_a_model_share_its_engine(lm: MeteredLM) -> None:
    copies = [lm.copy(temperature=0.5), copy.copy(lm), copy.deepcopy(lm)]
    assert all(each.engine is lm.engine for each in copies)
    for each in copies:
        _, record = said(each)
        assert [call.model for call in record.calls] == ["a"]


def test_a_program_that_streams_gets_the_whole_reply(lm: MeteredLM) -> None:
    program = dspy.streamify(
        dspy.Predict("question -> answer"),
        stream_listeners=[dspy.streaming.StreamListener(signature_field_name="answer")],
    )
    record = Recorder(names={})

    async def run() -> list[Any]:
        with record.context(lm=lm, trace=[], disable_history=True):
            return [piece async for piece in program(question="why?")]

    pieces = asyncio.run(run())
    assert pieces[-1].answer == "ok"
    assert [call.ttft_s is not None for call in record.calls] == [True]


def test_a_stop_is_no_failed_call(server: FakeServer) -> None:
    with models_of(server, a={}) as models:
        models.stop()
        record = Recorder(names={})
        with record.context(disable_history=True), pytest.raises(Stopped):
            models.lm("a", {})("hello")
    assert record.calls == []
    assert server.requests == []
