"""The little HTTP/1.1 that the fake server needs: requests with a length, responses whole or in chunks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request as it came off the wire.

    Attributes:
        method: Such as POST.
        path: Without the query.
        headers: Names in lower case.
        body: The whole body.
        received_at: When its last byte was read, in seconds of ``time.perf_counter``.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    received_at: float


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    path: str
    headers: Mapping[str, str]
    keep_alive: bool
    body_starts: int
    body_ends: int


class Connection(asyncio.Protocol):
    """One client's connection: requests in, one response at a time out.

    Args:
        serve: Called with each request; it must answer through this connection, now or later.
        connections: The open connections; this one adds and removes itself.
    """

    def __init__(
        self, serve: Callable[[HttpRequest, Connection], None], connections: set[Connection]
    ) -> None:
        self._serve = serve
        self._connections = connections
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._answering = False
        self._transport: asyncio.Transport
        self.on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport. asyncio has set TCP_NODELAY on it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Tell whoever is answering that the client is gone."""
        self._connections.discard(self)
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def data_received(self, data: bytes) -> None:
        """Collect bytes until a request is whole."""
        self._buffer += data
        if not self._answering:
            self._take_request()

    def _take_request(self) -> None:
        try:
            self._head = head = self._head or _parse_head(self._buffer)
        except ValueError as error:
            self._answering = True
            self.respond(400, {"error": {"message": str(error), "type": "bad_http"}}, close=True)
            return
        if head is None or len(self._buffer) < head.body_ends:
            return
        body = bytes(self._buffer[head.body_starts : head.body_ends])
        del self._buffer[: head.body_ends]
        self._answering = True
        # Reading comes before answering: when many clients send at once, every arrival is stamped before
        # the first of the requests costs any time.
        request = HttpRequest(head.method, head.path, head.headers, body, time.perf_counter())
        asyncio.get_running_loop().call_soon(self._hand_over, request)

    def _hand_over(self, request: HttpRequest) -> None:
        if not self._transport.is_closing():
            self._serve(request, self)

    def respond(
        self,
        status: int,
        body: Mapping[str, Any] | bytes,
        *,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        """Send a whole response.

        Args:
            status: HTTP status.
            body: A mapping is sent as JSON, bytes as they are.
            headers: Further headers; ``content-type`` is JSON unless given.
            close: Close the connection afterwards.
        """
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        self._transport.write(_head_bytes(status, fields) + content)
        self._finish(close=close)

    def respond_in_part(self, body: bytes) -> None:
        """Send a response of status 200 that breaks off in the middle of its body."""
        fields = {"content-type": "application/json", "content-length": str(len(body))}
        self._transport.write(_head_bytes(200, fields) + body[: len(body) // 2])
        self._finish(close=True)

    def start_stream(self) -> bytes:
        """Return the head of a response in chunks, to be sent with the first `send`."""
        return _head_bytes(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})

    def send(self, data: bytes) -> None:
        """Send bytes now; the kernel does not hold them back."""
        self._transport.write(data)

    def end_stream(self, data: bytes, *, cut: bool = False) -> None:
        """End a response in chunks.

        Args:
            data: The last bytes before the end.
            cut: Close the connection without the closing chunk, as a dying server does.
        """
        self._transport.write(data if cut else data + b"0\r\n\r\n")
        self._finish(close=cut)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._transport.abort()

    def _finish(self, *, close: bool) -> None:
        self.on_lost = None
        self._answering = False
        keep_alive = self._head is not None and self._head.keep_alive
        self._head = None
        if close or not keep_alive:
            self._transport.close()
        elif self._buffer:
            self._take_request()


def chunk(data: bytes) -> bytes:
    """Frame bytes as one chunk of a chunked response."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _parse_head(buffer: bytearray) -> _Head | None:
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > MAX_HEAD_BYTES:
            raise ValueError("the head of the request is too long")
        return None
    first, *lines = bytes(buffer[:end]).decode("iso-8859-1").split("\r\n")
    method, target, version = first.split(" ", 2)
    fields = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    if "transfer-encoding" in headers:
        raise ValueError("the fake server reads bodies with a content-length only")
    keep_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    starts = end + 4
    ends = starts + int(headers.get("content-length", "0"))
    return _Head(method, target.partition("?")[0], headers, keep_alive, starts, ends)


def _head_bytes(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_reason(status)}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("iso-8859-1")


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
