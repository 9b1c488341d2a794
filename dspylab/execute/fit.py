"""Whether program, dataset and metrics speak of the same fields, as far as that is certain before any call.

What is certain to fail on every example is refused. What works, but hardly as it was meant, is told. Nothing
is said of what only the user's code decides.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

import dspy

from dspylab.config.axes import ADAPTERS
from dspylab.config.models import Experiment, Metric
from dspylab.config.scoring import NEEDS
from dspylab.config.wording import Address, choose, listed, plain
from dspylab.errors import Finding, InvalidExperiment, ProgramError
from dspylab.execute.example import example_of
from dspylab.execute.labels import impossible_labels
from dspylab.execute.odd_rows import empty_inputs, odd_labels, of_examples, repeated_inputs, row_name
from dspylab.laboratory import Laboratory
from dspylab.metrics.fields import answer_of, label_of
from dspylab.optimize.sizes import Sizes, too_few
from dspylab.program.discover import factory_names, metric_functions
from dspylab.program.interface import Interface, interface_of, named_outputs, refused_call
from dspylab.records import CompileSpec, DataRow, RunSpec

logger = logging.getLogger(__name__)

_INPUTS: Address = ("dataset", "inputs")


@dataclass(frozen=True, slots=True)
class Misfit:
    """Two parts of an experiment that do not fit together.

    Attributes:
        finding: Where in the file, what is wrong, and what to do.
        fails: Whether every example would fail, or would have no value of the metric.
    """

    finding: Finding
    fails: bool


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A misfit before its line in the file is looked up.

    Attributes:
        address: Keys that lead to its place in the file.
        problem: What is wrong.
        remedy: What to do.
        fails: As of `Misfit`.
    """

    address: Address
    problem: str
    remedy: str
    fails: bool = True


def refuse_misfits(laboratory: Laboratory, specs: Iterable[RunSpec | CompileSpec]) -> None:
    """Stops before the first call when nothing could come of it; logs what is likely to be a mistake.

    Args:
        laboratory: The experiment.
        specs: What is to be executed.

    Raises:
        InvalidExperiment: If every example of a run would fail, or would have no value of a metric.
        ProgramError: If the user's code cannot be used.
        DataError: If the dataset cannot be read.
    """
    chosen = list(specs)
    if chosen:
        _require_metrics(laboratory)
    refuse(misfits(laboratory, chosen))


def refuse(found: Sequence[Misfit]) -> None:
    """Raises what makes every example fail; logs the rest.

    Raises:
        InvalidExperiment: If there is any that does.
    """
    refused = [misfit.finding for misfit in found if misfit.fails]
    if refused:
        raise InvalidExperiment(refused)
    for misfit in found:
        logger.warning("%s", misfit.finding)


def _require_metrics(laboratory: Laboratory) -> None:
    """Looks up the user's own metrics, which are needed only once there are answers that were paid for.

    Raises:
        ProgramError: If its module cannot be imported, or the program exports no such metric.
        InvalidExperiment: If modules do not have those that the file names.
    """
    missing: list[Mismatch] = []
    for name, metric in laboratory.experiment.metrics.items():
        if metric.type == "program":
            laboratory.code.metric(name)
        elif metric.ref is not None:
            missing += _absent(laboratory, ("metrics", name, "ref"), metric.ref, metric_functions)
    if missing:
        raise InvalidExperiment([misfit.finding for misfit in located(laboratory, missing)])


def _absent(
    laboratory: Laboratory,
    address: Address,
    reference: str,
    fitting: Callable[[ModuleType], Iterable[str]],
) -> Iterator[Mismatch]:
    """What the file names and a module of the user's does not have.

    Args:
        laboratory: The experiment.
        address: Keys that lead to its place in the file.
        reference: As `Code.attribute` takes it.
        fitting: Gives the names in a module that may be meant.

    Raises:
        ProgramError: If the module cannot be imported, or if it is a part of something that is not there.
    """
    source, _, attribute = reference.rpartition(":")
    module = laboratory.code.module(source)
    try:
        laboratory.code.attribute(reference)
    except ProgramError as error:
        if "." in attribute or not isinstance(error.__cause__, AttributeError):
            raise
        known = [*fitting(module)] or [
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        ]
        otherwise = "define it" + (f", or name what there is: {listed(known)}" if known else "")
        problem = f"{plain(source)} has no {plain(attribute)!r}"
        yield Mismatch(address, problem, choose(attribute, known, otherwise))


def misfits(laboratory: Laboratory, specs: Iterable[RunSpec | CompileSpec]) -> list[Misfit]:
    """All that does not fit, each thing once. Builds the programs; calls no model.

    Args:
        laboratory: The experiment.
        specs: The runs and compiles that are looked at.

    Raises:
        ProgramError: If the user's code cannot be used.
        DataError: If the dataset cannot be read.
    """
    rows = laboratory.splits.test
    found = [*_labels(_compared(laboratory.experiment), rows), *mismatches(laboratory, specs, rows)]
    return located(laboratory, found)


