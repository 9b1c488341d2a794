"""Turn the announcement of an event into a record: the type, the program, its variants and its metric.

`build(...)` is what experiment.yaml calls for each run; its matrix varies the arguments.
"""

import json
import re
from pathlib import Path
from typing import Any

import dspy
import pydantic

from dspylab.program.adapters import CompactAdapter

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class Event(pydantic.BaseModel):
    """The record that is wanted: dates and times in ISO 8601, the price in euros."""

    title: str
    date: str = pydantic.Field(description="YYYY-MM-DD")
    start: str = pydantic.Field(description="HH:MM, 24 hours")
    venue: str
    price: float = pydantic.Field(description="in euros; 0 when it is free")


class EventAsWritten(pydantic.BaseModel):
    """The same, word for word as the announcement has it: nothing to calculate for the model."""

    title: str
    date: str
    start: str
    venue: str
    price: str


class Extract(dspy.Signature):
    """Extract the event from the announcement."""

    text: str = dspy.InputField()
    event: Event = dspy.OutputField()


class Copy(dspy.Signature):
    """Extract the event from the announcement. Copy the words."""

    text: str = dspy.InputField()
    event: EventAsWritten = dspy.OutputField()


class ModelNormalizes(dspy.Module):
    """The model writes the record as it is wanted."""

    def __init__(self, demos: int) -> None:
        super().__init__()
        self.extract = dspy.Predict(Extract)
        self.extract.demos = [dspy.Example(text=row["text"], event=row["event"]) for row in solved(demos)]

    def forward(self, text: str) -> dspy.Prediction:
        return dspy.Prediction(event=self.extract(text=text).event.model_dump())


class CodeNormalizes(dspy.Module):
    """The model copies what is written, and `normalized` makes dates, times and prices of it."""

    def __init__(self, demos: int) -> None:
        super().__init__()
        self.extract = dspy.Predict(Copy)
        self.extract.demos = [
            dspy.Example(text=row["text"], event=as_written(row["text"], row["event"]))
            for row in solved(demos)
        ]

    def forward(self, text: str) -> dspy.Prediction:
        return dspy.Prediction(event=normalized(self.extract(text=text).event))


class BareAdapter(CompactAdapter):
    """The adapter `compact` without names of inputs: here there is but one, the announcement."""

    def input_line(self, name: str, value: str) -> str:
        return str(value)


def build(normalize: str = "model", demos: int = 0) -> dspy.Module:
    """Build the program of one run.

    Args:
        normalize: Who turns "8 pm" into "20:00": the `model`, or `code` behind it.
        demos: Solved announcements in the prompt.
    """
    return {"model": ModelNormalizes, "code": CodeNormalizes}[normalize](demos)


def fields(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> dict[str, float]:
    """The share of fields that are right, and each field by itself (as fields.title, fields.date, …)."""
    right = {name: float(same(prediction.event.get(name), wanted)) for name, wanted in example.event.items()}
    return {"score": sum(right.values()) / len(right), **right}


def same(found: Any, wanted: Any) -> bool:
    """Equal, whatever the case, quotation marks and white space of a text."""
    if isinstance(found, str) and isinstance(wanted, str):
        return found.strip(" \"'.").casefold() == wanted.casefold()
    return bool(found == wanted)


def normalized(event: EventAsWritten) -> dict[str, Any]:
    """The record of what was copied; None for what can not be read."""
    return {
        "title": event.title,
        "date": iso_date(event.date),
        "start": iso_time(event.start),
        "venue": event.venue,
        "price": price(event.price),
    }


def iso_date(text: str) -> str | None:
    found = re.search(r"(\d{1,2}) ([A-Z][a-z]+) (\d{4})", text)
    if not found or found[2] not in MONTHS:
        return None
    return f"{found[3]}-{MONTHS.index(found[2]) + 1:02}-{int(found[1]):02}"


def iso_time(text: str) -> str | None:
    if "noon" in text.lower():
        return "12:00"
    found = re.search(r"(\d{1,2})(?::(\d\d))? ?([ap]m)?", text.lower())
    if not found or not (found[2] or found[3]):
        return None
    hour = int(found[1]) % 12 + 12 * (found[3] == "pm") if found[3] else int(found[1])
    return f"{hour:02}:{found[2] or '00'}"


def price(text: str) -> float | None:
    found = re.search(r"\d+(?:\.\d+)?", text)
    if found:
        return float(found[0])
    return 0.0 if re.search(r"free|\bno\b|nothing", text.lower()) else None


def as_written(text: str, event: dict[str, Any]) -> dict[str, str]:
    """What a model that copies would have written for a solved announcement."""
    forms = {
        "date": r"\d{1,2} [A-Z][a-z]+ \d{4}",
        "start": r"\d{1,2}:\d\d(?: [ap]m)?|\d{1,2} [ap]m|noon",
        "price": r"\d+ euros?|[Ff]ree|[Nn]o (?:\w+ )?fee",
    }
    copied = {name: re.search(form, text)[0] for name, form in forms.items()}
    return {name: copied.get(name, event[name]) for name in event}


def solved(count: int) -> list[dict[str, Any]]:
    with (Path(__file__).parent / "train.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines][:count]
