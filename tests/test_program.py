from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import dspy
import pytest

from dspylab.config.axes import ADAPTERS
from dspylab.config.models import Experiment, Program
from dspylab.errors import ProgramError
from dspylab.plan.matrix import expand
from dspylab.program.adapters import CompactAdapter, adapter_of
from dspylab.program.dataset import file_digest
from dspylab.program.footprint import code_files, code_references, content_digest, data_files
from dspylab.program.load import Code
from dspylab.program.modules import ModuleSpace, own_path

_PROGRAM = """
    import dspy

    class Echo(dspy.Module):
        def forward(self, text):
            return dspy.Prediction(label=text)

    def build(style="plain"):
        return Echo()
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Other tests see the modules and the search path of before."""
    yield
    ModuleSpace(Path("/nowhere")).enter()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a repository, which is also the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")


def code(root: Path, files: Mapping[str, str], folder: str = "x", **program: Any) -> Code:
    """An experiment in a folder below the root; names of files are relative to the root."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    write(root, files)
    return Code(Program(**(program or {"path": "program.py"})), root / folder, root)


def found(code: Code, *references: str) -> set[str]:
    """The files that its code consists of, relative to the root."""
    for reference in references or (code.source,):
        code.module(reference)
    return {path.relative_to(code.root).as_posix() for path in code.files()}


def message(code: Code, **args: Any) -> str:
    with pytest.raises(ProgramError) as caught:
        code.build(args)
    return str(caught.value)


# Loading.


def test_a_program_by_path_with_helpers_beside_it(root: Path) -> None:
    helped = """
        from helpers import Echo
        def build(style): return Echo(style)
    """
    helpers = """
        import dspy
        class Echo(dspy.Module):
            def __init__(self, style):
                super().__init__()
                self.style = style
    """
    module = code(root, {"x/program.py": helped, "x/helpers.py": helpers}).build({"style": "bold"})
    assert isinstance(module, dspy.Module)
    assert module.style == "bold"


def test_a_program_by_module_from_the_root_of_the_repository(root: Path) -> None:
    loaded = code(root, {"lib/__init__.py": "", "lib/triage.py": _PROGRAM}, module="lib.triage")
    assert isinstance(loaded.build({}), dspy.Module)
    assert found(loaded) == {"lib/__init__.py", "lib/triage.py"}


def test_the_nearest_helper_wins(root: Path) -> None:
    files = {"shared/program.py": "import near; place = near.place"}
    files |= {f"{folder}/near.py": f"place = {folder!r}" for folder in ("shared", "x", ".")}
    loaded = code(root, files, path="../shared/program.py")
    assert loaded.attribute("../shared/program.py:place") == "shared"
    (root / "shared/near.py").unlink()
    assert Code(loaded.program, loaded.folder, root).attribute("../shared/program.py:place") == "x"


def test_a_class_may_be_the_factory_and_attributes_may_be_nested(root: Path) -> None:
    text = _PROGRAM + "    class Metrics:\n        @staticmethod\n        def exact(e, p): return 1\n"
    loaded = code(root, {"x/program.py": text}, path="program.py", factory="Echo")
    assert type(loaded.build({})).__name__ == "Echo"
    assert loaded.attribute("program.py:Metrics.exact")(None, None) == 1


def test_one_file_under_two_references_is_imported_once(root: Path) -> None:
    loaded = code(root, {"x/program.py": _PROGRAM})
    assert loaded.module("program.py") is loaded.module("./program.py")


# Apart from each other.


def two(root: Path, helper: str = "name = {name!r}", **more: str) -> tuple[Code, Code]:
    files = {}
    for name in ("a", "b"):
        files[f"{name}/program.py"] = (
            _PROGRAM + "    import helpers\n    name = helpers.name\n"
            "    def lazily():\n        import late\n        return late.name\n"
        )
        files[f"{name}/helpers.py"] = helper.format(name=name)
        files[f"{name}/late.py"] = f"name = 'late {name}'"
        files |= {f"{name}/{path}": text.format(name=name) for path, text in more.items()}
    return code(root, files, "a"), code(root, {}, "b")


def test_two_experiments_with_files_of_the_same_names_do_not_mix(root: Path) -> None:
    a, b = two(root)
    assert [c.attribute("program.py:name") for c in (a, b)] == ["a", "b"]
    assert a.module("program.py") is not b.module("program.py")
    assert type(a.build({})) is not type(b.build({}))
    assert found(a) == {"a/program.py", "a/helpers.py", "a/late.py"}
    assert found(b) == {"b/program.py", "b/helpers.py", "b/late.py"}
    assert [path.name for path in a.files()] == ["helpers.py", "late.py", "program.py"]
    assert {path.parent for path in a.files()} == {a.folder}


def test_an_import_at_call_time_finds_its_own_module(root: Path) -> None:
    a, b = two(root)
    b.module("program.py")
    assert a.attribute("program.py:lazily")() == "late a"
    assert b.attribute("program.py:lazily")() == "late b"
    assert a.attribute("program.py:lazily")() == "late a"


def test_an_import_in_a_thread_at_call_time_finds_its_own_module(root: Path) -> None:
    a, _ = two(root)
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(a.attribute("program.py:lazily")()))
    thread.start()
    thread.join()
    assert said == ["late a"]


def test_namespace_packages_of_two_experiments_do_not_mix(root: Path) -> None:
    files = {f"{name}/parts/one.py": f"name = {name!r}" for name in "ab"}
    files |= {f"{name}/program.py": "from parts import one; name = one.name" for name in "ab"}
    a, b = code(root, files, "a"), code(root, {}, "b")
    assert [c.attribute("program.py:name") for c in (a, b, a)] == ["a", "b", "a"]
    assert found(b) == {"b/program.py", "b/parts/one.py"}


def test_what_a_program_does_to_the_search_path_ends_with_its_experiment(root: Path) -> None:
    files = {
        "a/program.py": """
            import sys
            from pathlib import Path
            sys.path.insert(0, str(Path(__file__).parent / "lib"))
            import only_here
            def again():
                sys.modules.pop("only_here")
                import only_here
                return only_here.name
        """,
        "a/lib/only_here.py": "name = 'a'",
        "b/program.py": "import only_here",
    }
    a, b = code(root, files, "a"), code(root, {}, "b")
    before = list(sys.path)
    assert found(a) == {"a/program.py", "a/lib/only_here.py"}
    with pytest.raises(ProgramError, match="only_here"):
        b.module("program.py")
    assert a.attribute("program.py:again")() == "a"
    ModuleSpace(root).enter()
    assert sys.path == before
    assert "only_here" not in sys.modules


def test_a_new_code_sees_changed_helpers(root: Path) -> None:
    old, _ = two(root)
    assert old.attribute("program.py:name") == "a"
    (root / "a/helpers.py").write_text("name = 'changed'")
    assert Code(old.program, old.folder, root).attribute("program.py:name") == "changed"
    assert old.attribute("program.py:name") == "a"


def test_what_was_imported_before_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, {"mine_before.py": "value = 1"})
    monkeypatch.syspath_prepend(str(root))
    mine = importlib.import_module("mine_before")
    loaded = code(root, {"x/program.py": "import mine_before"})
    assert found(loaded) == {"x/program.py", "mine_before.py"}
    ModuleSpace(root).enter()
    assert sys.modules["mine_before"] is mine
    del sys.modules["mine_before"]


# What goes wrong.


@pytest.mark.parametrize(
    ("program", "said", "where", "remedy"),
    [
        ("import nowhere_to_be_found", "imports 'nowhere_to_be_found'", "x/program.py:1", "put nowhere_to_b"),
        ("import helpers", "imports 'absent'", "x/helpers.py:2", "absent.py beside program.py"),
        ("from helpers2 import nothing", "cannot import name 'nothing'", "x/program.py:1", "correct the mod"),
        ("x = 1\ndef build(:\n  pass", "is not valid Python", "x/program.py:2", "correct the line"),
        ("\nimport broken", "is not valid Python", "x/broken.py:3", "correct the line"),
        ("\n1 / 0", "importing it raised ZeroDivisionError: division by zero", "x/program.py:2", "correct"),
        ("import sys\nsys.exit(3)", "raised SystemExit: 3", "x/program.py:2", "correct the module"),
        ("import json\njson.loads('{')", "raised JSONDecodeError", "x/program.py:2", "correct the module"),
        ("from . import helpers", "no known parent package", "x/program.py:1", "correct the module"),
        ("build = 3", "is not callable", "x/program.py", "make program.factory name a function"),
        ("def make(): ...", "has no attribute 'build'", "x/program.py", "define it"),
        ("def build_(): ...", "has no attribute 'build'", "x/program.py", "did you mean build_?"),
        (
            "def __getattr__(n): 1 / 0",
            "getting 'build' from it raised Zero",
            "x/program.py:1",
            "correct the mo",
        ),
        ("\n\ndef build(style): ...", "missing a required argument", "x/program.py:3", "are: style"),
        ("def build(*, x=1): 1 / 0", "build() raised ZeroDivisionError", "x/program.py:1", "no arguments"),
        ("\ndef build(): import absent", "raised ModuleNotFoundError", "x/program.py:2", "correct it"),
        ("import sys\ndef build():\n  sys.exit()", "build() raised SystemExit", "x/program.py:3", ""),
        ("\ndef build(): pass", "returned None, not a dspy.Module", "x/program.py:2", "return an instance"),
        ("def build(): return []", "a value of type list, not a dspy.Module", "x/program.py:1", "instance"),
        ("import dspy\nbuild = lambda: dspy.Module", "returned the class Module", "x/program.py:2", ""),
    ],
)
def test_each_mistake_names_file_line_and_remedy(
    root: Path, program: str, said: str, where: str, remedy: str
) -> None:
    files = {
        "x/program.py": program,
        "x/helpers.py": "\nimport absent.part",
        "x/helpers2.py": "",
        "x/broken.py": "\n\nif",
    }
    text = message(code(root, files))
    assert text.startswith(f"{where}:")
    assert said in text
    assert remedy in text


def test_arguments_that_the_factory_does_not_take(root: Path) -> None:
    text = message(code(root, {"x/program.py": _PROGRAM}), stile="bold")
    assert "cannot be called with stile='bold': got an unexpected keyword argument 'stile'" in text
    assert "its parameters are: style='plain'" in text


def test_long_arguments_and_terminal_escapes_are_not_repeated(root: Path) -> None:
    program = "def build(text): raise ValueError('\\x1b[31mred\\n' + 'a' * 10_000)"
    text = message(code(root, {"x/program.py": program}), text="b" * 10_000)
    assert len(text) < 1000
    assert "\x1b" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ({"path": "absent.py"}, "x/absent.py: no such file: create it"),
        ({"path": "notes/readme"}, "x/notes/readme: is not a Python file"),
        ({"path": "../../outside.py"}, "lies outside of the repository"),
        ({"module": "no_such_module_here"}, "no_such_module_here: there is no module 'no_such_module_here'"),
        ({"module": "json.absent"}, "json.absent: there is no module 'json.absent'"),
        ({"module": "lib.broken"}, "lib/broken.py:1: imports 'absent'"),
    ],
)
def test_a_module_that_cannot_be_had(root: Path, program: dict[str, str], said: str) -> None:
    files = {"x/notes/readme": "", "lib/__init__.py": "", "lib/broken.py": "import absent"}
    (root.parent / "outside.py").write_text(dedent(_PROGRAM))
    assert said in message(code(root, files, **program))


def test_nothing_half_imported_stays(root: Path) -> None:
    loaded = code(root, {"x/program.py": "import fine\nimport failing", "x/fine.py": "value = 1"})
    write(root, {"x/failing.py": "raise OSError"})
    with pytest.raises(ProgramError):
        loaded.module("program.py")
    assert not {"fine", "failing"} & set(sys.modules)
    assert not [name for name in sys.modules if name.startswith("dspylab_program_")]
    write(root, {"x/failing.py": "", "x/fine.py": "value = 22222"})
    assert loaded.module("program.py").fine.value == 22222


def test_ctrl_c_during_an_import_is_no_mistake_of_the_program(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        code(root, {"x/program.py": "raise KeyboardInterrupt"}).module("program.py")


def test_paths_in_messages_are_absolute_from_elsewhere(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = code(root, {"x/program.py": "1 / 0"})
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert message(loaded).startswith(f"{root}/x/program.py:1: ")


# Adapters.


def test_the_compact_adapter_sends_the_task_and_no_more() -> None:
    signature = dspy.Signature("context, question -> answer", "Answer it.")
    demos = [dspy.Example(context="It rains.", question="Is it dry?", answer="no \u2614")]
    messages = CompactAdapter().format(signature, demos, {"context": "", "question": "Is it wet?"})
    assert [(message["role"], message["content"]) for message in messages] == [
        ("system", "Answer it."),
        ("user", "Context: It rains.\nQuestion: Is it dry?"),
        ("assistant", '{"answer": "no \u2614"}'),
        ("user", "Question: Is it wet?"),
    ]


def test_adapters(root: Path) -> None:
    text = """
        import dspy
        class Mine(dspy.ChatAdapter): pass
        class Needy(dspy.ChatAdapter):
            def __init__(self, x): pass
        ready = Mine()
        nothing = 3
    """
    loaded = code(root, {"x/program.py": text})
    assert adapter_of(loaded, None) is None
    kinds = [type(adapter_of(loaded, name)) for name in ADAPTERS]
    assert kinds == [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter, CompactAdapter]
    assert type(adapter_of(loaded, "program.py:Mine")).__name__ == "Mine"
    assert loaded.adapter("program.py:ready") is loaded.attribute("program.py:ready")
    with pytest.raises(ProgramError, match=r"^x/program.py:4: Needy: Needy\(\) raised TypeError.*needs? no"):
        loaded.adapter("program.py:Needy")
    with pytest.raises(ProgramError, match=r"x/program.py: nothing: is a value of type int, not a dspy.Ad"):
        loaded.adapter("program.py:nothing")


# Which files a program consists of.


def test_every_own_module_counts_and_nothing_else(root: Path) -> None:
    files = {
        "x/program.py": """
            import json
            import dspy
            import helper
            from pkg.sub import thing
            from lib import deep            # at the root
            from space import inside        # a namespace package
            def build():
                import late
                from later.inner.most import name
                from space.nested import innermost
                from far.away import place
                import absent
            with open(__file__) as file:
                text = file.read()
        """,
        "x/helper.py": "from pkg import reexported",
        "x/pkg/__init__.py": "from ._private import reexported",
        "x/pkg/_private.py": "reexported = 1",
        "x/pkg/unused.py": "",
        "x/pkg/sub/__init__.py": "from . import thing\nfrom ..sibling import value",
        "x/pkg/sub/thing.py": "",
        "x/pkg/sibling.py": "value = 1",
        "lib/deep.py": "",
        "x/space/inside.py": "",
        "x/space/nested/innermost.py": "",
        "x/far/away/place.py": "",
        "x/late.py": "if True:\n  import latest",
        "x/latest.py": "",
        "x/later/__init__.py": "raise RuntimeError('never imported')",
        "x/later/inner/__init__.py": "from . import beside",
        "x/later/inner/beside.py": "",
        "x/later/inner/most.py": "from .beside import name",
        "x/lying_about.py": "",
        "x/data.jsonl": "{}",
        "x/node_modules/tool.py": "",
        ".venv/lib/python3.11/site-packages/installed.py": "",
    }
    assert found(code(root, files)) == {
        "x/program.py",
        "x/helper.py",
        "x/pkg/__init__.py",
        "x/pkg/_private.py",
        "x/pkg/sub/__init__.py",
        "x/pkg/sub/thing.py",
        "x/pkg/sibling.py",
        "lib/deep.py",
        "x/space/inside.py",
        "x/space/nested/innermost.py",
        "x/far/away/place.py",
        "x/late.py",
        "x/latest.py",
        "x/later/__init__.py",
        "x/later/inner/__init__.py",
        "x/later/inner/beside.py",
        "x/later/inner/most.py",
    }


def test_modules_whose_names_are_computed_at_import_count(root: Path) -> None:
    files = {
        "x/program.py": """
            import importlib, pkgutil
            import plugins
            for found in pkgutil.iter_modules(plugins.__path__):
                importlib.import_module(f"plugins.{found.name}")
        """,
        "x/plugins/__init__.py": "",
        "x/plugins/one.py": "",
    }
    names = {"x/program.py", "x/plugins/__init__.py", "x/plugins/one.py"}
    assert found(code(root, files)) == names
    assert found(code(root, {"x/plugins/two.py": ""})) == names | {"x/plugins/two.py"}


def test_a_broken_module_that_is_imported_at_call_time_counts(root: Path) -> None:
    files = {"x/program.py": "def build():\n    import broken", "x/broken.py": "if"}
    assert found(code(root, files)) == {"x/program.py", "x/broken.py"}


def test_files_of_metrics_and_adapters_count(root: Path) -> None:
    loaded = code(root, {"x/program.py": _PROGRAM, "lib/metrics.py": "import tools", "lib/tools.py": ""})
    files = {"x/program.py", "lib/metrics.py", "lib/tools.py"}
    assert found(loaded, "program.py", "../lib/metrics.py") == files


def test_a_root_that_is_reached_through_a_link(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write(root, {"x/program.py": "import helper, lib.deep", "x/helper.py": "", "lib/deep.py": ""})
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(root)
    loaded = Code(Program(path="program.py"), link / "x", link)
    loaded.module("program.py")
    assert loaded.files() == [link / "lib/deep.py", link / "x/helper.py", link / "x/program.py"]


def test_a_module_that_is_found_under_the_real_path_of_a_linked_root(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(root)
    write(root, {"x/program.py": "import installed_editable", "src/installed_editable.py": ""})
    monkeypatch.syspath_prepend(str(root / "src"))
    loaded = Code(Program(path="program.py"), link / "x", link)
    loaded.module("program.py")
    assert loaded.files() == [link / "src/installed_editable.py", link / "x/program.py"]


def test_the_interpreter_and_what_is_installed_are_not_the_users(root: Path) -> None:
    # A repository in the home folder, with the interpreter and the environment somewhere below it.
    above = Path(os.path.commonpath([json.__file__, pytest.__file__]))
    assert own_path(json.__file__, above) is None
    assert own_path(pytest.__file__, above) is None
    assert own_path(str(root / "x.py"), root) == root / "x.py"
    assert own_path(str(root / "venv/x.py"), root) is None
    assert own_path(str(root.parent / "x.py"), root) is None


# The remembered footprint.


class Footprint:
    """Asks for the files of a program as every command does: with a new `Code`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memory = root / ".dspylab/code/x.json"

    def ask(self, *references: str) -> tuple[set[str], bool]:
        """The files, and whether they were remembered, that is, nothing was imported."""
        code = Code(Program(path="program.py"), self.root / "x", self.root)
        files = code_files(code, list(references) or ["program.py"], self.memory)
        imported = any(name.startswith("dspylab_program_") for name in code._imported)
        return {path.relative_to(self.root).as_posix() for path in files}, not imported


