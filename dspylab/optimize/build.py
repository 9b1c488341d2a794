"""Make an optimizer from its entry in the experiment file, and the module that its state is loaded into."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
from dspy import teleprompt

from dspylab.config.annotations import Schema, annotated
from dspylab.config.defect import Defect
from dspylab.config.models import Experiment, Optimizer
from dspylab.config.optimizers import (
    CALLABLES,
    NESTING,
    TEACHER,
    Signature,
    check_signature,
    dspy_signature,
    nested_ids,
    references_in,
)
from dspylab.errors import EnvironmentProblem
from dspylab.optimize.mute import muted

#: What optimizers call the parameter that takes a seed.
_SEEDS = ("seed", "random_state", "random_seed")
#: Types of DSPy's that go on from what lies in their `log_dir`. Others only write there.
_RESUMING = ("GEPA",)

#: Types whose default seed is none at all: each compile would be another, also one that goes on.
_UNSEEDED = ("BetterTogether",)

#: Packages that DSPy imports for a type when it is used, and does not always bring along.
_PACKAGES = {"MIPROv2": "optuna", "GEPA": "gepa"}

#: From a program to the compiled one.
Compile = Callable[[dspy.Module], dspy.Module]


class UnusableOptimizer(Exception):
    """An optimizer cannot be made as the experiment file describes it; carries what is wrong."""

    def __init__(self, defects: Sequence[Defect]) -> None:
        super().__init__(defects[0].problem)
        self.defects = tuple(defects)


@dataclass(frozen=True)
class Supplies:
    """What optimizers get beside their parameters.

    Attributes:
        metric: From the id of an optimizer to the metric that it optimizes.
        lm: From the id of a model to the model, for the roles.
        task_lm: The model that the program is compiled with.
        train: Training examples, in the order in which they are handed over.
        validation: Validation examples; empty for none.
        seed: Seed; None leaves each optimizer its own.
        folder: Where an optimizer may keep what it needs to go on.
        resolve: Turns `path:name` into what it names.
    """

    metric: Callable[[str], Any]
    lm: Callable[[str], dspy.LM]
    task_lm: dspy.LM
    train: Sequence[dspy.Example]
    validation: Sequence[dspy.Example]
    seed: int | None
    folder: Path
    resolve: Callable[[str], Any]


class Optimizers:
    """The optimizers of an experiment, as one compile needs them.

    Args:
        experiment: The experiment.
        supplies: What they get beside their parameters.
    """

    def __init__(self, experiment: Experiment, supplies: Supplies) -> None:
        self._entries = experiment.optimizers
        self._supplies = supplies

    def make(self, optimizer_id: str) -> Compile:
        """Makes an optimizer. No model is called.

        Returns:
            What compiles a program, once.

        Raises:
            UnusableOptimizer: If it has no such parameter or role, or refuses a value.
            ProgramError: If a reference in it names nothing.
            EnvironmentProblem: If it needs a package that is not installed.
        """
        entry = self._entries[optimizer_id]
        # MIPROv2 and others take the model of the context when they are made; some print what they will do.
        with dspy.context(lm=self._supplies.task_lm), muted():
            if entry.type == "Ensemble":
                members = [self.make(name) for name in nested_ids(entry)]
                put_together = self._ensemble(optimizer_id)
                return lambda student: put_together([member(student.deepcopy()) for member in members])
            made, arguments = self._made(optimizer_id)
        compile_method = getattr(made, "compile", made)
        if entry.type == "BetterTogether":
            # It wants predictors that have models of their own, since it may train these.
            return lambda student: compile_method(_with_lm(student, self._supplies.task_lm), **arguments)
        return lambda student: compile_method(student, **arguments)

    def frame(self, optimizer_id: str, build: Callable[[], dspy.Module]) -> dspy.Module:
        """The module that a compiled program's state is loaded into.

        Args:
            optimizer_id: Id of the optimizer that compiled it.
            build: Calls the factory.

        Returns:
            What the factory builds, with what the optimizer puts around it, if it does.
        """
        entry = self._entries[optimizer_id]
        if entry.type == "Ensemble":
            return self._ensemble(optimizer_id)([build() for _ in nested_ids(entry)])
        if entry.type == "KNNFewShot":
            return _quiet(self.make(optimizer_id)(build()))
        return build()

    def _made(self, optimizer_id: str) -> tuple[Any, dict[str, Any]]:
        """An optimizer of DSPy's kind or a function, and the arguments of compiling beside the program."""
        entry = self._entries[optimizer_id]
        target = self._target(entry)
        signature = (entry.type and dspy_signature(entry.type)) or signature_of(target)
        if entry.path is not None:
            defects = list(check_signature(entry, signature, entry.path, ("optimizers", optimizer_id)))
            if defects:
                raise UnusableOptimizer(defects)
        params, supplied = self._params(entry), self._supplied(optimizer_id)
        both = {**supplied, **params}
        if not inspect.isclass(target):
            names = signature.compile | (params.keys() if signature.is_open else set())
            return target, {name: both[name] for name in both if name in names}
        constructor = {
            name: value
            for name, value in both.items()
            if name in signature.constructor or (name in params and name not in signature.compile)
        }
        compiling = {
            name: value
            for name, value in both.items()
            if name in signature.compile and name not in signature.constructor
        }
        if entry.type == "BetterTogether":
            named = constructor.pop(NESTING[entry.type])
            nested = {name: self._made(other) for name, other in named.items()}
            constructor |= {name: made for name, (made, _) in nested.items()}
            # It hands its own share of the examples to each.
            compiling["optimizer_compile_args"] = {
                name: {
                    param: value for param, value in arguments.items() if param in self._entries[other].params
                }
                for (name, other), (_, arguments) in zip(named.items(), nested.values(), strict=True)
            }
        return self._constructed(target, constructor, optimizer_id), compiling

    def _constructed(self, target: Any, arguments: Mapping[str, Any], optimizer_id: str) -> Any:
        try:
            return target(**arguments)
        except Exception as error:
            address = ("optimizers", optimizer_id, "params")
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            defect = Defect(address, f"{target.__name__} refuses it: {reason}", "correct its parameters")
            raise UnusableOptimizer([defect]) from error

    def _target(self, entry: Optimizer) -> Any:
        if entry.type is None:
            return self._supplies.resolve(str(entry.path))
        package = _PACKAGES.get(entry.type)
        if package is not None and importlib.util.find_spec(package) is None:
            raise EnvironmentProblem(
                f"{entry.type} needs the package {package}",
                where="optimizers",
                remedy=f"install it: pip install {package}",
            )
        return getattr(teleprompt, entry.type)

    def _supplied(self, optimizer_id: str) -> dict[str, Any]:
        """Everything that dspylab could hand over, by DSPy's names."""
        entry, supplies = self._entries[optimizer_id], self._supplies
        lms = {role: supplies.lm(model) for role, model in entry.lms.items()}
        supplied: dict[str, Any] = {"metric": supplies.metric(optimizer_id), "trainset": list(supplies.train)}
        if supplies.validation:
            supplied["valset"] = list(supplies.validation)
        if TEACHER in lms:
            supplied["teacher_settings"] = {"lm": lms.pop(TEACHER)}
        if entry.type is None or entry.type in _RESUMING:
            supplied["log_dir"] = str(supplies.folder / optimizer_id)
        if supplies.seed is not None or entry.type in _UNSEEDED:
            supplied |= dict.fromkeys(_SEEDS, supplies.seed or 0)
        # GEPA insists on one; all others fall back to the model of the context by themselves.
        return {"reflection_lm": supplies.task_lm, **supplied, **lms}

    def _params(self, entry: Optimizer) -> dict[str, Any]:
        references = references_in(entry)
        return {
            name: _callable(name, self._supplies.resolve(value))
            if name in CALLABLES and value in references
            else value
            for name, value in entry.params.items()
        }

    def _ensemble(self, optimizer_id: str) -> Callable[[list[dspy.Module]], dspy.Module]:
        params = self._params(self._entries[optimizer_id])
        del params[NESTING["Ensemble"]]
        made = self._constructed(teleprompt.Ensemble, {"reduce_fn": dspy.majority, **params}, optimizer_id)

        def put_together(programs: list[dspy.Module]) -> dspy.Module:
            for program in programs:
                program._compiled = False  # noqa: SLF001 - DSPy hides the state of parts that are compiled
            return made.compile(programs)

        return put_together


