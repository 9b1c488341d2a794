"""Route a support ticket to one of four teams: the program and its variants.

`build(style)` is what experiment.yaml calls for each run; its matrix varies `style`.
"""

import json
import random
from pathlib import Path
from typing import Literal

import dspy

LABELS_NAMED = "Route the support ticket to a team. The label is one of: payment, bug, login, delivery."


class Route(dspy.Signature):
    """Route the support ticket to a team."""

    text: str = dspy.InputField()
    label: Literal["payment", "bug", "login", "delivery"] = dspy.OutputField()


def build(style: str = "zero_shot") -> dspy.Module:
    """Build the program of one run.

    Args:
        style: `zero_shot`: the bare task; only the schema says which labels there are.
            `labels`: the instruction names the labels.
            `balanced_demos`: the bare task with four solved tickets, one for each label.
            `cot`: as `labels`, but the model reasons before it answers.
    """
    match style:
        case "zero_shot":
            return dspy.Predict(Route)
        case "labels":
            return dspy.Predict(Route.with_instructions(LABELS_NAMED))
        case "balanced_demos":
            program = dspy.Predict(Route)
            program.demos = balanced_demos()
            return program
        case "cot":
            return dspy.ChainOfThought(Route.with_instructions(LABELS_NAMED))
        case _:
            raise ValueError(f"there is no style {style!r}")


def balanced_demos() -> list[dspy.Example]:
    """The first training ticket of each label, shuffled: a small model also learns the order it sees."""
    first: dict[str, dspy.Example] = {}
    with (Path(__file__).parent / "train.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            example = dspy.Example(text=row["text"], label=row["label"]).with_inputs("text")
            first.setdefault(row["label"], example)
    demos = list(first.values())
    random.Random(0).shuffle(demos)
    return demos
