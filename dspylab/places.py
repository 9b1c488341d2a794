"""How messages name a file."""

from __future__ import annotations

from pathlib import Path


def shown_path(path: Path) -> str:
    """A path as people read it: relative to the working folder when it lies below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # it lies elsewhere, or the working folder is gone
        return str(path)
