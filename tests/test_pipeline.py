"""DVC's files, and the batch that does what `dvc repro` does. git and DVC are real; `dspylab` is a script."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import dvc.cli
import pytest
import yaml
from dvc.utils.serialize import dumps_yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from dspylab.config.models import Experiment
from dspylab.errors import RepositoryError
from dspylab.pipeline import blocks, git, repo
from dspylab.pipeline.dvcfile import upsert
from dspylab.pipeline.lockfile import LockTexts
from dspylab.pipeline.repo import Repository, open_repository
from dspylab.pipeline.stages import PipelineEntry, arguments, build, coordinate, parse_coordinate, quote
from dspylab.plan.matrix import expand
from dspylab.records import JSON, RunSpec

EXPERIMENT: dict[str, Any] = {
    "name": "x",
    "program": {"path": "program.py", "args": {"style": "predict"}},
    "dataset": {"path": "rows.jsonl", "inputs": ["text"]},
    "models": {
        "a": {"model": "local/a", "temperature": 0.0, "max_concurrency": 4},
        "b": {"model": "openai/b", "temperature": 0.5, "max_tokens": 64},
    },
    "matrix": {"model": ["a", "b"]},
    "metrics": {"accuracy": {"type": "exact_match", "field": "label"}},
    "execution": {"max_concurrency": 8},
}

# Stands in for the CLI: leaves behind what a run and an aggregation do, with content that is new every time.
FAKE = """#!{python}
import json, pathlib, sys, time, uuid
command, config, coordinates = sys.argv[1], pathlib.Path(sys.argv[3]), sys.argv[4:]
with open("executed.log", "a") as log:
    log.write(json.dumps([command, *coordinates]) + "\\n")
folder = config.parent
if command == "run-one":
    keys = json.loads(folder.joinpath("keys.json").read_text())
    run = folder / "results" / keys[json.dumps(coordinates)]
    run.mkdir(parents=True, exist_ok=True)
    run.joinpath("raw.jsonl").write_text(json.dumps(dict(id=str(uuid.uuid4()))) + "\\n")
    run.joinpath("run.json").write_text(json.dumps(dict(run=run.name)))
    time.sleep(float(pathlib.Path("sleep_s").read_text()) if pathlib.Path("sleep_s").exists() else 0)
else:
    rows = sorted(path.read_text() for path in folder.glob("results/*/raw.jsonl"))
    folder.joinpath("summary.json").write_text(json.dumps(dict(rows=rows)))
    folder.joinpath("metrics.json").write_text(json.dumps(dict(a=dict(accuracy=len(rows)))))
    folder.joinpath("plots").mkdir(exist_ok=True)
    for plot in ("score", "pareto", "latency"):
        folder.joinpath("plots", plot + ".json").write_text("[]")
