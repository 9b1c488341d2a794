"""What went wrong with an attempt: what another one may mend, what none can, and how it is told.

Engines raise lm15's errors, but not for everything: broken JSON in a stream surfaces as Python's own
error, a silent endpoint as one of transport. `normalized` brings all of them into the classes below, with
what the endpoint says freed of secrets, for it may echo the key.
"""

from __future__ import annotations

import json

from dspy import lm15
from dspy._vendor.lm15.transports import ReadTimeout

from dspylab.redact import redact

#: What another attempt may mend. A reply that breaks off or holds no JSON is a `StreamAssemblyError`.
RETRYABLE: tuple[type[lm15.LM15Error], ...] = (
    lm15.RateLimitError, lm15.ServerError, lm15.TimeoutError, lm15.TransportError, lm15.StreamAssemblyError,
)  # fmt: skip
#: What no attempt of any example can mend: the model is stopped.
FATAL: tuple[type[lm15.LM15Error], ...] = (
    lm15.AuthError, lm15.BillingError, lm15.UnsupportedModelError, lm15.ConfigurationError,
)  # fmt: skip

#: What lm15 says of an event of more than 64 KiB.
_TOO_LONG = "exceeds limit"
#: What DSPy says when LiteLLM streams something that it cannot assemble.
_UNKNOWN_PIECE = "streaming fields"
#: What LiteLLM says of a model of whose provider it has never heard.
_NO_PROVIDER = "LLM Provider NOT provided"
#: Longest description of an error, in characters.
_LONGEST = 500


def normalized(error: Exception, timeout_s: float) -> Exception:
    """The error of an engine as one of lm15's where there is one for it, without secrets.

    Args:
        error: What the engine raised.
        timeout_s: The silence after which it gives up, in seconds.

    Returns:
        A new error, or the same one changed in place. What it was raised from is cut off: those errors
        may hold the key too, and what they say stands in the message.
    """
    if isinstance(error.__cause__, ReadTimeout):
        error = lm15.TimeoutError(f"the endpoint was silent for {timeout_s:g} s (timeout_s)")
    elif not isinstance(error, lm15.TransportError) and (refused := _not_connected(error)) is not None:
        error = lm15.TransportError(f"failed to connect: {refused}")
    elif isinstance(error, OSError) and not isinstance(error, lm15.LM15Error):
        error = lm15.TransportError(f"the connection broke: {error}")
    elif isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)) or _is_malformed(error):
        error = lm15.StreamAssemblyError(f"the endpoint sent something that is no reply: {error}")
    elif isinstance(error, lm15.InvalidRequestError) and error.status == 404:
        error = lm15.UnsupportedModelError(error.message, provider=error.provider, status=404)
    elif isinstance(error, lm15.InvalidRequestError) and _NO_PROVIDER in str(error):
        error = lm15.UnsupportedModelError(f"LiteLLM knows no provider of this name: {error.message}")
    elif isinstance(error, lm15.TransportError) and _TOO_LONG in str(error):
        # Another attempt would be paid for and given up at the same place.
        error = lm15.ProviderError(f"{error}: its pieces are too long to stream: set stream: false")
    elif isinstance(error, lm15.UnsupportedFeatureError) and _UNKNOWN_PIECE in str(error):
        error = lm15.UnsupportedFeatureError(f"{error}: set stream: false")
    error.__cause__ = error.__context__ = None
    error.args = tuple(redact(part) if isinstance(part, str) else part for part in error.args)
    if isinstance(error, lm15.LM15Error):
        error.message = redact(error.message)
    return error


def describe(error: BaseException) -> str:
    """`Type: message` of an error, on one line, without secrets and without control characters."""
    return f"{type(error).__name__}: {first_words(error)}"


def first_words(error: BaseException) -> str:
    """The message of an error, on one line, without secrets, control characters and lm15's own advice."""
    # lm15 appends advice after an empty line; it speaks of its own API, not of ours.
    said = redact(str(error).partition("\n\n")[0])
    words = " ".join("".join(c if c.isprintable() else " " for c in said).split()) or type(error).__name__
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


def _not_connected(error: BaseException) -> str | None:
    """Why LiteLLM's client got no connection, which LiteLLM calls an error of the server; else None."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ == "ConnectError":  # of httpx
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _is_malformed(error: Exception) -> bool:
    """Whether a reply of status 200 was no JSON: lm15 knows no class of its own for it."""
    return type(error) is lm15.ProviderError and getattr(error, "status", None) == 200
