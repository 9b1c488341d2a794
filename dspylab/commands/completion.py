"""What a shell offers when Tab is pressed. Whatever goes wrong, it offers nothing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dspylab.commands.find import configs_in_reach, find_config
from dspylab.config.load import load
from dspylab.errors import DspylabError
from dspylab.pipeline.stages import coordinate
from dspylab.plan.runs import plan_runs
from dspylab.records import RunSpec

_SUFFIXES = (".yaml", ".yml")


def experiment_files(typed: str) -> list[str]:
    """The experiments in reach, or else folders and YAML files, as a shell would complete them."""
    in_reach = [str(path) for path in configs_in_reach() if str(path).startswith(typed)]
    if in_reach:
        return in_reach
    folder = Path(typed) if typed.endswith("/") else Path(typed).parent
    try:
        found = [path for path in folder.iterdir() if path.is_dir() or path.suffix in _SUFFIXES]
    except OSError:
        return []
    names = [f"{path}/" if path.is_dir() else str(path) for path in found]
    return sorted(name for name in names if name.startswith(typed))


def coordinates(config: Path | str | None, given: Collection[str], typed: str) -> list[str]:
    """The coordinates `axis=value` of the runs that what was given so far leaves.

    Args:
        config: What `--config` says, which older releases of typer give as text while a shell completes.
        given: Coordinates before the one that is completed.
        typed: Its beginning.
    """
    runs = [[coordinate(axis, value) for axis, value in run.coordinates.items()] for run in _runs(config)]
    left = [words for words in runs if set(given) <= set(words)]
    offered = dict.fromkeys(word for words in left for word in words if word not in given)
    return [word for word in offered if word.startswith(typed)]


def _runs(config: Path | str | None) -> tuple[RunSpec, ...]:
    try:
        return plan_runs(load(find_config(None if config is None else Path(config))))
    except DspylabError:
        return ()
