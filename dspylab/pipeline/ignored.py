"""What DVC keeps git must ignore, and must not track: git is asked once for all files, not once a file.

The outputs are DVC's own objects, as `repo.py` has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dspylab.errors import RepositoryError
from dspylab.pipeline import git


def refuse_tracked(root: Path, outs: Iterable[Any]) -> None:
    """Stops where git tracks an output that DVC has to keep: no run could be recorded with it.

    Args:
        root: Root of the DVC repository.
        outs: Outputs of stages. Those that are kept in git by design do not count.

    Raises:
        RepositoryError: If git tracks one; it names the command that takes it out of git.
    """
    _refuse(root, _by_name(root, outs))


def skip_ignored(root: Path, outs: Iterable[Any]) -> None:
    """As `refuse_tracked`; then spares DVC the question about each output that git ignores already.

    Raises:
        RepositoryError: If git tracks one.
    """
    kept = _by_name(root, outs)
    _refuse(root, kept)
    for name in git.ignored(root, kept) if kept else ():
        kept[name].ignore = _nothing


def _by_name(root: Path, outs: Iterable[Any]) -> dict[str, Any]:
    """Outputs that git has to ignore, by their names relative to the root."""
    return {os.path.relpath(out.fs_path, root): out for out in outs if out.use_scm_ignore}


def _refuse(root: Path, kept: dict[str, Any]) -> None:
    tracked = git.tracked(root, kept) if kept else ()
    clash = next((name for name in tracked if name in kept), None)
    if clash:
        folder = Path(clash).parent.parent
        remedy = f"take it out of git, its content stays: `git rm -r --cached {folder}`"
        raise RepositoryError("is tracked by git, and DVC has to keep it", where=clash, remedy=remedy)


def _nothing() -> None:
    """Stands in for a question that was answered for all files at once."""
