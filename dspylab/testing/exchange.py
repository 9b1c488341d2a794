"""One request for completions and its response: paced, and recorded as it truly happened."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dspylab.testing.answers import ChatRequest, Endpoint, Reply
from dspylab.testing.connection import Connection, chunk
from dspylab.testing.faults import Fault, error_body
from dspylab.testing.wire import Script, garbage, garbage_event, step_count, stream, token_count, whole


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast tokens come: time to the first and between two, in seconds."""

    ttft_s: float
    itl_s: float

    def of(self, reply: Reply) -> Pace:
        """Return the pace of a reply, which may have its own."""
        return Pace(
            self.ttft_s if reply.ttft_s is None else reply.ttft_s,
            self.itl_s if reply.itl_s is None else reply.itl_s,
        )

    def after_s(self, token: int) -> float:
        """Return when a token (0-based) is due, in seconds after the request."""
        return self.ttft_s + token * self.itl_s


@dataclass(kw_only=True, slots=True)
class RequestRecord:
    """What truly happened to one request for completions. Times are seconds of ``time.perf_counter``.

    On Linux and macOS that clock is the same in all processes of a machine, so a client's own times can be
    compared with these.

    Attributes:
        number: 0-based; the response's id ends with it (``chatcmpl-<number>``, ``resp_<number>``).
        endpoint: ``chat`` or ``responses``.
        received_at: When the last byte of the request was read.
        model: The model that was asked for.
        stream: Whether the client asked for a stream.
        status: HTTP status of the response; None while nothing was sent.
        fault: What went wrong on purpose: ``status 429``, ``cut``, ``garbage``, ``hang``, or why the server
            refused: ``api_key``, ``model``, ``concurrency``, ``rate``, ``answer``; None if nothing.
        first_token_at: When the first token of a stream was sent.
        last_token_at: When the last token so far was sent; for a whole response, when that was sent.
        done_at: When the response was complete, cut or abandoned; None while it is on its way.
        tokens_sent: Tokens that were sent.
        client_left: True when the connection closed before the end of the response.
        key_sha256: First 12 hexadecimal digits of the SHA-256 of the bearer key; None without one.
        body: The JSON body; None with ``keep_bodies=False``.
    """

    number: int
    endpoint: Endpoint
    received_at: float
    model: str = ""
    stream: bool = False
    status: int | None = None
    fault: str | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    done_at: float | None = None
    tokens_sent: int = 0
    client_left: bool = False
    key_sha256: str | None = None
    body: Mapping[str, Any] | None = field(default=None, repr=False)


class Exchange:
    """Answers one request: sends each token when it is due and keeps the record true.

    Args:
        connection: Where the response goes.
        record: What is known of the request; the rest is filled in here.
        on_over: Called once, when the response is complete, cut or abandoned.
    """

    def __init__(self, connection: Connection, record: RequestRecord, on_over: Callable[[], None]) -> None:
        self.record = record
        self._connection = connection
        self._on_over = on_over
        self._timer: asyncio.TimerHandle | None = None
        self._pace: Pace
        self._fault: Fault | None = None
        self._script: Script
        self._next = 0
        self._unsent = b""
        connection.on_lost = self._lost

    def refuse(self, why: str, status: int, message: str, retry_after_s: float | None = None) -> None:
        """Respond with an error in OpenAI's shape.

        Args:
            why: What the record says under ``fault``.
            status: HTTP status.
            message: What the client is told.
            retry_after_s: Value of a Retry-After header, in seconds.
        """
        self.record.fault = why
        self._respond(status, error_body(status, message), retry_after_s)

    def fail(self, fault: Fault, request: ChatRequest) -> None:
        """Respond with the error status that a fault prescribes."""
        body = fault.body
        if body is None or fault.echo_key:
            echo = f" You sent: {request.headers.get('authorization')}." if fault.echo_key else ""
            body = error_body(fault.status, f"The fake server fails with {fault.status}.{echo}")
        self._respond(fault.status, body.encode() if isinstance(body, str) else body, fault.retry_after_s)

    def answer(self, request: ChatRequest, replies: Sequence[Reply], pace: Pace, fault: Fault | None) -> None:
        """Send replies at their pace.

        Args:
            request: What the client asked for.
            replies: One reply a choice; the first one's settings hold for all.
            pace: The server's pace, which a reply may override.
            fault: A cut or garbage on the way; None sends everything.
        """
        self._pace = pace.of(replies[0])
        self._fault = fault
        if request.stream:
            self._start_stream(request, replies)
        else:
            last = max(0, step_count(replies) - 1)
            self._at(self._pace.after_s(last), lambda: self._send_whole(request, replies))

    def _start_stream(self, request: ChatRequest, replies: Sequence[Reply]) -> None:
        script = stream(request, replies)
        if self._fault is not None:
            closing = garbage_event(request) if self._fault.kind == "garbage" else b""
            length = min(script.length, self._fault.after_tokens)
            script = replace(script, length=length, closing=closing)
        self._script = script
        self._unsent = self._connection.start_stream()
        if script.opening:
            self._connection.send(self._unsent + chunk(script.opening))
            self._unsent = b""
            self.record.status = 200
        self._at(self._pace.after_s(0), self._send_due)

    def _send_due(self) -> None:
        """Send every token that is due by now, then wait for the next; being late once delays no other."""
        record, script = self.record, self._script
        now = time.perf_counter()
        while self._next < script.length and record.received_at + self._pace.after_s(self._next) <= now:
            events, tokens = next(script.steps)
            self._unsent += chunk(events)
            record.tokens_sent += tokens
            record.first_token_at = record.first_token_at or now
            record.last_token_at = now
            self._next += 1
        record.status = 200
        if self._next < script.length:
            self._connection.send(self._unsent)
            self._unsent = b""
            self._at(self._pace.after_s(self._next), self._send_due)
            return
        self._over()
        closing = chunk(script.closing) if script.closing else b""
        cut = self._fault is not None and self._fault.kind == "cut"
        self._connection.end_stream(self._unsent + closing, cut=cut)

    def _send_whole(self, request: ChatRequest, replies: Sequence[Reply]) -> None:
        body = json.dumps(whole(request, replies)).encode()
        self.record.status = 200
        self.record.last_token_at = time.perf_counter()
        self._over()
        if self._fault is None:
            self.record.tokens_sent = token_count(replies)
            self._connection.respond(200, body)
        elif self._fault.kind == "cut":
            self._connection.respond_in_part(body)
        else:
            self._connection.respond(200, garbage(request))

    def _respond(self, status: int, body: Mapping[str, Any] | bytes, retry_after_s: float | None) -> None:
        self.record.status = status
        self._over()
        headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:.3f}"}
        self._connection.respond(status, body, headers=headers)

    def _at(self, after_s: float, act: Callable[[], None]) -> None:
        """Call back at a time counted from the request's arrival, so that delays do not add up."""
        wait_s = self.record.received_at + after_s - time.perf_counter()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), act)

    def _lost(self) -> None:
        """The client is gone, or the server stops."""
        self.record.client_left = True
        self._over()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Before the last bytes leave: a client that has read them must find the record complete.
        self.record.done_at = time.perf_counter()
        self._on_over()
