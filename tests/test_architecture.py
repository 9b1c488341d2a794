"""The house rules, each kept by a test. CONTRIBUTING.md says what they are for.

The rules are read off the source with ``ast``, so a module that does not import yet is checked too. Only the
start-up test runs anything.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Literal

import pytest

# Read and parsed once.
pytestmark = pytest.mark.xdist_group("architecture")

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dspylab"

# Libraries that cost start-up time: the only reason for an import inside a function.
HEAVY = frozenset(
    {
        "altair",
        "dask",
        "distributed",
        "dspy",
        "dvc",
        "huggingface_hub",
        "litellm",
        "numpy",
        "pandas",
        "polars",
        "pyarrow",
        "rich",
        "scipy",
        "vl_convert",
        "xllamacpp",
    }
)
MAY_IMPORT_DVC = ("dspylab.pipeline.repo",)
MAY_IMPORT_DSPY = (
    "dspylab.execute",
    "dspylab.lm",
    "dspylab.metrics",
    "dspylab.optimize",
    "dspylab.program",
    "dspylab.testing",
)
# `python -m dspylab.testing` is a command of its own: it prints where its server listens.
MAY_PRINT = ("dspylab.cli", "dspylab.commands", "dspylab.testing.__main__")
MAY_IMPORT_CLI = ("dspylab.__main__",)
# What comes after the raw rows can be repeated without a model, so it must not reach for one.
AFTER_THE_RAW_ROWS = ("dspylab.aggregate", "dspylab.report")
CALLS_MODELS = frozenset({"dspy", "litellm", "xllamacpp"})

PRINTS = frozenset(
    {
        "pprint.pprint",
        "print",
        "rich.get_console",
        "rich.print",
        "rich.print_json",
        "rich.console.Console",
    }
    | {f"{library}.{function}" for library in ("click", "typer") for function in ("echo", "secho")}
    | {f"sys.{stream}.{write}" for stream in ("stderr", "stdout") for write in ("write", "writelines")}
)
DISPLAYS = ("rich.live", "rich.progress", "rich.prompt", "rich.status")


@dataclass(frozen=True)
class Import:
    """One imported name: ``from a.b import c`` and ``import a.b.c`` both have the target ``a.b.c``."""

    importer: str
    target: str
    name: str  # what the module calls it; the first part of the target for a plain ``import a.b.c``
    line: int
    place: Literal["top", "function", "typing"]

    @property
    def root(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{where(self.importer, self.line)}: imports {self.target}"


class ImportFinder(ast.NodeVisitor):
    """Gathers the imports of one module with the place where each stands."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.found: list[Import] = []
        self.place: Literal["top", "function", "typing"] = "top"

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside("function", node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._inside("function", node.body)

    def visit_If(self, node: ast.If) -> None:
        typing_only = dotted(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
        self._inside("typing" if typing_only else self.place, node.body)
        self._inside(self.place, node.orelse)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, alias.asname or alias.name.partition(".")[0], node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.level:
            package = self.module if is_package(self.module) else self.module.rpartition(".")[0]
            base = package.rsplit(".", node.level - 1)[0]
            origin = f"{base}.{node.module}" if node.module else base
        else:
            origin = node.module or ""
        for alias in node.names:
            self._add(f"{origin}.{alias.name}", alias.asname or alias.name, node.lineno)

    def _add(self, target: str, name: str, line: int) -> None:
        self.found.append(Import(self.module, target, name, line, self.place))

    def _inside(self, place: Literal["top", "function", "typing"], body: list[ast.stmt]) -> None:
        before, self.place = self.place, place
        for statement in body:
            self.visit(statement)
        self.place = before


def dotted(node: ast.expr) -> str | None:
    """``a.b.c`` for the expression of that form, None for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return base and f"{base}.{node.attr}"
    return None


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if "templates" in path.relative_to(PACKAGE).parts:
            continue  # what users begin with: files of theirs, not modules
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def is_package(module: str) -> bool:
    return modules()[module].name == "__init__.py"


def where(module: str, line: int) -> str:
    return f"{modules()[module].relative_to(ROOT)}:{line}"


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports() -> tuple[Import, ...]:
    """All imports of the package."""
    found: list[Import] = []
    for module in modules():
        finder = ImportFinder(module)
        finder.visit(tree(module))
        found += finder.found
    return tuple(found)


def resolve(target: str) -> str | None:
    """The module of this package that a target names or lies in; None when it is not of this package."""
    while target:
        if target in modules():
            return target
        target = target.rpartition(".")[0]
    return None


def graph(*places: str) -> dict[str, set[str]]:
    """Module to the modules of this package that it imports at these places."""
    edges: dict[str, set[str]] = {module: set() for module in modules()}
    for found in imports():
        target = resolve(found.target)
        if target and found.place in places:
            edges[found.importer].add(target)
    return edges


def reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    """``start`` and all that its imports lead to."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += edges[module]
    return seen


@cache
def heavy_modules() -> frozenset[str]:
    """Modules whose import loads a heavy library, directly or through another module."""
    edges = graph("top")
    direct = {found.importer for found in imports() if found.place == "top" and found.root in HEAVY}
    return frozenset(module for module in modules() if reachable(module, edges) & direct)


def within(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


def assert_none(violations: Iterator[str], rule: str) -> None:
    listed = list(violations)
    assert not listed, "\n".join([rule, *listed])


def first_cycle(edges: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_import_cycle() -> None:
    cycle = first_cycle(graph("top", "function"))
    assert not cycle, "Import cycle: " + " -> ".join(cycle)


def test_packages_depend_one_way() -> None:
    """``config`` → ``plan`` → … → ``report``: no package is imported by one that it imports."""
    edges: dict[str, set[str]] = {}
    for module, targets in graph("top", "function").items():
        unit = ".".join(module.split(".")[:2])
        edges.setdefault(unit, set()).update(".".join(target.split(".")[:2]) for target in targets)
        edges[unit].discard(unit)
    cycle = first_cycle(edges)
    assert not cycle, "Packages import each other: " + " -> ".join(cycle)


def test_aggregation_needs_no_model() -> None:
    edges = graph("top", "function")
    calls_models = {
        found.importer for found in imports() if found.place == "top" and found.root in CALLS_MODELS
    }
    assert_none(
        (
            f"{modules()[module].relative_to(ROOT)}: leads to {target}"
            for module in modules()
            if within(module, AFTER_THE_RAW_ROWS)
            for target in sorted(reachable(module, edges))
            if target in calls_models or within(target, ("dspylab.execute",))
        ),
        "Execution and aggregation meet only through files.",
    )


def test_imports_stand_at_the_top() -> None:
    assert_none(
        (
            str(found)
            for found in imports()
            if found.place == "function"
            and found.root not in HEAVY
            # Dispatch: each command loads only what it needs itself.
            and not (found.importer == "dspylab.cli" and within(found.target, ("dspylab.commands",)))
            and resolve(found.target) not in heavy_modules()
        ),
        "An import inside a function is only for what loads one of: " + ", ".join(sorted(HEAVY)),
    )


def test_only_the_repository_module_imports_dvc() -> None:
    assert_none(
        (
            str(found)
            for found in imports()
            if (found.root == "dvc" or found.root.startswith("dvc_"))
            and not within(found.importer, MAY_IMPORT_DVC)
        ),
        "Only dspylab/pipeline/repo.py imports DVC.",
    )


def test_only_what_runs_programs_imports_dspy() -> None:
    assert_none(
        (
            str(found)
            for found in imports()
            if found.root == "dspy" and not within(found.importer, MAY_IMPORT_DSPY)
        ),
        "Only these import DSPy: " + ", ".join(MAY_IMPORT_DSPY),
    )


def test_nothing_imports_the_cli() -> None:
    assert_none(
        (
            str(found)
            for found in imports()
            if resolve(found.target) == "dspylab.cli" and not within(found.importer, MAY_IMPORT_CLI)
        ),
        "The CLI is the door: nothing behind it knows it.",
    )


def test_only_commands_print() -> None:
    assert_none(
        (
            f"{where(module, line)}: {what}"
            for module in modules()
            if not within(module, MAY_PRINT)
            for line, what in printing(module)
        ),
        "Only dspylab/cli.py and dspylab/commands/ print; everything else returns, raises or logs.",
    )


def printing(module: str) -> Iterator[tuple[int, str]]:
    """Line and text of whatever in a module writes to the terminal."""
    own = [found for found in imports() if found.importer == module]
    meaning = {found.name: found.target for found in own if found.name != found.root}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and (name := dotted(node.func)):
            first, dot, rest = name.partition(".")
            called = meaning.get(first, first) + dot + rest
            if called in PRINTS:
                yield node.lineno, f"calls {called}"
    for found in own:
        if within(found.target, DISPLAYS):
            yield found.line, f"imports {found.target}"


def test_no_module_is_called_utils() -> None:
    assert_none(
        (
            str(path.relative_to(ROOT))
            for module, path in modules().items()
            if {"util", "utils"} & set(module.split("."))
        ),
        "A module is named for what it does.",
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["validate", "--config", "experiments/triage/experiment.yaml"]],
    ids=lambda arguments: arguments[0],
)
def test_start_up_is_light(arguments: list[str]) -> None:
    """``-X importtime`` names every module that the process loads."""
    call = "import sys; from dspylab.cli import main; sys.exit(main())"
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", call, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    said = [line for line in process.stderr.splitlines() if not line.startswith("import time:")]
    assert process.returncode == 0, "\n".join([*said, process.stdout])
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in report}
    assert "dspylab" in loaded
    assert sorted(loaded & HEAVY) == []


def test_tests_of_a_group_share_a_process(request: pytest.FixtureRequest) -> None:
    """What a group needs is made once. pytest-xdist of one version ignored groups with pytest of another."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("needs --dist loadgroup")
    assert request.node.nodeid.endswith("@architecture")