"""


@dataclass
class Lab:
    """A repository with experiments, and DVC's command line."""

    root: Path
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    read: int = 0

    def experiment(self, folder: str = "experiments/x", **changes: Any) -> PipelineEntry:
        """Writes an experiment and its files; changes replace whole sections of the file."""
        document = {**copy.deepcopy(self.documents.get(folder, EXPERIMENT)), **changes}
        document = {key: value for key, value in document.items() if value is not None}
        self.documents[folder] = document
        home = self.root / folder
        home.mkdir(parents=True, exist_ok=True)
        home.joinpath("experiment.yaml").write_text(
            "# keep me\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        )
        for name, text in {
            "program.py": "import helper\n",
            "helper.py": "x = 1\n",
            "rows.jsonl": "{}\n",
        }.items():
            if not home.joinpath(name).exists():
                home.joinpath(name).write_text(text)
        return self.entry(folder)

    def entry(self, folder: str = "experiments/x") -> PipelineEntry:
        document = yaml.safe_load(self.root.joinpath(folder, "experiment.yaml").read_text())
        runs = expand(Experiment.model_validate(document))
        self.root.joinpath(folder, "keys.json").write_text(
            json.dumps({json.dumps(shlex.split(arguments(run))): run.key for run in runs})
        )
        return entry_of(document, f"{folder}/experiment.yaml")

    def sync(self, folder: str = "experiments/x", **changes: Any) -> PipelineEntry:
        entry = self.experiment(folder, **changes)
        upsert(self.root, entry)
        return entry

    def execute(self, entry: PipelineEntry, *keys: str) -> None:
        """What `dspylab run` does between asking what is stale and recording it."""
        names = {run: args for args, run in json.loads(self.path(entry, "keys.json").read_text()).items()}
        for key in keys:
            self.shell("dspylab", "run-one", "--config", str(entry.config), *json.loads(names[key]))
        self.shell("dspylab", "aggregate", "--config", str(entry.config))
        self.executed()

    def path(self, entry: PipelineEntry, name: str) -> Path:
        return self.root / entry.config.parent / name

    def shell(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *command: str) -> str:
        """DVC's command line inside of this process, which has imported DVC already."""
        said = io.StringIO()
        with contextlib.chdir(self.root), contextlib.redirect_stdout(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of DVC about itself
            code = dvc.cli.main(list(command))
        assert code == 0, said.getvalue()
        return said.getvalue()

    def git(self, *command: str) -> str:
        return self.shell("git", *command)

    def commit_all(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "state")

    def executed(self) -> list[str]:
        """Commands that ran since this was last asked: the coordinates of runs, or `aggregate`."""
        log = self.root / "executed.log"
        lines = log.read_text().splitlines() if log.exists() else []
        new = [json.loads(line) for line in lines[self.read :]]
        self.read = len(lines)
        return [command if command == "aggregate" else " ".join(rest) for command, *rest in new]

    def is_clean(self) -> bool:
        return "up to date" in self.dvc("status")

    def repository(self) -> Repository:
        return open_repository(self.root)


def entry_of(document: dict[str, Any], config: str = "experiments/x/experiment.yaml") -> PipelineEntry:
    experiment = Experiment.model_validate(document)
    folder = PurePosixPath(config).parent
    return build(
        experiment,
        expand(experiment),
        config=PurePosixPath(config),
        code=[str(folder / "program.py"), str(folder / "helper.py")],
        data=[str(folder / "rows.jsonl")],
        training=[str(folder / "rows.jsonl")],
        document=document,
        endpoints={},
    )


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty git + DVC repository; `dvc init` is too slow to call for every test."""
    root = tmp_path_factory.mktemp("template")
    for command in (
        "git init --quiet --initial-branch main",
        "git config user.name Tester",
        "git config user.email tester@example.org",
        "dvc init --quiet",
    ):
        subprocess.run(shlex.split(command), cwd=root, check=True)
    (root / ".gitignore").write_text("/executed.log\nkeys.json\n/bin/\n")
    return root


@pytest.fixture
def lab(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    root = tmp_path / "lab"
    shutil.copytree(template, root)
    script = root / "bin" / "dspylab"
    script.parent.mkdir()
    script.write_text(FAKE.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(script.parent), os.environ["PATH"]]))
    return Lab(root)


@pytest.fixture(autouse=True, scope="session")
def _quiet_dvc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path_factory.mktemp("site")))
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("SHELL", "/bin/sh")
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        yield


# --- what dvc.yaml says -------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(value=json_values)
def test_a_coordinate_can_be_read_back(value: JSON) -> None:
    argument = coordinate("program.style", value)
    assert parse_coordinate(argument) == ("program.style", value)
    # DVC runs every line of a command by itself.
    assert len(argument.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "argument"),
    [
        ("predict", "s=predict"),
        ("0.7", 's="0.7"'),
        (0.7, "s=0.7"),
        (None, "s=null"),
        ("a b", "s=a b"),
        ("", "s="),
    ],
)
def test_a_coordinate_is_written_as_a_person_would(value: JSON, argument: str) -> None:
    assert coordinate("s", value) == argument


@pytest.mark.parametrize("text", ["plain", "a b", "${x}", "it's ${x} $HOME `ls` \\${y}", "$${", "é\t*"])
def test_a_shell_reads_a_quoted_argument_as_it_was(text: str) -> None:
    assert "${" not in quote(text)
    shown = subprocess.run(
        ["sh", "-c", f"printf %s {quote(text)}"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == text


def test_runs_track_the_keys_of_their_own_models_only() -> None:
    stage = entry_of(EXPERIMENT).stages["x"]
    assert stage["foreach"] == {
        "a": {
            "args": "model=a",
            "params": ["models.a.model", "models.a.temperature", "models.a.temperature"],
            "settings": ["x.settings.a"],
        },
        "b": {
            "args": "model=b",
            "params": ["models.b.model", "models.b.temperature", "models.b.max_tokens"],
            "settings": ["x.settings.b"],
        },
    }
    assert stage["do"]["params"] == [
        {
            "experiments/x/experiment.yaml": [
                "program",
                "dataset",
                "metrics",
                "${item.params[0]}",
                "${item.params[1]}",
                "${item.params[2]}",
            ]
        },
        "${item.settings[0]}",
    ]


def test_what_all_runs_track_is_said_once() -> None:
    document = {**EXPERIMENT, "matrix": {"model": ["b"], "seed": [0, 1]}}
    stage = entry_of(document).stages["x"]
    assert stage["foreach"] == {"b-seed0": {"args": "model=b seed=0"}, "b-seed1": {"args": "model=b seed=1"}}
    tracked, settings = stage["do"]["params"]
    assert tracked["experiments/x/experiment.yaml"][-2:] == ["models.b.temperature", "models.b.max_tokens"]
    assert settings == "x.settings.b"


# --- editing YAML by its lines ------------------------------------------------------------------------------

USER_FILE = """\
# The top of a file that somebody cares about.
vars:
- 1

stages:
  # how mine works
  mine:   # and why
    cmd: |
      echo one

      # no comment, but a part of the command
    deps: [a,
      b]

  x: {cmd: dspylab run-one --config experiments/x/experiment.yaml}
  # this stands above theirs
  'theirs':
    cmd: ls

# and this above the metrics
metrics:
- m.json
"""


def test_all_other_lines_stay() -> None:
    new = blocks.replace(USER_FILE, "stages", {"x": "x:\n  cmd: new\n", "y": "y:\n  cmd: y\n"})
    expected = USER_FILE.replace(
        "  x: {cmd: dspylab run-one --config experiments/x/experiment.yaml}\n", "  x:\n    cmd: new\n"
    ).replace("    cmd: ls\n", "    cmd: ls\n  y:\n    cmd: y\n")
    assert new == expected
    assert blocks.replace(new, "stages", {"y": None}) == new.replace("  y:\n    cmd: y\n", "")


names = st.text("abcxyz@._-09", min_size=1, max_size=8).filter(lambda name: name[0].isalpha())
entries = st.dictionaries(names, st.dictionaries(names, json_values, max_size=3), max_size=3)


def read_yaml(text: str) -> Any:
    return YAML(typ="safe").load(text)


@settings(max_examples=60, deadline=None)
@given(
    before=entries,
    changes=entries,
    removed=st.sets(names, max_size=2),
    section=st.sampled_from([None, "stages"]),
)
def test_lines_and_data_agree(
    before: dict[str, Any], changes: dict[str, Any], removed: set[str], section: str | None
) -> None:
    # What YAML itself does not give back is not the point here: some control characters, some floats.
    for name, value in [*before.items(), *changes.items()]:
        assume(read_yaml(blocks.dump(name, value)) == {name: value})
    text = "".join(blocks.dump(name, value) for name, value in before.items())
    if section:
        text = "stages:\n" + "".join(f"  {line}\n" for line in text.split("\n")) + "other: 1\n"
    new = {**{name: blocks.dump(name, value) for name, value in changes.items()}, **dict.fromkeys(removed)}
    edited = read_yaml(blocks.replace(text, section, new)) or {}
    expected = {name: value for name, value in {**before, **changes}.items() if name not in removed}
    assert ((edited.get("stages") or {}) if section else edited) == expected


@settings(max_examples=60, deadline=None)
@given(command=st.text(min_size=1), values=st.dictionaries(st.text(), json_values, max_size=3))
def test_the_lock_file_is_written_as_dvc_writes_it(command: str, values: dict[str, Any]) -> None:
    content = OrderedDict(
        cmd=command,
        deps=[{"path": "a/b.py", "hash": "md5", "md5": "5e123456781234567812345678123456", "size": 3}],
        params=OrderedDict([("e.yaml", OrderedDict(values))]),
        outs=[{"path": "a/raw.jsonl", "hash": "md5", "md5": "0" * 32, "size": 3}],
    )
    ours = LockTexts().updated("", {}, {"x@a": content, "x@1.0": content})
    assert ours == dumps_yaml(
        {"schema": "2.0", "stages": {"x@a": copy.deepcopy(content), "x@1.0": copy.deepcopy(content)}}
    )


# --- keeping dvc.yaml and params.yaml -----------------------------------------------------------------------


def test_files_of_the_user_keep_their_stages_keys_and_comments(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(USER_FILE)
    (tmp_path / "params.yaml").write_text("# mine\nlr: 0.1   # a rate\n")
    entry = entry_of(EXPERIMENT)
    assert upsert(tmp_path, entry)
    text = (tmp_path / "dvc.yaml").read_text()
    assert [line for line in USER_FILE.splitlines() if line not in text.splitlines()] == [
        "  x: {cmd: dspylab run-one --config experiments/x/experiment.yaml}"
    ]
    assert blocks.load(text)["stages"]["x"] == entry.stages["x"]
    assert (tmp_path / "params.yaml").read_text().startswith("# mine\nlr: 0.1   # a rate\nx:\n")
    assert (tmp_path / "experiments/x/.gitignore").read_text() == (
        "/results/**/raw.jsonl\n/results/**/run.json\n"
    )


def test_a_file_that_says_it_already_is_not_touched(tmp_path: Path) -> None:
    upsert(tmp_path, entry_of(EXPERIMENT))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    time.sleep(0.01)
    assert not upsert(tmp_path, entry_of(EXPERIMENT))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_comes_or_goes_is_an_item_that_comes_or_goes(tmp_path: Path) -> None:
    def lines() -> set[str]:
        return set((tmp_path / "dvc.yaml").read_text().splitlines())

    upsert(tmp_path, entry_of(EXPERIMENT))
    first = lines()
    upsert(tmp_path, entry_of({**EXPERIMENT, "matrix": {"model": ["a", "b"], "exclude": [{"model": "a"}]}}))
    assert "args: model=a" not in {line.strip() for line in lines()}
    upsert(tmp_path, entry_of(EXPERIMENT))
    assert lines() == first


def test_two_experiments_stand_side_by_side_and_a_renamed_one_moves(tmp_path: Path) -> None:
    for name in ("x", "y"):
        folder = tmp_path / "experiments" / name
        folder.mkdir(parents=True)
        folder.joinpath("experiment.yaml").touch()
        upsert(tmp_path, entry_of({**EXPERIMENT, "name": name}, f"experiments/{name}/experiment.yaml"))
    upsert(tmp_path, entry_of({**EXPERIMENT, "name": "z"}))
    stages = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]
    assert set(stages) == {"y", "y-summary", "z", "z-summary"}
    assert set(yaml.safe_load((tmp_path / "params.yaml").read_text())) == {"y", "z"}
    (tmp_path / "experiments/y/experiment.yaml").unlink()
    upsert(tmp_path, entry_of({**EXPERIMENT, "name": "z"}))
    assert set(yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]) == {"z", "z-summary"}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_ends_stay(tmp_path: Path, newline: str) -> None:
    (tmp_path / "dvc.yaml").write_bytes(USER_FILE.replace("\n", newline).encode())
    upsert(tmp_path, entry_of(EXPERIMENT))
    content = (tmp_path / "dvc.yaml").read_bytes().decode()
    assert content.count("\n") == content.count(newline)
    assert not upsert(tmp_path, entry_of(EXPERIMENT))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "stages: {}\n",
        "stages:\nplots:\n- a\n",
        "{stages: {mine: {cmd: ls}}}\n",
        "---\n",
    ],
)
def test_any_shape_of_file_gets_its_stages(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    before = yaml.safe_load(text) or {}
    upsert(tmp_path, entry_of(EXPERIMENT))
    after = yaml.safe_load((tmp_path / "dvc.yaml").read_text())
    assert set(after["stages"]) == {"x", "x-summary", *(before.get("stages") or {})}
    assert {key: value for key, value in after.items() if key != "stages"} == {
        key: value for key, value in before.items() if key != "stages"
    }
    assert not upsert(tmp_path, entry_of(EXPERIMENT))


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("dvc.yaml", "stages:\n  a: [\n", "dvc.yaml:3"),
        ("dvc.yaml", "stages:\n<<<<<<< HEAD\n  a: 1\n=======\n  b: 1\n>>>>>>> other\n", "dvc.yaml:2"),
        ("dvc.yaml", "- a\n", "dvc.yaml:1"),
        ("dvc.yaml", "stages: [a]\n", "dvc.yaml"),
        ("dvc.yaml", "stages:\n  mine:\n    cmd: ls\n  x:\n    cmd: ls\n", "dvc.yaml:4"),
        ("dvc.yaml", "stages:\n  x-summary:\n    cmd: ls\n", "dvc.yaml:2"),
        ("params.yaml", "lr: 1\nx: 1\n", "params.yaml:2"),
        ("params.yaml", "a: 'b\n", "params.yaml:2"),
    ],
)
def test_a_file_in_the_way_is_named_with_its_line_and_nothing_is_written(
    tmp_path: Path, name: str, text: str, where: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RepositoryError) as caught:
        upsert(tmp_path, entry_of(EXPERIMENT))
    assert caught.value.where == where
    assert caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == text


def test_two_experiment_files_of_one_name_are_refused_until_one_is_gone(tmp_path: Path) -> None:
    old = tmp_path / "experiments/old/experiment.yaml"
    old.parent.mkdir(parents=True)
    old.touch()
    upsert(tmp_path, entry_of(EXPERIMENT, "experiments/old/experiment.yaml"))
    with pytest.raises(RepositoryError, match=r"belongs to experiments/old/experiment.yaml"):
        upsert(tmp_path, entry_of(EXPERIMENT))
    old.rename(old.with_name("renamed.yaml"))
    assert upsert(tmp_path, entry_of(EXPERIMENT))


# --- DVC's own commands -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_repro_executes_what_changed_and_nothing_else(lab: Lab) -> None:
    entry = lab.sync()
    lab.dvc("repro", "--quiet")
    assert lab.executed() == ["model=a", "model=b", "aggregate"]
    states = lab.repository().states(entry, ["a", "b"])
    assert [states["a"].state, states["b"].state] == ["done", "done"]
    assert lab.repository().summary_state(entry).state == "done"
    assert not list(lab.path(entry, "results").rglob(".gitignore"))
    lab.commit_all()
    assert "results/" not in lab.git("ls-files")

    # Keys that change no result: the summary reads all of `models`, the runs do not.
    models = copy.deepcopy(EXPERIMENT["models"])
    models["a"]["max_concurrency"] = 1
    lab.sync(description="new", execution={"max_concurrency": 2}, budget={"max_calls": 9}, models=models)
    lab.dvc("repro", "--quiet")
    assert lab.executed() == ["aggregate"]

    lab.dvc("exp", "run", "--quiet", "--set-param", "experiments/x/experiment.yaml:models.a.temperature=0.2")
    assert lab.executed() == ["model=a", "aggregate"]
    assert "# keep me" in lab.path(entry, "experiment.yaml").read_text()

    # What ran once comes from the run cache: the raw rows of that time, not a new call.
    lab.dvc("exp", "run", "--quiet", "--set-param", "experiments/x/experiment.yaml:models.a.temperature=0.0")
    assert lab.executed() == ["aggregate"]

    lab.path(entry, "helper.py").write_text("x = 2\n")
    lab.sync(matrix={"model": ["a", "b"], "seed": [0], "include": [{"model": "a", "seed": 1}]})
    lab.dvc("repro", "--quiet")
    assert sorted(lab.executed()) == ["aggregate", "model=a seed=0", "model=a seed=1", "model=b seed=0"]
    lab.sync(matrix={"model": ["a", "b"], "seed": [0]})
    lab.dvc("repro", "--quiet")
    assert lab.executed() == ["aggregate"]
    assert lab.is_clean()


def test_coordinates_with_odd_characters_reach_the_command(lab: Lab) -> None:
    lab.sync(
        matrix={"model": ["a"], "program.style": ["it's ${x} \\${y} $HOME", "0.7", 0.7, {"k": ["v", None]}]},
    )
    lab.dvc("repro", "--quiet")
    assert lab.executed() == [
        "model=a program.style=it's ${x} \\${y} $HOME",
        'model=a program.style="0.7"',
        "model=a program.style=0.7",
        'model=a program.style={"k": ["v", null]}',
        "aggregate",
    ]
    assert lab.is_clean()


def test_a_key_taken_out_of_a_model_makes_its_runs_stale(lab: Lab) -> None:
    entry = lab.sync()
    lab.dvc("repro", "--quiet")
    lab.executed()
    models = copy.deepcopy(EXPERIMENT["models"])
    del models["b"]["max_tokens"]
    entry = lab.sync(models=models)
    states = lab.repository().states(entry, ["a", "b"])
    assert states["a"].state == "done"
    assert (states["b"].state, states["b"].reasons) == ("stale", ("models.b.max_tokens removed",))
    lab.dvc("repro", "--quiet")
    assert lab.executed() == ["model=b", "aggregate"]


# --- the batch ----------------------------------------------------------------------------------------------


def test_after_a_batch_dvc_has_nothing_to_do(lab: Lab) -> None:
    (lab.root / "dvc.yaml").write_text("stages:\n  mine:\n    cmd: date > mine.txt\n    outs: [mine.txt]\n")
    lab.dvc("repro", "--quiet", "mine")
    entry = lab.sync()
    repository = lab.repository()
    states = repository.states(entry, ["a", "b"])
    assert [(state.state, state.reasons) for state in states.values()] == [("missing", ("never run",))] * 2
    assert repository.restore(entry, ["a", "b"]) == set()
    lab.execute(entry, "a", "b")
    assert repository.commit(entry, ["a", "b"], summary=True) == {"a", "b"}
    assert lab.is_clean()
    lab.dvc("repro", "--quiet")
    assert lab.executed() == []
    assert {state.state for state in repository.states(entry, ["a", "b"]).values()} == {"done"}
    assert repository.summary_state(entry).state == "done"
    # DVC would have written the same lines, and it finds the results when they are deleted.
    lock = (lab.root / "dvc.lock").read_text()
    lab.dvc("commit", "--force", "--quiet")
    assert (lab.root / "dvc.lock").read_text() == lock
    shutil.rmtree(lab.path(entry, "results"))
    (lab.root / "dvc.lock").unlink()
    lab.dvc("repro", "--quiet", "x")
    assert lab.executed() == []


def test_a_part_of_the_runs_is_recorded_and_the_rest_stays_to_do(lab: Lab) -> None:
    entry = lab.sync()
    repository = lab.repository()
    lab.execute(entry, "a")
    assert repository.commit(entry, ["a", "b"], summary=True) == {"a"}
    states = repository.states(entry, ["a", "b"])
    assert (states["a"].state, states["b"].state) == ("done", "missing")
    lab.dvc("repro", "--quiet")
    assert lab.executed() == ["model=b", "aggregate"]


def test_results_come_back_from_the_cache(lab: Lab) -> None:
    entry = lab.sync()
    repository = lab.repository()
    lab.execute(entry, "a", "b")
    repository.commit(entry, ["a", "b"], summary=True)
    first = lab.path(entry, "results/a/raw.jsonl").read_text()

    # Deleted from the workspace.
    shutil.rmtree(lab.path(entry, "results/a"))
    state = repository.states(entry, ["a"])["a"]
    assert (state.state, state.reasons) == ("missing", ("raw.jsonl is missing", "run.json is missing"))
    assert repository.restore(entry, ["a"]) == {"a"}
    assert lab.path(entry, "results/a/raw.jsonl").read_text() == first

    # Other settings and back again: the run cache, over a file that is there.
    models = copy.deepcopy(EXPERIMENT["models"])
    models["a"]["temperature"] = 1.0
    warm = lab.sync(models=models)
    assert repository.states(warm, ["a"])["a"].reasons == ("models.a.temperature changed",)
    assert repository.restore(warm, ["a", "b"]) == {"b"}
    lab.execute(warm, "a")
    repository.commit(warm, ["a"], summary=True)
    assert lab.path(entry, "results/a/raw.jsonl").read_text() != first
    entry = lab.sync(models=EXPERIMENT["models"])
    assert repository.restore(entry, ["a"]) == {"a"}
    assert lab.path(entry, "results/a/raw.jsonl").read_text() == first
    assert repository.states(entry, ["a"])["a"].state == "done"

    # The cache is lost, the workspace is not.
    shutil.rmtree(lab.root / ".dvc" / "cache")
    repository = lab.repository()
    assert repository.states(entry, ["b"])["b"].reasons[0] == "raw.jsonl is not in the cache"
    assert repository.restore(entry, ["a", "b"]) == {"a", "b"}
    lab.shell("dspylab", "aggregate", "--config", str(entry.config))
    repository.commit(entry, [], summary=True)
    assert lab.is_clean()

    # Both are lost, as in a clone without a remote.
    shutil.rmtree(lab.root / ".dvc" / "cache")
    shutil.rmtree(lab.path(entry, "results/a"))
    state = lab.repository().states(entry, ["a"])["a"]
    assert (state.state, state.reasons[0]) == ("missing", "raw.jsonl is missing, also from the cache")
    assert lab.repository().restore(entry, ["a", "b"]) == {"b"}


def test_reasons_name_the_key_or_file_that_changed(lab: Lab) -> None:
    entry = lab.sync()
    repository = lab.repository()
    lab.execute(entry, "a", "b")
    repository.commit(entry, ["a", "b"], summary=True)
    lab.path(entry, "helper.py").write_text("x = 3\n")
    lab.path(entry, "rows.jsonl").unlink()
    lab.path(entry, "results/b/raw.jsonl").write_text("by hand\n")
    models = copy.deepcopy(EXPERIMENT["models"])
    models["a"]["max_tokens"] = 8
    program = {"path": "program.py", "args": {"style": "cot", "depth": 2}}
    entry = lab.experiment(models=models, program=program)
    lab.path(entry, "rows.jsonl").unlink()
    # Nothing is synced: what the entry says counts.
    states = repository.states(entry, ["a", "b"])
    common = {
        "helper.py changed",
        "rows.jsonl is gone",
        "program.args.depth added",
        "program.args.style changed",
    }
    assert set(states["a"].reasons) == {*common, "models.a.max_tokens added"}
    # Nothing of its outputs: what `dvc checkout` brings back is what other inputs made.
    assert set(states["b"].reasons) == common
    assert {state.state for state in states.values()} == {"stale"}


def test_results_of_a_program_that_was_edited_meanwhile_are_not_recorded(lab: Lab) -> None:
    entry = lab.sync()
    repository = lab.repository()
    repository.states(entry, ["a", "b"])
    lab.execute(entry, "a", "b")
    lab.path(entry, "helper.py").write_text("x = 4\n")
    assert repository.commit(entry, ["a", "b"], summary=True) == set()
    repository.states(entry, ["a", "b"])
    assert repository.commit(entry, ["a", "b"], summary=True) == {"a", "b"}


def test_a_summary_that_was_not_built_anew_is_not_recorded(lab: Lab) -> None:
    entry = lab.sync()
    repository = lab.repository()
    lab.execute(entry, "a", "b")
    repository.commit(entry, ["a"], summary=False)
    assert repository.summary_state(entry).reasons == ("never run",)
    repository.commit(entry, ["b"], summary=True)
    lab.path(entry, "results/a/raw.jsonl").write_text("newer rows\n")
    repository.commit(entry, ["a"], summary=False)
    assert repository.summary_state(entry).reasons == ("results changed",)
    assert not lab.is_clean()


def test_a_lock_file_in_another_style_is_left_to_dvc(lab: Lab) -> None:
    entry = lab.sync()
    repository = lab.repository()
    lab.execute(entry, "a", "b")
    repository.commit(entry, ["a"], summary=True)
    lock = lab.root / "dvc.lock"
    lock.write_text(json.dumps(yaml.safe_load(lock.read_text())))
    assert repository.commit(entry, ["b"], summary=True) == {"b"}
    assert lab.is_clean()


# --- the state of the repository ----------------------------------------------------------------------------


def test_an_experiment_is_saved_beside_the_work_tree(lab: Lab) -> None:
    entry = lab.sync()
    (lab.root / "tracked.txt").touch()
    lab.commit_all()
    lab.execute(entry, "a", "b")
    repository = lab.repository()
    repository.commit(entry, ["a", "b"], summary=True)
    (lab.root / "tracked.txt").write_text("edited\n")
    (lab.root / "staged.txt").write_text("staged\n")
    (lab.root / "note.txt").write_text("not for the experiment\n")
    lab.git("add", "staged.txt")
    before = lab.git("status", "--porcelain=v2", "--branch"), lab.git("stash", "list")
    results = [
        lab.path(entry, "summary.json"),
        lab.path(entry, "metrics.json"),
        lab.path(entry, "absent.json"),
    ]
    saved = repository.save_experiment("x", results)
    assert isinstance(saved, git.SavedExperiment)
    assert saved.new
    assert (lab.git("status", "--porcelain=v2", "--branch"), lab.git("stash", "list")) == before
    again = repository.save_experiment("x", results)
    assert again == git.SavedExperiment(saved.name, saved.rev, new=False)

    files = lab.git("ls-tree", "-r", "--name-only", saved.rev).splitlines()
    assert {"dvc.lock", "staged.txt", "experiments/x/summary.json", "experiments/x/metrics.json"} <= set(
        files
    )
    assert "note.txt" not in files
    shown = json.loads(lab.shell("dvc", "exp", "show", "--json"))
    (experiment,) = shown[1]["experiments"]
    assert experiment["name"] == saved.name
    (revision,) = experiment["revs"]
    metrics = revision["data"]["metrics"]["experiments/x/metrics.json"]["data"]
    assert metrics == {"a": {"accuracy": 2}}
    params = revision["data"]["params"]
    assert set(params) == {"experiments/x/experiment.yaml", "params.yaml"}

    rows = lab.path(entry, "results/a/raw.jsonl").read_text()
    assert lab.git("show", f"{saved.rev}:tracked.txt") == "edited\n"
    lab.git("reset", "--quiet", "--hard")
    (lab.root / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(lab.path(entry, "results"))
    lab.dvc("exp", "apply", "--quiet", saved.name)
    assert lab.path(entry, "results/a/raw.jsonl").read_text() == rows
    assert lab.is_clean()
    lab.dvc("exp", "remove", "--quiet", saved.name)
    assert json.loads(lab.shell("dvc", "exp", "show", "--json"))[1]["experiments"] is None


def test_states_of_git_that_cannot_hold_an_experiment_say_why(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.sync()
    repository = lab.repository()
    assert repository.git_state() is None
    unborn = repository.save_experiment("x", [])
    assert isinstance(unborn, git.NotSaved)
    assert "git commit" in unborn.reason

    lab.commit_all()
    assert repository.save_experiment("x", []) == git.NotSaved("nothing differs from the last commit")
    state = repository.git_state()
    assert state is not None
    assert (state.branch, state.dirty, state.commit) == ("main", False, lab.git("rev-parse", "HEAD").strip())

    lab.git("checkout", "--quiet", "--detach")
    lab.sync(description="dirty")
    state = repository.git_state()
    assert state is not None
    assert (state.branch, state.dirty) == (None, True)
    assert isinstance(repository.save_experiment("x", []), git.SavedExperiment)

    lab.git("config", "--unset", "user.email")
    lab.git("config", "user.useConfigOnly", "true")
    anonymous = repository.save_experiment("x", [])
    assert isinstance(anonymous, git.NotSaved)
    assert "git config user.name" in anonymous.reason


def test_a_subfolder_and_another_working_directory_will_do(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = lab.sync()
    lab.execute(entry, "a", "b")
    for folder in (lab.root / "experiments", tmp_path):
        monkeypatch.chdir(folder)
        repository = open_repository(lab.root / "experiments" / "x")
        assert repository.root == lab.root
        repository.commit(entry, ["a", "b"], summary=True)
        shutil.rmtree(lab.path(entry, "results/a"))
        (lab.root / "dvc.lock").unlink()
        assert repository.restore(entry, ["a"]) == {"a"}
        assert repository.states(entry, ["a"])["a"].state == "done"


def test_a_folder_without_git_or_dvc_says_which_command_makes_it_one(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError) as caught:
        open_repository(tmp_path)
    assert "git init && dvc init" in str(caught.value)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "sub").mkdir()
    with pytest.raises(RepositoryError) as caught:
        open_repository(tmp_path / "sub")
    assert f"cd {tmp_path} && dvc init" in str(caught.value)


def _conflict(lab: Lab) -> None:
    (lab.root / "dvc.lock").write_text("schema: '2.0'\n<<<<<<< HEAD\nstages: {}\n=======\n>>>>>>> other\n")


def _broken_lock(lab: Lab) -> None:
    (lab.root / "dvc.lock").write_text("schema: '2.0'\nstages: [\n")


def _wrong_lock(lab: Lab) -> None:
    (lab.root / "dvc.lock").write_text("schema: '2.0'\nstages: 7\n")


def _git_is_gone(lab: Lab) -> None:
    shutil.rmtree(lab.root / ".git")


def _no_place_for_temporary_files(lab: Lab) -> None:
    shutil.rmtree(lab.root / ".dvc" / "tmp", ignore_errors=True)
    (lab.root / ".dvc" / "tmp").write_text("a file where DVC needs a folder")


@pytest.mark.parametrize(
    ("break_it", "where", "remedy"),
    [
        (_conflict, "dvc.lock:2", "git checkout --ours dvc.lock"),
        (_broken_lock, "dvc.lock:3", "git checkout -- dvc.lock"),
        (_wrong_lock, "dvc.lock", "git checkout -- dvc.lock"),
        (_git_is_gone, "lab", "git init"),
        (_no_place_for_temporary_files, "tmp", "make the folder writable"),
    ],
)
def test_a_broken_repository_is_explained(
    lab: Lab, break_it: Callable[[Lab], None], where: str, remedy: str
) -> None:
    entry = lab.sync()
    break_it(lab)
    with pytest.raises(RepositoryError) as caught:
        lab.repository().states(entry, ["a"])
    assert (caught.value.where or "").endswith(where)
    assert remedy in (caught.value.remedy or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_explained(lab: Lab) -> None:
    entry = lab.sync()
    folders = [lab.root, *(path for path in lab.root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        with pytest.raises(RepositoryError, match="cannot work"):
            lab.repository().states(entry, ["a"])
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_results_that_git_tracks_are_explained(lab: Lab) -> None:
    entry = lab.sync()
    lab.execute(entry, "a", "b")
    lab.git("add", "--force", "experiments/x/results")
    with pytest.raises(RepositoryError, match=r"git rm -r --cached experiments/x/results"):
        lab.repository().commit(entry, ["a", "b"], summary=True)


HOLD = """
import sys, time
from dvc.repo import Repo
with Repo({root!r}).lock:
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_holds_the_lock_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = lab.sync()
    monkeypatch.setattr(repo, "LOCK_ATTEMPTS", 1)
    script = HOLD.format(root=str(lab.root))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RepositoryError, match=f"is locked by process {holder.pid}"):
            lab.repository().states(entry, ["a"])
        holder.communicate("")
    assert lab.repository().states(entry, ["a"])["a"].state == "missing"


def test_a_run_that_dvc_is_executing_is_not_recorded_from_the_side(lab: Lab) -> None:
    entry = lab.sync()
    lab.execute(entry, "a", "b")
    (lab.root / "sleep_s").write_text("30")
    with subprocess.Popen(["dvc", "repro", "--quiet", "x@a"], cwd=lab.root) as running:
        while not lab.executed():
            assert running.poll() is None
            time.sleep(0.05)
        repository = lab.repository()
        assert repository.states(entry, ["b"])["b"].state == "missing"
        with pytest.raises(RepositoryError, match=f"PID {running.pid}"):
            repository.commit(entry, ["a"], summary=True)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(running.pid)], capture_output=True, text=True, check=False
        )
        for pid in children.stdout.split():
            os.kill(int(pid), 9)
        running.wait()


def test_runs_of_a_spec_are_addressed_by_their_key() -> None:
    run = RunSpec(key="a", coordinates={"model": "a", "lm.temperature": 0.7, "seed": 1}, model="a")
    assert arguments(run) == "model=a lm.temperature=0.7 seed=1"
