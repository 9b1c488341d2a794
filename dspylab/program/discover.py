"""Find out what a program file holds: its factory, fields, metrics, datasets, and the model it configures.

For `dspylab init --from`: what is found here is a first proposal, which a person reads and corrects. The file
is imported, and its factory called once without arguments; nothing else of it is.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, UnionType
from typing import TYPE_CHECKING, Any, Literal

from dspylab.config.files import DATASET_KINDS
from dspylab.config.models import Program
from dspylab.errors import DspylabError, ProgramError
from dspylab.places import shown_path
from dspylab.program.formats import read_file
from dspylab.program.load import Code

if TYPE_CHECKING:
    import dspy

#: Functions of these names are factories although they do not say what they return; others are not called.
_FACTORY_NAMES = frozenset(
    f"{verb}{noun}"
    for verb in ("build", "create", "get", "make")
    for noun in ("", "_module", "_pipeline", "_program")
    if verb + noun not in ("get", "create")
)
_EXAMPLE_NAMES = frozenset({"ex", "example", "expected", "gold", "truth"})
_PREDICTION_NAMES = frozenset({"output", "pred", "predicted", "prediction"})
#: Settings of a `dspy.LM` that an experiment file may hold. Never the key.
_MODEL_SETTINGS = ("temperature", "max_tokens", "api_base")
_DATA_FOLDERS = (".", "data", "dataset", "datasets")
#: Larger files are not opened, in bytes: some formats are read whole to see their first row.
_LARGEST_FILE = 100_000_000
#: Fields that tell rows apart, when each row has a value of its own there.
_ID_NAMES = ("id", "_id", "example_id", "row_id", "question_id", "qid", "uid", "uuid")
_TRAIN_NAMES = ("train", "trainset", "training")
_TEST_NAMES = ("test", "testset", "dev", "devset", "valset", "val", "validation", "eval", "evalset")

Kind = Literal["text", "number", "other"]


@dataclass(frozen=True, slots=True)
class FoundDataset:
    """Where examples are that have all inputs of the program.

    Attributes:
        train: File, or name of a list in the program; None when there is only one set.
        test: As `train`; what is scored.
        labels: Fields of its first example beside the inputs and the id.
        id: Field that tells the examples of each set apart; None if there is none.
        others: Further ones that fit, which were not chosen.
    """

    train: Path | str | None
    test: Path | str
    labels: tuple[str, ...]
    id: str | None
    others: tuple[Path | str, ...]


@dataclass(frozen=True, slots=True)
class FoundProgram:
    """What a program file holds.

    Attributes:
        path: The file.
        module: Its name as a module of a package; None for a file that stands by itself.
        factory: Name of the function, class or module that the runs are built with.
        others: Further names that would do as well.
        arguments: Arguments of the factory whose defaults are plain values, with these.
        inputs: Fields that the program is called with.
        outputs: Fields that it answers with, and what they hold; a guess for a module of several predictors.
        metrics: Names of metric functions.
        dataset: Examples in the file, beside it or above it; None if there are none that fit.
        model: The model that the file configures and its settings, as in an experiment; None if it does not.
    """

    path: Path
    module: str | None
    factory: str
    others: tuple[str, ...]
    arguments: Mapping[str, str | int | float | bool]
    inputs: tuple[str, ...]
    outputs: Mapping[str, Kind]
    metrics: tuple[str, ...]
    dataset: FoundDataset | None
    model: Mapping[str, Any] | None


def discover(path: Path, root: Path) -> FoundProgram:
    """Imports a program file and looks at what it holds.

    Args:
        path: The file, below `root`.
        root: Root of the repository.

    Raises:
        ProgramError: If it cannot be imported, or holds nothing that gives a `dspy.Module`.
    """
    import dspy

    name = _module_name(path)
    source = name or path.name
    code = Code(Program(module=source), path.parent, root)
    module = code.module(source)
    factories = _factories(module)
    if not factories:
        raise ProgramError(
            "has no program: nothing in it gives a dspy.Module without arguments, and nothing is one",
            where=shown_path(path),
            remedy="add a function: def build() -> dspy.Module: return ...",
        )
    factory, *others = factories
    # The same `Code`, so that the file is not imported a second time.
    code.program = Program(module=source, factory=factory)
    built = code.build({})
    inputs = _inputs(built)
    configured = dspy.settings.lm
    return FoundProgram(
        path=path,
        module=name,
        factory=factory,
        others=tuple(others),
        arguments=_arguments(getattr(module, factory)),
        inputs=inputs,
        outputs=_outputs(built),
        metrics=tuple(metric_functions(module)),
        dataset=_dataset(module, path.parent, root, inputs),
        model=_model(configured) if isinstance(configured, dspy.LM) else None,
    )


def _module_name(path: Path) -> str | None:
    """Dotted name of a file in a package, which may import its neighbours by `from .`; None for others."""
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        parts.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(parts)) if len(parts) > 1 else None


def _factories(module: ModuleType) -> list[str]:
    """Names of what gives a `dspy.Module` without arguments: functions, or else instances, or else classes.

    Classes come in the reverse order of their definition: what stands last usually uses what stands first.
    """
    import dspy

    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    own = {name: value for name, value in public.items() if _is_of(value, module) and _needs_nothing(value)}
    functions = [
        name
        for name, value in own.items()
        if inspect.isfunction(value) and (_returns_module(value) or name in _FACTORY_NAMES)
    ]
    instances = [name for name, value in public.items() if isinstance(value, dspy.Module)]
    classes = [
        name for name, value in own.items() if isinstance(value, type) and issubclass(value, dspy.Module)
    ]
    return functions or instances or classes[::-1]


def _is_of(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _arguments(factory: Any) -> dict[str, str | int | float | bool]:
    """Arguments with plain defaults; an instance takes none."""
    signature = _signature(factory)
    return {
        parameter.name: parameter.default
        for parameter in (signature.parameters.values() if signature is not None else ())
        if isinstance(parameter.default, str | int | float | bool)
    }


def _signature(factory: Any) -> inspect.Signature | None:
    """What a function, or the constructor of a class, is called with; None for anything else."""
    if isinstance(factory, type):
        # Not of the class itself: DSPy's metaclass stands before the constructor and takes anything.
        signature = inspect.signature(factory.__init__)  # type: ignore[misc]  # only its parameters are read
        return signature.replace(parameters=list(signature.parameters.values())[1:])
    return inspect.signature(factory) if inspect.isfunction(factory) else None


def _needs_nothing(factory: Any) -> bool:
    signature = _signature(factory)
    try:
        return signature is not None and signature.bind() is not None
    except TypeError:
        return False


def _returns_module(function: Any) -> bool:
    import dspy

    try:
        returned = typing.get_type_hints(function).get("return")
    except Exception:  # noqa: BLE001 - an annotation may be any expression, and fail in any way
        return False
    return isinstance(returned, type) and issubclass(returned, dspy.Module)


def _inputs(module: dspy.Module) -> tuple[str, ...]:
    """Fields that a module is called with: what `forward` names, or else those of its (first) signature."""
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    named = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.default is parameter.empty
    ]
    signatures = _signatures(module)
    return tuple(named) if named or not signatures else tuple(signatures[0].input_fields)


def _outputs(module: dspy.Module) -> dict[str, Kind]:
    """Fields of the last signature, without the reasoning that leads to them."""
    signatures = _signatures(module)
    if not signatures:
        return {}
    fields = {name: _kind(field.annotation) for name, field in signatures[-1].output_fields.items()}
    without = {name: kind for name, kind in fields.items() if name != "reasoning"}
    return without or fields


def _signatures(module: dspy.Module) -> list[Any]:
    """The module's own signature when it has one (as ReAct does), else those of its predictors in order."""
    import dspy

    own = getattr(module, "signature", None)
    if isinstance(own, type) and issubclass(own, dspy.Signature):
        return [own]
    return [predictor.signature for predictor in module.predictors()]