def signature_of(target: Any) -> Signature:
    """What an optimizer of the user's can be given: a class or an object with `compile()`, or a function."""
    compile_method = getattr(target, "compile", None)
    names, is_open = _parameters(compile_method or target)
    values = _values(compile_method or target)
    # The first one is the program.
    compiling = frozenset([name for name in names if name != "self"][1:])
    if not inspect.isclass(target):
        return Signature(frozenset(), compiling, is_open, values)
    constructor, is_open = _parameters(target)
    return Signature(frozenset(constructor), compiling, is_open, {**values, **_values(target)})


def _parameters(function: Any) -> tuple[list[str], bool]:
    """Names of the parameters, and whether any further one is taken."""
    parameters = list(inspect.signature(function).parameters.values())
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _values(function: Any) -> dict[str, Schema]:
    """What annotations say of values. A default alone says little: `k=4` may take `all`, too."""
    found = {
        parameter.name: annotated(
            inspect.formatannotation(parameter.annotation), is_optional=parameter.default is None
        )
        for parameter in inspect.signature(function).parameters.values()
        if parameter.annotation is not parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    return {name: schema for name, schema in found.items() if schema is not None}


def _callable(name: str, value: Any) -> Any:
    """What a reference among the parameters stands for; an object of a class that is named."""
    made = value() if inspect.isclass(value) else value
    is_plain = name == "vectorizer" and not isinstance(made, dspy.Embedder)
    return dspy.Embedder(made) if is_plain else made


def _with_lm(program: dspy.Module, lm: dspy.LM) -> dspy.Module:
    program.set_lm(lm)
    return program


def _quiet(program: dspy.Module) -> dspy.Module:
    """A program whose `forward` prints nothing: KNNFewShot's bootstraps, and says so each time."""
    forward = program.forward

    @functools.wraps(forward)
    def quietly(**inputs: Any) -> Any:
        with muted():
            return forward(**inputs)

    program.forward = quietly
    return program
