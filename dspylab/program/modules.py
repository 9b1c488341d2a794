"""The modules of the user's code: which of them are the repository's own, and what they import.

A repository's own modules are those below its root, except for what was installed there (a virtual
environment, an interpreter) and for dspylab itself.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from dspylab.places import shown_path

_FOREIGN_PARTS = frozenset(
    {"site-packages", "dist-packages", ".venv", "venv", ".tox", ".nox", "node_modules"}
)
_SELF = Path(__file__).parent.parent


def own_path(file: str, root: Path) -> Path | None:
    """Where a file lies below `root`, or None when it is not of the repository.

    Args:
        file: Absolute path of a file or folder; it or the root may be reached through a link.
        root: Root of the repository.
    """
    folder, name = os.path.split(file)
    own = _own_folder(folder, root)
    return None if own is None or name in _FOREIGN_PARTS else own / name


@functools.lru_cache(maxsize=10_000)
def _own_folder(folder: str, root: Path) -> Path | None:
    """As `own_path`, once for all the modules of a folder: there are thousands of modules."""
    path, below = Path(folder), root
    if not path.is_relative_to(below):
        path, below = Path(os.path.realpath(folder)), Path(os.path.realpath(root))
        if not path.is_relative_to(below):
            return None
    relative = path.relative_to(below)
    if _FOREIGN_PARTS.intersection(relative.parts):
        return None
    # The interpreter may lie below the root; the root below the interpreter is somebody's odd choice.
    installed = any(place.is_relative_to(below) and path.is_relative_to(place) for place in _installed())
    return None if installed else root / relative


def own_frame(error: BaseException, root: Path) -> str | None:
    """`file:line` of the innermost frame of an error that is in the user's code; None without one."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = own_path(frame.filename, root) if Path(frame.filename).is_absolute() else None
        if path is not None and not path.is_relative_to(_SELF):
            return f"{shown_path(path)}:{frame.lineno}"
    return None


class ModuleSpace:
    """The modules of one experiment, kept apart from those of the others that this process works with.

    Python knows a module by its name alone, and two experiments may each have a `helpers.py`. So only the
    modules of one space can be imported at a time; those of the others are set aside until their space is
    entered again. What was imported goes on working: only its name is freed. An import at call time finds
    the right module as long as no other space was entered since.

    Attributes:
        root: Root of the repository; the modules below it are the experiment's.
    """

    _current: ClassVar[ModuleSpace | None] = None
    _entering: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, ModuleType] = {}
        self._modules_before: frozenset[str] | None = None
        self._search: list[str] = []

    def enter(self) -> None:
        """Makes the names in this space importable, and those of the other spaces not."""
        with ModuleSpace._entering:
            current = ModuleSpace._current
            if current is self:
                return
            if current is not None:
                current._leave()  # noqa: SLF001 - of the same class
            if self._modules_before is None:
                self._modules_before = frozenset(sys.modules)
            sys.path[:0] = self._search
            sys.modules.update(self._modules)
            importlib.invalidate_caches()
            ModuleSpace._current = self

    @contextlib.contextmanager
    def importing(self, *folders: Path) -> Iterator[dict[str, ModuleType]]:
        """Enters the space to import modules from folders, as Python does from the folder of a script.

        Args:
            folders: Where to look for modules first, the first one before the others.

        Yields:
            The own modules that were imported, by name: filled at the end, and empty when something was
            raised. Then they are dropped, so that after a correction all are read anew.
        """
        self.enter()
        modules, search = frozenset(sys.modules), list(sys.path)
        imported: dict[str, ModuleType] = {}
        sys.path[:0] = [str(folder) for folder in folders if str(folder) not in self._search]
        importlib.invalidate_caches()
        try:
            yield imported
            imported.update(self._own(modules))
        except BaseException:
            self._forget(self._own(modules))
            raise
        finally:
            # With what the user's code has put there itself.
            self._search = [entry for entry in sys.path if entry not in search] + self._search

    def _leave(self) -> None:
        self._modules = self._own(self._modules_before or frozenset())
        self._forget(self._modules)
        sys.path[:] = [entry for entry in sys.path if entry not in self._search]

    def _own(self, before: frozenset[str]) -> dict[str, ModuleType]:
        """The experiment's modules that are imported now and were not before, by name."""
        # Of names alone: thousands of new pairs would set the garbage collector off on all that is imported.
        names = [name for name in tuple(sys.modules) if name not in before]
        modules = {name: sys.modules.get(name) for name in names if name.partition(".")[0] != "dspylab"}
        return {name: module for name, module in modules.items() if module and self._holds(module)}

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            del sys.modules[name]

    def _holds(self, module: ModuleType) -> bool:
        return any(own_path(place, self.root) for place in _places(module))


