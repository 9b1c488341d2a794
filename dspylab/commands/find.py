"""Which experiment a command is about."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dspylab.errors import UsageError
from dspylab.record.layout import Layout, find_root

_NAMES = ("experiment.yaml", "experiment.yml")


def find_config(given: Path | None) -> Path:
    """The experiment file: the given one, or the only one in reach.

    Args:
        given: What `--config` says.

    Raises:
        UsageError: If none was given and there is none, or more than one.
    """
    if given is not None:
        return given / _NAMES[0] if given.is_dir() else given
    found = configs_in_reach()
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(
            "there is no experiment here",
            remedy="make one with `dspylab init`, name its file with --config, or go to its folder",
        )
    raise UsageError(
        f"there are several experiments: {', '.join(map(str, found))}",
        remedy="name one of them with --config",
    )


def refuse_files(names: Iterable[str]) -> None:
    """Refuses experiment files where runs or coordinates are to be named.

    Raises:
        UsageError: If there is one among the names.
    """
    for name in names:
        if "=" not in name and name.endswith((".yaml", ".yml")):
            raise UsageError("is a file, not a run", where=name, remedy=f"name the experiment with -c {name}")


def find_layout(given: Path | None) -> Layout:
    """Where the files of an experiment lie, without reading the experiment file.

    Results can be looked at whatever the file says by now.

    Raises:
        UsageError: As `find_config`, and if there is no such file.
    """
    config = find_config(given)
    if not config.is_file():
        raise UsageError("no such file", where=str(config), remedy="name an experiment file with --config")
    folder = config.resolve().parent
    return Layout(folder=folder, root=find_root(folder))


def configs_in_reach() -> list[Path]:
    """The experiments in sight of the working folder, or of the nearest one above it in the repository."""
    here = Path.cwd()
    root = find_root(here)
    for folder in (here, *here.parents):
        if found := configs_in_sight(folder):
            return [Path(os.path.relpath(path, here)) for path in found]
        if folder == root:
            break
    return []


def configs_in_sight(folder: Path = Path()) -> list[Path]:
    """The experiment file of a folder, by default this one, or those under its experiments/."""
    here = [folder / name for name in _NAMES if (folder / name).is_file()]
    return here or sorted(path for name in _NAMES for path in (folder / "experiments").glob(f"*/{name}"))
