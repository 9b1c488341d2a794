"""What an optimizer made of a program, read from the state that DSPy saves. Pure.

A file that holds something else, as another version of DSPy may write, is shown as far as it is understood.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Longest text of a fact about a program, in characters.
_LONGEST_FACT = 200
#: What DSPy adds to demonstrations that it made itself.
_BOOTSTRAPPED = "augmented"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A demonstration of a predictor.

    Attributes:
        fields: Name and value of each field, as text.
        bootstrapped: Whether an optimizer made it, rather than took it from the examples.
    """

    fields: tuple[tuple[str, str], ...]
    bootstrapped: bool


@dataclass(frozen=True, slots=True)
class CompiledPredictor:
    """One predictor of a compiled program.

    Attributes:
        name: Its name in the program; ``self`` for a program that is a predictor itself.
        instructions: What the optimizer made the signature say.
        fields: Prefix and description of each field.
        demos: Its demonstrations.
    """

    name: str
    instructions: str
    fields: tuple[tuple[str, str], ...]
    demos: tuple[Demonstration, ...]


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """A compiled program, for people.

    Attributes:
        facts: Name and text of what its record says, such as the score that the optimizer saw.
        predictors: Its predictors.
        damage: What of it can not be shown, and why; each a sentence.
    """

    facts: tuple[tuple[str, str], ...]
    predictors: tuple[CompiledPredictor, ...]
    damage: tuple[str, ...] = ()


def compiled_program(
    state: Mapping[str, Any], record: Mapping[str, Any] | None = None, damage: Sequence[str] = ()
) -> CompiledProgram:
    """Reads what `dspy.Module.save` wrote as JSON.

    Args:
        state: The content of the file.
        record: What was noted of the compilation; None if nothing was.
        damage: Which of the two could not be read, and why.
    """
    return CompiledProgram(tuple(_facts(record or {})), predictors(state), tuple(damage))


def predictors(state: Mapping[str, Any]) -> tuple[CompiledPredictor, ...]:
    """The predictors of a program, from the content of its file."""
    parts = {"self": state} if "signature" in state else state
    return tuple(
        _predictor(name, part)
        for name, part in parts.items()
        if isinstance(part, Mapping) and isinstance(part.get("signature"), Mapping)
    )


def _predictor(name: str, state: Mapping[str, Any]) -> CompiledPredictor:
    signature = state["signature"]
    fields = [
        (str(field.get("prefix", "")), str(field.get("description", "")))
        for field in _entries(signature.get("fields"))
    ]
    order = [_letters(prefix) for prefix, _ in fields]
    return CompiledPredictor(
        name=name,
        instructions=str(signature.get("instructions", "")),
        fields=tuple(fields),
        demos=tuple(_demonstration(demo, order) for demo in _entries(state.get("demos"))),
    )


def _demonstration(demo: Mapping[str, Any], order: Sequence[str]) -> Demonstration:
    """A demonstration with its fields in the signature's order, and then all others.

    DSPy's own order depends on how the demonstration came about.
    """

    def place(name: str) -> tuple[int, str]:
        letters = _letters(name)
        return order.index(letters) if letters in order else len(order), name

    names = sorted((name for name in demo if name != _BOOTSTRAPPED), key=place)
    fields = tuple((name, _text(demo[name])) for name in names)
    return Demonstration(fields, bootstrapped=bool(demo.get(_BOOTSTRAPPED)))


def _letters(name: str) -> str:
    """What a field's name and its prefix have in common; the state has the prefix alone."""
    return "".join(filter(str.isalnum, name)).casefold()


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        text = _text(value)
        if value is not None and len(text) <= _LONGEST_FACT:
            yield name, text


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
