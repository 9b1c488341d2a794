"""Notice calls of models that a program, a metric or an optimizer builds itself: nothing measures these.

They are recorded all the same, without a figure, so that what they cost is unknown and not nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from dspy.utils.callback import BaseCallback

from dspylab.lm.transcript import Transcript, transcript_of_messages

#: What a model that goes through our engines has as an attribute.
METERED = "is_metered"


@dataclass(frozen=True, slots=True)
class Unmetered:
    """A call that has ended.

    Attributes:
        model: What DSPy calls the model.
        started_at: Wall-clock time when it was asked, seconds since the epoch.
        error: What was raised; None when it was answered.
        said: Gives what was said in it.
    """

    model: str
    started_at: float
    error: BaseException | None
    said: Callable[[], Transcript]


@dataclass
class _UnderWay:
    """A call that goes on.

    Attributes:
        call_id: DSPy's mark of it.
        model: What DSPy calls the model.
        inputs: Arguments of the call.
        started_at: As in `Unmetered`.
        asks_ours: Whether the model asks one of the experiment's in turn: then that call is the one.
    """

    call_id: str
    model: str
    inputs: Mapping[str, Any]
    started_at: float
    asks_ours: bool = False


_under_way: ContextVar[_UnderWay | None] = ContextVar("dspylab_unmetered", default=None)


def note_ours() -> None:
    """Notes that one of the experiment's models is asked, by whatever model goes on."""
    around = _under_way.get()
    if around is not None:
        around.asks_ours = True


class UnmeteredWatch(BaseCallback):  # type: ignore[misc]  # dspy has no types
    """Tells of each call of a model that does not go through our engines.

    Args:
        tell: Is given the call when it has ended.
    """

    def __init__(self, tell: Callable[[Unmetered], None]) -> None:
        self._tell = tell

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A model is asked, or DSPy's cache."""
        if getattr(instance, METERED, False):
            note_ours()
            return
        model = str(getattr(instance, "model", type(instance).__name__))
        _under_way.set(_UnderWay(call_id, model, inputs, time.time()))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It has answered, or raised."""
        call = _under_way.get()
        if call is None or call.call_id != call_id:
            return
        _under_way.set(None)
        if not call.asks_ours:
            self._tell(Unmetered(call.model, call.started_at, exception, lambda: _said(call.inputs, outputs)))


def _said(inputs: Mapping[str, Any], outputs: Any) -> Transcript:
    messages = inputs.get("messages") or [{"role": "user", "content": str(inputs.get("prompt") or "")}]
    replies = outputs if isinstance(outputs, Sequence) and not isinstance(outputs, str) else []
    texts = [reply.get("text") if isinstance(reply, Mapping) else reply for reply in replies]
    return transcript_of_messages(messages, [], replies=[text for text in texts if isinstance(text, str)])
