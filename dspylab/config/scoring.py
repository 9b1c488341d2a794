"""Whether each metric has what its type needs. Pure."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for

from dspylab.config.defect import Defect
from dspylab.config.models import Metric
from dspylab.config.wording import Address, choose, listed, shown

#: Types of metrics that may score one example under further names, `helpful.clarity`.
WITH_PARTS: Final = ("path", "program")
#: Measures over all rows that a metric of type `run` may name.
MEASURES: Final = ("macro_f1", "correlation")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a type of metric takes.

    Attributes:
        settings: Names that its params may have.
        required: Those that they must have.
        field: Whether it must name an output field.
        label: Whether it compares with a label.
        ref: Whether it takes a ref.
        judge: Whether a model judges.
    """

    settings: frozenset[str] | None = frozenset()
    required: tuple[str, ...] = ()
    field: bool = True
    label: bool = True
    ref: bool = False
    judge: bool = False


def _settings(*names: str) -> frozenset[str]:
    return frozenset(names)


#: Type of a metric to what it takes; None for settings: whatever the user's callable takes.
NEEDS: Final[Mapping[str, Needs]] = {
    "exact_match": Needs(_settings("case_sensitive", "normalize")),
    "contains": Needs(_settings("case_sensitive", "every")),
    "token_f1": Needs(),
    "numeric": Needs(_settings("rel_tol", "abs_tol")),
    "regex": Needs(_settings("pattern", "ignore_case", "full"), ("pattern",), label=False),
    "json_schema": Needs(_settings("schema"), ("schema",), label=False),
    "rouge_l": Needs(_settings("use_stemmer")),
    "bleu": Needs(_settings("lowercase", "tokenize")),
    "semantic_f1": Needs(_settings("decompositional"), field=False, judge=True),
    "llm_judge": Needs(_settings("rubric", "scale"), ("rubric",), field=False, label=False, judge=True),
    "path": Needs(None, field=False, label=False, ref=True, judge=True),
    "program": Needs(None, field=False, label=False, judge=True),
    "run": Needs(None, field=False, label=False, ref=True),
}


def check_metric(
    metric: Metric, address: Address, models: Collection[str] | None, labels: Collection[str] | None
) -> Iterator[Defect]:
    """Checks one metric.

    Args:
        metric: The metric.
        address: Where it stands.
        models: Ids of the models; None if they are not known.
        labels: Names that a label may have; None if they are not known.

    Yields:
        What is wrong.
    """
    needs = NEEDS[metric.type]
    if metric.ref is not None and not needs.ref:
        yield Defect((*address, "ref"), f"{metric.type} takes no ref", "take it out, or write type: path")
    if metric.model is not None and not needs.judge:
        yield Defect(
            (*address, "model"), f"{metric.type} asks no model", "take it out, or write type: llm_judge"
        )
    elif metric.model is not None and models is not None and metric.model not in models:
        yield Defect(
            (*address, "model"), f"there is no model {shown(metric.model)}", choose(metric.model, models)
        )
    if metric.model is None and needs.judge and metric.type not in ("path", "program"):
        yield Defect(address, "model is missing, so nobody judges", "add model: <id of a model>")
    if metric.type == "path" and metric.ref is None:
        yield Defect(
            address, "ref is missing", "add ref: program.py:name, a callable metric(example, prediction)"
        )
    if metric.field is None and needs.field:
        yield Defect(address, "field is missing", "add field: <output field of the program>")
    label = metric.label or metric.field
    if needs.label and label is not None and labels is not None and label not in labels:
        key = "label" if metric.label else "field"
        yield Defect((*address, key), f"the dataset has no label {shown(label)}", choose(label, labels))
    yield from _check_run(metric, address)
    yield from _check_params(metric, needs, (*address, "params"))


def _check_run(metric: Metric, address: Address) -> Iterator[Defect]:
    """A metric over all rows is the user's callable, or a measure of one field."""
    if metric.type != "run" or metric.ref is not None:
        return
    measure = metric.params.get("measure")
    if measure is None:
        remedy = f"add ref: program.py:name, or params: {{measure: {MEASURES[0]}}} and field"
        yield Defect(address, "says neither ref nor params.measure", remedy)
    elif measure not in MEASURES:
        yield Defect(
            (*address, "params", "measure"),
            f"there is no measure {shown(measure)}",
            choose(str(measure), MEASURES),
        )
    elif metric.field is None:
        yield Defect(address, "field is missing", "add field: <output field of the program>")


def _check_params(metric: Metric, needs: Needs, address: Address) -> Iterator[Defect]:
    if needs.settings is not None:
        for name in metric.params:
            if name not in needs.settings:
                remedy = choose(name, sorted(needs.settings)) if needs.settings else "take it out"
                yield Defect((*address, name), f"{metric.type} has no such setting", remedy)
    missing = [name for name in needs.required if metric.params.get(name) is None]
    if missing:
        yield Defect(address[:-1], f"params.{missing[0]} is missing", f"add params: {{{missing[0]}: …}}")
    elif metric.type == "regex":
        yield from _check_pattern(metric.params["pattern"], (*address, "pattern"))
    elif metric.type == "json_schema":
        yield from _check_schema(metric.params["schema"], (*address, "schema"))


def _check_pattern(pattern: Any, address: Address) -> Iterator[Defect]:
    if not isinstance(pattern, str):
        yield Defect(address, f"must be text, not {shown(pattern)}", "write the pattern in single quotes")
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except re.error as error:
        yield Defect(
            address, f"is no regular expression: {error.msg}", "correct it; single quotes keep backslashes"
        )
    except (OverflowError, RecursionError):
        yield Defect(address, "is a regular expression that is too large", "make it simpler")


def _check_schema(schema: Any, address: Address) -> Iterator[Defect]:
    if not isinstance(schema, dict):
        yield Defect(
            address, f"must be a JSON Schema, not {shown(schema)}", "write a mapping, such as {type: object}"
        )
        return
    dialect = schema.get("$schema")
    kind = (
        validator_for(schema, default=Draft202012Validator)
        if isinstance(dialect, str)
        else Draft202012Validator
    )
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        place = (*address, *error.absolute_path)
        keyword = listed([str(error.absolute_path[-1])]) if error.absolute_path else "it"
        yield Defect(place, f"is no JSON Schema: {keyword} can not be {shown(error.instance)}", "correct it")