def modules_under(root: Path, names: Iterable[str]) -> set[Path]:
    """Files of modules and of everything below `root` that they import, also inside functions.

    Found by reading the import statements; nothing is executed. A file that merely lies in the repository
    does not count, nor does one whose name is only computed at call time.

    Args:
        root: Root of the repository.
        names: Modules to start from. They and what they import must be importable now.

    Returns:
        Absolute paths of modules: Python files and compiled extensions.
    """
    finder = _Finder(root)
    found: set[Path] = set()
    waiting = [prefix for name in names for prefix in _prefixes(name)]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        path = finder.file(name)
        if path is None or path in found:
            continue
        found.add(path)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        new = [imported for imported in _imported_names(path, package) if imported not in seen]
        seen.update(new)
        waiting += new
    return found


class _Finder:
    """Finds own modules by name without importing them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._specs: dict[str, ModuleSpec | None] = {}

    def file(self, name: str) -> Path | None:
        """The module's file if it is of the repository."""
        if name in sys.modules:
            file = _file(sys.modules[name])
        else:
            spec = self._spec(name)
            file = spec.origin if spec is not None and spec.has_location else None
        return own_path(file, self._root) if file else None

    def _spec(self, name: str) -> ModuleSpec | None:
        if name not in self._specs:
            parent = name.rpartition(".")[0]
            locations = self._locations(parent) if parent else None
            self._specs[name] = None if locations == [] else _find_spec(name, locations)
        return self._specs[name]

    def _locations(self, package: str) -> list[str]:
        """Folders of an own package that its submodules may lie in."""
        if package in sys.modules:
            places = _folders(sys.modules[package])
        elif (spec := self._spec(package)) is not None:
            places = list(spec.submodule_search_locations or ())
        else:
            # Python finds a namespace package inside another only once that one is imported.
            parent, _, leaf = package.rpartition(".")
            above = self._locations(parent) if parent else []
            places = [f"{folder}/{leaf}" for folder in above if Path(folder, leaf).is_dir()]
        return [place for place in places if own_path(place, self._root)]


def _find_spec(name: str, locations: list[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, locations)
        except (ImportError, ValueError, AttributeError, KeyError):
            continue
        if spec is not None:
            return spec
    return None


def _file(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else None


def _places(module: ModuleType) -> list[str]:
    """The module's file, or the folders of a namespace package, which has none."""
    file = _file(module)
    return [file] if file is not None else _folders(module)


def _folders(package: ModuleType) -> list[str]:
    """What a package's submodules are looked for in; empty for what is no package."""
    try:
        return [place for place in getattr(package, "__path__", ()) if isinstance(place, str)]
    except (TypeError, KeyError):  # no paths, or those of a namespace package whose parent is gone
        return []


def _imported_names(path: Path, package: str) -> Iterator[str]:
    """Absolute names that a file may import, `from a import b` as both `a` and `a.b`."""
    if path.suffix != ".py":
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # it is imported at call time, if ever: then it will tell
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
    if node.level > len(parts):
        return None
    return ".".join([*parts[: len(parts) - (node.level - 1)], *([node.module] if node.module else [])])


@functools.cache
def _installed() -> tuple[Path, ...]:
    """Folders of the interpreter and of what is installed for it."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    paths = sysconfig.get_paths()
    return tuple({Path(form) for name in names for form in (paths[name], os.path.realpath(paths[name]))})
