"""`dspylab doctor`: is this machine ready for an experiment, and if not, what to do about it?"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement

from dspylab.commands.find import configs_in_reach, find_config
from dspylab.commands.sync import pipeline_entry
from dspylab.config.models import Experiment
from dspylab.config.wording import counted
from dspylab.errors import DspylabError, EnvironmentProblem, InvalidExperiment
from dspylab.extras import install_command
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.lm.gguf import is_present
from dspylab.lm.keys import find_keys
from dspylab.pipeline import git
from dspylab.pipeline.dvcfile import is_synced
from dspylab.plan.identity import compile_models
from dspylab.printable import printable
from dspylab.record.layout import find_root
from dspylab.redact import redact

#: Silence of an endpoint after which it counts as out of reach, in seconds.
_TIMEOUT_S = 10.0
#: Free disk space below which results may not fit, in bytes.
_LITTLE_SPACE = 100_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    Attributes:
        state: `ok`; `note`: it works, but it is worth knowing; `problem`: something will fail.
        what: What was looked at.
        found: What was found, and for a problem what to do.
    """

    state: Literal["ok", "note", "problem"]
    what: str
    found: str


def diagnose(config: Path | None, *, call: bool) -> None:
    """Looks at everything that an experiment needs and prints a line for each thing.

    Args:
        config: The experiment; None for all in sight.
        call: Make a call of a few tokens to each model, instead of asking for its list of models.

    Raises:
        EnvironmentProblem: If there is any problem.
    """
    problems = 0
    for check in _checks(config, call=call):
        problems += check.state == "problem"
        # A finding in a file begins with the file.
        is_placed = check.found.startswith(f"{check.what}:")
        for line in redact(check.found if is_placed else f"{check.what}: {check.found}").splitlines():
            print(f"{check.state:8} {printable(line)}", flush=True)
    if problems:
        raise EnvironmentProblem(
            f"{problems} problem{'s' * (problems != 1)}",
            remedy="mend them from the top, then look again with `dspylab doctor`",
        )


def _checks(config: Path | None, *, call: bool) -> Iterator[Check]:
    yield _python()
    yield from _packages()
    root = find_root(Path.cwd() if config is None else find_config(config).absolute().parent)
    yield from _guarded("git", lambda: _git(root))
    yield from _guarded("DVC", lambda: _dvc(root))
    yield from _guarded("files", lambda: _files(root))
    configs = configs_in_reach() if config is None else [find_config(config)]
    if not configs:
        yield Check(
            "note", "experiments", "none here: make one with `dspylab init`, or name one with --config"
        )
    for path in configs:
        yield from _guarded(str(path), lambda path=path: _experiment(path, call=call))  # type: ignore[misc]


