"""Whether an optimizer of the experiment file has the parameters and roles that it is given.

DSPy's optimizers are looked up in DSPy's source: importing DSPy takes seconds, and a file is checked far more
often than anything is compiled.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from dspylab.config.annotations import Schema, declared
from dspylab.config.defect import Defect
from dspylab.config.explain import value_defects
from dspylab.config.models import REF_PATTERN, Optimizer
from dspylab.config.wording import Address, choose, listed, shown

#: DSPy's optimizers that can be used, and the file of `dspy/teleprompt` that each is in.
TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "LabeledFewShot": "vanilla.py",
        "BootstrapFewShot": "bootstrap.py",
        "BootstrapFewShotWithRandomSearch": "random_search.py",
        "MIPROv2": "mipro_optimizer_v2.py",
        "COPRO": "copro_optimizer.py",
        "SIMBA": "simba.py",
        "GEPA": "gepa/gepa.py",
        "KNNFewShot": "knn_fewshot.py",
        "BetterTogether": "bettertogether.py",
        "Ensemble": "ensemble.py",
        "InferRules": "infer_rules.py",
    }
)
#: Optimizers that hand what they do not know on to another one.
_HANDS_ON: Final = {"InferRules": "BootstrapFewShot", "KNNFewShot": "BootstrapFewShot"}
#: Those that can not be used, and why.
_UNUSABLE: Final = {
    "BootstrapFinetune": "it trains weights, which is not done through an endpoint",
    "GRPO": "it trains weights, which is not done through an endpoint",
}
#: Those whose programs do something beside what their state says, with the optimizer's own models and metric.
WITH_FRAME: Final = frozenset({"Ensemble", "KNNFewShot"})
#: What dspylab itself hands over, to what decides it in the experiment file.
_GIVEN: Final = {
    "student": "it is what program.factory builds",
    "trainset": "it is the training examples of dataset",
    "valset": "it is the validation examples of dataset",
    "metric": "name it under metric: of the optimizer",
    "teacher": "name its model under lms: of the optimizer",
    "teacher_settings": "name its model under lms: of the optimizer, as teacher",
    "log_dir": "dspylab keeps what an optimizer needs to go on, until it is done",
}
TEACHER: Final = "teacher"
#: Optimizers that are made of further ones, and the parameter that names these by id.
NESTING: Final = {"BetterTogether": "optimizers", "Ensemble": "programs"}
_ROLE = re.compile(r".+_(lm|model)")
#: What BetterTogether does unless it is told, and what stands between its steps.
_STRATEGY: Final = "p -> w -> p"
_THEN: Final = " -> "
#: Parameters whose value may be a `path:name` that stands for what it names.
CALLABLES: Final = frozenset(
    {"instruction_proposer", "code_proposer", "component_selector", "reduce_fn", "vectorizer"}
)


@dataclass(frozen=True, slots=True)
class Signature:
    """What an optimizer can be given.

    Attributes:
        constructor: Names of the parameters of its constructor; none for a function.
        compile: Names of the parameters of its `compile()`, or of the function.
        is_open: Whether its constructor, or the function, takes any further parameter.
        values: From the name of a parameter to what its values can be, where that is certain.
    """

    constructor: frozenset[str]
    compile: frozenset[str]
    is_open: bool = False
    values: Mapping[str, Schema] = field(default_factory=dict)

    @property
    def params(self) -> frozenset[str]:
        """What `params` may set."""
        return frozenset(name for name in self._all if name not in _GIVEN and not _ROLE.fullmatch(name))

    @property
    def roles(self) -> frozenset[str]:
        """What `lms` may name a model for."""
        roles = {name for name in self._all if _ROLE.fullmatch(name)}
        return frozenset(roles | ({TEACHER} if "teacher_settings" in self._all else set()))

    @property
    def _all(self) -> frozenset[str]:
        return self.constructor | self.compile


def check_type(optimizer: Optimizer, address: Address) -> Iterator[Defect]:
    """Checks an optimizer of DSPy's: its name, its parameters and its roles.

    Args:
        optimizer: The entry; one with a `path` is left to whoever imports that.
        address: Its address.

    Yields:
        What is wrong.
    """
    name = optimizer.type
    if name is None:
        return
    if name in _UNUSABLE:
        yield Defect((*address, "type"), f"{name} can not be used", _UNUSABLE[name])
    elif name not in TYPES:
        remedy = choose(name, TYPES, f"use {listed(TYPES)}, or path: <file.py>:<name>")
        yield Defect((*address, "type"), f"DSPy has no optimizer {shown(name)}", remedy)
    else:
        signature = dspy_signature(name)
        if signature is not None:
            yield from check_signature(optimizer, signature, name, address)


def check_signature(
    optimizer: Optimizer, signature: Signature, name: str, address: Address
) -> Iterator[Defect]:
    """Checks the parameters and roles of an optimizer against its signature.

    Args:
        optimizer: The entry.
        signature: Of what it names.
        name: What messages call it.
        address: Address of the entry.

    Yields:
        What is wrong.
    """
    for param, value in optimizer.params.items():
        place = (*address, "params", param)
        if param in _GIVEN:
            yield Defect(place, "is not set here", _GIVEN[param])
        elif param in signature.roles:
            yield Defect(place, "is a model", f"name it under lms: {{{param}: <id of a model>}}")
        elif param not in signature.params and not signature.is_open:
            yield Defect(place, f"{name} has no such parameter", choose(param, sorted(signature.params)))
        elif param in signature.values:
            yield from value_defects(value, signature.values[param], place)
    for role in optimizer.lms:
        if role not in signature.roles and not (signature.is_open and _ROLE.fullmatch(role)):
            remedy = choose(role, sorted(signature.roles)) if signature.roles else "take it out: it has none"
            yield Defect((*address, "lms", role), f"{name} has no such role", remedy)


def check_nested(
    optimizer: Optimizer, known: Mapping[str, Optimizer | None], address: Address
) -> Iterator[Defect]:
    """Checks what an optimizer that is made of further ones says of them.

    Args:
        optimizer: The entry.
        known: All entries by id.
        address: Its address.

    Yields:
        What is wrong.
    """
    param = NESTING.get(optimizer.type or "")
    if param is None:
        return
    names = optimizer.params.get(param)
    place = (*address, "params", param)
    if optimizer.type == "Ensemble" and not (isinstance(names, list) and names):
        yield Defect(place, "must list what takes part", f"write {param}: [<id of an optimizer>, …]")
        return
    if optimizer.type == "BetterTogether" and not (isinstance(names, dict) and names):
        remedy = f"write {param}: {{p: <id of an optimizer>}}, and strategy: p -> p"
        yield Defect(place, "must name its optimizers", remedy)
        return
    for name in nested_ids(optimizer):
        entry = known.get(name) if isinstance(name, str) else None
        if not isinstance(name, str) or name not in known:
            yield Defect(place, f"there is no optimizer {shown(name)}", choose(str(name), known))
        elif entry is not None and entry.type in (*NESTING, "KNNFewShot"):
            yield Defect(place, f"{name} is a {entry.type}, which can not take part", "name another one")
    if isinstance(names, dict):
        yield from _check_strategy(optimizer, names, (*address, "params"))


def _check_strategy(optimizer: Optimizer, steps: Mapping[Any, Any], address: Address) -> Iterator[Defect]:
    """Whether a BetterTogether has a name for each step that it takes."""
    remedy = f"write strategy: {_THEN.join(map(str, steps))}, with the names of optimizers in any order"
    strategy = optimizer.params.get("strategy", _STRATEGY)
    if not isinstance(strategy, str):
        yield Defect((*address, "strategy"), f"must be text, not {shown(strategy)}", remedy)
        return
    unknown = [step for step in strategy.split(_THEN) if step not in steps]
    if unknown and "strategy" in optimizer.params:
        yield Defect((*address, "strategy"), f"none of its optimizers is called {shown(unknown[0])}", remedy)
    elif unknown:
        problem = f"strategy is missing, and DSPy's own, {_STRATEGY}, needs {shown(unknown[0])}"
        yield Defect(address, problem, remedy)


def nested_ids(optimizer: Optimizer) -> list[Any]:
    """What an optimizer that is made of further ones names; empty for all others."""
    names = optimizer.params.get(NESTING.get(optimizer.type or "", ""))
    return list(names.values() if isinstance(names, dict) else names if isinstance(names, list) else ())


def compiling_ids(optimizer: Optimizer) -> list[Any]:
    """Those of `nested_ids` that compile: of a BetterTogether, those of its strategy alone."""
    names = optimizer.params.get(NESTING["BetterTogether"])
    if optimizer.type != "BetterTogether" or not isinstance(names, dict):
        return nested_ids(optimizer)
    steps = str(optimizer.params.get("strategy", _STRATEGY)).split(_THEN)
    return [nested for name, nested in names.items() if name in steps]


def references_in(optimizer: Optimizer) -> list[str]:
    """The `path:name` references of an optimizer: itself, and what its parameters name."""
    named = [optimizer.path, *(optimizer.params.get(name) for name in sorted(CALLABLES))]
    return [name for name in named if isinstance(name, str) and re.search(REF_PATTERN, name)]


@functools.cache
def dspy_signature(name: str) -> Signature | None:
    """What an optimizer of DSPy's can be given, from DSPy's source; None where that can not be read.

    Args:
        name: A key of `TYPES`.
    """
    spec = importlib.util.find_spec("dspy")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0], "teleprompt")
    try:
        tree = ast.parse((folder / TYPES[name]).read_bytes())
    except (OSError, SyntaxError):
        return None
    methods = {
        method.name: method.args
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }
    constructor = _names(methods.get("__init__"))
    values: dict[str, Schema] = {}
    handed_on = dspy_signature(_HANDS_ON[name]) if name in _HANDS_ON else None
    if handed_on is not None:
        constructor |= handed_on.constructor
        values.update(handed_on.values)
    for method in ("compile", "__init__"):  # what both take goes to the constructor
        values.update(declared(methods[method]) if method in methods else {})
    if name == "BetterTogether":
        constructor |= {NESTING[name]}  # its constructor takes them one by one, under any name
        values.pop("strategy", None)  # `check_nested` knows more about it
    return Signature(constructor, _names(methods.get("compile")), values=values)


def _names(arguments: ast.arguments | None) -> frozenset[str]:
    if arguments is None:
        return frozenset()
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return frozenset(argument.arg for argument in named) - {"self"}
