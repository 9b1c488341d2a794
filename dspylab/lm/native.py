"""DSPy's native engine over a transport that knows when the bytes of a reply arrived."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Literal
from urllib.request import getproxies

from dspy._vendor.lm15.transports import StdlibTransport, TransportRequest, TransportResponse
from dspy.clients.engines import LM15Engine
from dspy.lm15 import RouterConfig

from dspylab.lm.oneshot import OneShotTransport


class TimedTransport:
    """An HTTP transport that stamps the clock when bytes arrive, before anything is made of them.

    Deltas that arrived together get one moment, so that how fast they are parsed is not taken for how
    fast they were sent; and no other thread's work stands between an arrival and its stamp.

    Args:
        transport: Does the work.
    """

    def __init__(self, transport: StdlibTransport) -> None:
        self._transport = transport
        self._moments = threading.local()

    def stream(self, request: TransportRequest) -> TransportResponse:
        """As lm15's transport."""
        response = self._transport.stream(request)
        response._chunks = self._stamped(response._chunks)  # noqa: SLF001 - its constructor's argument
        return response

    def arrived(self) -> int:
        """When the bytes that this thread read last arrived, in nanoseconds of `perf_counter_ns`."""
        moment: int = self._moments.arrived
        return moment

    def close(self) -> None:
        """Closes all connections; calls in flight fail at once."""
        for connection in list(self._transport._pool._in_use):  # noqa: SLF001 - nothing public wakes them
            # Closing alone would leave a thread that reads from it waiting for its timeout.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        self._transport.close()

    def _stamped(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._moments.arrived = time.perf_counter_ns()
            yield chunk


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
        if one_shot:
            transport = OneShotTransport(max_connections=width, timeout_s=timeout_s)
        else:
            transport = StdlibTransport(
                read_timeout=timeout_s,
                write_timeout=timeout_s,
                pool_timeout=None,
                max_connections=width,
                # It would look through the whole environment for a proxy at each call.
                trust_env=bool(getproxies()),
            )
        self._timed = TimedTransport(transport)
        config = RouterConfig(
            api_keys={provider: key}, base_urls={provider: url} if url else None, transport=self._timed
        )
        super().__init__(config, model_type=model_type)

    def arrived(self) -> int:
        """When what was last yielded to this thread arrived, in nanoseconds of `perf_counter_ns`."""
        return self._timed.arrived()

    def close(self) -> None:
        """Closes all connections; calls in flight fail at once."""
        super().close()
        self._timed.close()