def _guarded(what: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """The checks of a part, up to the first that cannot go on."""
    try:
        yield from look()
    except InvalidExperiment as error:
        yield from (Check("problem", what, str(finding)) for finding in error.findings)
    except DspylabError as error:
        where = None if error.where is None or what.endswith(error.where) else error.where
        yield Check("problem", what, ": ".join(part for part in (where, error.message, error.remedy) if part))


def _python() -> Check:
    found = f"{platform.python_version()} in {sys.prefix}, {platform.system()} {platform.machine()}"
    wanted = importlib.metadata.metadata("dspylab")["Requires-Python"] or ""
    if not Requirement(f"python{wanted}").specifier.contains(platform.python_version(), prereleases=True):
        return Check("problem", "Python", f"{found}; dspylab needs {wanted}: make an environment with one")
    return Check("ok", "Python", found)


def _packages() -> Iterator[Check]:
    """What dspylab requires, in the versions that are installed."""
    fitting = []
    for requirement in map(_parsed, importlib.metadata.requires("dspylab") or []):
        if requirement is None or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        wanted = f"{requirement.name}{requirement.specifier}"
        remedy = f"python -m pip install '{wanted}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check("problem", "packages", f"{wanted} is not installed: {remedy}")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting.append(f"{requirement.name} {version}")
        else:
            yield Check("problem", "packages", f"{requirement.name} is {version}, not {wanted}: {remedy}")
    yield Check("ok", "packages", ", ".join([f"dspylab {importlib.metadata.version('dspylab')}", *fitting]))


def _parsed(text: str) -> Requirement | None:
    try:
        return Requirement(text)
    except InvalidRequirement:  # of an installer that writes what it likes
        return None


def _git(root: Path) -> Iterator[Check]:
    top = git.find_git_root(root)
    if top is None:
        return  # DVC may do without, and says so if it does not
    if unmerged := git.unmerged(top):
        found = f"a merge is not finished: {', '.join(unmerged[:5])}"
        yield Check("problem", "git", f"{found}: resolve it, or go back with git merge --abort")
    state = git.git_state(top)
    if state is None:
        found = f"{top} has no commit, so results are not saved as DVC experiments"
        yield Check("note", "git", f"{found}: git add --all && git commit -m 'First commit'")
    else:
        place = f"on {state.branch}" if state.branch else "with a detached head"
        yield Check("ok", "git", f"{top} {place} at {state.commit[:7]}{', changed' * state.dirty}")
    if not git.has_identity(top):
        found = "it does not know who you are, so results are not saved as DVC experiments"
        remedy = "git config user.name NAME && git config user.email ADDRESS"
        yield Check("note", "git", f"{found}: {remedy}")


def _dvc(root: Path) -> Iterator[Check]:
    from dspylab.pipeline.repo import open_repository

    program = shutil.which("dspylab")
    if program is None:
        found = "`dvc repro` runs `dspylab`, which is not on PATH"
        yield Check("problem", "DVC", f"{found}: activate the environment in {sys.prefix}")
    elif not Path(program).resolve().is_relative_to(Path(sys.prefix).resolve()):
        yield Check("note", "DVC", f"`dvc repro` runs {program}, which is of another environment than this")
    repository = open_repository(root)
    try:
        stages = repository.check()
    finally:
        repository.close()
    without = "" if repository.has_git else ", without git"
    yield Check("ok", "DVC", f"{repository.root}, {stages} stage{'s' * (stages != 1)}, not locked{without}")


def _files(root: Path) -> Iterator[Check]:
    fixed = _fixed(root, root / ".dspylab")
    yield from map(_read_only, fixed)
    free = shutil.disk_usage(root).free
    if free < _LITTLE_SPACE:
        yield Check("problem", "files", f"{free / 1e6:.0f} MB are free on the disk of {root}: make room")
    elif not fixed:
        yield Check("ok", "files", f"{root} is writable, {free / 1e9:.1f} GB are free")
    if git.find_git_root(root) is None:
        return
    if git.is_tracked(root, ".env"):
        remedy = "git rm --cached .env && echo .env >> .gitignore, and make new keys"
        yield Check("problem", "files", f".env is tracked by git, keys and all: {remedy}")
    elif (root / ".env").exists() and not git.ignored(root, [".env"]):
        yield Check("problem", "files", ".env is not ignored by git: echo .env >> .gitignore")
    if git.is_tracked(root, ".dspylab"):
        yield Check("problem", "files", ".dspylab is tracked by git: git rm -r --cached .dspylab")


def _fixed(*folders: Path) -> list[Path]:
    """Those of the folders that are there and cannot be written."""
    return [folder for folder in folders if folder.exists() and not os.access(folder, os.W_OK)]


def _read_only(folder: Path) -> Check:
    return Check("problem", "files", f"{folder} is read-only: make it writable: chmod -R u+w {folder}")


def _experiment(path: Path, *, call: bool) -> Iterator[Check]:
    name = str(path)
    laboratory = open_laboratory(path)
    runs = len(laboratory.runs)
    yield Check("ok", name, f"valid, {counted(runs, 'run')}")
    yield from (Check("note", name, warning) for warning in laboratory.loaded.warnings)
    yield from (_read_only(folder) for folder in _fixed(laboratory.layout.folder, laboratory.layout.results))
    looks: tuple[Callable[[], Iterator[Check]], ...] = (
        lambda: _code(name, laboratory),
        lambda: _data(name, laboratory),
        lambda: _fields(name, laboratory),
        lambda: _pipeline(name, laboratory),
        lambda: _models(name, laboratory, call=call),
    )
    # What one part can not do without, such as the data, is missing to others, too, and said once.
    said = set()
    for look in looks:
        for check in _guarded(name, look):
            if check not in said:
                said.add(check)
                yield check


def _code(name: str, laboratory: Laboratory) -> Iterator[Check]:
    """Imports the code and builds the program with the arguments of every run, as the runs will."""
    # Heavy: it imports dspy.
    from dspylab.program.adapters import adapter_of

    files = laboratory.code_files
    seen = []
    for run in laboratory.runs:
        if run.program_args not in seen:
            seen.append(run.program_args)
            laboratory.code.build(run.program_args)
        adapter_of(laboratory.code, run.adapter)
    yield Check("ok", name, f"the program is built, from {len(files)} file{'s' * (len(files) != 1)}")


def _data(name: str, laboratory: Laboratory) -> Iterator[Check]:
    splits = laboratory.splits
    yield Check("ok", name, f"the dataset has {len(splits.test)} test and {len(splits.train)} train examples")


def _fields(name: str, laboratory: Laboratory) -> Iterator[Check]:
    """Whether program, dataset and metrics speak of the same fields."""
    from dspylab.execute.fit import misfits

    found = misfits(laboratory, [*laboratory.runs, *laboratory.compiles])
    for misfit in found:
        yield Check("problem" if misfit.fails else "note", name, str(misfit.finding))
    if not found:
        yield Check("ok", name, "program, dataset and metrics name the same fields")


def _pipeline(name: str, laboratory: Laboratory) -> Iterator[Check]:
    root = laboratory.layout.root
    if is_synced(root, pipeline_entry(laboratory)):
        yield Check("ok", name, "dvc.yaml says what the experiment says")
    else:
        yield Check("note", name, "dvc.yaml is not up to date; `dspylab run` writes it, or: dspylab sync")


def _models(name: str, laboratory: Laboratory, *, call: bool) -> Iterator[Check]:
    """The keys and endpoints of the models that the matrix uses."""
    # Heavy: it imports dspy.
    from dspylab.execute.jobs import models_of_runs

    experiment = _impatient(laboratory.experiment)
    answering = models_of_runs(laboratory, laboratory.runs)
    compiling = [model for spec in laboratory.compiles for model in compile_models(experiment, spec).values()]
    for model_id in dict.fromkeys([*answering, *compiling]):
        what = f"{name}: models.{model_id}"
        yield from _guarded(what, lambda: _model(what, laboratory, experiment, model_id, call=call))  # noqa: B023


def _model(
    what: str, laboratory: Laboratory, experiment: Experiment, model_id: str, *, call: bool
) -> Iterator[Check]:
    from dspylab.lm import reach
    from dspylab.lm.build import Models

    model, folder = experiment.models[model_id], laboratory.layout.folder
    if model.is_local:
        if importlib.util.find_spec("xllamacpp") is None:
            yield Check("problem", what, f"xllamacpp is not installed: {install_command('local')}")
            return
        if not is_present(model.model, base=folder):
            yield Check("note", what, f"{model.model} is not on this machine; the first run fetches it")
            return
        if not call:
            yield Check("ok", what, f"{model.model} is on this machine")
            return
    key = find_keys({model_id: model}, laboratory.environment)[model_id]
    with_key = "with its key" if key else "without a key"
    with Models(experiment, [model_id], folder, laboratory.environment) as models:
        for run in laboratory.runs:
            if run.model == model_id:
                models.lm(model_id, run.lm_settings)
        if call:
            found: reach.Look | None = reach.Look(reach.call(models, model_id, _TIMEOUT_S))
        else:
            found = reach.look(models.engines[model_id], _TIMEOUT_S)
    if found is None:
        yield Check("note", what, f"{model.model}, {with_key}: not asked; `dspylab doctor --call` calls it")
    else:
        yield Check("ok" if found.is_fine else "note", what, f"{model.model}, {with_key}: {found.said}")


def _impatient(experiment: Experiment) -> Experiment:
    """The experiment with models that are asked once and not waited for."""
    changes = {"timeout_s": _TIMEOUT_S, "num_retries": 0}
    models = {model_id: model.model_copy(update=changes) for model_id, model in experiment.models.items()}
    return experiment.model_copy(update={"models": models})
