"""Load the user's code: `path:name` and `module:name` references to the objects they name.

A program file is imported under a name of its own, so that two experiments whose files are both called
`program.py` do not mix. Modules beside it are importable from it, as for a script.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dspylab.config.models import Program
from dspylab.errors import ProgramError
from dspylab.program.modules import forget_modules_of_others, modules_under, remember_owner

if TYPE_CHECKING:
    import dspy

ADAPTERS = ("chat", "json", "xml")


class Code:
    """The user's code of one experiment, imported at most once.

    Attributes:
        folder: Folder of the experiment file; paths in references are relative to it.
        root: Root of the repository, or `folder` outside of one; modules below it are code of the experiment.
    """

    def __init__(self, program: Program, folder: Path, root: Path) -> None:
        self.program = program
        self.folder = folder
        self.root = root
        self._modules: dict[str, ModuleType] = {}

    def module(self, reference: str) -> ModuleType:
        """Imports a Python file (relative to the experiment's folder) or a module by name.

        Raises:
            ProgramError: If it does not exist or if importing it raises.
        """
        if reference not in self._modules:
            forget_modules_of_others(self.folder)
            is_file = reference.endswith(".py") or "/" in reference
            self._modules[reference] = self._from_file(reference) if is_file else self._by_name(reference)
            remember_owner(self.folder)
        return self._modules[reference]

    def attribute(self, reference: str) -> Any:
        """The object that `path:name` or `module:name` refers to.

        Raises:
            ProgramError: If the module cannot be imported or has no such attribute.
        """
        source, _, name = reference.rpartition(":")
        value: Any = self.module(source)
        for part in name.split("."):
            if not hasattr(value, part):
                raise ProgramError(
                    f"has no attribute {part!r}",
                    where=self._place(source),
                    remedy=f"define it, or correct {reference!r} in the experiment file{_near(part, value)}",
                )
            value = getattr(value, part)
        return value

    @property
    def source(self) -> str:
        """The program's own module, as a reference."""
        return str(self.program.path or self.program.module)

    def build(self, args: Mapping[str, Any]) -> dspy.Module:
        """Calls the factory.

        Args:
            args: Arguments of the run.

        Raises:
            ProgramError: If there is no factory, if it does not take the arguments, if it raises, or if
                what it returns is no `dspy.Module`.
        """
        import dspy

        factory = self.attribute(f"{self.source}:{self.program.factory}")
        where = f"{self._place(self.source)}: {self.program.factory}()"
        if not callable(factory):
            raise ProgramError("is not callable", where=where, remedy="make program.factory name a function")
        self._check_arguments(factory, args, where)
        try:
            module = factory(**args)
        except Exception as error:
            raise ProgramError(
                f"raised {type(error).__name__}: {error}",
                where=self._where_raised(error, where),
                remedy=f"it was called with {_arguments(args)}; correct it or the arguments in the matrix",
            ) from error
        if not isinstance(module, dspy.Module):
            raise ProgramError(
                f"returned {type(module).__name__}, not a dspy.Module",
                where=where,
                remedy="return an instance of a dspy.Module, such as dspy.Predict(...)",
            )
        return module

    def adapter(self, name: str | None) -> dspy.Adapter | None:
        """The adapter of a run: `chat`, `json`, `xml`, a `path:name`, or None for DSPy's default.

        Raises:
            ProgramError: If a `path:name` does not give a `dspy.Adapter`.
        """
        import dspy

        if name is None:
            return None
        if name in ADAPTERS:
            return {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}[name]()
        value = self.attribute(name)
        where = f"{self._place(name.rpartition(':')[0])}: {name.rpartition(':')[2]}"
        try:
            adapter = value() if isinstance(value, type) else value
        except Exception as error:
            raise ProgramError(
                f"raised {type(error).__name__}: {error}",
                where=where,
                remedy="an adapter class must need no arguments",
            ) from error
        if not isinstance(adapter, dspy.Adapter):
            raise ProgramError(
                f"is a {type(adapter).__name__}, not a dspy.Adapter",
                where=where,
                remedy="name a subclass or an instance of dspy.Adapter, or one of chat, json, xml",
            )
        return adapter

    def files(self) -> list[Path]:
        """Every Python file of the repository that the imported code consists of, sorted."""
        found = modules_under(self.root, self._modules.values())
        return sorted(found)

    def _from_file(self, reference: str) -> ModuleType:
        path = (self.folder / reference).resolve()
        if not path.is_file():
            raise ProgramError(
                "no such file",
                where=str(path),
                remedy=f"create it, or correct {reference!r} in the experiment file",
            )
        name = f"dspylab_program_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ProgramError("is not a Python file", where=str(path), remedy="give it the ending .py")
        self._search(path.parent)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            raise self._import_problem(error, str(path)) from error
        return module

    def _by_name(self, reference: str) -> ModuleType:
        self._search(self.folder)
        self._search(self.root)
        try:
            return importlib.import_module(reference)
        except BaseException as error:
            raise self._import_problem(error, reference) from error

    def _search(self, folder: Path) -> None:
        """Puts a folder in front of the module search path, as Python does for a script."""
        text = str(folder)
        if text in sys.path:
            sys.path.remove(text)
        sys.path.insert(0, text)
        importlib.invalidate_caches()

    def _import_problem(self, error: BaseException, source: str) -> BaseException:
        if isinstance(error, KeyboardInterrupt):
            return error
        where = self._where_raised(error, source)
        if isinstance(error, ModuleNotFoundError):
            missing = error.name or str(error)
            return ProgramError(
                f"imports {missing!r}, which is not there",
                where=where,
                remedy=f"install it, or put {missing}.py beside the program",
            )
        if isinstance(error, SyntaxError):
            line = f"{error.filename or source}:{error.lineno or 1}"
            return ProgramError(f"is not valid Python: {error.msg}", where=line, remedy="correct the line")
        return ProgramError(
            f"importing it raised {type(error).__name__}: {error}", where=where, remedy="correct the module"
        )

    def _where_raised(self, error: BaseException, default: str) -> str:
        """`file:line` of the innermost frame in the user's code."""
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(self.root)
        ]
        own = [f for f in frames if "site-packages" not in f.filename]
        return f"{own[-1].filename}:{own[-1].lineno}" if own else default

    def _check_arguments(self, factory: Any, args: Mapping[str, Any], where: str) -> None:
        try:
            inspect.signature(factory).bind(**args)
        except TypeError as error:
            accepted = ", ".join(inspect.signature(factory).parameters) or "none"
            raise ProgramError(
                f"cannot be called with {_arguments(args)}: {error}",
                where=where,
                remedy=f"its parameters are: {accepted}; correct program.args or the program.* axes",
            ) from error
        except ValueError:  # a builtin without a signature: let the call decide
            return

    def _place(self, source: str) -> str:
        module = self._modules.get(source)
        return str(getattr(module, "__file__", None) or source)


def _arguments(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in args.items()) or "no arguments"


def _near(name: str, owner: object) -> str:
    close = difflib.get_close_matches(name, [n for n in dir(owner) if not n.startswith("_")], n=1)
    return f" (did you mean {close[0]}?)" if close else ""
