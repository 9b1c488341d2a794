"""Gather the calls of one example, whichever thread makes them.

The recorder travels in DSPy's own settings, which reach the threads of `dspy.Parallel` and
`dspy.asyncify`; a plain context variable would not.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import dspy
from dspy import lm15
from dspy.utils.exceptions import AdapterParseError

from dspylab.lm.faults import describe
from dspylab.lm.replies import Replies
from dspylab.lm.transcript import Transcript
from dspylab.lm.unmetered import Unmetered, UnmeteredWatch, note_ours
from dspylab.records import LMCall, Role

_SETTING = "dspylab_recorder"
#: The adapter that makes two calls by design: its second prompt is no fallback.
_TWO_STEPS = "TwoStepAdapter"


@dataclass
class _Prompt:
    """The prompt that the predictor of this context made last.

    Attributes:
        adapter: Class name of the adapter that formatted it.
        fallback: Whether an earlier prompt's reply could not be parsed.
        sent: Whether a model was asked with it.
        failed: Whether the reply could not be parsed.
    """

    adapter: str
    fallback: bool
    sent: bool = False
    failed: bool = False


_prompt: ContextVar[_Prompt | None] = ContextVar("dspylab_prompt", default=None)
_asked: ContextVar[list[str] | None] = ContextVar("dspylab_asked", default=None)


@dataclass
class Recorder:
    """Calls and parse failures of one example under one role.

    Attributes:
        names: What `predictor_names` says of the program.
        role: Who asks.
        calls: Finished calls, in the order in which they ended; shared with recorders made by `as_role`.
        parse_failures: One entry per reply that an adapter could not parse (appending is atomic).
        was_stopped: Set when a call was not made any more, because the run was stopped; shared like `calls`.
        has_ended: Set by the run once it begins nothing more: a call that fails then is not tried again.
        keep_prompts: Whether calls are kept with what was said in them.
        replies: Where a compile keeps its calls instead of `calls`, and finds replies again; None for others.
    """

    names: Mapping[int, str]
    role: Role = "task"
    calls: list[LMCall] = field(default_factory=list)
    parse_failures: list[str] = field(default_factory=list)
    was_stopped: threading.Event = field(default_factory=threading.Event)
    has_ended: threading.Event = field(default_factory=threading.Event)
    keep_prompts: bool = False
    replies: Replies | None = None

    def as_role(self, role: Role) -> Recorder:
        """A recorder that adds to the same calls under another role."""
        return replace(self, names={}, role=role, parse_failures=[])

    def asks(self, model: str) -> LMCall:
        """A call that is made now: who asks, and how, without a figure.

        Args:
            model: Id of the model.
        """
        adapter, fallback = adapter_now()
        return LMCall(
            model=model, role=self.role, predictor=self.predictor(), adapter=adapter, fallback=fallback
        )

    def add(
        self,
        call: LMCall,
        said: Callable[[], Transcript],
        key: str | None = None,
        response: lm15.Response | None = None,
    ) -> None:
        """Keeps a call that has ended.

        Args:
            call: Its figures.
            said: Gives what was said in it; only called when that is kept.
            key: What `replies` knows it by.
            response: Its reply, if it has one.
        """
        if self.replies is not None:
            self.replies.note(call, key, response)
        else:
            self.calls.append(replace(call, **said()) if self.keep_prompts else call)

    def context(self, **settings: Any) -> Any:
        """`dspy.context` in which every call is recorded here."""
        callbacks = [
            callback for callback in dspy.settings.callbacks if not isinstance(callback, AdapterWatch)
        ]
        return dspy.context(
            **{_SETTING: self},
            callbacks=[*callbacks, AdapterWatch(self._add_unmetered)],
            # What `dspy.asyncify` waits at when it is limited is not made for several event loops: examples
            # that run one each would wait for each other for ever. Our own limits hold for its calls.
            async_max_workers=math.inf,
            **settings,
        )

    def _add_unmetered(self, call: Unmetered) -> None:
        error = None if call.error is None else describe(call.error)
        self.add(replace(self.asks(call.model), started_at=call.started_at, error=error), call.said)

    def predictor(self) -> str | None:
        """Name of the predictor that is calling; None if none is.

        The class of the predictor stands in when the program made it while it ran.
        """
        modules = dspy.settings.caller_modules
        caller = modules[-1] if modules else None
        if not isinstance(caller, dspy.Predict):
            return None
        return self.names.get(id(caller)) or self.names.get(_stage(caller)) or type(caller).__name__


def current() -> Recorder:
    """The recorder of the example that this code runs for; a new one nobody reads outside of any example."""
    found = dspy.settings.get(_SETTING)
    return found if isinstance(found, Recorder) else Recorder(names={})


def adapter_now() -> tuple[str | None, bool]:
    """Class name of the adapter whose prompt is being sent, and whether it is a fallback."""
    prompt = _prompt.get()
    return (None, False) if prompt is None else (prompt.adapter, prompt.fallback)


@contextmanager
def engines_asked() -> Iterator[list[str]]:
    """Collects the ids of the models whose engines are asked meanwhile; none if DSPy's cache answered."""
    asked: list[str] = []
    token = _asked.set(asked)
    try:
        yield asked
    finally:
        _asked.reset(token)


