"""Route a support ticket to one of four teams: the program, its variants and the adapter of the demo.

``build(style)`` is what ``experiment.yaml`` calls for each run; the matrix varies ``style``.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Literal

import dspy

Team = Literal["payment", "bug", "login", "delivery"]

NAMED = (
    "Route the support ticket to a team. The label is one of: payment (charges, invoices, refunds), "
    "bug (something in the app does not work), login (accounts, passwords, access), "
    "delivery (parcels, shipping)."
)


class Route(dspy.Signature):
    """Route the support ticket to a team."""

    text: str = dspy.InputField()
    label: Team = dspy.OutputField()


class CompactAdapter(dspy.JSONAdapter):
    """A JSONAdapter with a prompt short enough for a small model.

    The system message is the signature's instructions and nothing else, a field is ``Text: …``, and a
    demonstration is answered in one line of JSON. The shape of the reply need not be described: the
    schema that a JSONAdapter sends along is enforced by llama.cpp while it writes.
    """

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        return signature.instructions

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        lines = [f"{name.capitalize()}: {inputs[name]}" for name in signature.input_fields if name in inputs]
        return "\n".join(part for part in (prefix, *lines, suffix) if part)

    def format_assistant_message_content(
        self, signature: type[dspy.Signature], outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        fields = {name: outputs.get(name, missing_field_message) for name in signature.output_fields}
        return json.dumps(fields, ensure_ascii=False)


def build(style: str = "zero_shot") -> dspy.Module:
    """The program of one run.

    Args:
        style: ``zero_shot``: the bare task. ``labels``: the instruction explains the four labels.
            ``balanced_demos``: four solved tickets, one of each label. ``cot``: reason first, then label.

    Returns:
        A module that takes ``text`` and predicts ``label``.

    Raises:
        ValueError: No such style.
    """
    match style:
        case "zero_shot":
            return dspy.Predict(Route)
        case "labels":
            return dspy.Predict(Route.with_instructions(NAMED))
        case "balanced_demos":
            program = dspy.Predict(Route)
            program.demos = balanced_demos(seed=0)
            return program
        case "cot":
            return dspy.ChainOfThought(Route.with_instructions(NAMED))
    raise ValueError(f"unknown style {style!r}")


def balanced_demos(seed: int) -> list[dspy.Example]:
    """The first training ticket of each label, in an order that is no pattern to learn from."""
    lines = (Path(__file__).parent / "train.jsonl").read_text(encoding="utf-8").splitlines()
    first_of: dict[str, dspy.Example] = {}
    for row in map(json.loads, lines):
        first_of.setdefault(row["label"], dspy.Example(text=row["text"], label=row["label"]).with_inputs("text"))
    demos = list(first_of.values())
    random.Random(seed).shuffle(demos)
    return demos
