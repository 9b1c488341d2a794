"""What an optimizer made of a program, read from the state that DSPy saves. Pure.

A file that holds something else, as another version of DSPy may write, is shown as far as it is understood.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Keys of a record that are no facts for people, and the longest text of a fact, in characters.
_LONGEST_FACT = 200


@dataclass(frozen=True, slots=True)
class CompiledPredictor:
    """One predictor of a compiled program.

    Attributes:
        name: Its name in the program.
        instructions: What the optimizer made the signature say.
        fields: Prefix and description of each field.
        demos: Demonstrations, each as lines `field: value`.
    """

    name: str
    instructions: str
    fields: tuple[tuple[str, str], ...]
    demos: tuple[str, ...]


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
    predictors = [
        _predictor(name, part)
        for name, part in state.items()
        if isinstance(part, Mapping) and isinstance(part.get("signature"), Mapping)
    ]
    return CompiledProgram(tuple(_facts(record or {})), tuple(predictors), tuple(damage))


def _predictor(name: str, state: Mapping[str, Any]) -> CompiledPredictor:
    signature = state["signature"]
    fields = [
        (str(field.get("prefix", "")), str(field.get("description", "")))
        for field in _entries(signature.get("fields"))
    ]
    return CompiledPredictor(
        name=name,
        instructions=str(signature.get("instructions", "")),
        fields=tuple(fields),
        demos=tuple(_demo(demo) for demo in _entries(state.get("demos"))),
    )


def _demo(demo: Mapping[str, Any]) -> str:
    # DSPy marks demonstrations that it made itself.
    return "\n".join(f"{name}: {_text(value)}" for name, value in demo.items() if name != "augmented")


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        text = _text(value)
        if value is not None and len(text) <= _LONGEST_FACT:
            yield name, text


def _entries(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
