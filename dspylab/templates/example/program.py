"""Sort headlines by topic: the program that experiment.yaml compares in two styles."""

import json
import random
from pathlib import Path
from typing import Any, Literal

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


class CompactAdapter(dspy.JSONAdapter):
    """A JSONAdapter with a prompt that is short enough for a model of 135 million parameters.

    The system message is the signature's instructions, a field is `Headline: ...`, and a demonstration is
    answered in one line of JSON. Larger models do well with DSPy's own adapters.
    """

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        return str(signature.instructions)

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        fields = [f"{name.capitalize()}: {inputs[name]}" for name in signature.input_fields if name in inputs]
        return "\n".join(part for part in (prefix, *fields, suffix) if part)

    def format_assistant_message_content(
        self,
        signature: type[dspy.Signature],
        outputs: dict[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        fields = {name: outputs.get(name, missing_field_message) for name in signature.output_fields}
        return json.dumps(fields, ensure_ascii=False)
