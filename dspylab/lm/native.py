"""DSPy's native engine over a transport that knows when the bytes of a reply arrived."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import replace
from typing import Any, Literal
from urllib.request import getproxies

from dspy._vendor.lm15.providers.openai import OpenAILM, _finish_from_status
from dspy._vendor.lm15.transports import StdlibTransport, TransportRequest, TransportResponse
from dspy.clients.engines import LM15Engine
from dspy.lm15 import RouterConfig

from dspylab.lm.oneshot import OneShotTransport


class TimedTransport(StdlibTransport):  # type: ignore[misc]  # dspy has no types
    """lm15's HTTP transport, reading the clock where bytes leave and arrive.

    Deltas that arrived together get one moment, so that how fast they are parsed is not taken for how
    fast they were sent; and no other thread's work stands between an arrival and its moment.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.moments = Moments()

    def stream(self, request: TransportRequest) -> TransportResponse:
        """As lm15's transport."""
        self.moments.sent = None
        return super().stream(request)

    def close(self) -> None:
        """Closes all connections; calls in flight fail at once."""
        for connection in list(self._pool._in_use):  # noqa: SLF001 - nothing public wakes their readers
            # Closing alone would leave a thread that reads from it waiting for its timeout.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        super().close()

    def _open(self, *arguments: Any, **settings: Any) -> Any:
        self.moments.note_sending()
        connection = super()._open(*arguments, **settings)
        connection.sock = _TimedSocket(connection.sock, self.moments)
        return connection


class Moments(threading.local):
    """What a thread's last request did when, in nanoseconds of `perf_counter_ns`.

    Attributes:
        sent: When it began to connect or, over a connection that was there, to send.
        arrived: When the bytes that were read last arrived.
    """

    sent: int | None = None
    arrived: int = 0

    def note_sending(self) -> None:
        """Notes the present moment, unless the request has begun before."""
        if self.sent is None:
            self.sent = time.perf_counter_ns()


class TimedOneShotTransport(TimedTransport, OneShotTransport):
    """The same for a server that drops connections: one for every call."""


class _TimedSocket:
    """A socket, plain or of TLS, that notes moments for the thread that uses it."""

    def __init__(self, inner: socket.socket, moments: Moments) -> None:
        self._inner = inner
        self._moments = moments

    def sendall(self, data: bytes) -> None:
        self._moments.note_sending()
        self._inner.sendall(data)

    def recv(self, size: int) -> bytes:
        data = self._inner.recv(size)
        self._moments.arrived = time.perf_counter_ns()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class ResponsesDialect(OpenAILM):  # type: ignore[misc]  # dspy has no types
    """lm15's reader of the Responses API, which also understands streams that do not end well.

    lm15 1.0 (DSPy 3.4) misses the event that ends a truncated reply, and takes the reply for one that
    broke off; it misses the event that carries a failure; and it cannot read usage that is null.
    """

    def _parse_single_stream_event(self, request: Any, raw_event: Any, *, payload: Any = None) -> Any:
        kind = payload.get("type") if isinstance(payload, dict) else None
        if kind not in ("response.completed", "response.incomplete", "response.failed"):
            return super()._parse_single_stream_event(request, raw_event, payload=payload)
        response = payload.get("response") or {}
        if kind == "response.failed":
            failure = {"type": "error", "error": response.get("error") or {}}
            return super()._parse_single_stream_event(request, raw_event, payload=failure)
        whole = {"type": "response.completed", "response": {**response, "usage": response.get("usage") or {}}}
        end = super()._parse_single_stream_event(request, raw_event, payload=whole)
        reason = _finish_from_status(response, has_tool_call=end.finish_reason == "tool_call")
        return replace(end, finish_reason=reason)


class NativeEngine(LM15Engine):  # type: ignore[misc]  # dspy has no types
    """DSPy's native engine for one provider.

    Args:
        provider: lm15's name of the provider.
        key: Its API key; something must be sent to servers that need none.
        url: Its endpoint; None for the provider's own.
        model_type: Which of the provider's APIs is called.
        timeout_s: Longest silence of the endpoint.
        width: Calls in flight at once.
        one_shot: A connection for every call, for a server that drops them.
    """

    def __init__(
        self,
        *,
        provider: str,
        key: str,
        url: str | None,
        model_type: Literal["chat", "responses"],
        timeout_s: float,
        width: int,
        one_shot: bool = False,
    ) -> None:
        self._transport = (
            TimedOneShotTransport(max_connections=width, timeout_s=timeout_s)
            if one_shot
            else TimedTransport(
                max_connections=width,
                read_timeout=timeout_s,
                write_timeout=timeout_s,
                pool_timeout=None,
                # It would look through the whole environment for a proxy at each call.
                trust_env=bool(getproxies()),
            )
        )
        base_urls = {provider: url} if url else None
        config = RouterConfig(api_keys={provider: key}, base_urls=base_urls, transport=self._transport)
        super().__init__(config, model_type=model_type)
        if model_type == "responses":
            where = {"base_url": url} if url else {}
            self._providers[provider] = ResponsesDialect(api_key=key, transport=self._transport, **where)

    def sent(self) -> int | None:
        """When this thread's last request was sent, in nanoseconds of `perf_counter_ns`."""
        return self._transport.moments.sent

    def arrived(self) -> int:
        """When what was last yielded to this thread arrived, in nanoseconds of `perf_counter_ns`."""
        return self._transport.moments.arrived

    def close(self) -> None:
        """Closes all connections; calls in flight fail at once."""
        super().close()
        self._transport.close()
