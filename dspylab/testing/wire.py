"""Replies in the formats of OpenAI's two APIs: Chat Completions and Responses. Pure."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dspylab.testing.answers import ChatRequest, Piece, Reply

_dumps = json.JSONEncoder().encode
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(frozen=True, slots=True)
class Script:
    """A streamed reply, cut where time passes.

    Attributes:
        opening: Server-sent events that go out at once; may be empty.
        steps: One token each (of every choice): its events and how many tokens they carry. Made one by one
            as they are due: many long replies at once would otherwise delay each other's first tokens.
        length: How many steps there are.
        closing: What follows the last token without delay.
    """

    opening: bytes
    steps: Iterator[tuple[bytes, int]]
    length: int
    closing: bytes


def stream(request: ChatRequest, replies: Sequence[Reply]) -> Script:
    """Write replies as a stream of server-sent events.

    Args:
        request: What the client asked for; its endpoint decides the format.
        replies: One reply a choice.

    Returns:
        The events.
    """
    if request.endpoint == "chat":
        return _chat_stream(request, replies)
    return _responses_stream(request, replies[0])


def whole(request: ChatRequest, replies: Sequence[Reply]) -> dict[str, Any]:
    """Write replies as one JSON body. Arguments as for `stream`."""
    if request.endpoint == "chat":
        return _chat_body(request, replies)
    reply = replies[0]
    output = [_item(kind, number, pieces, reply) for number, (kind, pieces) in enumerate(_groups(reply))]
    return _response(request, reply, output or [_item("text", 0, [], reply)])


def token_count(replies: Iterable[Reply]) -> int:
    """Count the tokens of replies, reasoning and tool calls included."""
    return sum(len(reply.pieces) for reply in replies)


def step_count(replies: Sequence[Reply]) -> int:
    """Count the moments at which something is sent: the tokens of the longest reply, or one."""
    return max(bool(reply.pieces) if reply.one_chunk else len(reply.pieces) for reply in replies)


def garbage(request: ChatRequest) -> bytes:
    """Return JSON that ends in the middle."""
    healthy = _chat_head(request, "chat.completion.chunk") | {"choices": [{"delta": {}}]}
    return json.dumps(healthy).encode()[:-7]


def garbage_event(request: ChatRequest) -> bytes:
    """Return the end of a stream whose last event is broken JSON."""
    return b"data: " + garbage(request) + b"\n\ndata: [DONE]\n\n"


# Chat Completions


def _chat_stream(request: ChatRequest, replies: Sequence[Reply]) -> Script:
    head = json.dumps(_chat_head(request, "chat.completion.chunk"))[:-1]
    columns = [_chat_events(head, index, reply) for index, reply in enumerate(replies)]
    rows = itertools.zip_longest(*columns, fillvalue=(b"", 0))
    steps = ((b"".join(event for event, _ in row), sum(tokens for _, tokens in row)) for row in rows)
    empty = {"role": "assistant", "content": ""}
    numbered = list(enumerate(replies))
    opening = [_chat_event(head, index, empty) for index, reply in numbered if reply.empty_first_chunk]
    closing = [_chat_event(head, index, {}, reply.ends_with) for index, reply in numbered]
    wanted = (request.body.get("stream_options") or {}).get("include_usage")
    usage = _usage(request, replies)
    if wanted and usage and not replies[0].omit_usage_chunk:
        closing.append(f'data: {head}, "choices": [], "usage": {json.dumps(usage)}}}\n\n'.encode())
    return Script(b"".join(opening), steps, step_count(replies), b"".join([*closing, b"data: [DONE]\n\n"]))


def _chat_events(head: str, index: int, reply: Reply) -> Iterator[tuple[bytes, int]]:
    if reply.one_chunk and reply.pieces:
        yield _chat_event(head, index, _chat_message(reply, delta=True)), len(reply.pieces)
        return
    for number, piece in enumerate(reply.pieces):
        delta = _chat_delta(piece, reply)
        yield _chat_event(head, index, {"role": "assistant", **delta} if number == 0 else delta), 1


def _chat_event(head: str, index: int, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = f'{{"index": {index}, "delta": {_dumps(delta)}, "finish_reason": {_dumps(finish_reason)}}}'
    return f'data: {head}, "choices": [{choice}]}}\n\n'.encode()


def _chat_delta(piece: Piece, reply: Reply) -> dict[str, Any]:
    if piece.kind != "tool":
        return {"content" if piece.kind == "text" else "reasoning_content": piece.text}
    call: dict[str, Any] = {"index": piece.call, "function": {"arguments": piece.text}}
    if piece.opens:
        tool = reply.tool_calls[piece.call]
        call |= {"id": tool.id, "type": "function", "function": {"name": tool.name, "arguments": piece.text}}
    return {"tool_calls": [call]}


def _chat_body(request: ChatRequest, replies: Sequence[Reply]) -> dict[str, Any]:
    choices = [
        {"index": index, "message": _chat_message(reply), "logprobs": None, "finish_reason": reply.ends_with}
        for index, reply in enumerate(replies)
    ]
    usage = _usage(request, replies)
    head = _chat_head(request, "chat.completion")
    return head | {"choices": choices} | ({"usage": usage} if usage else {})


def _chat_message(reply: Reply, *, delta: bool = False) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [
            ({"index": number} if delta else {})
            | {"id": call.id, "type": "function"}
            | {"function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
            for number, call in enumerate(reply.tool_calls)
        ]
    return message


def _chat_head(request: ChatRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request.number}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
    }


def _usage(request: ChatRequest, replies: Sequence[Reply]) -> dict[str, Any] | None:
    stated = replies[0].usage
    if stated is None:
        return None
    prompt = request.prompt_tokens if stated.prompt_tokens is None else stated.prompt_tokens
    completion = token_count(replies) if stated.completion_tokens is None else stated.completion_tokens
    thought = sum(piece.kind == "reasoning" for reply in replies for piece in reply.pieces)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": stated.cached_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": thought if stated.reasoning_tokens is None else stated.reasoning_tokens
        },
    }


# Responses

_Event = tuple[str, dict[str, Any]]
# What a part of an output item is called, in the events about the part, about its text, and in the item.
_PART_NAMES = {
    "text": ("response.content_part", "response.output_text", "output_text", "content_index"),
    "reasoning": (
        "response.reasoning_summary_part", "response.reasoning_summary_text", "summary_text", "summary_index",
    ),
}  # fmt: skip


def _responses_stream(request: ChatRequest, reply: Reply) -> Script:
    numbers = itertools.count()

    def write(events: Iterable[_Event]) -> bytes:
        payloads = ({"type": kind, "sequence_number": next(numbers), **fields} for kind, fields in events)
        return b"".join(f"event: {sent['type']}\ndata: {json.dumps(sent)}\n\n".encode() for sent in payloads)

    begun = _response(request, reply, []) | {"status": "in_progress", "usage": None}
    opening = write([(f"response.{state}", {"response": begun}) for state in ("created", "in_progress")])
    steps: list[tuple[bytes, int]] = []
    output = []
    for number, (kind, pieces) in enumerate(_groups(reply)):
        before, deltas, after = _item_events(kind, number, pieces, reply)
        groups = [[delta] for delta in deltas]
        groups[0] = before + groups[0]
        groups[-1] = groups[-1] + after
        steps += [(write(group), 1) for group in groups]
        output.append(_item(kind, number, pieces, reply))
    if reply.one_chunk and steps:
        steps = [(b"".join(data for data, _ in steps), len(reply.pieces))]
    final = _response(request, reply, output or [_item("text", 0, [], reply)])
    if reply.omit_usage_chunk:
        final["usage"] = None
    closing = write([(f"response.{final['status']}", {"response": final})])
    return Script(opening, iter(steps), len(steps), closing)


def _groups(reply: Reply) -> Iterator[tuple[str, list[Piece]]]:
    """Split a reply into its output items: reasoning, message and one for each tool call."""
    for (kind, call), group in itertools.groupby(reply.pieces, key=lambda piece: (piece.kind, piece.call)):
        pieces = list(group)
        yield kind, [Piece(kind, _joined(pieces), call)] if reply.one_chunk else pieces


def _item_events(
    kind: str, number: int, pieces: list[Piece], reply: Reply
) -> tuple[list[_Event], list[_Event], list[_Event]]:
    """List the events of an output item: those before its deltas, the deltas, those after them."""
    place: dict[str, Any] = {"item_id": f"item_{number}", "output_index": number}
    begun = _item(kind, number, [replace(pieces[0], text="")], reply) | {"status": "in_progress"}
    added = ("response.output_item.added", {"output_index": number, "item": begun})
    done = ("response.output_item.done", {"output_index": number, "item": _item(kind, number, pieces, reply)})
    if kind == "tool":
        name = "response.function_call_arguments"
        deltas = [(f"{name}.delta", place | {"delta": piece.text}) for piece in pieces]
        return [added], deltas, [(f"{name}.done", place | {"arguments": _joined(pieces)}), done]
    part_name, text_name, part_type, index_name = _PART_NAMES[kind]
    place |= {index_name: 0}
    part = {"type": part_type, "text": "", "annotations": []}
    return (
        [added, (f"{part_name}.added", place | {"part": part})],
        [(f"{text_name}.delta", place | {"delta": piece.text}) for piece in pieces],
        [
            (f"{text_name}.done", place | {"text": _joined(pieces)}),
            (f"{part_name}.done", place | {"part": part | {"text": _joined(pieces)}}),
            done,
        ],
    )


def _joined(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _item(kind: str, number: int, pieces: list[Piece], reply: Reply) -> dict[str, Any]:
    """Write one output item that holds these pieces."""
    text = _joined(pieces)
    item: dict[str, Any] = {"id": f"item_{number}", "status": "completed"}
    if kind == "tool":
        tool = reply.tool_calls[pieces[0].call]
        return item | {"type": "function_call", "call_id": tool.id, "name": tool.name, "arguments": text}
    if kind == "reasoning":
        summary = [{"type": "summary_text", "text": text}] if text else []
        return item | {"type": "reasoning", "summary": summary}
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return item | {"type": "message", "role": "assistant", "content": content}


def _response(request: ChatRequest, reply: Reply, output: list[dict[str, Any]]) -> dict[str, Any]:
    reason = _INCOMPLETE.get(reply.ends_with)
    usage = _usage(request, [reply])
    return {
        "id": f"resp_{request.number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if reason else "completed",
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "model": request.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage
        and {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": usage["prompt_tokens_details"],
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": usage["completion_tokens_details"],
            "total_tokens": usage["total_tokens"],
        },
    }