def located(laboratory: Laboratory, found: Iterable[Mismatch]) -> list[Misfit]:
    """Looks up where in the file mismatches are; each of them once."""
    return [
        Misfit(laboratory.loaded.finding(each.address, each.problem, each.remedy), each.fails)
        for each in dict.fromkeys(found)
    ]


def mismatches(
    laboratory: Laboratory, specs: Iterable[RunSpec | CompileSpec], rows: Sequence[DataRow]
) -> Iterator[Mismatch]:
    """What does not fit the programs of some runs and compiles.

    Args:
        laboratory: The experiment.
        specs: The runs and compiles.
        rows: The examples whose labels are compared with what answers may be.

    Raises:
        ProgramError: If the user's code cannot be used.
    """
    code, looked_at = laboratory.code, []
    absent = list(_absent(laboratory, ("program", "factory"), code.factory, factory_names))
    yield from absent
    for spec in () if absent else specs:
        if isinstance(spec, CompileSpec):
            yield from _sizes(laboratory, spec)
        form = (spec.program_args, _has_own_fields(laboratory.experiment, spec))
        if form not in looked_at:
            looked_at.append(form)
            refused = list(_arguments(laboratory, spec))
            yield from refused
            if refused:
                continue
            program = code.build(spec.program_args)
            yield from _of_program(program, laboratory, rows, has_own_fields=form[1])


def _sizes(laboratory: Laboratory, spec: CompileSpec) -> Iterator[Mismatch]:
    """Optimizers of a compile that have too few examples."""
    sizes = Sizes(len(laboratory.splits.train), len(laboratory.splits.validation))
    for found in too_few(laboratory.experiment.optimizers, spec.optimizer, sizes):
        yield Mismatch(found.address, found.problem, found.remedy)


def _arguments(laboratory: Laboratory, spec: RunSpec | CompileSpec) -> Iterator[Mismatch]:
    """Arguments that the factory does not take."""
    known = laboratory.code.parameters()
    if known is None:
        return
    for name in spec.program_args:
        if name not in known:
            problem = f"{laboratory.experiment.program.factory}() takes no argument {plain(name)!r}"
            yield Mismatch(_address(laboratory.experiment, name), problem, choose(name, known))


def _address(experiment: Experiment, argument: str) -> Address:
    """Where the file names an argument of the factory."""
    axis, matrix = f"program.{argument}", experiment.matrix
    if axis in (matrix.model_extra or {}):
        return ("matrix", axis)
    if argument in experiment.program.args:
        return ("program", "args", argument)
    return ("matrix", "include", next(i for i, entry in enumerate(matrix.include) if axis in entry), axis)


def _compared(experiment: Experiment) -> dict[str, Metric]:
    """The metrics that are dspylab's own."""
    return {name: metric for name, metric in experiment.metrics.items() if _is_comparison(metric)}


def _is_comparison(metric: Metric) -> bool:
    """Whether a metric is dspylab's own, and not a callable of the user's, which reads what it likes."""
    return metric.type not in ("path", "program") and metric.ref is None


def _has_own_fields(experiment: Experiment, spec: RunSpec | CompileSpec) -> bool:
    """Whether more than the program decides what its prompts and answers consist of.

    Such as an adapter of the user's, or a function that puts the answers of several programs together.
    """
    entry = experiment.optimizers.get(spec.optimizer)
    return (spec.adapter or ADAPTERS[0]) not in ADAPTERS or (entry is not None and entry.type == "Ensemble")


def _of_program(
    program: dspy.Module, laboratory: Laboratory, rows: Sequence[DataRow], *, has_own_fields: bool
) -> Iterator[Mismatch]:
    """What does not fit a program as the factory builds it."""
    inputs, metrics = laboratory.experiment.dataset.inputs, _compared(laboratory.experiment)
    refusal = refused_call(program, inputs)
    if refusal is not None:
        yield Mismatch(_INPUTS, refusal, "name the parameters of forward() here, or change forward()")
    if has_own_fields:
        return
    yield from _rows(program, laboratory.experiment, rows)
    interface = interface_of(program)
    if interface is None:
        yield from _unheard_of(named_outputs(program), metrics, laboratory)
    else:
        yield from _prompts(interface, inputs)
        yield from _answers(interface, metrics)


def _rows(program: dspy.Module, experiment: Experiment, rows: Sequence[DataRow]) -> Iterator[Mismatch]:
    """Examples that can hardly be meant as they are: one warning for each of their fields."""
    for problem in empty_inputs(program, experiment.dataset.inputs, rows):
        yield Mismatch(("dataset",), problem, "complete these rows, or take them out", fails=False)
    for problem in repeated_inputs(rows):
        yield Mismatch(("dataset",), problem, "take them out, unless they are meant", fails=False)
    metrics = _compared(experiment)
    others = len(metrics) < len(experiment.metrics) or any(each.type == "run" for each in metrics.values())
    told = set()
    for found in impossible_labels(program, metrics, rows, and_others=others):
        told.add(found.field)
        problem = (
            f"{of_examples(found.count, rows)} a label for {plain(found.field)!r} that no answer can be, "
            f"such as {plain(found.label)} of {found.first}"
        )
        place = ("dataset",) if found.metric is None else ("metrics", found.metric)
        yield Mismatch(place, problem, "correct the data or the signature", fails=False)
    names = {name for row in rows[:1] for name in row.labels if len(row.labels) == 1} | named_outputs(program)
    names |= {name for metric in metrics.values() if (name := metric.label or metric.field)}
    for problem in odd_labels(program, sorted(names - told), rows):
        yield Mismatch(("dataset",), problem, "complete or correct these rows", fails=False)


