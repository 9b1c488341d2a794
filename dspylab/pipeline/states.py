"""What DVC thinks of a run, and why, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_FILE_CHANGES = {"modified": "changed", "deleted": "is gone", "new": "is new"}
_OUTPUT_CHANGES = {
    "modified": "is not the one that dvc.lock names: `dvc checkout` brings it back",
    "deleted": "is missing",
    "not in cache": "is not in the cache",
    "lost": "is missing, also from the cache",
    "new": "is not recorded",
}


@dataclass(frozen=True, slots=True)
class RunState:
    """Whether DVC would execute a stage again.

    Attributes:
        state: `done`: nothing to do. `stale`: it ran, and something changed since. `missing`: it never ran,
            or only its results are gone from the workspace.
        reasons: Why it is not done; empty when it is.
        outputs: Those of the reasons that are about what it made, and how that comes back.
    """

    state: Literal["done", "stale", "missing"]
    reasons: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


NEVER_RUN = RunState("missing", ("never run",))


def judge(inputs: Sequence[str], outputs: Mapping[str, str]) -> RunState:
    """The state of a stage that was recorded once.

    Args:
        inputs: What changed in its command, params and dependencies, in words.
        outputs: File name to DVC's word for what is wrong with it, or `lost` for what is nowhere.
    """
    if inputs:
        # What would come back is what other inputs made: nobody wants it.
        return RunState("stale", tuple(dict.fromkeys(inputs)))
    if not outputs:
        return RunState("done")
    reasons = tuple(f"{name} {_OUTPUT_CHANGES[word]}" for name, word in outputs.items())
    only_gone = set(outputs.values()) <= {"deleted", "lost"}
    return RunState("missing" if only_gone else "stale", reasons, outputs=reasons)


def file_change(name: str, word: str) -> str:
    """A change of a dependency in words."""
    return f"{name} {_FILE_CHANGES[word]}"


def param_changes(address: str, word: str, old: Any, new: Any) -> Iterator[str]:
    """Changes of a tracked part of the experiment file in words, down to the single key.

    Args:
        address: Dotted address that DVC tracks.
        word: DVC's word for what happened to it.
        old: Its recorded value, None if there was none.
        new: Its value now, None if there is none.
    """
    if word == "new":
        yield f"{address} added"
    elif word == "deleted":
        yield f"{address} removed"
    else:
        yield from _differences(address, old, new)


def key_changes(address: str, old: Sequence[str] | None, new: Sequence[str] | None) -> Iterator[str]:
    """Changes in which keys a part of the experiment file has, in words."""
    before, after = set(old or ()), set(new or ())
    prefix = f"{address}." if address else ""
    yield from (f"{prefix}{key} added" for key in sorted(after - before))
    yield from (f"{prefix}{key} removed" for key in sorted(before - after))


def _differences(address: str, old: Any, new: Any) -> Iterator[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield f"{address} changed"
        return
    yield from key_changes(address, list(map(str, old)), list(map(str, new)))
    for key in old.keys() & new.keys():
        if old[key] != new[key]:
            yield from _differences(f"{address}.{key}", old[key], new[key])
