"""What was said in a call, as plain text: the prompt, message by message, and the reply.

It is put together after the clock of the call has stopped, so it is in none of its timings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from dspy import lm15

from dspylab.records import Message
from dspylab.redact import without_known

#: Longest prompt and longest reply that a call keeps, in characters; of a longer one, a part is left out.
MOST_CHARACTERS = 40_000
#: Share of a text that is kept of its beginning, when its middle is left out.
_BEGINNING = 0.7


class Transcript(TypedDict):
    """Fields of `LMCall`."""

    prompt: tuple[Message, ...]
    response: str | None
    reasoning: str | None


def transcript(request: lm15.Request, responses: Sequence[lm15.Response]) -> Transcript:
    """What was asked and answered.

    Args:
        request: The request as DSPy made it.
        responses: The reply; several when the call asked for several choices, none when it failed.
    """
    prompt = [(message.role, _text(message.parts)) for message in request.messages]
    if request.system:
        system = request.system if isinstance(request.system, str) else _text(request.system)
        prompt.insert(0, ("system", system))
    return _kept(prompt, responses)


def transcript_of_messages(
    messages: Iterable[Mapping[str, Any]],
    responses: Sequence[lm15.Response],
    *,
    replies: Sequence[str] = (),
) -> Transcript:
    """As `transcript`, for a prompt in the form of OpenAI's chat messages.

    Args:
        messages: The prompt.
        responses: The reply.
        replies: The texts of the reply, where no more is known of it.
    """
    prompt = [(str(message.get("role", "user")), _content(message)) for message in messages]
    kept = _kept(prompt, responses)
    if replies:
        kept["response"] = _shortened(without_known("\n".join(replies)), MOST_CHARACTERS)
    return kept


def _kept(prompt: Sequence[tuple[str, str]], responses: Sequence[lm15.Response]) -> Transcript:
    texts = _within_limit([without_known(text) for _, text in prompt])
    parts = [part for response in responses for part in response.message.parts]
    thoughts = [part for part in parts if part.type == "thinking"]
    answer = [part for part in parts if part.type != "thinking"]
    return Transcript(
        prompt=tuple(Message(role=role, text=text) for (role, _), text in zip(prompt, texts, strict=True)),
        response=_shortened(without_known(_text(answer)), MOST_CHARACTERS) if responses else None,
        reasoning=_shortened(without_known(_text(thoughts)), MOST_CHARACTERS) if thoughts else None,
    )


def _text(parts: Iterable[Any]) -> str:
    """The parts of a message; what is no text is named in brackets, never its bytes."""
    return "\n".join(map(_part, parts))


def _part(part: Any) -> str:
    kind = part.type
    if kind in ("text", "thinking", "refusal"):
        return str(part.text)
    if kind == "tool_call":
        return f"[tool call] {part.name}({json.dumps(part.input, ensure_ascii=False)})"
    if kind == "tool_result":
        return f"[tool result] {_text(part.content)}"
    if kind == "data":
        return json.dumps(part.value, ensure_ascii=False)
    return f"[{kind}]"


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    pieces = content if isinstance(content, list) else []
    lines = [
        str(piece["text"]) if "text" in piece else f"[{piece.get('type', 'part')}]"
        for piece in pieces
        if isinstance(piece, Mapping)
    ]
    if message.get("tool_calls"):
        lines.append(f"[tool call] {json.dumps(message['tool_calls'], ensure_ascii=False, default=str)}")
    return "\n".join(lines)


def _within_limit(texts: list[str]) -> list[str]:
    """The messages of a prompt, shortened to the limit: the last and the first keep the most."""
    if sum(map(len, texts)) <= MOST_CHARACTERS:
        return texts
    left = MOST_CHARACTERS
    shortened = list(texts)
    newest_first = range(len(texts) - 1, -1, -1)
    for position in dict.fromkeys([len(texts) - 1, 0, *newest_first]):
        shortened[position] = _shortened(texts[position], left)
        left -= min(len(texts[position]), left)
    return shortened


def _shortened(text: str, most: int) -> str:
    """A text without its middle, if it has more than so many characters."""
    if len(text) <= most:
        return text
    beginning = int(most * _BEGINNING)
    end = most - beginning
    note = f"[… {len(text) - most:,} characters left out …]"
    return "\n".join(filter(None, [text[:beginning], note, text[len(text) - end :] if end else ""]))
