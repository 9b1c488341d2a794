"""What a test says to the fake model and gets from it: `ChatRequest` in, `Reply` out. Pure."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from dspylab.testing.prompts import (
    AdapterKind,
    adapter_of,
    default_outputs,
    demonstrated_outputs,
    format_outputs,
    input_field,
    sample,
)

Endpoint = Literal["chat", "responses"]


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A request as it reached the server, whichever of the two APIs it came through.

    Attributes:
        number: 0-based count of the requests for completions on this server.
        body: The JSON body.
        headers: Header names in lower case to values.
        endpoint: ``chat`` for /v1/chat/completions, ``responses`` for /v1/responses.
        choice: 0-based choice that is asked for; above 0 only when the request has ``n`` > 1.
    """

    number: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    endpoint: Endpoint = "chat"
    choice: int = 0

    @property
    def model(self) -> str:
        """The model that is asked for."""
        return str(self.body.get("model", ""))

    @property
    def stream(self) -> bool:
        """Whether the client wants a stream of events."""
        return bool(self.body.get("stream"))

    @property
    def n(self) -> int:
        """How many choices the client wants."""
        return max(1, int(self.body.get("n") or 1)) if self.endpoint == "chat" else 1

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        """The messages in the shape of Chat Completions, also for a Responses request."""
        if self.endpoint == "chat":
            return list(self.body.get("messages") or [])
        asked = self.body.get("input") or []
        items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        instructions = self.body.get("instructions")
        return ([{"role": "system", "content": instructions}] if instructions else []) + [
            item for item in items if "role" in item
        ]

    @property
    def text(self) -> str:
        """The text of all user messages, demonstrations included, joined by blank lines."""
        return "\n\n".join(_texts(self.messages, {"user"}))

    @property
    def system(self) -> str:
        """The text of the system or developer messages."""
        return "\n\n".join(_texts(self.messages, {"system", "developer"}))

    @property
    def question(self) -> str:
        """The text of the last user message: the one that carries the input fields."""
        return next(reversed(_texts(self.messages, {"user"})), "")

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema that the reply must follow; None when the request has none."""
        form = self._response_format
        schema = form.get("schema") or (form.get("json_schema") or {}).get("schema")
        return schema if isinstance(schema, dict) else None

    @property
    def adapter(self) -> AdapterKind:
        """Which of DSPy's adapters will read the reply; ``json`` also when the request demands JSON."""
        if self._response_format.get("type") in ("json_schema", "json_object"):
            return "json"
        return adapter_of(self.system, self.question)

    @property
    def prompt_tokens(self) -> int:
        """An estimate of the tokens of the prompt: four characters each."""
        roles = {message.get("role", "") for message in self.messages}
        return max(1, sum(map(len, _texts(self.messages, roles))) // 4)

    @property
    def _response_format(self) -> Mapping[str, Any]:
        if self.endpoint == "chat":
            return self.body.get("response_format") or {}
        return (self.body.get("text") or {}).get("format") or {}

    def field(self, name: str) -> str | None:
        """Find an input field in the last user message, as `input_field` does."""
        return input_field(self.question, name)


def _texts(messages: list[dict[str, Any]], roles: set[str]) -> list[str]:
    return [_content_text(message.get("content")) for message in messages if message.get("role") in roles]


def _content_text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The usage block of a reply. None means: counted from the reply, estimated for the prompt.

    Attributes:
        prompt_tokens: Tokens of the prompt, cached ones included.
        completion_tokens: Tokens of the reply, reasoning included.
        cached_tokens: Tokens of the prompt that came from the provider's cache.
        reasoning_tokens: Tokens of the reply that were reasoning.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call of a tool that the fake model asks for."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = "call_0"


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a reply on its way to the client.

    Attributes:
        kind: Which part of the reply it belongs to.
        text: The characters that it adds.
        call: 0-based tool call that it belongs to.
        opens: True for the first piece of a tool call, which also carries its name and id.
    """

    kind: Literal["reasoning", "text", "tool"]
    text: str
    call: int = 0
    opens: bool = False


@dataclass(frozen=True)
class Reply:
    """What the fake model answers.

    Attributes:
        text: The content.
        reasoning: Streamed as ``delta.reasoning_content`` before the content.
        tool_calls: Calls of tools; they follow the content.
        finish_reason: Default: ``tool_calls`` when there are some, else ``stop``.
        usage: The usage block; None leaves it out.
        tokens: How ``text`` is cut into tokens, one delta each. Default: word-like pieces.
        ttft_s: Time to the first token in seconds; default: the server's.
        itl_s: Time between tokens in seconds; default: the server's.
        empty_first_chunk: Send a delta with a role and empty content at once, before the first token.
        one_chunk: Send everything in one delta, when the first token is due.
        omit_usage_chunk: Leave usage out of streams, even when the client asks for it.
    """

    text: str = ""
    _: KW_ONLY
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = field(default_factory=Usage)
    tokens: tuple[str, ...] | None = None
    ttft_s: float | None = None
    itl_s: float | None = None
    empty_first_chunk: bool = False
    one_chunk: bool = False
    omit_usage_chunk: bool = False

    @property
    def ends_with(self) -> str:
        """The finish reason that the client is told."""
        return self.finish_reason or ("tool_calls" if self.tool_calls else "stop")

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """The tokens of the reply in the order in which a model makes them."""
        thinking = [Piece("reasoning", part) for part in words(self.reasoning or "")]
        content = [Piece("text", part) for part in self.tokens or words(self.text)]
        calls = [
            Piece("tool", part, number, opens=start == 0)
            for number, call in enumerate(self.tool_calls)
            for start, part in enumerate(words(json.dumps(call.arguments)))
        ]
        return (*thinking, *content, *calls)

    def cut_into(self, tokens: int) -> Reply:
        """Return this reply with its text in exactly so many tokens; a short text is padded with spaces."""
        text = self.text.ljust(tokens)
        ends = [len(text) * number // tokens for number in range(tokens + 1)]
        return replace(self, text=text, tokens=tuple(text[a:b] for a, b in itertools.pairwise(ends)))


Answer = Callable[[ChatRequest], Reply | str] | Reply | str


def words(text: str) -> list[str]:
    """Cut a text into word-like pieces that join to the same text."""
    return re.findall(r"\s*\S+|\s+$", text)


def reply_to(request: ChatRequest, answer: Answer) -> Reply:
    """Ask an answer, whatever its form, for its reply.

    Args:
        request: What the client wants.
        answer: A reply, its text, or a callable that makes either.

    Returns:
        The reply.
    """
    said = answer(request) if callable(answer) else answer
    return Reply(said) if isinstance(said, str) else said


def reply_fields(request: ChatRequest, fields: Mapping[str, Any]) -> str:
    """Write a reply with these output fields in the format that the request's adapter reads.

    Output fields that the prompt or the JSON schema demands and that are not given (such as the
    ``reasoning`` of a ChainOfThought) get a well-formed value.

    Args:
        request: The request of a DSPy program, through ChatAdapter, JSONAdapter or XMLAdapter.
        fields: Output field name to value.

    Returns:
        The text of the reply.
    """
    demanded = sample(request.schema) if request.schema else default_outputs(request.system)
    return format_outputs({**demanded, **fields}, request.adapter)


def default_answer(request: ChatRequest) -> str:
    """Answer any request in a well-formed way: DSPy prompts and JSON schemas with values, others with ok.

    A prompt that says nothing of its output fields, such as those of the adapter ``compact`` to a model that
    takes no JSON schema, is answered as its last demonstration is, if it has one.
    """
    if request.schema:
        return json.dumps(sample(request.schema))
    outputs = default_outputs(request.system)
    if not outputs and request.adapter != "json":
        return demonstrated_outputs(_texts(request.messages, {"assistant"})) or "ok"
    return format_outputs(outputs, request.adapter)


def answer_key(
    examples: Sequence[Mapping[str, Any]],
    *,
    field: str = "text",
    label: str = "label",
    wrong: str | None = None,
) -> Callable[[ChatRequest], str]:
    """Make an answer that knows the labels of a dataset.

    Args:
        examples: The rows of the dataset.
        field: Input field by which a row is found.
        label: Output field to answer with the row's label.
        wrong: What to answer when no row has the input; default: a well-formed value.

    Returns:
        A callable for ``FakeServer(answer=…)``.
    """
    known = {str(example[field]).strip(): example[label] for example in examples}

    def answer(request: ChatRequest) -> str:
        found = known.get(request.field(field) or "", wrong)
        return reply_fields(request, {} if found is None else {label: found})

    return answer
