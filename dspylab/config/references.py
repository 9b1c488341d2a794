"""Whether the parts of an experiment fit together: ids that exist, keys that belong together. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from dspylab.config.axes import (
    NO_OPTIMIZER,
    check_adapter,
    check_matrix,
    check_settings,
    optimizers_used,
)
from dspylab.config.checks import FIGURE_GROUPS, FIGURE_NAMES, check_checks
from dspylab.config.defect import Defect
from dspylab.config.models import Dataset, Metric, Model, Optimizer, Program
from dspylab.config.optimizers import check_nested, check_type
from dspylab.config.providers import known_providers
from dspylab.config.scoring import WITH_PARTS, check_metric
from dspylab.config.sections import Sections
from dspylab.config.wording import Address, choose, listed, near_miss, shown

_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


def check_references(sections: Sections) -> Iterator[Defect]:
    """Checks what no schema can say.

    Args:
        sections: The sound parts of the file; what is not sound is not looked at.

    Yields:
        What is wrong.
    """
    if sections.program is not None:
        yield from _check_program(sections.program)
    if sections.dataset is not None:
        yield from _check_dataset(sections.dataset)
    yield from _check_entries(sections)
    yield from _check_primary(sections.primary_metric, sections.metrics or {})
    if sections.matrix is not None:
        yield from check_matrix(sections.matrix, sections)
        yield from _check_training(sections)
    yield from check_checks(sections)


def is_loader(reference: str) -> bool:
    """Whether a dataset reference names a callable (`program.py:load`) rather than a file."""
    head, _, name = reference.rpartition(":")
    return bool(head) and name.isidentifier()


def names_file(source: str) -> bool:
    """Whether the part of a `path:name` or `module:name` before its colon names a file, not a module."""
    return source.endswith(".py") or "/" in source


def _check_entries(sections: Sections) -> Iterator[Defect]:
    for name, model in (sections.models or {}).items():
        if model is not None:
            yield from _check_model(model, ("models", name))
    for name, optimizer in (sections.optimizers or {}).items():
        if name == NO_OPTIMIZER:
            yield Defect(("optimizers", name), "none means no optimizer", "give it another id")
        if optimizer is not None:
            yield from _check_optimizer(optimizer, ("optimizers", name), sections)
    labels = _labels(sections.dataset)
    for name, metric in (sections.metrics or {}).items():
        if name in FIGURE_NAMES:
            yield Defect(("metrics", name), "every run has a figure of this name", f"call it my_{name}, say")
        elif name in FIGURE_GROUPS and metric is not None and metric.type in WITH_PARTS:
            problem = "its numbers may be called as figures that every run has"
            yield Defect(("metrics", name), problem, f"call it my_{name}, say")
        if metric is not None:
            yield from check_metric(metric, ("metrics", name), sections.models, labels)


def _check_program(program: Program) -> Iterator[Defect]:
    if program.path is None and program.module is None:
        yield Defect(("program",), "path is missing", "add path: program.py, or module: <importable module>")
    elif program.path is not None and program.module is not None:
        yield Defect(("program", "module"), "path and module exclude each other", "keep one of them")
    if program.module is not None and _MODULE.fullmatch(program.module) is None:
        remedy = "write a dotted name, such as package.module; for a file use path"
        yield Defect(("program", "module"), f"{shown(program.module)} is no module name", remedy)
    if program.path is not None and not program.path.endswith(".py"):
        yield Defect(
            ("program", "path"), f"{shown(program.path)} is no Python file", "name a file that ends with .py"
        )
    if program.adapter is not None:
        yield from check_adapter(program.adapter, ("program", "adapter"))


def _check_dataset(dataset: Dataset) -> Iterator[Defect]:
    address: Address = ("dataset",)
    separate = [key for key in ("train", "validation", "test") if getattr(dataset, key) is not None]
    if dataset.path is None and dataset.test is None:
        problem = (
            "test is missing: training examples alone measure nothing" if separate else "path is missing"
        )
        yield Defect(
            address, problem, "add test: <file>" if separate else "add path: <file>, or test: <file>"
        )
    elif dataset.path is not None and separate:
        remedy = "keep path and split, or test and train"
        yield Defect((*address, separate[0]), f"path and {separate[0]} exclude each other", remedy)
    elif dataset.split is not None and dataset.path is None:
        yield Defect(
            (*address, "split"), "only path can be split", "take it out, or write path instead of test"
        )
    yield from _check_splits(dataset, address)
    inputs = frozenset(dataset.inputs)
    for key, names in (("inputs", dataset.inputs), ("labels", dataset.labels or [])):
        seen: set[str] = set()
        for position, name in enumerate(names):
            place = (*address, key, position)
            if name in seen:
                yield Defect(place, f"{shown(name)} stands twice", "take one of the two out")
            elif key == "labels" and name in inputs:
                problem = f"{shown(name)} is an input, too: the program would see the answer"
                yield Defect(place, problem, "take it out of one of them")
            seen.add(name)


def _check_splits(dataset: Dataset, address: Address) -> Iterator[Defect]:
    for key in ("train", "validation"):
        if getattr(dataset, key) is not None and getattr(dataset, key) == dataset.test:
            yield Defect((*address, key), "is also the test file", "use path and split, or another file")
    if dataset.validation is not None and dataset.train is None and dataset.path is None:
        yield Defect((*address, "validation"), "nothing is trained without train", "add train: <file>")
    split = dataset.split
    if split is not None and split.train + (split.validation or 0.0) >= 1.0:
        problem = "train and validation leave nothing to test"
        yield Defect((*address, "split"), problem, "make their sum less than 1")


def _check_model(model: Model, address: Address) -> Iterator[Defect]:
    yield from check_settings(model.params, (*address, "params"))
    if model.is_local:
        for key in ("api_base", "api_key_env"):
            if getattr(model, key) is not None:
                yield Defect((*address, key), "an embedded model has no endpoint and no key", "take it out")
        if model.engine == "litellm":
            yield Defect((*address, "engine"), "an embedded model is called natively", "take it out")
    else:
        yield from _check_provider(model, address)
        if model.local is not None:
            yield Defect((*address, "local"), f"{shown(model.model)} is no embedded model", "take it out")
    if model.api_base is not None and not _is_url(model.api_base):
        remedy = "write http://… or https://…"
        yield Defect((*address, "api_base"), f"{shown(model.api_base)} is no URL", remedy)


def _check_provider(model: Model, address: Address) -> Iterator[Defect]:
    """Checks what stands before the first slash.

    It is an error, no warning, since each call would fail. A program may teach LiteLLM a provider that no
    file knows, though: `engine: litellm` is the user's word for that.
    """
    provider, known = model.model.partition("/")[0], known_providers()
    if not known or provider in known or model.engine == "litellm":
        return
    near = near_miss(provider, ["local", *sorted(known)])
    advice = [] if near is None else [f"did you mean {near}?"]
    if model.api_base is not None:
        advice.append("for an endpoint that speaks as OpenAI's does write openai/<its name of the model>")
    elif near is None:
        advice.append("write provider/model, such as openai/gpt-4o-mini")
    advice.append("(one that the program registers with LiteLLM needs engine: litellm)")
    yield Defect((*address, "model"), f"there is no provider {shown(provider)}", " ".join(advice))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # such as half of an IPv6 address, or a port that is none
        return False


def _check_optimizer(optimizer: Optimizer, address: Address, sections: Sections) -> Iterator[Defect]:
    if optimizer.type is None and optimizer.path is None:
        yield Defect(address, "type is missing", "add type: BootstrapFewShot, or path: <file.py>:<name>")
    elif optimizer.type is not None and optimizer.path is not None:
        yield Defect((*address, "path"), "type and path exclude each other", "keep one of them")
    else:
        yield from check_type(optimizer, address)
        yield from check_nested(optimizer, sections.optimizers or {}, address)
    metrics = sections.metrics
    if optimizer.metric is not None and metrics is not None:
        if optimizer.metric not in metrics:
            problem = f"there is no metric {shown(optimizer.metric)}"
            yield Defect((*address, "metric"), problem, choose(optimizer.metric, metrics))
        elif _is_run(metrics[optimizer.metric]):
            yield Defect((*address, "metric"), "is a metric over all rows", "name one that scores an example")
    for role, model in optimizer.lms.items():
        if sections.models is not None and model not in sections.models:
            yield Defect(
                (*address, "lms", role), f"there is no model {shown(model)}", choose(model, sections.models)
            )


def _check_primary(primary: str | None, metrics: Mapping[str, Metric | None]) -> Iterator[Defect]:
    if not metrics:
        return
    name, _, part = (primary or "").partition(".")
    if primary is None:
        name = next(iter(metrics))
        if _is_run(metrics[name]):
            remedy = "put another one first, or name it in primary_metric"
            yield Defect(("metrics", name), "runs are ranked by it, but it scores no single example", remedy)
        return
    metric = metrics.get(name)
    has_no_parts = metric is not None and metric.type not in WITH_PARTS
    if name not in metrics or (part and has_no_parts):
        yield Defect(("primary_metric",), f"there is no metric {shown(primary)}", choose(primary, metrics))
    elif _is_run(metric):
        yield Defect(("primary_metric",), "is a metric over all rows", "name one that scores an example")


def _is_run(metric: Metric | None) -> bool:
    return metric is not None and metric.type == "run"


def _labels(dataset: Dataset | None) -> dict[str, None] | None:
    """What a metric may compare with; None as long as the file leaves it to the data."""
    if dataset is None or dataset.labels is None:
        return None
    return dict.fromkeys([*dataset.labels, *dataset.inputs])


def _check_training(sections: Sections) -> Iterator[Defect]:
    dataset, matrix = sections.dataset, sections.matrix
    if dataset is None or matrix is None or (dataset.path is None and dataset.test is None):
        return
    used = optimizers_used(matrix)
    if used and dataset.train is None and dataset.split is None:
        remedy = "add split: {train: 0.3}" if dataset.path is not None else "add train: <file>"
        yield Defect(("dataset",), f"has no training examples for {listed(used)}", remedy)
