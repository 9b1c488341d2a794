"""The embedded model: llama.cpp in this process, behind an OpenAI-compatible endpoint on the loopback.

``serve(path)`` starts a server once per file and options and hands the same one to everybody who asks
again; ``close_all()`` (also at exit) stops them. The threads are this process's own, so a process that
is killed leaves nothing behind.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspylab.errors import EnvironmentProblem
from dspylab.extras import install_command

logger = logging.getLogger(__name__)

#: llama.cpp turns a JSON schema into a grammar, so that every complete reply parses.
SUPPORTS_RESPONSE_SCHEMA = True

#: Request parameters that the server honours, in the names that DSPy's adapters ask for.
SUPPORTED_PARAMS = frozenset(
    {
        "frequency_penalty",
        "max_completion_tokens",
        "max_tokens",
        "presence_penalty",
        "response_format",
        "seed",
        "stop",
        "stream",
        "temperature",
        "top_p",
    }
)

_SPIN_COUNT = "GOMP_SPINCOUNT"
#: Slots; the context window is divided among them.
_N_PARALLEL = 4
_N_CTX = 8192
#: With more, the threads of a small model wait for each other longer than they compute.
_MAX_THREADS = 8


def default_concurrency(n_parallel: int | None = None) -> int:
    """Calls in flight at once when the model's entry does not say: one a slot, so that none queues.

    With four slots, two idle cores answer 10 to 20 percent more examples per second than with one call
    at a time, but each call takes three times as long: who wants the latency of a lone call sets
    ``max_concurrency: 1``.

    Args:
        n_parallel: Slots that the model is served with; None for the default.
    """
    return n_parallel or _N_PARALLEL


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How a model is served.

    Attributes:
        n_ctx: Context window in tokens, divided equally among the slots.
        n_parallel: Slots: requests that are decoded together.
        n_threads: CPU threads that compute.
    """

    n_ctx: int
    n_parallel: int
    n_threads: int


def serve_options(
    *, n_ctx: int | None = None, n_parallel: int | None = None, n_threads: int | None = None
) -> ServeOptions:
    """Options with what is None chosen from the machine."""
    return ServeOptions(
        n_ctx=n_ctx or _N_CTX,
        n_parallel=n_parallel or _N_PARALLEL,
        n_threads=n_threads or min(available_cores(), _MAX_THREADS),
    )


def available_cores() -> int:
    """CPU cores that this process may use; fewer than the machine has under an affinity mask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalServer:
    """A model that is being served. Made by ``serve``, not by hand.

    Attributes:
        path: The GGUF file.
        options: How it is served.
        url: Base URL of the OpenAI-compatible endpoint; ends in ``/v1``.
        api_key: Bearer token that the endpoint asks for. It is drawn for each server, so that no other
            user of the machine and no web page can use the port.
    """

    def __init__(self, path: Path, options: ServeOptions) -> None:
        self.path = path
        self.options = options
        self.api_key = secrets.token_hex(16)
        self._native: Any = _start(path, options, self.api_key)
        self.url = f"{self._native.listening_address}/v1"

    def close(self) -> None:
        """Stops the server and frees the model. Calls in flight fail. Closing twice is fine."""
        with _lock:
            if self._native is None:
                return
            del _servers[self.path, self.options]
            _hang_up(int(self._native.listening_address.rpartition(":")[2]))
            # xllamacpp has no stop(): the server stops, and joins its threads, with its last reference.
            self._native = None


_servers: dict[tuple[Path, ServeOptions], LocalServer] = {}
_lock = threading.RLock()


def serve(path: Path, options: ServeOptions | None = None) -> LocalServer:
    """The server of a GGUF file: the one that is running, or a new one. Thread-safe.

    Args:
        path: The GGUF file.
        options: How to serve it; None chooses from the machine.

    Raises:
        EnvironmentProblem: If xllamacpp is not installed or does not run here, or cannot load the file.
    """
    key = (path.resolve(), options or serve_options())
    with _lock:
        if key not in _servers:
            _servers[key] = LocalServer(*key)
        return _servers[key]


@atexit.register
def close_all() -> None:
    """Stops every server of this process. ``serve`` starts them anew."""
    with _lock:
        for server in list(_servers.values()):
            server.close()


def _start(path: Path, options: ServeOptions, api_key: str) -> Any:
    xllamacpp = _import_engine(path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = options.n_ctx
    params.n_parallel = options.n_parallel
    # Slots of their own: with a unified cache one long request evicts the prompts of the others.
    params.kv_unified = False
    params.cpuparams.n_threads = options.n_threads
    params.cpuparams_batch.n_threads = options.n_threads
    # What the slots keep of their last prompts is enough: no second cache of prompts in memory.
    params.cache_ram_mib = 0
    params.api_keys = [api_key]
    params.ui = False
    params.endpoint_slots = False
    # The native log writes to the terminal by itself; errors are worth that when somebody is looking.
    params.verbosity = 1 if logger.isEnabledFor(logging.DEBUG) else 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise EnvironmentProblem(
            "llama.cpp cannot load this file",
            where=str(path),
            remedy="check that it is whole, of an architecture that llama.cpp knows, and fits into memory; "
            "--verbose shows its own message",
        ) from error
    _prove(server, path)
    logger.debug("serving %s at %s with %s", path.name, server.listening_address, options)
    return server


def _prove(server: Any, path: Path) -> None:
    """Has one token answered. Only then its main loop surely runs; stopped earlier, it would never end."""
    try:
        reply = server.handle_chat_completions(
            {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        )
    except (RuntimeError, ValueError) as error:
        reply = {"message": str(error)}
    if "choices" not in reply:
        raise EnvironmentProblem(
            f"the model does not chat: {reply.get('message') or reply}",
            where=str(path),
            remedy="use a GGUF file of an instruction-tuned model",
        )


def _import_engine(path: Path) -> Any:
    # libgomp reads its settings once, when it is loaded. Left alone, a thread that waits for the others
    # spins for milliseconds: as soon as another process wants the core, two threads get slower than one,
    # up to tenfold. Spinning for microseconds is as fast on idle cores and does no harm on busy ones.
    before = os.environ.get(_SPIN_COUNT)
    os.environ.setdefault(_SPIN_COUNT, "300")
    try:
        import xllamacpp
    except ImportError as error:
        raise EnvironmentProblem(
            f"the embedded engine xllamacpp cannot be imported: {error}",
            where=str(path),
            remedy=install_command("local"),
        ) from error
    finally:
        if before is None:
            del os.environ[_SPIN_COUNT]
    return xllamacpp


def _hang_up(port: int) -> None:
    """Cuts every connection of the server, the listening socket included.

    A native thread that writes a reply notices that the server ends only when its reader has gone. Here
    the reader is a thread of this very process, and the server's end is awaited with the interpreter's
    lock held: a call in flight would freeze the process for ever. Where there is no /dev/fd (Windows),
    calls have to end first.
    """
    for _ in range(2):  # the second time for what was accepted during the first
        for connection in _sockets_at(port):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def _sockets_at(port: int) -> Iterator[socket.socket]:
    """Duplicates of the sockets of this process whose own end is a port of the loopback."""
    try:
        descriptors = [int(entry.name) for entry in Path("/dev/fd").iterdir()]
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                duplicate = socket.socket(fileno=os.dup(descriptor))
                if duplicate.family == socket.AF_INET and duplicate.getsockname()[1] == port:
                    yield duplicate
                else:
                    duplicate.close()