def note_asked(model_id: str) -> None:
    """Notes that an engine was asked, for `engines_asked`."""
    note_ours()
    asked = _asked.get()
    if asked is not None:
        asked.append(model_id)


def predictor_names(program: dspy.Module) -> dict[int, str]:
    """Names for every predictor of a program, and for the copies that `dspy.BestOfN` and others make of it.

    Args:
        program: The program.

    Returns:
        Object id to name; also DSPy's own mark of a predictor, which its copies keep, unless several
        predictors of the program have the same.
    """
    named = program.named_predictors()
    copies = Counter(_stage(predictor) for _, predictor in named)
    marks = {_stage(predictor): name for name, predictor in named if copies[_stage(predictor)] == 1}
    return marks | {id(predictor): name for name, predictor in named}


def _stage(predictor: dspy.Predict) -> int:
    # Negative, so that it cannot be taken for an object id.
    return -int(predictor.stage, 16)


class AdapterWatch(UnmeteredWatch):
    """Notes which adapter formats a prompt and which replies it cannot parse.

    It is the only callback of an example, since DSPy goes through all of them at each step of a call.
    """

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A module begins: no adapter has formatted anything for it yet."""
        _prompt.set(None)

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A module ends: what its caller may send next, no adapter has formatted."""
        prompt = _prompt.get()
        # An empty reply is refused without being handed to `parse`.
        if prompt is not None and isinstance(exception, AdapterParseError):
            _fail(prompt)
        _prompt.set(None)

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A model is asked, or the cache."""
        super().on_lm_start(call_id, instance, inputs)
        prompt = _prompt.get()
        if prompt is not None:
            prompt.sent = True

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A prompt is made. A predictor makes one; another, after it was sent, is a fallback.

        DSPy calls this several times for one prompt when adapters inherit `format` or call one another's.
        """
        before = _prompt.get()
        if before is None:
            _prompt.set(_Prompt(type(instance).__name__, fallback=False))
        elif before.sent:
            fallback = before.adapter != _TWO_STEPS
            if fallback:
                _fail(before)
            _prompt.set(_Prompt(type(instance).__name__, fallback=fallback))

    def on_adapter_parse_end(
        self, call_id: str, outputs: Any, exception: BaseException | None = None
    ) -> None:
        """A reply was read, or could not be."""
        prompt = _prompt.get()
        if prompt is not None and isinstance(exception, Exception):
            _fail(prompt)


def _fail(prompt: _Prompt) -> None:
    """Counts a reply that could not be parsed, once."""
    if not prompt.failed:
        prompt.failed = True
        current().parse_failures.append(prompt.adapter)