@pytest.fixture
def footprint(root: Path) -> Footprint:
    optional = "try:\n    import optional\nexcept ImportError:\n    pass\nimport helper"
    write(root, {"x/program.py": optional, "x/helper.py": "value = 1"})
    return Footprint(root)


BOTH = {"x/program.py", "x/helper.py"}


def test_a_footprint_is_remembered(footprint: Footprint) -> None:
    assert footprint.ask() == (BOTH, False)
    assert footprint.ask() == (BOTH, True)
    write(footprint.root, {"x/results/r1/raw.jsonl": "", "x/data.csv": "", "dvc.yaml": ""})
    assert footprint.ask() == (BOTH, True)


def test_a_changed_helper_is_noticed(footprint: Footprint) -> None:
    before = code_files(code(footprint.root, {}), ["program.py"], footprint.memory)
    write(footprint.root, {"x/helper.py": "import more", "x/more.py": ""})
    assert footprint.ask() == ({*BOTH, "x/more.py"}, False)
    after = code_files(code(footprint.root, {}), ["program.py"], footprint.memory)
    helper = footprint.root / "x/helper.py"
    assert before[helper] != after[helper]


@pytest.mark.parametrize("new", ["x/optional.py", "x/optional/__init__.py", "optional.py"])
def test_a_new_module_that_an_import_now_finds_is_noticed(footprint: Footprint, new: str) -> None:
    footprint.ask()
    write(footprint.root, {new: "value = 1"})
    assert footprint.ask() == ({*BOTH, new}, False)