def _kind(annotation: Any) -> Kind:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return "text" if all(isinstance(value, str) for value in typing.get_args(annotation)) else "other"
    if origin in (typing.Union, UnionType):
        kinds = {_kind(part) for part in typing.get_args(annotation) if part is not type(None)}
        return kinds.pop() if len(kinds) == 1 else "other"
    if annotation is str:
        return "text"
    return "number" if annotation in (int, float) else "other"


def factory_names(module: ModuleType) -> Iterator[str]:
    """Names of what may be the factory: a module's functions, classes and instances, with any arguments."""
    import dspy

    for name, value in vars(module).items():
        is_own = callable(value) and _is_of(value, module)
        is_own = is_own and not (isinstance(value, type) and issubclass(value, dspy.Signature))
        if not name.startswith("_") and (is_own or isinstance(value, dspy.Module)):
            yield name


def metric_functions(module: ModuleType) -> Iterator[str]:
    """Names of functions whose parameters are those of a metric: (example, prediction, …)."""
    for name, value in vars(module).items():
        if not inspect.isfunction(value) or name.startswith("_"):
            continue
        parameters = [parameter.lower() for parameter in inspect.signature(value).parameters]
        if len(parameters) > 1 and parameters[1] in _PREDICTION_NAMES and parameters[0] in _EXAMPLE_NAMES:
            yield name


