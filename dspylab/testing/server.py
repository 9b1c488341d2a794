"""A fake OpenAI-compatible server that says and does exactly what a test tells it, and keeps true time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from typing import Any, Self

from dspylab.testing.answers import Answer, ChatRequest, Endpoint, Reply, default_answer, reply_to
from dspylab.testing.connection import Connection, HttpRequest
from dspylab.testing.exchange import Exchange, Pace, RequestRecord
from dspylab.testing.faults import Fault, Faults, error_body

logger = logging.getLogger(__name__)

ENDPOINTS: dict[str, Endpoint] = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}
WRONG_KEY = "Incorrect API key provided."
BACKLOG = 2048
STOP_TIMEOUT_S = 10.0


@dataclass(eq=False)
class FakeServer:
    """A fake OpenAI-compatible server on 127.0.0.1, in a background thread.

    ``with FakeServer("yes", ttft_s=0.1) as server: dspy.LM("openai/fake", api_base=server.url, …)``

    It shares the interpreter lock with its clients: for measurements use `server_process`.

    Attributes:
        answer: What it says: a text, a `Reply`, or a callable that gets a `ChatRequest` and returns either.
            A callable runs in the server's only thread, so it must not block.
        ttft_s: Time from a request's arrival to the first token, in seconds.
        itl_s: Time between two tokens, in seconds.
        tokens: Cut every text into exactly so many tokens; default: word-like pieces.
        api_key: The key that it accepts; others get status 401. Default: any or none.
        models: The models that it has; others get status 404. Default: any.
        faults: Faults at random.
        fail: Faults on purpose: gets each request, returns its `Fault` or None. Comes before ``faults``.
        concurrency_limit: Requests beyond so many at once get status 429.
        requests_per_second_limit: Requests beyond so many within any second get status 429.
        retry_after_s: The Retry-After header of the 429s of the concurrency limit, in seconds.
        port: TCP port; 0 takes a free one.
        keep_bodies: Keep the bodies in the records.
        concurrency_now: Requests for completions on their way, those that are about to be refused included.
        concurrency_peak: The most there ever were.
    """

    answer: Answer = default_answer
    _: KW_ONLY
    ttft_s: float = 0.0
    itl_s: float = 0.0
    tokens: int | None = None
    api_key: str | None = field(default=None, repr=False)
    models: Collection[str] | None = None
    faults: Faults = field(default_factory=Faults)
    fail: Callable[[ChatRequest], Fault | None] | None = None
    concurrency_limit: int | None = None
    requests_per_second_limit: int | None = None
    retry_after_s: float = 1.0
    port: int = 0
    keep_bodies: bool = True
    concurrency_now: int = field(default=0, init=False)
    concurrency_peak: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._records: list[RequestRecord] = []
        self._recent: deque[float] = deque()
        self._fates = self.faults.generator()
        self._connections: set[Connection] = set()
        self._started = threading.Event()
        self._start_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="dspylab-fake-server", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event

    @property
    def url(self) -> str:
        """The ``api_base`` for clients; ends in /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[RequestRecord]:
        """The records of all requests for completions so far, in order of arrival."""
        return list(self._records)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start to listen.

        Raises:
            OSError: The port is taken.
            OverflowError: The port is no TCP port.
        """
        self._thread.start()
        self._started.wait()
        if self._start_error is not None:
            raise self._start_error

    def stop(self) -> None:
        """Drop all connections and stop. Does nothing on a server that has stopped."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(STOP_TIMEOUT_S)
            if self._thread.is_alive():
                logger.warning("the fake server does not stop: its answer blocks")

    def _run(self) -> None:
        try:
            asyncio.run(self._listen())
        except (OSError, OverflowError) as error:
            self._start_error = error
        finally:
            self._started.set()

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(
            lambda: Connection(self._serve, self._connections), "127.0.0.1", self.port, backlog=BACKLOG
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stopping.wait()
        server.close()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # one turn of the loop, in which the connections tell that they are lost

    def _serve(self, request: HttpRequest, connection: Connection) -> None:
        route = (request.method, request.path)
        if request.method == "POST" and request.path in ENDPOINTS:
            self._complete(request, connection)
        elif route == ("GET", "/v1/models"):
            self._list_models(request, connection)
        elif route == ("GET", "/requests"):
            connection.respond(200, {"requests": [asdict(record) for record in self._records]})
        elif route == ("GET", "/health"):
            connection.respond(200, self._health())
        else:
            message = f"Unknown request URL: {request.method} {request.path}."
            connection.respond(404, error_body(404, message, "unknown_url"))

    def _list_models(self, request: HttpRequest, connection: Connection) -> None:
        if self._accepts(_key(request)):
            names = self.models or ["fake"]
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": "dspylab"} for name in names]
            connection.respond(200, {"object": "list", "data": listed})
        else:
            connection.respond(401, error_body(401, WRONG_KEY))

    def _accepts(self, key: str) -> bool:
        return self.api_key is None or key == self.api_key

    def _health(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "requests": len(self._records),
            "concurrency_now": self.concurrency_now,
            "concurrency_peak": self.concurrency_peak,
            "cpu_s": time.thread_time(),
        }

    def _complete(self, http: HttpRequest, connection: Connection) -> None:
        """Answer one request for completions, or refuse it."""
        record = RequestRecord(
            number=len(self._records), endpoint=ENDPOINTS[http.path], received_at=http.received_at
        )
        self._records.append(record)
        self.concurrency_now += 1
        self.concurrency_peak = max(self.concurrency_peak, self.concurrency_now)
        exchange = Exchange(connection, record, self._exchange_over)
        key = _key(http)
        record.key_sha256 = hashlib.sha256(key.encode()).hexdigest()[:12] if key else None
        try:
            body = json.loads(http.body)
            request = ChatRequest(
                number=record.number, body=body, headers=http.headers, endpoint=record.endpoint
            )
            record.model, record.stream = request.model, request.stream
        except (ValueError, AttributeError):
            exchange.refuse("body", 400, "The body of your request is not a JSON object.")
            return
        if self.keep_bodies:
            record.body = body
        if self._admit(exchange, request, key):
            self._perform(exchange, request)

    def _exchange_over(self) -> None:
        self.concurrency_now -= 1

    def _admit(self, exchange: Exchange, request: ChatRequest, key: str) -> bool:
        """Refuse a request that the real endpoint would refuse before it looks at the prompt."""
        if not self._accepts(key):
            exchange.refuse("api_key", 401, WRONG_KEY)
        elif self.models is not None and request.model not in self.models:
            exchange.refuse("model", 404, f"The model `{request.model}` does not exist.")
        elif self.concurrency_limit is not None and self.concurrency_now > self.concurrency_limit:
            exchange.refuse("concurrency", 429, "Too many requests at once.", self.retry_after_s)
        elif (wait_s := self._rate_wait_s(exchange.record.received_at)) > 0:
            exchange.refuse("rate", 429, "Rate limit reached for requests.", wait_s)
        else:
            return True
        return False

    def _rate_wait_s(self, now: float) -> float:
        """Count a request into the second that ends now; return how long it is too early, in seconds."""
        if self.requests_per_second_limit is None:
            return 0.0
        while self._recent and self._recent[0] <= now - 1.0:
            self._recent.popleft()
        if len(self._recent) >= self.requests_per_second_limit:
            return self._recent[0] + 1.0 - now
        self._recent.append(now)
        return 0.0

    def _perform(self, exchange: Exchange, request: ChatRequest) -> None:
        fault = self.faults.draw(self._fates)
        try:
            fault = (self.fail(request) if self.fail else None) or fault
            exchange.record.fault = fault.name if fault else None
            if fault and fault.kind == "status":
                exchange.fail(fault, request)
            elif fault and fault.kind == "hang":
                logger.debug("request %d hangs on purpose", request.number)
            else:
                exchange.answer(request, self._replies(request), Pace(self.ttft_s, self.itl_s), fault)
        except Exception as error:
            # A test's own callable raised. Its client must not wait for ever, and the test must see why.
            logger.exception("the answer to request %d raised", request.number)
            exchange.refuse("answer", 500, f"{type(error).__name__}: {error}")

    def _replies(self, request: ChatRequest) -> list[Reply]:
        choices = [replace(request, choice=index) for index in range(request.n)]
        replies = [reply_to(choice, self.answer) for choice in choices]
        return [reply.cut_into(self.tokens) for reply in replies] if self.tokens else replies


def _key(request: HttpRequest) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")