def test_a_deleted_helper_is_noticed(footprint: Footprint) -> None:
    footprint.ask()
    (footprint.root / "x/helper.py").unlink()
    with pytest.raises(ProgramError, match=r"x/program.py:5: imports 'helper', which is not there"):
        footprint.ask()


def test_other_references_are_noticed(footprint: Footprint) -> None:
    footprint.ask()
    write(footprint.root, {"lib/metrics.py": ""})
    assert footprint.ask("program.py", "../lib/metrics.py") == ({*BOTH, "lib/metrics.py"}, False)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"version": 1}', b"[" * 100_000, b'{"version": 1, "files": 3}'],
)
def test_a_broken_memory_is_forgotten(footprint: Footprint, content: bytes) -> None:
    footprint.ask()
    footprint.memory.write_bytes(content)
    assert footprint.ask() == (BOTH, False)
    assert footprint.ask() == (BOTH, True)


def test_a_memory_of_something_else_is_forgotten(footprint: Footprint) -> None:
    footprint.ask()
    known = json.loads(footprint.memory.read_text())
    changes: list[dict[str, Any]] = [
        {"files": {"": "x"}},
        {"files": {"x/absent.py": "x"}},
        {"modules": {"?": []}},
        {"folder": "/"},
    ]
    for change in changes:
        footprint.memory.write_text(json.dumps({**known, **change}))
        assert footprint.ask() == (BOTH, False)


