"""``python -m dspylab.testing``: the fake server as a process; prints one line of JSON when it is ready."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import signal
import sys
import threading
from collections.abc import Sequence

from dspylab.testing.answers import Answer, default_answer, reply_fields
from dspylab.testing.faults import Faults
from dspylab.testing.server import FakeServer

RATES = ("rate_429", "rate_500", "rate_cut", "rate_garbage", "rate_hang")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, Ctrl-C or, if so asked, the end of stdin.

    Args:
        arguments: Command line; default: the process's own.

    Returns:
        The exit code, 0.
    """
    options = _parser().parse_args(arguments)
    gc.disable()  # nothing here makes garbage in cycles, and a collection would hold up tokens that are due
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), _server(options) as server:
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        if options.until_stdin_closes:
            sys.stdin.read()
        else:
            threading.Event().wait()
    return 0


def _server(options: argparse.Namespace) -> FakeServer:
    faults = Faults(
        **{name: getattr(options, name) for name in RATES},
        retry_after_s=options.fault_retry_after_s,
        seed=options.seed,
    )
    return FakeServer(
        _answer(options.answer, dict(options.fields or ())),
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
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