def _prompts(interface: Interface, inputs: Sequence[str]) -> Iterator[Mismatch]:
    """Whether prompts get their inputs: DSPy leaves out those that are missing or that it does not know."""
    known = f"its inputs are {listed(interface.known)}"
    missing, unused = interface.missing(inputs), interface.unused(inputs)
    if missing and len(unused) == len(inputs):
        problem = f"the program has no such input, so every prompt would be the same: {listed(inputs)}"
        yield Mismatch(_INPUTS, problem, f"{choose(inputs[0], interface.known)}")
        return
    if missing:
        problem = f"the program's input {plain(missing[0])} is not among these, and no prompt will have it"
        yield Mismatch(_INPUTS, problem, f"add it, or take it out of the signature: {known}", fails=False)
    if unused:
        problem = f"the program has no input {plain(unused[0])}, and no prompt will have it"
        yield Mismatch(_INPUTS, problem, f"take it out, or add it to the signature: {known}", fails=False)


def _answers(interface: Interface, metrics: Mapping[str, Metric]) -> Iterator[Mismatch]:
    """Whether answers have the fields that metrics score."""
    answer = dspy.Prediction(**dict.fromkeys(interface.outputs))
    for name, metric in metrics.items():
        if metric.type == "llm_judge" and metric.field is None:
            continue  # it judges all of them
        try:
            answer_of(answer, metric.field, metric.label)
        except LookupError as error:
            if metric.field is None:
                yield Mismatch(("metrics", name), str(error), "")
            else:
                problem = f"answers of the program have no field {plain(metric.field)!r}"
                yield Mismatch(("metrics", name, "field"), problem, choose(metric.field, interface.outputs))


def _unheard_of(
    outputs: Iterable[str], metrics: Mapping[str, Metric], laboratory: Laboratory
) -> Iterator[Mismatch]:
    """Fields to score that no signature of the program has and no line of its code spells."""
    fields = {name: metric.field for name, metric in metrics.items() if metric.field is not None}
    unknown = {name: field for name, field in fields.items() if field not in outputs}
    if not unknown or not laboratory.code_files:
        return
    code = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in laboratory.code_files)
    for name, field in unknown.items():
        if not re.search(rf"\b{re.escape(field)}\b", code):
            problem = f"nothing in the program's code is called {plain(field)!r}"
            yield Mismatch(("metrics", name, "field"), problem, choose(field, outputs), fails=False)


def _labels(metrics: Mapping[str, Metric], rows: Sequence[DataRow]) -> Iterator[Mismatch]:
    """Labels that metrics compare with and no example has."""
    for name, metric in metrics.items():
        is_shown = metric.type == "llm_judge" and metric.label is not None
        if not (NEEDS[metric.type].label or metric.type == "run" or is_shown):
            continue
        label = metric.label or metric.field
        without = [row for row in rows if not _has_label(row, label)]
        if not without:
            continue
        if len(without) < len(rows):
            problem = _partly_labelled(label, without, rows)
            remedy = "complete these rows, or take them out of the dataset"
            yield Mismatch(("metrics", name), problem, remedy, fails=False)
            continue
        problem = _no_label(label, without[0])
        known = dict.fromkeys(known for row in rows for known in row.labels)
        if metric.label:
            yield Mismatch(("metrics", name, "label"), problem, choose(metric.label, known))
        elif metric.field:
            otherwise = f"add label: <label>; the labels are {listed(known) or 'none'}"
            yield Mismatch(("metrics", name, "field"), problem, choose(metric.field, known, otherwise))
        else:
            yield Mismatch(("metrics", name), problem, "")


def _has_label(row: DataRow, label: str | None) -> bool:
    """Whether an example has a label; None stands for its only one."""
    return len(row.labels) == 1 if label is None else label in row.labels or label in row.inputs


def _no_label(label: str | None, row: DataRow) -> str:
    """Why no example has a label, `row` being one of them."""
    if label is not None:
        return f"no test example has {plain(label)!r}"
    try:
        label_of(example_of(row), None)
    except LookupError as error:
        return str(error)
    raise AssertionError(row)


def _partly_labelled(label: str | None, without: Sequence[DataRow], rows: Sequence[DataRow]) -> str:
    """That some examples have no label, and which is the first of them."""
    what = "not just one label" if label is None else f"no {plain(label)!r}"
    return f"{of_examples(len(without), rows)} {what} and will not be scored, such as {row_name(without[0])}"
