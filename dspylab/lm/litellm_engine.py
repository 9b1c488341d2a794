"""The engine for providers that only LiteLLM reaches. Nothing here is imported before one is needed."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dspy.clients.engines import LiteLLMEngine
from dspy.clients.engines.lifecycle import closing_stream
from dspy.clients.engines.litellm_engine import _ChatStream
from dspy.clients.engines.litellm_errors import litellm_errors
from dspy.lm15 import Request, StreamAssemblyError, Usage

from dspylab.config.models import Model
from dspylab.errors import EnvironmentProblem


class TimedLiteLLMEngine(LiteLLMEngine):  # type: ignore[misc]  # dspy has no types
    """LiteLLM, streaming, without what it makes up at the end of a stream.

    A stream that ends before the provider said why is finished by LiteLLM with `stop`, so an outage would
    pass for an empty reply; and tokens that the provider did not count are counted by a tokenizer that is
    not the model's, and passed off as the provider's.
    """

    def stream(self, request: Request) -> Iterator[Any]:
        """As `LiteLLMEngine.stream`."""
        data = self._arguments(request, streaming=True)
        litellm = library()
        with litellm_errors(model=request.model):
            source = litellm.completion(**data)
        codec = _ChatStream(request)
        deltas = 0
        with closing_stream(source):
            chunks = iter(source)
            while True:
                with litellm_errors(model=request.model):
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                for event in codec.feed(chunk):
                    deltas += event.type == "delta"
                    yield event
            if not deltas and not (source.received_finish_reason or source.intermittent_finish_reason):
                raise StreamAssemblyError("the stream ended without a reply")
            end = codec.finish(litellm)
            # The chunks that LiteLLM keeps are the provider's; its own sum is not among them.
            counted = any(getattr(kept, "usage", None) is not None for kept in source.chunks)
            yield end if counted else replace(end, usage=Usage())

    def sent(self) -> None:
        """Unknown: LiteLLM does not say when it sends."""

    def arrived(self) -> int:
        """The present moment: LiteLLM does not say when bytes arrive."""
        return time.perf_counter_ns()


def litellm_engine(
    model_id: str,
    model: Model,
    *,
    key: str | None,
    url: str | None,
    timeout_s: float,
    environment: Mapping[str, str],
) -> TimedLiteLLMEngine:
    """The LiteLLM engine of a model.

    Args:
        model_id: Id of the model entry.
        model: The entry.
        key: Its API key; None leaves it to LiteLLM to find one.
        url: Its endpoint; None for the provider's own.
        timeout_s: Longest silence of the endpoint.
        environment: Variables that hold keys, those of `.env` files too.

    Raises:
        EnvironmentProblem: If variables or packages are missing.
    """
    if model.model_type == "responses" and importlib.util.find_spec("mcp") is None:
        raise EnvironmentProblem(
            f"LiteLLM needs the package mcp to call the Responses API for {model.model}",
            where=f"models.{model_id}",
            remedy="pip install mcp, or use model_type: chat",
        )
    litellm = library()
    if model.model_type == "responses":
        _warm_responses()
    if key is None and url is None:
        needed = litellm.validate_environment(model.model).get("missing_keys") or []
        missing = [name for name in needed if not environment.get(name)]
        # LiteLLM knows which of its many variables a provider needs, but looks for them nowhere else.
        os.environ.update({name: environment[name] for name in needed if name not in missing})
        if missing:
            raise EnvironmentProblem(
                f"{model.model} needs {' and '.join(missing)}",
                where=f"models.{model_id}",
                remedy="export the variables, or name the key's variable in api_key_env",
            )
    options: dict[str, Any] = {"timeout": timeout_s}
    if key is not None or url is not None:
        options["api_key"] = key or "no-key"
    if url is not None:
        options["api_base"] = url
    return TimedLiteLLMEngine(model_type=model.model_type, **options)


@functools.cache
def library() -> Any:
    """LiteLLM, silent and warm: what it loads at its first call must not count as latency."""
    os.environ.setdefault("LITELLM_LOG", "ERROR")
    import litellm
    from litellm.llms.openai.openai import OpenAI  # type: ignore[attr-defined]  # imported there, not exported

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    # It would start an event loop for every chunk, which bends the very latency that is measured.
    litellm.disable_streaming_logging = True
    hello = [{"role": "user", "content": "hello"}]
    with warnings.catch_warnings():
        # What it warns of is its own code.
        warnings.simplefilter("ignore")
        for _ in litellm.completion("openai/none", hello, mock_response="hello", stream=True, api_key="none"):
            pass
    # Most providers are called through this client, which loads its parts when they are first used.
    with OpenAI(api_key="none") as client:
        _ = client.chat.completions
    return litellm


@functools.cache
def _warm_responses() -> None:
    """Has LiteLLM load what it would load at its first call of the Responses API, mcp above all: seconds."""
    importlib.import_module("mcp")
    library().responses("hello", model="openai/none", mock_response="hello", api_key="none")
