"""Load the user's code: `path:name` and `module:name` references to the objects they name.

A program file is imported under a name of its own, so that two experiments whose files are both called
`program.py` do not mix. Modules beside it, beside the experiment file and at the root of the repository are
importable from it, the nearest first.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dspylab.config.models import Program
from dspylab.config.references import names_file
from dspylab.config.wording import near_miss, plain
from dspylab.errors import ProgramError
from dspylab.places import shown_path
from dspylab.printable import printable, shortened
from dspylab.program.exports import kind_of, named_metrics
from dspylab.program.modules import ModuleSpace, modules_under, own_frame, own_path

if TYPE_CHECKING:
    import dspy

#: Longest message of the user's exceptions that ours repeat, in characters.
_MAX_REASON = 500


class Code:
    """The user's code of one experiment, imported at most once.

    Attributes:
        program: The `program` section.
        folder: Folder of the experiment file; paths in references are relative to it.
        root: Root of the repository, or `folder` outside of one; modules below it are code of the experiment.

    Args:
        program: As the attribute.
        folder: As the attribute.
        root: As the attribute.
        search: Further folders that modules may lie in, for an interpreter that does not know them.
    """

    def __init__(self, program: Program, folder: Path, root: Path, search: Sequence[Path] = ()) -> None:
        self.program = program
        self.folder = folder
        self.root = root
        self._search = search
        self._space = ModuleSpace(root)
        self._modules: dict[str, ModuleType] = {}
        self._imported: dict[str, ModuleType] = {}

    def enter(self) -> None:
        """Has what its functions import from now on be its own modules, not those of another experiment."""
        self._space.enter()

    def module(self, reference: str) -> ModuleType:
        """Imports a Python file (relative to the experiment's folder) or a module by name.

        Raises:
            ProgramError: If it does not exist or if importing it raises.
        """
        self._space.enter()
        if reference not in self._modules:
            path = self._program_file(reference) if names_file(reference) else None
            folders = [*([] if path is None else [path.parent]), self.folder, self.root, *self._search]
            try:
                with self._space.importing(*dict.fromkeys(folders)) as imported:
                    module = importlib.import_module(reference) if path is None else self._from_file(path)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                raise self._import_problem(error, reference) from error
            self._modules[reference] = module
            self._imported.update(imported)
        return self._modules[reference]

    def attribute(self, reference: str) -> Any:
        """The object that `path:name` or `module:name` refers to.

        Raises:
            ProgramError: If the module cannot be imported or has no such attribute.
        """
        source, _, name = reference.rpartition(":")
        value: Any = self.module(source)
        where = self._place(source)
        for part in name.split("."):
            try:
                value = getattr(value, part)
            except AttributeError as error:
                near = near_miss(part, [other for other in dir(value) if not other.startswith("_")])
                named = "program.factory" if reference == self.factory else repr(reference)
                raise ProgramError(
                    f"has no attribute {part!r}",
                    where=where,
                    remedy=f"define it, or correct {named} in the experiment file"
                    + (f" (did you mean {near}?)" if near else ""),
                ) from error
            except Exception as error:
                raise self._raised(error, f"getting {part!r} from it", where, "correct the module") from error
            where = f"{self._place(source)}: {part}"
        return value

    @property
    def source(self) -> str:
        """The program's own module, as a reference."""
        return str(self.program.path or self.program.module)

    @property
    def factory(self) -> str:
        """What builds the program, or is it, as a reference."""
        return f"{self.source}:{self.program.factory}"

    def build(self, args: Mapping[str, Any]) -> dspy.Module:
        """Calls the factory, or copies the module that stands in its place.

        Args:
            args: Arguments of the run.

        Raises:
            ProgramError: If there is no factory, if it does not take the arguments, if it raises, or if
                what it returns is no `dspy.Module`.
        """
        import dspy

        factory = self.attribute(self.factory)
        where = f"{self._definition(factory, self.source)}: {self.program.factory}()"
        if isinstance(factory, dspy.Module):
            if args:
                raise ProgramError(
                    f"is a module, not a function, and takes no arguments: {_arguments(args)}",
                    where=where.removesuffix("()"),
                    remedy="make program.factory name a function or a class, or vary no program.* axis",
                )
            return factory.deepcopy()
        if not callable(factory):
            raise ProgramError("is not callable", where=where, remedy="make program.factory name a function")
        self._check_arguments(factory, args, where)
        try:
            module = factory(**args)
        except (Exception, SystemExit) as error:
            remedy = f"it was called with {_arguments(args)}; correct it or the arguments in the matrix"
            raise self._raised(error, f"{self.program.factory}()", where, remedy) from error
        if not isinstance(module, dspy.Module):
            raise ProgramError(
                f"returned {kind_of(module)}, not a dspy.Module",
                where=where,
                remedy="return an instance of a dspy.Module, such as dspy.Predict(...)",
            )
        return module

    def parameters(self) -> tuple[str, ...] | None:
        """Names of the arguments that the factory takes; None if it takes any, or does not say.

        Raises:
            ProgramError: If there is no factory.
        """
        import dspy

        factory = self.attribute(self.factory)
        # What such a thing is called with instead of arguments, `build` knows.
        is_called = callable(factory) and not isinstance(factory, dspy.Module)
        signature = _signature(factory) if is_called else None
        if signature is None:
            return None
        found = signature.parameters.values()
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found):
            return None
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return tuple(parameter.name for parameter in found if parameter.kind in named)

    def metric(self, name: str) -> Any:
        """A metric that the program exports: what its `metrics()` returns under a name.

        Raises:
            ProgramError: If the program has no `metrics()`, if that raises, returns something else than a
                mapping or a list of callables, or nothing of this name.
        """
        exported, where = self._exported
        if name not in exported:
            near = near_miss(name, list(exported))
            names = ", ".join(map(plain, exported)) or "nothing"
            raise ProgramError(
                f"returns no metric {name!r}" + (f" (did you mean {near}?)" if near else ""),
                where=where,
                remedy=f"it returns {names}; add {name!r} to it, or correct metrics.{name} in the experiment "
                "file",
            )
        return exported[name]

    @functools.cached_property
    def _exported(self) -> tuple[Mapping[str, Any], str]:
        """What the program's `metrics()` returns, by name, and where it is defined."""
        module = self.module(self.source)
        if not hasattr(module, "metrics"):
            near = near_miss("metrics", [other for other in dir(module) if not other.startswith("_")])
            raise ProgramError(
                "has no metrics(), which a metric of type program is taken from"
                + (f" (did you mean {near}?)" if near else ""),
                where=self._place(self.source),
                remedy="define metrics(), which returns {name: callable}, or write type: path with a ref",
            )
        function = self.attribute(f"{self.source}:metrics")
        where = f"{self._definition(function, self.source)}: metrics()"
        if not callable(function):
            remedy = "make it a function without arguments that returns {name: callable}"
            raise ProgramError(f"is {kind_of(function)}, not a function", where=where, remedy=remedy)
        self._check_arguments(function, {}, where)
        try:
            returned = function()
        except (Exception, SystemExit) as error:
            raise self._raised(error, "metrics()", where, "correct it") from error
        return named_metrics(returned, where), where

    def adapter(self, name: str) -> dspy.Adapter:
        """The adapter that a `path:name` refers to; `adapter_of` knows those that have a name of their own.

        Raises:
            ProgramError: If it is no `dspy.Adapter`.
        """
        import dspy

        value = self.attribute(name)
        source, _, attribute = name.rpartition(":")
        where = f"{self._definition(value, source)}: {attribute}"
        try:
            adapter = value() if isinstance(value, type) else value
        except (Exception, SystemExit) as error:
            remedy = "an adapter class must need no arguments"
            raise self._raised(error, f"{attribute}()", where, remedy) from error
        if not isinstance(adapter, dspy.Adapter):
            raise ProgramError(
                f"is {kind_of(adapter)}, not a dspy.Adapter",
                where=where,
                remedy="name a subclass or an instance of dspy.Adapter, or one of chat, json, xml, compact",
            )
        return adapter

    def files(self) -> list[Path]:
        """Every module file of the repository that the imported code consists of, sorted."""
        self._space.enter()
        named = [reference for reference in self._modules if not names_file(reference)]
        return sorted(modules_under(self.root, [*self._imported, *named]))

    def _program_file(self, reference: str) -> Path:
        path = Path(os.path.abspath(self.folder / reference))  # noqa: PTH100  # links stay, as elsewhere
        if not path.is_file():
            raise ProgramError(
                "no such file",
                where=shown_path(path),
                remedy=f"create it, or correct {reference!r} in the experiment file",
            )
        if own_path(str(path), self.root) is None:
            raise ProgramError(
                f"lies outside of the repository {self.root}",
                where=str(path),
                remedy="move it into the repository, so that a change of it is noticed",
            )
        if path.suffix != ".py":
            raise ProgramError(
                "is not a Python file", where=shown_path(path), remedy="give it the ending .py"
            )
        return path

    def _from_file(self, path: Path) -> ModuleType:
        name = f"dspylab_program_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        if name in self._imported:
            return self._imported[name]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    def _import_problem(self, error: BaseException, reference: str) -> ProgramError:
        place = shown_path(self.folder / reference) if names_file(reference) else reference
        where = own_frame(error, self.root)
        if isinstance(error, ModuleNotFoundError) and error.name:
            top = error.name.partition(".")[0]
            if where is None and not names_file(reference):
                return ProgramError(
                    f"there is no module {error.name!r}",
                    where=reference,
                    remedy="correct the name in the experiment file, or install the package that has it",
                )
            return ProgramError(
                f"imports {error.name!r}, which is not there",
                where=where or place,
                remedy=f"install it, or put {top}.py beside {Path(reference).name}",
            )
        if isinstance(error, SyntaxError):
            line = f"{shown_path(Path(error.filename))}:{error.lineno or 1}" if error.filename else where
            return ProgramError(
                f"is not valid Python: {error.msg}", where=line or place, remedy="correct the line"
            )
        remedy = 'correct the module; what it does as a script belongs below `if __name__ == "__main__":`'
        return self._raised(error, "importing it", place, remedy)

    def _raised(self, error: BaseException, what: str, where: str, remedy: str) -> ProgramError:
        """The user's exception as an error of ours, at the line of the user's code that it came from."""
        reason = shortened(printable(" ".join(str(error).split())), _MAX_REASON)
        return ProgramError(
            f"{what} raised {type(error).__name__}" + (f": {reason}" if reason else ""),
            where=own_frame(error, self.root) or where,
            remedy=remedy,
        )

    def _check_arguments(self, factory: Any, args: Mapping[str, Any], where: str) -> None:
        signature = _signature(factory)
        if signature is None:  # let the call decide
            return
        try:
            signature.bind(**args)
        except TypeError as error:
            accepted = ", ".join(map(str, signature.parameters.values())) or "none"
            raise ProgramError(
                f"cannot be called with {_arguments(args)}: {error}",
                where=where,
                remedy=f"its parameters are: {accepted}; correct program.args or the program.* axes",
            ) from error

    def _definition(self, value: Any, source: str) -> str:
        """`file:line` where a function or class of the user's is defined, or else its module."""
        try:
            target = inspect.unwrap(value)
            file, line = inspect.getsourcefile(target), inspect.getsourcelines(target)[1]
        except (TypeError, OSError, ValueError):
            return self._place(source)
        return f"{shown_path(Path(file))}:{line}" if file else self._place(source)

    def _place(self, source: str) -> str:
        file = getattr(self._modules.get(source), "__file__", None)
        return shown_path(Path(file)) if file else source


def _signature(factory: Any) -> inspect.Signature | None:
    """What a function or a class is called with; None for a builtin that does not say."""
    import dspy

    try:
        if isinstance(factory, type) and issubclass(factory, dspy.Module):
            # The metaclass of these says that it takes anything.
            own = inspect.signature(factory.__init__)  # type: ignore[misc]
            return own.replace(parameters=[*own.parameters.values()][1:])
        return inspect.signature(factory)
    except ValueError:
        return None


def _arguments(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={plain(reprlib.repr(value))}" for name, value in args.items()) or "no arguments"