def test_a_memory_that_cannot_be_written_costs_only_time(footprint: Footprint) -> None:
    (footprint.root / ".dspylab").write_text("a file where a folder should be")
    assert footprint.ask() == (BOTH, False)
    assert footprint.ask() == (BOTH, False)


def test_processes_that_remember_at_once_leave_a_good_memory(footprint: Footprint) -> None:
    ask = f"""
        from pathlib import Path
        from dspylab.config.models import Program
        from dspylab.program.footprint import code_files
        from dspylab.program.load import Code
        root, memory = Path({str(footprint.root)!r}), Path({str(footprint.memory)!r})
        code_files(Code(Program(path="program.py"), root / "x", root), ["program.py"], memory)
    """
    processes = [subprocess.Popen([sys.executable, "-c", dedent(ask)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert list(footprint.memory.parent.iterdir()) == [footprint.memory]
    assert footprint.ask() == (BOTH, True)


# What an experiment refers to.


def experiment(**changes: Any) -> Experiment:
    content: dict[str, Any] = {
        "name": "x",
        "program": {"path": "program.py", "adapter": "json"},
        "dataset": {"path": "tickets.jsonl", "inputs": ["text"]},
        "models": {"m": {"model": "openai/m"}},
        "metrics": {"accuracy": {"type": "exact_match"}},
    }
    return Experiment.model_validate({**content, **changes})


def references(experiment: Experiment, *, metrics: bool = True) -> list[str]:
    return code_references(experiment, expand(experiment), metrics=metrics)


def test_references_of_an_experiment() -> None:
    assert references(experiment()) == ["program.py"]
    everything = experiment(
        program={"module": "lib.triage", "adapter": "adapters.py:Small"},
        dataset={"train": "data.py:train", "test": "rows.csv", "inputs": ["text"]},
        metrics={
            "a": {"type": "path", "ref": "lib.metrics:a"},
            "b": {"type": "path", "ref": "lib.metrics:b"},
            "f1": {"type": "run", "params": {"measure": "macro_f1"}},
        },
        optimizers={"mine": {"path": "optimizers.py:Mine"}},
    )
    answering = ["lib.triage", "adapters.py", "optimizers.py", "data.py"]
    assert references(everything) == [*answering, "lib.metrics"]
    assert references(everything, metrics=False) == answering


def test_data_files_of_an_experiment(root: Path) -> None:
    dataset = {"train": "data.py:train", "test": "../rows.csv", "inputs": ["text"]}
    assert data_files(experiment(dataset=dataset), root / "x") == [root / "rows.csv"]


def test_files_that_the_program_reads_are_data_files_too(root: Path) -> None:
    program = {"path": "program.py", "files": ["corpus.jsonl", "tickets.jsonl", "../prompt.txt"]}
    assert data_files(experiment(program=program), root / "x") == [
        root / "x/tickets.jsonl",
        root / "x/corpus.jsonl",
        root / "prompt.txt",
    ]


def test_the_digest_of_a_folder_is_that_of_names_and_contents(root: Path) -> None:
    write(root, {"a/deep/x.txt": "1", "a/y.txt": "2", "b/deep/x.txt": "1", "b/y.txt": "2"})
    assert content_digest(root / "a") == content_digest(root / "b") != content_digest(root / "a/deep")
    assert content_digest(root / "a/y.txt") == file_digest(root / "a/y.txt")
    (root / "b/y.txt").rename(root / "b/z.txt")
    assert content_digest(root / "a") != content_digest(root / "b")


def test_a_dataset_that_is_a_link_into_the_cache_of_dvc_stays_where_it_is(root: Path) -> None:
    write(root, {".dvc/cache/files/md5/ab/cd": "{}", "x/program.py": ""})
    (root / "x/tickets.jsonl").symlink_to(root / ".dvc/cache/files/md5/ab/cd")
    assert data_files(experiment(), root / "x") == [root / "x/tickets.jsonl"]


# --- metrics that the program exports

METRICS = """
import functools

def polite(example, prediction, trace=None):
    return True

def longer(example, prediction, by=1):
    return False

"""


@pytest.mark.parametrize(
    "returned", ["{'polite': polite, 'longer': longer}", "[polite, longer]", "(longer, polite)"]
)
def test_a_program_exports_metrics_by_name(tmp_path: Path, returned: str) -> None:
    lab = code(tmp_path, {"x/program.py": f"{METRICS}def metrics():\n    return {returned}\n"})
    assert lab.metric("polite") is lab.attribute("program.py:polite")
    assert lab.metric("longer") is lab.attribute("program.py:longer")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", "x/program.py: has no metrics(), which a metric of type program is taken from"),
        (
            "def metric(): return {}",
            "(did you mean metric?): define metrics(), which returns {name: callable}",
        ),
        ("metrics = {'polite': polite}", "metrics(): is a value of type dict, not a function"),
        ("def metrics(): return [polte]", "program.py:10: metrics() raised NameError: name 'polte' is not"),
        ("def metrics(kind): return {}", "program.py:10: metrics(): cannot be called with no arguments"),
        (
            "def metrics(): return polite",
            "program.py:10: metrics(): returned a value of type function: return {",
        ),
        (
            "def metrics(): pass",
            "program.py:10: metrics(): returned None: return {name: callable}, or a list",
        ),
        (
            "def metrics(): return {'polite': 1}",
            "returned a value of type int under 'polite', which can not be",
        ),
        ("def metrics(): return {1: polite}", "returned the name 1, which is no text"),
        (
            "def metrics(): return [lambda e, p: 1]",
            "returned a list with <lambda>, which has no name of its own",
        ),
        (
            "def metrics(): return [functools.partial(longer, by=2)]",
            "which has no name of its own: return {na",
        ),
        ("def metrics(): return [polite, polite]", "returned two metrics called 'polite'"),
        (
            "def metrics(): return [polite, 'longer']",
            "returned a list with a value of type str, which can not be called",
        ),
        (
            "def metrics(): return {'politeness': polite, 'longer': longer}",
            (
                "program.py:10: metrics(): returns no metric 'polite' (did you mean politeness?): it returns "
                "politeness, longer; add 'polite' to it, or correct metrics.polite in the experiment file"
            ),
        ),
    ],
)
def test_what_metrics_must_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProgramError) as caught:
        code(tmp_path, {"x/program.py": f"{METRICS}{source}\n"}).metric("polite")
    assert expected in str(caught.value)
