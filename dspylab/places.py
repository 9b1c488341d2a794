"""How messages name a file."""

from __future__ import annotations

import os
from pathlib import Path


def shown_path(path: Path) -> str:
    """A path as people read it: relative to the working folder when it lies below it, without `..` inside."""
    if ".." in path.parts:
        short = Path(os.path.normpath(path))
        # Behind a link to a folder, `..` leads elsewhere than it looks.
        path = short if os.path.realpath(short) == os.path.realpath(path) else path
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # it lies elsewhere, or the working folder is gone
        return str(path)
