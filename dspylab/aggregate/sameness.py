"""Which examples of two sides are the same when their ids are not, and what of them is other. Pure.

Without `dataset.id` the id of an example is a digest of its row, so a label that was corrected makes another
id. It is the same example all the same: the program is asked the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspylab.config.values import canonical


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two examples that are the same.

    Attributes:
        inputs: Whether their inputs differ, which the same id allows.
        labels: Names of the fields of their labels that both have and that differ. What only one of them has
            is no other label: a field came or went.
    """

    inputs: bool
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """What an example consists of: hashes of this process, since there are many and only equality counts.

    Attributes:
        inputs: Of all that the program is called with.
        labels: Of each field of the labels.
    """

    inputs: int
    labels: Mapping[str, int]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Content:
        """The content of an example from its row."""
        labels = {name: hash(canonical(value)) for name, value in row["labels"].items()}
        return cls(hash(canonical(row["inputs"])), labels)

    def changes(self, other: Content) -> Changes:
        """What differs in another one."""
        labels = [name for name, label in self.labels.items() if other.labels.get(name, label) != label]
        return Changes(self.inputs != other.inputs, tuple(labels))


def same_inputs(a: Mapping[str, Content], b: Mapping[str, Content]) -> dict[str, str]:
    """Pairs the examples that only one of two sides has an id of.

    Args:
        a: Example id to content.
        b: Of the other side, likewise.

    Returns:
        Id in a to the id in b, for examples with the same inputs. Inputs that a side has twice pair nothing:
        which of the two is meant can not be known.
    """
    once_a, once_b = _once(a), _once(b)
    return {
        example: once_b[inputs]
        for inputs, example in once_a.items()
        if inputs in once_b and example not in b and once_b[inputs] not in a
    }


def _once(examples: Mapping[str, Content]) -> dict[int, str]:
    """Inputs to the only example that has them."""
    often = Counter(content.inputs for content in examples.values())
    return {content.inputs: name for name, content in examples.items() if often[content.inputs] == 1}
