"""What a program takes and gives, as far as that is certain before it is called.

A user's `forward` may do anything with what it gets, and return anything. Known for sure are the parameters
that it has, and everything about those of DSPy's own modules that hand their inputs on to a signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import dspy
from dspy.adapters.utils import annotation_allows_none

#: Inputs that DSPy's own modules take for settings of the call.
_SETTINGS_OF_A_CALL = frozenset({"config", "demos", "lm", "max_iters", "prediction", "signature"})
#: What DSPy's own modules add to the output fields of their signature.
_ADDED = {dspy.Predict: (), dspy.ChainOfThought: (), dspy.ReAct: ("trajectory",)}


@dataclass(frozen=True, slots=True)
class Interface:
    """The fields of a program that is one of DSPy's own modules.

    Attributes:
        needed: Inputs that every prompt is meant to have.
        known: Inputs that a prompt may have.
        outputs: Fields of its predictions.
    """

    needed: tuple[str, ...]
    known: tuple[str, ...]
    outputs: tuple[str, ...]

    def unused(self, inputs: Collection[str]) -> list[str]:
        """Those of the inputs that no prompt has."""
        return [name for name in inputs if name not in (*self.known, *_SETTINGS_OF_A_CALL)]

    def missing(self, inputs: Collection[str]) -> list[str]:
        """Inputs that are needed and not given."""
        return [name for name in self.needed if name not in inputs]


def interface_of(program: dspy.Module) -> Interface | None:
    """The fields of a program; None where nobody can know them, since the user's code decides."""
    kind = type(program)
    if kind not in _ADDED or "forward" in vars(program):
        return None
    predictor = program.predict if kind is dspy.ChainOfThought else program
    signature = predictor.signature
    return Interface(
        needed=tuple(name for name, field in signature.input_fields.items() if is_needed(field)),
        known=tuple(signature.input_fields),
        outputs=(*signature.output_fields, *_ADDED[kind]),
    )


def refused_call(program: dspy.Module, inputs: Collection[str]) -> str | None:
    """Why a program can not be called with these inputs by name; None if it can, or if nobody knows."""
    forward = inspect.getattr_static(program, "forward", None)
    calls_forward = type(program).__call__ in (dspy.Module.__call__, dspy.Predict.__call__)
    if not calls_forward or not isinstance(forward, FunctionType) or "forward" in vars(program):
        return None
    # A decorator's own parameters count, not those of what it wraps.
    signature = inspect.signature(forward, follow_wrapped=False)
    try:
        signature.bind(program, **dict.fromkeys(inputs))
    except TypeError as error:
        parameters = ", ".join(map(str, list(signature.parameters.values())[1:]))
        return f"{type(program).__name__}.forward({parameters}) can not be called with these: {error}"
    return None


def named_outputs(program: dspy.Module) -> set[str]:
    """Output fields of all signatures in a program."""
    return {name for predictor in program.predictors() for name in predictor.signature.output_fields}


def is_needed(field: Any) -> bool:
    """Whether DSPy misses an input that is not given."""
    return bool(field.is_required()) and not annotation_allows_none(field.annotation)
