"""The HTTP transport to the embedded model: one connection a call, never through a proxy."""

from __future__ import annotations

from dataclasses import replace

from dspy._vendor.lm15.transports import StdlibTransport, TransportRequest, TransportResponse


class OneShotTransport(StdlibTransport):  # type: ignore[misc]  # dspy has no types
    """lm15's transport, asking the server to close after each reply.

    llama.cpp's server drops the connection after a streamed reply without announcing it. A client that
    keeps it for the next call loses a race now and then: the call fails before it was answered. On the
    loopback a new connection costs a tenth of a millisecond.

    Args:
        max_connections: Calls that may be in flight at once.
        timeout_s: Longest silence of the server in seconds; None is lm15's default.
    """

    def __init__(self, *, max_connections: int, timeout_s: float | None = None) -> None:
        silence = {} if timeout_s is None else {"read_timeout": timeout_s, "write_timeout": timeout_s}
        super().__init__(max_connections=max_connections, trust_env=False, **silence)

    def stream(self, request: TransportRequest) -> TransportResponse:
        """As lm15's transport."""
        return super().stream(replace(request, headers=[*request.headers, ("Connection", "close")]))
