"""`dspylab init`: a working laboratory from nothing, or from a program that exists."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path

from dspylab.commands.find import configs_in_sight
from dspylab.errors import DspylabError, EnvironmentProblem, UsageError
from dspylab.extras import install_command
from dspylab.laboratory import open_laboratory
from dspylab.lm.gguf import BUNDLED, is_present
from dspylab.lm.keys import find_keys
from dspylab.pipeline import git
from dspylab.places import shown_path
from dspylab.program.discover import FoundProgram, discover
from dspylab.record.layout import find_root
from dspylab.scaffold.draft import draft, experiment_name
from dspylab.scaffold.editors import SCHEMA_FILE, refresh_schema, schema_line_path, schema_text
from dspylab.scaffold.folder import Change, add_lines, copy_missing, template, write_missing

_EXAMPLE = "topics"
_MESSAGE = "A laboratory, made by dspylab init"


@dataclass
class _Made:
    """What came about so far."""

    changes: list[Change] = field(default_factory=list)
    new_repository: bool = False
    todo: list[str] = field(default_factory=list)

    @property
    def written(self) -> list[Path]:
        return [change.path for change in self.changes if change.did != "kept"]


def init_laboratory(folder: Path, program: Path | None) -> None:
    """Makes a laboratory in a folder. Adds what is missing and overwrites nothing.

    Args:
        folder: The folder; made if need be.
        program: A program to write a first experiment for, instead of the example.

    Raises:
        UsageError: If the program lies outside of the folder.
        ProgramError: If the program cannot be used.
        RepositoryError: If git or DVC cannot make a repository.
        EnvironmentProblem: If a file cannot be written.
    """
    root = _made_folder(folder)
    source = None if program is None else _checked_program(program, root)
    target = None if source is None else _place_for(source, root)
    # Before anything is written: a program that cannot be used leaves the folder as it was.
    found = None if source is None or target is None or target.exists() else discover(source, find_root(root))
    made = _Made()
    _add_repository(made, root)
    if target is None:
        target = _add_example(made, root)
    elif found is None:
        made.changes.append(Change(target, "kept"))
    else:
        _add_first_experiment(made, root, target, found)
    for change in made.changes:
        print(f"{change.did:7} {shown_path(change.path)}")
    _commit(made, root)
    _tell_next(made, root, target)


def _made_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError("is a file", where=str(folder), remedy="name a folder") from error
    except OSError as error:
        raise EnvironmentProblem(f"cannot be made: {error.strerror}", where=str(folder)) from error
    return folder.resolve()


def _checked_program(program: Path, root: Path) -> Path:
    path = Path(os.path.abspath(program))  # noqa: PTH100 - links stay, as elsewhere
    path = path.parent.resolve() / path.name
    if not path.is_file() or path.suffix != ".py":
        problem = "no such file" if not path.exists() else "is not a Python file"
        raise UsageError(problem, where=str(program), remedy="name the file that holds your dspy.Module")
    if not path.is_relative_to(root):
        around = os.path.commonpath([root, path.parent])
        raise UsageError(
            f"lies outside of {root}, so that a change of it would not be noticed",
            where=str(program),
            remedy=f"make the laboratory around it: dspylab init {around} --from {program}; "
            "or copy it into the folder first",
        )
    return path


def _add_repository(made: _Made, root: Path) -> None:
    """git, DVC and what they ignore, the schema for editors and the pattern of `.env`."""
    from dspylab.pipeline.repo import init_repository

    git_root = git.find_git_root(root)
    if git_root is None:
        git.init_git(root)
        made.new_repository = True
    made.changes += [Change(path, "wrote") for path in init_repository(root, (git_root or root).resolve())]
    files = template("laboratory")
    text = {name: files.joinpath(name).read_text(encoding="utf-8") for name in ("gitignore", "dvcignore")}
    made.changes.append(add_lines(root / ".gitignore", text["gitignore"]))
    if (root / ".dvc").is_dir() and add_lines(root / ".dvcignore", text["dvcignore"]).did == "kept":
        made.changes.append(Change(root / ".dvcignore", "kept"))
    env = files.joinpath("env.example").read_text(encoding="utf-8")
    made.changes.append(write_missing(root / ".env.example", env))
    made.changes.append(write_missing(root / SCHEMA_FILE, schema_text()))


def _add_example(made: _Made, root: Path) -> Path | None:
    """The example experiment, unless there is any experiment; then its schema is brought up to date."""
    present = configs_in_sight(root)
    if present:
        for config in present:
            made.changes.append(Change(config, "kept"))
            if (schema := refresh_schema(config, root)) is not None:
                made.changes.append(Change(schema, "updated"))
        return present[0] if len(present) == 1 else None
    folder = root / "experiments" / _EXAMPLE
    made.changes += copy_missing(template("example"), folder)
    return folder / "experiment.yaml"


def _place_for(source: Path, root: Path) -> Path:
    """The experiment file of a program: beside it, when it lies below experiments/ already."""
    experiments = root / "experiments"
    beside = source.parent.parent == experiments
    return (source.parent if beside else experiments / experiment_name(source)) / "experiment.yaml"


def _add_first_experiment(made: _Made, root: Path, config: Path, found: FoundProgram) -> None:
    drafted = draft(found, config.parent, schema_line_path(config, root))
    for name, text in drafted.files.items():
        path = config.parent / name
        made.changes.append(write_missing(path, text))
        made.todo.append(f"{shown_path(path)}: put in your own rows")
    made.changes.append(write_missing(config, drafted.text))
    made.todo += [f"{shown_path(config)}:{line}: {text}" for line, text in drafted.todos()]


def _commit(made: _Made, root: Path) -> None:
    """The first commit, which DVC's experiments hang on; in a repository that exists it is the user's."""
    if not made.written:
        print("nothing to add: everything is there")
    elif not made.new_repository:
        print(f"not committed: look at what was added, then: git add {shown_path(root)} && git commit")
    elif not git.has_identity(root):
        print(
            "not committed: git does not know who you are: git config user.name NAME && "
            "git config user.email ADDRESS && git add --all && git commit -m 'First commit'"
        )
    elif refusal := git.commit_files(root, made.written, _MESSAGE):
        print(f"not committed: git says: {refusal}")
    else:
        theirs = "; files of your own are not: git add --all && git commit" if git.has_untracked(root) else ""
        print(f"committed what was written{theirs}")


def _tell_next(made: _Made, root: Path, config: Path | None) -> None:
    """What to do now, and what the first run takes."""
    if made.todo:
        print("\nTo fill in:")
        print("\n".join(f"  {line}" for line in made.todo))
    print("\nNext:")
    if root != Path.cwd():
        print(f"  cd {shown_path(root)}")
    present = configs_in_sight(root)
    if len(present) > 1:
        named = present if config is None else [config]
        print("\nor:\n".join(f"  dspylab run -c {one.relative_to(root)}" for one in named))
    else:
        print("  dspylab run")
    if config is None:
        return
    try:
        laboratory = open_laboratory(config)
        examples, runs = len(laboratory.splits.test), len(laboratory.runs)
        models = {run.model: laboratory.experiment.models[run.model] for run in laboratory.runs}
        names = [model.model for model in models.values()]
        counts = f"{runs} run{'s' * (runs != 1)} over {examples} example{'s' * (examples != 1)}"
        print(f"It calls {', '.join(names)}: {counts}.")
        find_keys(models, laboratory.environment)
    except DspylabError as error:
        print(f"But first: {error}")
        return
    local = [model.model for model in models.values() if model.is_local]
    if local and importlib.util.find_spec("xllamacpp") is None:
        print(f"The embedded model needs a package that is not installed: {install_command('local')}")
    missing = [model for model in local if not is_present(model, base=config.parent)]
    for bundled in (BUNDLED.get(model.removeprefix("local/")) for model in missing):
        if bundled is not None:
            print(f"The first run fetches the embedded model once, {bundled.size_mb} MB.")
