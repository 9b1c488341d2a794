"""When the pieces of a reply came and how many tokens it has: the figures of a call. Pure.

Definitions are those of `docs/measurements.md`. A figure that does not exist is None, never a stand-in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from dspy import lm15
from dspy.clients.call_result import usage_dict

#: Characters a token stands for, roughly, where nobody counted.
_CHARACTERS_PER_TOKEN = 4
#: No call has so many tokens. A provider that says more says nothing.
_MOST_TOKENS = 10**12


@dataclass(slots=True)
class Timing:
    """When the deltas of one attempt arrived; None for never.

    Attributes:
        sent: When the request was sent. All moments are nanoseconds of `time.perf_counter_ns`.
        first: First delta that is not empty.
        first_output: First of those that is not reasoning.
        last: Last delta that is not empty; of a reply in one piece, its arrival.
        deltas: How many were not empty.
        thought: Whether reasoning was among them.
    """

    sent: int
    first: int | None = None
    first_output: int | None = None
    last: int | None = None
    deltas: int = 0
    thought: bool = False

    def note(self, delta: Any, moment: int) -> None:
        """Notes a delta of the reply and when it arrived."""
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
        self.last = moment
        if self.first is None:
            self.first = moment
        if kind == "thinking":
            self.thought = True
        elif self.first_output is None:
            self.first_output = moment

    def figures(self, tokens: Tokens) -> dict[str, Any]:
        """Latencies in seconds and rates in tokens per second, under the names of `LMCall`.

        Args:
            tokens: Of the same reply.
        """
        latency_s = self._since_sent_s(self.last)
        itl_s = None
        streamed = tokens.completion if self.thought else tokens.completion - (tokens.reasoning or 0)
        if streamed > 1 and self.first is not None and self.last is not None and self.last > self.first:
            itl_s = (self.last - self.first) / 1e9 / (streamed - 1)
        return {
            "ttft_s": self._since_sent_s(self.first),
            "ttfot_s": self._since_sent_s(self.first_output),
            "latency_s": latency_s,
            "itl_s": itl_s,
            "decode_tokens_per_s": None if itl_s is None else 1.0 / itl_s,
            "output_tokens_per_s": tokens.completion / latency_s if latency_s and tokens.completion else None,
        }

    def _since_sent_s(self, moment: int | None) -> float | None:
        return None if moment is None else (moment - self.sent) / 1e9


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a call used.

    Attributes:
        prompt: Prompt tokens, cached and written ones included.
        cached: Prompt tokens read from the provider's cache.
        written: Prompt tokens written to the provider's cache.
        completion: Completion tokens, reasoning included.
        reasoning: Completion tokens that were reasoning; None if nobody says.
        source: Whether the provider counted, or `prompt` or `completion` is our estimate.
    """

    prompt: int
    cached: int
    written: int
    completion: int
    reasoning: int | None
    source: Literal["provider", "estimate"]


def reported_tokens(response: lm15.Response, provider: str | None) -> Tokens | None:
    """What the provider says that a call used; None when it says less than the two sums.

    Args:
        response: The reply.
        provider: lm15's name of the provider, which decides how it counts; None for LiteLLM, which has
            made all counts alike.
    """
    usage = usage_dict(response, provider)
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    # No prompt has no tokens: LiteLLM fills in 0 where the provider said nothing.
    if not prompt or completion is None:
        return None
    inputs = usage.get("prompt_tokens_details") or {}
    return Tokens(
        prompt=prompt,
        cached=_count(inputs.get("cached_tokens")) or 0,
        written=_count(inputs.get("cache_creation_tokens")) or 0,
        completion=completion,
        reasoning=_count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens")),
        source="provider",
    )


def _count(value: Any) -> int | None:
    """A number of tokens as a provider gives it; None for what can be none."""
    return value if isinstance(value, int) and 0 <= value <= _MOST_TOKENS else None


def estimated_tokens(request: lm15.Request, response: lm15.Response, deltas: int) -> Tokens:
    """What a call used when the provider does not say.

    Args:
        request: The request.
        response: The reply.
        deltas: Deltas of the stream: nearly every provider sends one for each token.
    """
    length = _length(response.message.parts)
    return Tokens(
        prompt=prompt_estimate(request),
        cached=0,
        written=0,
        completion=deltas if deltas > 1 else math.ceil(length / _CHARACTERS_PER_TOKEN),
        reasoning=None,
        source="estimate",
    )


def prompt_estimate(request: lm15.Request) -> int:
    """Tokens of a prompt, by its length."""
    system = request.system or ""
    length = len(system) if isinstance(system, str) else _length(system)
    length += sum(_length(message.parts) for message in request.messages)
    return math.ceil(length / _CHARACTERS_PER_TOKEN)


def _length(parts: Iterable[Any]) -> int:
    """Characters of the parts of a message: text, reasoning and the arguments of tool calls."""
    return sum(
        len(json.dumps(part.input)) if part.type == "tool_call" else len(getattr(part, "text", None) or "")
        for part in parts
    )
