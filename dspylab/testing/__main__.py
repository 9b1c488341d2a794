"""``python -m dspylab.testing``: the fake server as a process; prints one line of JSON when it is ready.

With a command behind ``--`` it serves while that command runs, and ends as it did.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import importlib.util
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dspylab.testing.answers import Answer, default_answer, reply_fields
from dspylab.testing.faults import Faults
from dspylab.testing.server import FakeServer

RATES = ("rate_429", "rate_500", "rate_cut", "rate_garbage", "rate_hang")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, Ctrl-C or, if so asked, the end of stdin or of a command.

    Args:
        arguments: Command line; default: the process's own.

    Returns:
        The exit code: that of the command, 0 without one; 3 if the port is not to be had.
    """
    options = _parser().parse_args(arguments)
    gc.disable()  # nothing here makes garbage in cycles, and a collection would hold up tokens that are due
    server = _server(options)
    try:
        server.start()
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        problem = "is in use" if taken else f"can not be listened on: {error}"
        sys.stderr.write(f"port {options.port} {problem}: --port 0 takes a free one\n")
        return 3
    try:
        return _serve(server, options)
    finally:
        server.stop()


def _serve(server: FakeServer, options: argparse.Namespace) -> int:
    if options.command:
        return _ended(options.command)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        if options.until_stdin_closes:
            sys.stdin.read()
        else:
            threading.Event().wait()
    return 0


def _ended(command: Sequence[str]) -> int:
    """Run a command to its end; Ctrl-C and SIGTERM are for it to obey. Returns its exit code."""
    # A handler of its own, since an ignored signal would stay ignored in the command.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen(command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return code if code >= 0 else 128 - code  # as shells say of a process that a signal ended


def _server(options: argparse.Namespace) -> FakeServer:
    faults = Faults(
        **{name: getattr(options, name) for name in RATES},
        retry_after_s=options.fault_retry_after_s,
        seed=options.seed,
    )
    return FakeServer(
        options.answer_with or _answer(options.answer, dict(options.fields or ())),
        ttft_s=options.ttft_s,
        itl_s=options.itl_s,
        tokens=options.tokens,
        api_key=options.api_key,
        models=options.models,
        faults=faults,
        concurrency_limit=options.concurrency_limit,
        requests_per_second_limit=options.requests_per_second_limit,
        retry_after_s=options.retry_after_s,
        port=options.port,
        keep_bodies=options.keep_bodies,
    )


def _answer(text: str | None, fields: dict[str, str]) -> Answer:
    if fields:
        return lambda request: reply_fields(request, fields)
    return default_answer if text is None else text


def _name_and_value(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{argument!r} is not name=value")
    return name, value


def _function(reference: str) -> Callable[..., Any]:
    """The function that ``path.py:name`` refers to."""
    path, _, name = reference.rpartition(":")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"{reference!r} is not path.py:name of a file that is there")
    spec = importlib.util.spec_from_file_location("dspylab_testing_answer", path)
    if spec is None or spec.loader is None:
        raise argparse.ArgumentTypeError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise argparse.ArgumentTypeError(f"{path} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dspylab.testing",
        description='A fake OpenAI-compatible server on 127.0.0.1. Prints {"url": …} when it is ready.',
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0 takes a free one (default)")
    add("--ttft", "--ttft-s", dest="ttft_s", type=float, default=0.0, help="seconds to the first token")
    add("--itl", "--itl-s", dest="itl_s", type=float, default=0.0, help="seconds between two tokens")
    add("--tokens", type=int, help="cut every reply into exactly so many tokens (default: words)")
    add("--answer", help="say this to everything (default: a well-formed reply to any DSPy prompt)")
    add("--answer-with", type=_function, metavar="PATH:NAME",
        help="say what this function returns for a ChatRequest, such as endpoint.py:answer")  # fmt: skip
    add("--fields", type=_name_and_value, action="append", metavar="NAME=VALUE",
        help="answer DSPy prompts with this value of an output field; may be repeated")  # fmt: skip
    add("--api-key", help="accept this key only")
    add("--models", action="append", metavar="NAME", help="have this model only; may be repeated")
    add("--concurrency-limit", type=int, help="refuse more requests at once")
    add("--requests-per-second-limit", type=int, help="refuse more requests within a second")
    add("--retry-after-s", type=float, default=1.0, help="Retry-After of the concurrency limit (default: 1)")
    for name in RATES:
        add("--" + name.replace("_", "-"), type=float, default=0.0, help="share of requests, 0 to 1")
    add("--fault-retry-after-s", type=float, help="Retry-After of the 429s at random (default: none)")
    add("--seed", type=int, default=0, help="seed of the faults at random")
    add("--keep-bodies", action="store_true", help="keep the bodies of requests for GET /requests")
    add("--until-stdin-closes", action="store_true", help="stop at the end of stdin")
    add("command", nargs="*", metavar="-- COMMAND", help="serve while this command runs, and end as it did")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
