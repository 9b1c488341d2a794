"""Ask an endpoint whether it would answer: for its list of models, which costs nothing, or for two tokens."""

from __future__ import annotations

import difflib
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from dspy import lm15

from dspylab.config.wording import plain
from dspylab.errors import EndpointError
from dspylab.lm.build import Models
from dspylab.lm.faults import first_words, normalized
from dspylab.lm.metered import MeteredEngine

#: What the smallest call may answer, in tokens. Some endpoints refuse one or two.
_FEW_TOKENS = 16
#: Most models of an endpoint that a message names, and how near one has to be to come first, from 0 to 1.
_MOST_NAMES, _NEAR = 5, 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """What an endpoint said when it was asked for its models.

    Attributes:
        said: It in words.
        is_fine: Whether nothing speaks against a call. An endpoint may serve what it does not list.
    """

    said: str
    is_fine: bool = True


def look(engine: MeteredEngine, timeout_s: float) -> Look | None:
    """Asks for the endpoint's list of models, with the key.

    Args:
        engine: The model's engine.
        timeout_s: The silence after which it gives up, for the message.

    Returns:
        What it said; None when this engine does not know how to ask.

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
            return Look("it can be reached; it lists no models")
        raise _refused(engine, error, timeout_s, "correct api_base, or see whether it runs") from error
    listed = any(name == target.model or name.endswith(f"/{target.model}") for name in names)
    return Look("it lists the model") if listed else _not_listed(target.model, names)


def _not_listed(model: str, names: Collection[str]) -> Look:
    """That an endpoint has other models than this, those first that it may have been meant to be."""
    if not names:
        return Look("it can be reached; it lists no models")
    near = difflib.get_close_matches(model, names, n=_MOST_NAMES, cutoff=_NEAR)
    others = sorted(name for name in names if name not in near)
    shown = [*near, *others][:_MOST_NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    listing = ", ".join(map(plain, shown))
    return Look(
        f"it can be reached, but the model is not in its list, which has {listing}{more}: "
        "correct `model`, or see whether `dspylab doctor --call` is answered",
        is_fine=False,
    )


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
