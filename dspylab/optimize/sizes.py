"""How many examples optimizers of DSPy's need, as far as DSPy refuses to begin with fewer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dspy import teleprompt

from dspylab.config.defect import Defect
from dspylab.config.models import Optimizer
from dspylab.config.optimizers import compiling_ids

_MORE = "give it more examples"
#: Of the training examples that MIPROv2 validates on when it has no others, at least one and at most so many.
_SHARE, _MOST = 0.8, 1000


class Sizes(NamedTuple):
    """Numbers of examples: to train and to validate on."""

    train: int
    validation: int


def too_few(entries: Mapping[str, Optimizer], optimizer_id: str, sizes: Sizes) -> Iterator[Defect]:
    """What an optimizer, or one that takes part in it, has too few examples for.

    Args:
        entries: All optimizers by id.
        optimizer_id: The optimizer.
        sizes: How many examples there are.

    Yields:
        What is wrong.
    """
    entry = entries[optimizer_id]
    nested = sizes
    if entry.type == "BetterTogether" and not sizes.validation:
        held_back = int(_param(entry, "valset_ratio") * sizes.train)
        nested = Sizes(sizes.train - held_back, held_back)
    for name in compiling_ids(entry):
        yield from too_few(entries, name, nested)
    address = ("optimizers", optimizer_id)
    if entry.type == "SIMBA":
        yield from _at_least(entry, "bsize", sizes.train, "training", address)
    elif entry.type == "MIPROv2":
        if sizes.train < 2 and not sizes.validation:
            yield Defect(address, "MIPROv2 needs two training examples", _MORE)
        elif entry.params.get("auto", "light") is None and _param(entry, "minibatch"):
            validation = sizes.validation or min(_MOST, max(1, int(sizes.train * _SHARE)))
            yield from _at_least(entry, "minibatch_size", validation, "validation", address)


def _at_least(
    entry: Optimizer, param: str, number: int, kind: str, address: tuple[str, ...]
) -> Iterator[Defect]:
    needed = _param(entry, param)
    if needed > number:
        place = (*address, "params", param) if param in entry.params else address
        problem = f"{entry.type} needs {needed} {kind} examples ({param}), there are {number}"
        yield Defect(place, problem, f"set params.{param} to {number} or less, or {_MORE}")


def _param(entry: Optimizer, name: str) -> Any:
    """A parameter as the entry sets it, or else DSPy's default."""
    if name in entry.params:
        return entry.params[name]
    optimizer = getattr(teleprompt, str(entry.type))
    both = {
        **inspect.signature(optimizer.compile).parameters,
        **inspect.signature(optimizer.__init__).parameters,
    }
    return both[name].default
