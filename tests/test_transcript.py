"""What a call keeps of what was said in it."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from dspy import lm15
from dspy.clients.cache import Cache
from metered_calls import KEY, models_of, recorded

from dspylab.lm.recorder import Recorder, predictor_names
from dspylab.lm.transcript import MOST_CHARACTERS, transcript, transcript_of_messages
from dspylab.records import Message
from dspylab.redact import without_known
from dspylab.testing import FakeServer, Fault


@pytest.fixture
def program() -> dspy.Module:
    return dspy.Predict("question -> answer")


def request_of(*texts: str) -> lm15.Request:
    return lm15.Request(model="m", messages=tuple(lm15.Message.user(text) for text in texts))


def test_a_call_keeps_prompt_and_response(server: FakeServer, program: dspy.Module) -> None:
    with models_of(server, a={}) as models:
        prediction, record = recorded(program, models.lm("a", {}), question="why?")
    [call] = record.calls
    assert call.prompt is not None
    assert [message.role for message in call.prompt] == ["system", "user"]
    assert "question" in call.prompt[0].text
    assert "why?" in call.prompt[1].text
    assert call.response is not None
    assert prediction.answer in call.response
    assert call.reasoning is None


def test_a_call_without_a_reply_keeps_its_prompt(server: FakeServer, program: dspy.Module) -> None:
    server.fail = lambda _: Fault("status", status=400)
    with models_of(server, a={"num_retries": 0}) as models:
        _, record = recorded(program, models.lm("a", {}), question="why?")
    failed = record.calls[0]
    assert failed.error is not None
    assert failed.prompt is not None
    assert "why?" in failed.prompt[-1].text
    assert failed.response is None


def test_an_answer_from_the_cache_keeps_them_too(
    server: FakeServer, program: dspy.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Cache(enable_disk_cache=False, enable_memory_cache=True, disk_cache_dir="", disk_size_limit_bytes=0)
    monkeypatch.setattr(dspy, "cache", own)
    with models_of(server, a={"cache": True}) as models:
        _, first = recorded(program, models.lm("a", {}), question="why?")
        _, second = recorded(program, models.lm("a", {}), question="why?")
    assert second.calls[0].cached
    assert second.calls[0].prompt == first.calls[0].prompt
    assert second.calls[0].response == first.calls[0].response


def test_nothing_is_kept_unless_it_is_asked_for(server: FakeServer, program: dspy.Module) -> None:
    record = Recorder(names=predictor_names(program))

    async def run() -> None:
        with record.context(lm=models.lm("a", {}), trace=[], disable_history=True):
            await program.acall(question="why?")

    with models_of(server, a={}) as models:
        asyncio.run(run())
    assert (record.calls[0].prompt, record.calls[0].response) == (None, None)
    assert record.as_role("judge").keep_prompts is False


def test_reasoning_stands_apart() -> None:
    response = lm15.Response(
        id=None,
        model="m",
        message=lm15.Message.assistant([lm15.ThinkingPart("hm"), lm15.TextPart("yes")]),
        finish_reason="stop",
        usage=lm15.Usage(),
    )
    said = transcript(request_of("sure?"), [response])
    assert said == {"prompt": (Message(role="user", text="sure?"),), "response": "yes", "reasoning": "hm"}


def test_keys_of_the_experiment_are_masked(server: FakeServer, program: dspy.Module) -> None:
    with models_of(server, a={}) as models:
        _, record = recorded(program, models.lm("a", {}), question=f"is {KEY} a key?")
    assert record.calls[0].prompt is not None
    assert "is [secret] a key?" in record.calls[0].prompt[1].text
    assert without_known(f"{KEY}!") == "[secret]!"


def test_a_long_prompt_loses_its_middle_but_not_its_question() -> None:
    said = transcript(request_of("system " * 10_000, *["demo " * 2_000] * 10, "the question"), [])
    texts = [message.text for message in said["prompt"]]
    assert texts[-1] == "the question"
    assert texts[0].startswith("system system")
    assert texts[0].endswith("system ")
    assert "characters left out …]" in texts[0]
    assert sum(map(len, texts)) < MOST_CHARACTERS + 1000
    assert said["response"] is None


def test_what_is_no_text_is_named() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ]
    said = transcript_of_messages(messages, [])
    assert [message.text for message in said["prompt"]] == ["look\n[image_url]", '[tool call] [{"id": "1"}]']
    call = lm15.ToolCallPart(id="1", name="find", input={"q": "ä"})
    parts = lm15.Request(model="m", messages=(lm15.Message.user("x"), lm15.Message.assistant([call])))
    assert transcript(parts, [])["prompt"][1].text == '[tool call] find({"q": "ä"})'
