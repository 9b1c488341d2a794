"""Sort headlines by topic: the program that experiment.yaml compares in two styles."""

import json
import random
from pathlib import Path
from typing import Literal

import dspy


class Topic(dspy.Signature):
    """Say which topic the headline is about."""

    headline: str = dspy.InputField()
    topic: Literal["sports", "business", "science", "politics"] = dspy.OutputField()


def build(style: str = "plain") -> dspy.Module:
    """Build the program of one run: `plain`, or with `solved` headlines as demonstrations."""
    program = dspy.Predict(Topic)
    if style == "solved":
        program.demos = solved_headlines()
    return program


def solved_headlines() -> list[dspy.Example]:
    """The training headlines, shuffled: a small model also learns the order it sees."""
    with (Path(__file__).parent / "train.jsonl").open(encoding="utf-8") as lines:
        examples = [dspy.Example(**json.loads(line)).with_inputs("headline") for line in lines]
    random.Random(0).shuffle(examples)
    return examples
