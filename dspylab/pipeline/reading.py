"""What DVC's stages read, and what of it changed. Works on DVC's objects without importing DVC."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from dspylab.pipeline.dvcfile import PARAMS_FILE
from dspylab.pipeline.stages import PipelineEntry
from dspylab.pipeline.states import file_change, key_changes, param_changes


class ReadOnce:
    """Lets stages share what they read: each params file and each dependency is read once for all of them.

    Attached anew by every call, so nothing is remembered from one call to the next.
    """

    def __init__(self, entry: PipelineEntry, params_file: Path) -> None:
        self._entry = entry
        self._params_file = os.fspath(params_file)
        self._params: dict[tuple[str, ...], dict[str, Any]] = {}
        self._files: dict[tuple[str, str], Any] = {}

    def attach(self, stages: Iterable[Any]) -> None:
        """Makes the dependencies of stages read through this."""
        for stage in stages:
            for dep in stage.deps:
                if reads_params(dep):
                    dep.read_params = partial(self._read_params, dep)
                    continue
                if not dep.hash_info:
                    # A file that `dvc.lock` does not know yet: in a stage that it knows, DVC begins with the
                    # hash of its version 2 and takes today's once it saves, which would look like a change.
                    dep.update_legacy_hash_name(force=True)
                dep._build = partial(self._build, dep)  # noqa: SLF001

    def _read_params(self, dep: Any, *, flatten: bool = True) -> dict[str, Any]:
        key = (dep.fs_path, str(flatten), *dep.params)
        if key not in self._params:
            if dep.fs_path == self._params_file:
                self._params[key] = {address: self._own(address) for address in dep.params}
            else:
                self._params[key] = type(dep).read_params(dep, flatten=flatten)
        # Copies: DVC's YAML writer would write a value that two stages share as an anchor and an alias.
        return copy.deepcopy(self._params[key])

    def _own(self, address: str) -> Any:
        """A value of the experiment's entry in `params.yaml`, which may not be written yet."""
        value: Any = self._entry.params
        for part in address.split(".")[1:]:
            value = value[part]
        return value

    def _build(self, dep: Any, *args: Any, **kwargs: Any) -> Any:
        key = (dep.fs_path, dep.hash_name)
        if key not in self._files:
            self._files[key] = type(dep)._build(dep, *args, **kwargs)  # noqa: SLF001
        return self._files[key]


def reads_params(dep: Any) -> bool:
    """Whether a dependency of DVC's is values in a params file, not a file or folder."""
    return hasattr(dep, "read_params")


def inputs(stage: Any) -> list[Any]:
    """What a stage reads, in a form that can be compared."""
    found: list[Any] = []
    for dep in stage.deps:
        if reads_params(dep):
            found.append(dep.read_params())
        else:
            found.append(dep.get_hash() if dep.exists else None)
    return found


def input_changes(stage: Any, entry: PipelineEntry) -> Iterator[str]:
    """What changed of a stage's command, params and dependencies since it was recorded, in words."""
    if stage.cmd_changed:
        yield "its command changed"
    folder = os.fspath(entry.config.parent)
    for dep in stage.deps:
        change = next(iter(dep.status().values()), None)
        if change is None:
            continue
        name = dep.def_path.removeprefix(f"{folder}/")
        if isinstance(change, str):
            yield file_change(name, change)
            continue
        old, new = dep.hash_info.value or {}, dep.read_params()
        for address, word in change.items():
            if dep.def_path == PARAMS_FILE:
                # triage.settings.mini lists the keys of models.mini, triage.training those of dataset,
                # triage.sections those of the file.
                model = address.partition(".settings.")[2]
                section = "dataset" if address.endswith(".training") else ""
                place = f"models.{model}" if model else section
                yield from key_changes(place, old.get(address), new.get(address))
            else:
                yield from param_changes(address, word, old.get(address), new.get(address))


def output_changes(stage: Any) -> dict[str, str]:
    """Name of each output that is not as recorded to DVC's word for it, or `lost` if it is nowhere."""
    changes = {}
    for out in stage.outs:
        for word in out.status().values():
            is_nowhere = word == "not in cache" and not out.exists
            changes[PurePath(out.def_path).name] = "lost" if is_nowhere else word
    return changes
