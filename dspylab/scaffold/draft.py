"""A first experiment for a program that exists: what was found out about it, as an experiment file. Pure."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dspylab.config.checks import FIGURE_GROUPS, FIGURE_NAMES
from dspylab.config.models import ID_PATTERN, Id, Model
from dspylab.lm.keys import usual_variables
from dspylab.program.dataset import PATTERN_ROW
from dspylab.program.discover import FoundProgram, Kind
from dspylab.scaffold.folder import filled

#: Text that YAML reads as text without quotes.
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
#: Words that YAML 1.1 reads as something else.
_NO_TEXT = frozenset({"n", "no", "null", "off", "on", "false", "true", "y", "yes"})
_METRIC_TYPES: dict[Kind, str] = {"text": "exact_match", "number": "numeric", "other": "exact_match"}
_EXAMPLES = "examples.jsonl"
#: What no callable may be called as a metric.
_TAKEN = FIGURE_NAMES | FIGURE_GROUPS
_ID: TypeAdapter[str] = TypeAdapter(Id)
#: Names of files that say less than the name of their folder.
_GENERIC = frozenset({"__init__", "app", "main", "module", "pipeline", "program"})


@dataclass(frozen=True, slots=True)
class Draft:
    """An experiment file to be, with what goes beside it.

    Attributes:
        text: The experiment file.
        files: Name to text of the files beside it.
    """

    text: str
    files: dict[str, str]

    def todos(self) -> list[tuple[int, str]]:
        """Line number and text of what is left to do in the experiment file."""
        lines = enumerate(self.text.splitlines(), start=1)
        return [(number, line.partition("TODO: ")[2]) for number, line in lines if "TODO: " in line]


def experiment_name(program: Path) -> str:
    """A name for the experiment of a program: its file's, or its folder's if that says nothing."""
    stem = program.parent.name if program.stem in _GENERIC else program.stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:60]
    return name if re.match(ID_PATTERN, name) else "experiment"


def draft(found: FoundProgram, folder: Path, schema: str) -> Draft:
    """Writes what was found as an experiment.

    Args:
        found: The program.
        folder: Folder that the experiment file will lie in.
        schema: What its schema line names.
    """
    program = found.module or _relative(found.path, folder)
    settings = _model_settings(found)
    metrics, primary = _metrics(found, program)
    dataset, files = _dataset(found, folder, program)
    values = {
        "schema": schema,
        "program": found.path.name,
        "name": experiment_name(found.path),
        "place": f"{'module' if found.module else 'path'}: {_yaml(program)}",
        "factory": f"{found.factory}{_choice(found.others)}",
        "adapter": "" if settings else filled("existing/adapter_json.yaml", {}),
        "dataset": dataset,
        "models": filled("existing/model_configured.yaml", {"settings": settings, "program": found.path.name})
        if settings
        else filled("existing/model_embedded.yaml", {}),
        "model_id": "current" if settings else "smollm2",
        "arguments": "".join(
            filled("existing/argument.yaml", {"name": name, "default": json.dumps(default)})
            for name, default in found.arguments.items()
        ),
        "metrics": metrics,
        "primary": primary,
    }
    return Draft(filled("existing/experiment.yaml", values), files)


def _model_settings(found: FoundProgram) -> str:
    """The entry of the model that the program configures; nothing if it configures none that is known."""
    if found.model is None:
        return ""
    try:
        model = Model.model_validate(found.model)
    except ValidationError:  # such as a name without its provider
        return ""
    settings = dict(found.model)
    variables = usual_variables(model)
    if variables and model.api_base is None:
        settings["api_key_env"] = variables[0]
    # A line each: `dvc exp run -S` takes the quotes off, and within braces a colon can not do without.
    return "\n".join(f"    {name}: {_yaml(value)}" for name, value in settings.items())


def _dataset(found: FoundProgram, folder: Path, program: str) -> tuple[str, dict[str, str]]:
    """The dataset section, and a file with the pattern of a row if there are no examples."""
    inputs = ", ".join(map(_yaml, found.inputs))
    if found.dataset is None:
        names = dict.fromkeys((*found.inputs, *found.outputs))
        rows = [{name: f"{PATTERN_ROW}{name} of row {number}" for name in names} for number in (1, 2)]
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        return filled("existing/dataset_none.yaml", {"test": _EXAMPLES, "inputs": inputs}), {_EXAMPLES: text}

    def place(source: Path | str) -> str:
        return _yaml(_relative(source, folder) if isinstance(source, Path) else f"{program}:{source}")

    key = found.dataset.id
    values = {
        "inputs": inputs,
        "id": "" if key is None else filled("existing/dataset_id.yaml", {"id": key}),
        "test": place(found.dataset.test) + _choice(map(place, found.dataset.others)),
    }
    if found.dataset.train is None:
        return filled("existing/dataset_one.yaml", values), {}
    return filled("existing/dataset_two.yaml", {"train": place(found.dataset.train), **values}), {}


def _metrics(found: FoundProgram, program: str) -> tuple[str, str]:
    """The metrics section and the id of the first metric."""
    if found.metrics:
        functions = _by_metric_ids(found.metrics, "my_{}")
        lines = [
            filled("existing/metric_path.yaml", {"name": metric, "ref": _yaml(f"{program}:{name}")})
            for metric, name in functions.items()
        ]
        return filled("existing/metric_hint.yaml", {}) + "".join(lines), next(iter(functions))
    labels = () if found.dataset is None else found.dataset.labels
    labelled = [name for name in found.outputs if name in labels]
    if len(labelled) > 1:
        names = _by_metric_ids(labelled, "{}_right")
    else:
        names = {"accuracy": next(iter([*labelled, *found.outputs, "answer"]))}
    doubt = "" if labelled else "   # TODO: right if the rows have a label called {}"
    lines = [
        filled(
            "existing/metric_label.yaml",
            {
                "name": metric,
                "type": _METRIC_TYPES[found.outputs.get(field, "other")],
                "field": _yaml(field),
                "doubt": doubt.format(field),
            },
        )
        for metric, field in names.items()
    ]
    return "".join(lines), next(iter(names))


def _by_metric_ids(names: Collection[str], otherwise: str) -> dict[str, str]:
    """Ids of metrics to what they are of: its own name if it may be one, else that with something to it."""
    found: dict[str, str] = {}
    for place, name in enumerate(names, start=1):
        others = chain([otherwise.format(name.strip("_"))], (f"metric{number}" for number in count(place)))
        free = (other for other in others if other not in names and other not in found)
        found[next(filter(_may_be_metric, chain([name], free)))] = name
    return found


def _may_be_metric(name: str) -> bool:
    try:
        return _ID.validate_python(name) not in _TAKEN
    except ValidationError:
        return False


def _choice(others: Iterable[str]) -> str:
    names = ", ".join(others)
    return f"  # TODO: or one of {names}" if names else ""


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _yaml(value: object) -> str:
    """A value as YAML writes it inside of a flow."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _NO_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)
