"""Which engine calls a model: DSPy's native one for every provider that it knows, LiteLLM for the rest.

The table of native providers is written out here, so that `plan` can show the choice without importing
dspy; a test holds it against what DSPy itself resolves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dspylab.config.models import Model
from dspylab.errors import UsageError

Engine = Literal["native", "litellm"]


@dataclass(frozen=True, slots=True)
class NativeRoute:
    """How the native engine reaches a provider.

    Attributes:
        provider: lm15's name of the provider for chat completions.
        variables: Environment variables that usually hold its key; empty when it needs none.
        placeholder_key: What a server that needs no key accepts.
        responses: lm15's name of the provider for the Responses API; None when it has none.
    """

    provider: str
    variables: tuple[str, ...] = ()
    placeholder_key: str | None = None
    responses: str | None = None


#: LiteLLM's provider prefix to the native route. Azure is left to LiteLLM, whose settings for it
#: (deployment, version, endpoint) people already have in their environment.
NATIVE_ROUTES: Mapping[str, NativeRoute] = MappingProxyType(
    {
        "openai": NativeRoute("openai-chat", ("OPENAI_API_KEY",), responses="openai"),
        "anthropic": NativeRoute("anthropic", ("ANTHROPIC_API_KEY",)),
        "gemini": NativeRoute("gemini", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
        "groq": NativeRoute("groq", ("GROQ_API_KEY",)),
        "openrouter": NativeRoute("openrouter", ("OPENROUTER_API_KEY",)),
        "deepseek": NativeRoute("deepseek", ("DEEPSEEK_API_KEY",)),
        "xai": NativeRoute("xai", ("XAI_API_KEY",)),
        "moonshot": NativeRoute("moonshotai", ("MOONSHOTAI_API_KEY", "MOONSHOT_API_KEY")),
        "ollama": NativeRoute("ollama", placeholder_key="ollama"),
        "ollama_chat": NativeRoute("ollama", placeholder_key="ollama"),
        "hosted_vllm": NativeRoute("vllm", placeholder_key="EMPTY"),
    }
)


def native_route(model: Model) -> NativeRoute | None:
    """The native route of a model, or None when only LiteLLM reaches it."""
    route = NATIVE_ROUTES.get(wire_model(model).partition("/")[0])
    return None if route is None or (model.model_type == "responses" and route.responses is None) else route


def native_provider(model: Model) -> str | None:
    """lm15's name of the provider that serves a model natively; None when LiteLLM does."""
    route = native_route(model)
    if route is None:
        return None
    return route.responses if model.model_type == "responses" else route.provider


def engine_for(model_id: str, model: Model) -> Engine:
    """The engine that a model gets.

    Raises:
        UsageError: If the file asks for `engine: native` and the native engine does not know the provider.
    """
    if model.engine == "litellm" and not model.is_local:
        return "litellm"
    if native_route(model) is not None:
        return "native"
    if model.engine == "native":
        raise UsageError(
            f"the native engine does not serve {model.model!r} with model_type {model.model_type!r}",
            where=f"models.{model_id}.engine",
            remedy=f"use engine: auto or litellm (native providers: {', '.join(NATIVE_ROUTES)})",
        )
    return "litellm"


def wire_model(model: Model) -> str:
    """The provider/model string that goes to the inner engine; local models answer as an OpenAI endpoint."""
    return "openai/local" if model.is_local else model.model
