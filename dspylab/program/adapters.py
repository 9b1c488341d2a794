"""The adapters of runs, and `compact`: for models that are too small for the prompts of DSPy's own."""

from __future__ import annotations

import json
from typing import Any

import dspy

from dspylab.config.axes import ADAPTERS
from dspylab.program.load import Code


class CompactAdapter(dspy.JSONAdapter):  # type: ignore[misc]  # dspy has no types
    """A JSONAdapter whose prompt is no more than the task: in measurements the main lever for small models.

    The system message is the signature's instructions and nothing else, an input is `Text: ...` (one without
    a value is left out), and a demonstration is answered in one line of JSON. The form of the reply need not
    be explained: a JSONAdapter sends its JSON schema along, and an endpoint that follows it, such as the
    embedded model, can write nothing that breaks it.

    These prompts are part of results that lie on disk: another form of them has to get another name.
    """

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """The instructions of the signature."""
        return str(signature.instructions)

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,  # noqa: FBT001, FBT002 - as DSPy calls it
    ) -> str:
        """The inputs, one a line."""
        lines = [
            self.input_line(name, inputs[name])
            for name in signature.input_fields
            if inputs.get(name) not in (None, "")
        ]
        return "\n".join(part for part in (prefix, *lines, suffix) if part)

    def input_line(self, name: str, value: Any) -> str:
        """How one input is written; for subclasses that name inputs otherwise, or not at all."""
        return f"{name.capitalize()}: {value}"

    def format_assistant_message_content(
        self,
        signature: type[dspy.Signature],
        outputs: dict[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        """The outputs in one line of JSON."""
        fields = {name: outputs.get(name, missing_field_message) for name in signature.output_fields}
        return json.dumps(fields, ensure_ascii=False)


def adapter_of(code: Code, name: str | None) -> dspy.Adapter | None:
    """The adapter of a run: `chat`, `json`, `xml`, `compact`, a `path:name`, or None for DSPy's default.

    Raises:
        ProgramError: If a `path:name` does not give a `dspy.Adapter`.
    """
    if name is None:
        return None
    known = (dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter, CompactAdapter)
    return dict(zip(ADAPTERS, known, strict=True))[name]() if name in ADAPTERS else code.adapter(name)
