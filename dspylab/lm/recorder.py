"""Gather the calls of one example, whichever thread makes them.

The recorder travels in DSPy's own settings, which reach the threads of `dspy.Parallel` and
`dspy.asyncify`; a plain context variable would not.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

from dspylab.records import LMCall, Role

_SETTING = "dspylab_recorder"
#: The adapter that makes two calls by design: its second prompt is no fallback.
_TWO_STEPS = "TwoStepAdapter"
#: Class name of the adapter whose prompt is being sent, and whether that is a fallback.
_adapter: ContextVar[tuple[str, bool] | None] = ContextVar("dspylab_adapter", default=None)


@dataclass
class Recorder:
    """Calls and parse failures of one example under one role.

    Attributes:
        names: Predictor object id to its name in the program.
        role: Who asks.
        calls: Finished calls, in the order in which they ended; shared with recorders made by `as_role`.
        parse_failures: One entry per reply that an adapter could not parse (appending is atomic).
    """

    names: Mapping[int, str]
    role: Role = "task"
    calls: list[LMCall] = field(default_factory=list)
    parse_failures: list[str] = field(default_factory=list)

    def as_role(self, role: Role) -> Recorder:
        """A recorder that adds to the same calls under another role."""
        return Recorder(names={}, role=role, calls=self.calls)

    def context(self, **settings: Any) -> Any:
        """`dspy.context` in which every call is recorded here."""
        callbacks = [
            callback for callback in dspy.settings.callbacks if not isinstance(callback, AdapterWatch)
        ]
        return dspy.context(**{_SETTING: self}, callbacks=[*callbacks, AdapterWatch()], **settings)

    def predictor(self) -> str | None:
        """Name of the predictor that is calling: the innermost module, by its name in the program."""
        modules = dspy.settings.caller_modules
        if not modules:
            return None
        caller = modules[-1]
        return self.names.get(id(caller)) or type(caller).__name__


def current() -> Recorder:
    """The recorder of the example that this code runs for; a new one nobody reads outside of any example."""
    found = dspy.settings.get(_SETTING)
    return found if isinstance(found, Recorder) else Recorder(names={})


def adapter_now() -> tuple[str | None, bool]:
    """Class name of the adapter whose prompt is being sent, and whether it is a fallback."""
    return _adapter.get() or (None, False)


def predictor_names(program: dspy.Module) -> dict[int, str]:
    """Object id to name, for every predictor of a program."""
    return {id(predictor): name for name, predictor in program.named_predictors()}


class AdapterWatch(BaseCallback):  # type: ignore[misc]  # dspy has no types
    """Notes which adapter formats a prompt and which replies it cannot parse."""

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A module begins: no adapter has formatted anything for it yet."""
        _adapter.set(None)

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A prompt is made. A predictor makes one; a second one is a fallback after a reply that failed."""
        before = _adapter.get()
        fallback = before is not None and before[0] != _TWO_STEPS
        _adapter.set((type(instance).__name__, fallback))

    def on_adapter_parse_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        """A reply was read, or could not be."""
        if exception is not None:
            current().parse_failures.append(type(exception).__name__)
