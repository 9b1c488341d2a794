"""Which files of the repository the user's code consists of, found by looking at what was imported."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

_FOREIGN_PARTS = frozenset(
    {"site-packages", "dist-packages", ".venv", "venv", ".tox", ".nox", "node_modules"}
)


def modules_under(root: Path, modules: Iterable[ModuleType]) -> set[Path]:
    """Files of `modules` and of everything below `root` that they import, also inside functions.

    Only modules that are imported (or importable at the place where a function imports them) count, so
    a file that merely lies in the repository does not.

    Args:
        root: Root of the repository.
        modules: Where to start.

    Returns:
        Absolute paths of Python files.
    """
    found: set[Path] = set()
    waiting = [path for module in modules if (path := own_file(module, root))]
    by_file = {path: module for module in list(sys.modules.values()) if (path := own_file(module, root))}
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        module = by_file.get(path)
        for name in _imported_names(path, module):
            target = _file_of(name, root)
            if target is not None and target not in found:
                waiting.append(target)
    return found


def own_file(module: ModuleType | None, root: Path) -> Path | None:
    """The module's file if it is Python source of the repository, else None."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(".py"):
        return None
    return _own(Path(file), root)


def forget_modules_of_others(folder: Path) -> None:
    """Drops helper modules that another experiment's program imported from its own folder.

    Two experiments may each have a `helpers.py`; without this the second would get the first one's.
    Modules that stay in use keep working: only the name is freed.
    """
    for name, owner in list(_OWNERS.items()):
        if owner != folder:
            sys.modules.pop(name, None)
            del _OWNERS[name]
    others = {str(owner) for owner in _FOLDERS if owner != folder}
    sys.path[:] = [entry for entry in sys.path if entry not in others]
    _FOLDERS.add(folder)


def remember_owner(folder: Path) -> None:
    """Notes which top-level modules were imported from an experiment's own folder."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if (
            isinstance(file, str)
            and Path(file).is_relative_to(folder)
            and not _is_foreign(Path(file), folder)
        ):
            _OWNERS.setdefault(name, folder)


_OWNERS: dict[str, Path] = {}
_FOLDERS: set[Path] = set()


def _imported_names(path: Path, module: ModuleType | None) -> Iterator[str]:
    """Absolute names that a file may import, `from a import b` as both `a` and `a.b`."""
    package = getattr(module, "__package__", None) or ""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _prefixes(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            if base:
                yield from _prefixes(base)
                yield from (f"{base}.{alias.name}" for alias in node.names)


def _prefixes(name: str) -> Iterator[str]:
    """`a.b.c` also runs `a/__init__.py` and `a/b/__init__.py`."""
    parts = name.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _absolute(node: ast.ImportFrom, package: str) -> str | None:
    if not node.level:
        return node.module
    parts = package.split(".") if package else []
    if node.level - 1 > len(parts):
        return None
    kept = parts[: len(parts) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])]) or None


def _file_of(name: str, root: Path) -> Path | None:
    module = sys.modules.get(name)
    if module is not None:
        return own_file(module, root)
    parent, _, _ = name.rpartition(".")
    if parent and (parent not in sys.modules or not hasattr(sys.modules[parent], "__path__")):
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return _own(Path(spec.origin), root)


def _own(path: Path, root: Path) -> Path | None:
    resolved = path.resolve()
    return resolved if resolved.is_relative_to(root) and not _is_foreign(resolved, root) else None


def _is_foreign(path: Path, root: Path) -> bool:
    return bool(_FOREIGN_PARTS.intersection(path.relative_to(root).parts))
