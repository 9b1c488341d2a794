"""Ask an endpoint whether it would answer: for its list of models, which costs nothing, or for two tokens."""

from __future__ import annotations

import time
from typing import Any

from dspy import lm15

from dspylab.errors import EndpointError
from dspylab.lm.build import Models
from dspylab.lm.faults import first_words, normalized
from dspylab.lm.metered import MeteredEngine

#: What the smallest call may answer, in tokens. Some endpoints refuse one or two.
_FEW_TOKENS = 16


def look(engine: MeteredEngine, timeout_s: float) -> str | None:
    """Asks for the endpoint's list of models, with the key.

    Args:
        engine: The model's engine.
        timeout_s: The silence after which it gives up, for the message.

    Returns:
        What it said, in words; None when this engine does not know how to ask.

    Raises:
        EndpointError: If it can not be reached, or refuses the key.
    """
    if engine.endpoint.engine != "native":
        return None
    inner: Any = engine.inner
    try:
        target = inner.resolve(engine.endpoint.wire_model)
        names = {info.id for info in inner.router.lm(f"{target.provider}:{target.model}").list_models()}
    except (lm15.AuthError, lm15.BillingError) as error:
        raise _refused(engine, error, timeout_s, "correct the key or its account") from error
    except lm15.UnsupportedFeatureError:
        return None
    except lm15.LM15Error as error:
        if getattr(error, "status", None) in (404, 405):
            return "it can be reached; it lists no models"
        raise _refused(engine, error, timeout_s, "correct api_base, or see whether it runs") from error
    listed = any(name == target.model or name.endswith(f"/{target.model}") for name in names)
    return "it lists the model" if listed else "it can be reached; the model is not in its list"


def call(models: Models, model_id: str, timeout_s: float) -> str:
    """Makes a call of a few tokens.

    Args:
        models: The models.
        model_id: Which to call.
        timeout_s: The silence after which it gives up, for the message.

    Returns:
        How long it took, in words.

    Raises:
        EndpointError: If the call fails.
    """
    lm = models.lm(model_id, {"max_tokens": _FEW_TOKENS})
    started = time.perf_counter()
    try:
        lm("Say: ok")
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, lm15.LM15Error) else error
        engine = models.engines[model_id]
        raise _refused(engine, cause, timeout_s, "correct the model, its settings or its key") from error
    return f"it answers, after {time.perf_counter() - started:.1f} s"


def _refused(engine: MeteredEngine, error: Exception, timeout_s: float, remedy: str) -> EndpointError:
    words = first_words(normalized(error, timeout_s))
    return EndpointError(words, where=f"models.{engine.endpoint.id}", remedy=remedy)
