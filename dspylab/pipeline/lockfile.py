"""The text of `dvc.lock` and of the run cache, as DVC writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspylab.pipeline.blocks import Unsplittable, blocks, dump, replace

#: Column at which DVC folds lines.
_WIDTH = 80
_EMPTY = "schema: '2.0'\nstages:\n"


class LockTexts:
    """Writes what stages recorded. Parts that many runs have in common are turned into text once."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, str, str], str] = {}

    def updated(
        self, text: str, recorded: Mapping[str, Any], changed: Mapping[str, Mapping[str, Any]]
    ) -> str | None:
        """The lock file with new entries, all other lines as they are.

        Args:
            text: The file; empty if there is none.
            recorded: Its stages, by name, as DVC read them.
            changed: Stage name to its new entry.

        Returns:
            The new text; None if the file is not the way DVC writes it, so its lines say nothing.
        """
        try:
            if blocks(text, "stages").keys() != recorded.keys():
                return None
            return replace(
                text or _EMPTY, "stages", {name: self._stage(name, new) for name, new in changed.items()}
            )
        except Unsplittable:
            return None

    def run_cache_entry(self, content: Mapping[str, Any]) -> str:
        """A file of the run cache."""
        return "".join(self._part(key, value, 0) for key, value in content.items())

    def _stage(self, name: str, content: Mapping[str, Any]) -> str:
        inner = "".join(self._part(key, value, 2) for key, value in content.items())
        return "\n  ".join([f"{name}:", *inner.removesuffix("\n").split("\n")]) + "\n"

    def _part(self, key: str, value: Any, depth: int) -> str:
        memo = (depth, key, repr(value))
        if memo not in self._parts:
            self._parts[memo] = dump(key, value, depth=depth, width=_WIDTH)
        return self._parts[memo]
