"""Call a metric as it is written: two, three or GEPA's five parameters, a class, a module, async."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from dspylab.errors import ProgramError

_EXAMPLE_AND_PREDICTION = 2
#: Further arguments in the order in which DSPy and GEPA hand them over; all None in an evaluation.
_OPTIONAL = ("trace", "pred_name", "pred_trace", "program_trace")

#: What DSPy's optimizers hand over beside example and prediction, by name.
Further = Mapping[str, Any]
NOTHING_FURTHER: Further = MappingProxyType({})
#: Calls a metric with (example, prediction), and with what an optimizer hands over further.
MetricCall = Callable[..., Any]


def metric_call(function: Any, params: Mapping[str, Any], where: str) -> MetricCall:
    """A function of (example, prediction, further) that calls the user's metric and waits for it.

    What an optimizer hands over further is optional. It reaches those parameters of the metric that have
    its names, and those without a default, in DSPy's order.

    Args:
        function: A function, an object with `__call__` (such as a `dspy.Module`), or a class of such
            objects, which is instantiated with the settings.
        params: Settings; for a function, keyword arguments of every call.
        where: Address of the metric in the experiment file, for messages.

    Raises:
        ProgramError: If it is not callable, if it does not take the settings, or if it needs arguments
            that nobody hands over.
    """
    if inspect.isclass(function):
        try:
            function = function(**params)
        except (Exception, SystemExit) as error:
            raise ProgramError(
                f"{type(error).__name__}: {error}", where=where, remedy="correct the class or its params"
            ) from error
        params = {}
    if not callable(function):
        raise ProgramError(
            f"refers to {type(function).__name__}, which can not be called",
            where=where,
            remedy="refer to a function metric(example, prediction, trace=None)",
        )
    return _waiting(_with_arguments(function, params, where))


def _with_arguments(function: Callable[..., Any], params: Mapping[str, Any], where: str) -> MetricCall:
    """Hands over the settings, and None for those of DSPy's further arguments that have no default."""
    signature = _signature(function)
    if signature is None:
        return lambda example, prediction, _further=NOTHING_FURTHER: function(example, prediction, **params)
    further = [
        parameter
        for parameter in list(signature.parameters.values())[_EXAMPLE_AND_PREDICTION:]
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name not in params
    ]
    # By position DSPy's arguments may have any name; by keyword only their own.
    unknown = [p.name for p in further if p.kind is p.KEYWORD_ONLY and p.name not in _OPTIONAL]
    unknown += [p.name for p in further][len(_OPTIONAL) :]
    if unknown:
        raise ProgramError(
            f"needs the argument {unknown[0]!r}, which nobody hands over",
            where=where,
            remedy=f"give it a default or add it to params; DSPy hands over {', '.join(_OPTIONAL)}",
        )
    arguments = {**{parameter.name: None for parameter in further}, **params}
    try:
        signature.bind(None, None, **arguments)
    except TypeError as error:
        raise ProgramError(
            f"can not be called as metric(example, prediction): {error}",
            where=where,
            remedy="give it the parameters (example, prediction, trace=None), and those that params names",
        ) from error

    by_name = [name for name in _OPTIONAL if name in signature.parameters and name not in params]
    places = {
        **dict(zip((p.name for p in further), _OPTIONAL, strict=False)),
        **dict(zip(by_name, by_name, strict=True)),
    }

    def call(example: Any, prediction: Any, handed: Further = NOTHING_FURTHER) -> Any:
        given = {name: handed[argument] for name, argument in places.items() if argument in handed}
        return function(example, prediction, **{**arguments, **given})

    return call


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Parameters of the metric, of `forward` for a module; None for callables that do not tell."""
    target = getattr(function, "forward", None) or getattr(function, "aforward", None) or function
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):
        return None


def _waiting(call: MetricCall) -> MetricCall:
    """Waits for the result if it is awaitable."""

    def finished(example: Any, prediction: Any, handed: Further = NOTHING_FURTHER) -> Any:
        result = call(example, prediction, handed)
        return run_async(result) if inspect.isawaitable(result) else result

    return finished


def run_async(awaitable: Awaitable[Any]) -> Any:
    """Runs an awaitable to its end from synchronous code, inside the `dspy.context` of the caller.

    Each thread has one event loop for all its metrics, since HTTP clients are bound to the loop that
    they were first used in.
    """

    async def wait() -> Any:
        return await awaitable

    if _of_thread.owner is None:
        _of_thread.owner = _Loop()
    return _of_thread.owner.loop.run_until_complete(wait())


class _Loop:
    """An event loop that is closed when its thread ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def __del__(self) -> None:
        self.loop.close()


class _OfThread(threading.local):
    owner: _Loop | None = None


_of_thread = _OfThread()