def _dataset(module: ModuleType, folder: Path, root: Path, inputs: tuple[str, ...]) -> FoundDataset | None:
    """Examples in the program itself or in files beside it; else in the nearest folder above that has any."""
    above = [parent for parent in folder.parents if parent.is_relative_to(root)]
    for rows in ({**_lists(module), **_files(folder)}, *map(_files, above)):
        fitting = {
            place: tuple(name for name in row if name not in inputs)
            for place, row in rows.items()
            if all(name in row for name in inputs)
        }
        if fitting:
            return _chosen(fitting, module)
    return None


def _chosen(fitting: Mapping[Path | str, tuple[str, ...]], module: ModuleType) -> FoundDataset:
    """Which of the places with examples is which; given with the labels of their first example."""
    train = _called(fitting, _TRAIN_NAMES)
    rest = [place for place in fitting if place != train]
    test = _called(rest, _TEST_NAMES) or next(iter(rest), None)
    if test is None:
        train, test = None, next(iter(fitting))
    used = [test] if train is None else [train, test]
    fields = [name for name in _ID_NAMES if all(name in fitting[place] for place in used)]
    key = next((name for name in fields if all(_tells_apart(name, place, module) for place in used)), None)
    return FoundDataset(
        train=train,
        test=test,
        labels=tuple(name for name in fitting[test] if name != key),
        id=key,
        others=tuple(place for place in fitting if place not in (train, test)),
    )


def _tells_apart(name: str, place: Path | str, module: ModuleType) -> bool:
    """Whether every row of a set has a value of its own in a field that `dataset.id` can name."""
    if isinstance(place, Path):
        rows: Iterable[Mapping[str, Any]] = (row for _, row in read_file(place))
    else:
        rows = (dict(row.items()) for row in getattr(module, place))
    seen: set[str] = set()
    try:
        for row in rows:
            value = row.get(name)
            is_id = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
            if not is_id or str(value) in seen:
                return False
            seen.add(str(value))
    except DspylabError:  # a row that can not be read: `dspylab run` says which
        return False
    return True


def _lists(module: ModuleType) -> dict[Path | str, Mapping[str, Any]]:
    """Name and first row of every list of `dspy.Example` in the module."""
    import dspy

    return {
        name: dict(value[0].items())
        for name, value in vars(module).items()
        if isinstance(value, list) and value and isinstance(value[0], dspy.Example)
    }


def _files(folder: Path) -> dict[Path | str, Mapping[str, Any]]:
    """Path and first row of every dataset file in a folder, or in one of its usual ones, that can be read."""
    found: dict[Path | str, Mapping[str, Any]] = {}
    for place in _DATA_FOLDERS:
        for path in sorted((folder / place).glob("*")):
            if path.suffix.lower() not in DATASET_KINDS or path.stat().st_size > _LARGEST_FILE:
                continue
            try:
                first = next(read_file(path), None)
            except DspylabError:  # not a dataset, such as a configuration in JSON
                continue
            if first is not None:
                found[path] = first[1]
    return found


def _called(places: Iterable[Path | str], names: tuple[str, ...]) -> Path | str | None:
    """The first place of one of the names, in the order of the names."""
    by_name = {(place.stem if isinstance(place, Path) else place).lower(): place for place in places}
    return next((by_name[name] for name in names if name in by_name), None)


def _model(lm: Any) -> dict[str, Any]:
    settings = {name: lm.kwargs.get(name) for name in _MODEL_SETTINGS}
    return {"model": lm.model, **{name: value for name, value in settings.items() if value is not None}}
