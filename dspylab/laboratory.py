"""An experiment opened for work: its file, its runs, its code and where everything lies."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dspylab.config.axes import NO_OPTIMIZER
from dspylab.config.load import LoadedExperiment, load
from dspylab.config.models import Experiment
from dspylab.config.optimizers import WITH_FRAME
from dspylab.config.values import canonical
from dspylab.errors import EnvironmentProblem, UsageError
from dspylab.lm.keys import ambient_base, read_environment, without_login
from dspylab.plan.compiles import compiles, distinct_compiles
from dspylab.plan.identity import answers_hash, compile_hash, config_hash, digest
from dspylab.plan.runs import plan_runs
from dspylab.program.dataset import Splits, file_digest, load_splits
from dspylab.program.footprint import (
    code_files,
    code_references,
    content_digest,
    data_files,
    program_files,
    readable_files,
    remembered_files,
    training_files,
)  # fmt: skip
from dspylab.program.load import Code
from dspylab.record.answers import EarlierRows, KeptAnswers
from dspylab.record.journal import begins_anew
from dspylab.record.layout import Layout, find_root, is_repository
from dspylab.records import JSON, CompileSpec, DataRow, RunSpec

#: Packages whose version shapes prompts and replies, so that a new one means new results.
DECISIVE_PACKAGES = ("dspy",)
#: Packages that a summary names beside its figures.
REPORTED_PACKAGES = ("dspylab", "dspy", "litellm", "dvc")


@dataclass(frozen=True)
class Laboratory:
    """An experiment opened for work.

    Attributes:
        loaded: The validated file.
        runs: The runs of its matrix, in file order.
        layout: Where its files lie.
        code: The user's code, imported when it is first needed.
    """

    loaded: LoadedExperiment
    runs: tuple[RunSpec, ...]
    layout: Layout
    code: Code

    @property
    def experiment(self) -> Experiment:
        """The validated experiment."""
        return self.loaded.experiment

    @property
    def config(self) -> PurePosixPath:
        """The experiment file, relative to the repository's root."""
        return PurePosixPath(self.loaded.path.relative_to(self.layout.root).as_posix())

    def run(self, key: str) -> RunSpec:
        """The run of a key that is known to exist."""
        return self._by_key[key]

    @functools.cached_property
    def _by_key(self) -> dict[str, RunSpec]:
        return {run.key: run for run in self.runs}

    @functools.cached_property
    def needed_compiles(self) -> dict[str, CompileSpec]:
        """Run key to the compile that it needs, for the runs that have an optimizer."""
        return compiles(self.runs)

    @property
    def compiles(self) -> tuple[CompileSpec, ...]:
        """The programs that the runs need compiled, each once, in the order of the matrix."""
        return distinct_compiles(self.needed_compiles)

    @functools.cached_property
    def code_files(self) -> dict[Path, str]:
        """Python files of the repository that the experiment's code consists of, with their digests.

        Raises:
            ProgramError: If the code cannot be imported.
        """
        # First: what is imported together with the metrics later on is theirs alone.
        answering = self._answer_files
        references = code_references(self.experiment, self.runs)
        return {**answering, **code_files(self.code, references, self._memory(".json"))}

    @functools.cached_property
    def _answer_files(self) -> dict[Path, str]:
        """Those of them that decide what programs answer: all but those that only metrics need."""
        # A folder that can not be written only costs time here; it is told about when results are.
        with contextlib.suppress(EnvironmentProblem):
            self.layout.make_private()
        references = code_references(self.experiment, self.runs, metrics=False)
        return code_files(self.code, references, self._memory(".answers.json"))

    def _memory(self, ending: str) -> Path:
        return self.layout.private / "code" / f"{self.experiment.name}{ending}"

    @functools.cached_property
    def data_files(self) -> dict[Path, str]:
        """Files of the dataset, and files and folders that the program reads, with their digests.

        Raises:
            DataError: If one cannot be read.
        """
        return {path: content_digest(path) for path in data_files(self.experiment, self.layout.folder)}

    @property
    def training_files(self) -> list[Path]:
        """Files that optimizers' examples come from, and files and folders that the program reads."""
        folder = self.layout.folder
        return [*training_files(self.experiment, folder), *program_files(self.experiment, folder)]

    @functools.cached_property
    def splits(self) -> Splits:
        """The dataset, read and split.

        Raises:
            DataError: If it cannot be read.
        """
        return load_splits(self.experiment.dataset, self.layout.folder, self.code.attribute)

    @functools.cached_property
    def environment(self) -> dict[str, str]:
        """The environment over the `.env` files.

        Raises:
            EnvironmentProblem: If one of them cannot be read.
        """
        return read_environment(self.layout.folder, self.layout.root)

    @functools.cached_property
    def endpoints(self) -> dict[str, str]:
        """Model id to its endpoint, for those whose endpoint only the environment names; without logins."""
        named = {
            model_id: ambient_base(model, self.environment)
            for model_id, model in self.experiment.models.items()
        }
        return {model_id: without_login(url) for model_id, url in named.items() if url is not None}

    @functools.cached_property
    def resolved(self) -> Experiment:
        """The experiment with the endpoints that only the environment names: for digests and records."""
        update = {
            model_id: model.model_copy(update={"api_base": self.endpoints[model_id]})
            for model_id, model in self.experiment.models.items()
            if model_id in self.endpoints
        }
        return self.experiment.model_copy(update={"models": {**self.experiment.models, **update}})

    def config_hash(self, run: RunSpec, made_with: Mapping[str, str] | None = None) -> str:
        """Digest of everything that decides the results of a run.

        Args:
            run: The run.
            made_with: Package versions that its results were made with; default: those installed.

        Raises:
            ProgramError: If the code cannot be imported.
            DataError: If a file of the dataset, or one that the program reads, cannot be read.
            EnvironmentProblem: If a `.env` file cannot be read.
        """
        return self._hash(run, self.code_files, made_with)

    def made_from_these(self, results: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
        """Whether results were made from the code, data and settings that there are now, by run.

        Imports no code: it goes by the files that the code consisted of when it was last imported. Where
        none are remembered, as in a fresh clone, it knows it of no run.

        Args:
            results: Key of a run to its entry in `summary.json`, or to its `run.json`.

        Raises:
            DataError: If a file of the dataset cannot be read.
        """
        answering, all_code = (
            remembered_files(self.layout.root, self._memory(ending)) for ending in (".answers.json", ".json")
        )
        if answering is None or all_code is None:
            return {}
        specs, code = self._by_key, {**answering, **all_code}
        return {
            key: key in specs
            and result.get("config_hash") == self._hash(specs[key], code, result.get("versions"))
            for key, result in results.items()
        }

    def _hash(self, run: RunSpec, code: Mapping[Path, str], made_with: Mapping[str, str] | None) -> str:
        files = self._relative({**code, **self.data_files})
        return config_hash(self.resolved, run, files, _decisive(made_with), self.program_digest(run))

    def compile_hash(self, spec: CompileSpec, made_with: Mapping[str, str] | None = None) -> str:
        """Digest of everything that decides a compiled program.

        Args:
            spec: The compile.
            made_with: Package versions that it was compiled with; default: those installed.

        Raises:
            DspylabError: As `config_hash`; a `DataError` also if the dataset cannot be split.
        """
        read = {path: self.data_files[path] for path in program_files(self.experiment, self.layout.folder)}
        files = self._relative({**self.code_files, **read})
        return compile_hash(self.resolved, spec, files, self._training_digest, _decisive(made_with))

    def program_digest(self, run: RunSpec) -> str | None:
        """Digest of the compiled program of a run as it lies there; None if it has or needs none."""
        spec = self.needed_compiles.get(run.key)
        path = None if spec is None else self.layout.program(spec.key)
        return file_digest(path) if path is not None and path.is_file() else None

    def journal(self, run: RunSpec) -> Path:
        """Where the journal of a run lies, as long as it has one.

        Raises:
            DspylabError: As `config_hash`.
        """
        return self.layout.journal(self.config_hash(run))

    def answers_hash(self, run: RunSpec) -> str:
        """Digest of what decides the answers of a run's program.

        That is all but the metrics, what these need, and the examples, each of which has its own answer.

        Some optimizers put something around the program that calls their metric when it runs. Then it is the
        digest of everything.

        Raises:
            DspylabError: As `config_hash`.
        """
        if run.optimizer != NO_OPTIMIZER and self.experiment.optimizers[run.optimizer].type in WITH_FRAME:
            return self.config_hash(run)
        files = self._relative({**self._answer_files, **self._read_files})
        return answers_hash(self.resolved, run, files, _decisive(None), self.program_digest(run))

    def earlier_rows(self, run: RunSpec, inherited: Iterable[Path] = ()) -> EarlierRows:
        """Rows of earlier sessions whose answers are those of the run, for what its journal has not.

        Args:
            run: The run.
            inherited: Answers of other runs that it is going to take over.

        Raises:
            DspylabError: As `config_hash`.
        """
        if begins_anew(self.journal(run)):
            return EarlierRows((), ())
        kept = KeptAnswers(self.layout, run.key, self.answers_hash(run), self.config_hash(run))
        return EarlierRows([*kept.sources(), *inherited], self.splits.test)

    @functools.cached_property
    def _read_files(self) -> dict[Path, str]:
        """Those of the data files that the program reads by itself, which decide what it answers.

        The examples are not: the program is called with their inputs. But a program may read their file, too,
        whose code or arguments spell its name, or its ending, as for all files of a folder.
        """
        read = set(readable_files(self.experiment, self.layout.folder))
        text = canonical([dict(run.program_args) for run in self.runs])
        for path in self._answer_files:
            text += path.read_text("utf-8", "replace") if path.suffix == ".py" else ""
        for path in read:  # an ending that is part of their names says nothing of others
            text = text.replace(path.name, "")
        return {
            path: digest
            for path, digest in self.data_files.items()
            if path in read or path.name in text or (path.suffix and path.suffix in text)
        }

    @functools.cached_property
    def _training_digest(self) -> str:
        def content(rows: tuple[DataRow, ...]) -> list[list[dict[str, JSON]]]:
            return [[dict(row.inputs), dict(row.labels)] for row in rows]

        return digest([content(self.splits.train), content(self.splits.validation)])

    def _relative(self, files: Mapping[Path, str]) -> dict[str, str]:
        return {
            path.relative_to(self.layout.root).as_posix(): digest for path, digest in sorted(files.items())
        }


def open_laboratory(config: Path, *, with_files: bool = True) -> Laboratory:
    """Opens an experiment.

    Args:
        config: Path of the experiment file.
        with_files: Whether the files that it names have to be there.

    Raises:
        InvalidExperiment: If the file is wrong.
        UsageError: If it reaches files outside of its repository.
    """
    loaded = load(config, with_files=with_files)
    layout = Layout(folder=loaded.folder, root=find_root(loaded.folder))
    code = Code(loaded.experiment.program, loaded.folder, layout.root)
    runs = plan_runs(loaded)
    for path in data_files(loaded.experiment, loaded.folder):
        if not path.is_relative_to(layout.root):
            if not is_repository(layout.root):
                raise UsageError(
                    "not in a git repository",
                    where=str(config),
                    remedy=f"`dspylab init`, or git init and dvc init, in a folder around {path}",
                )
            raise UsageError(
                f"{path} lies outside of the repository {layout.root}",
                where=f"{config}: dataset or program.files",
                remedy="move it into the repository, so that DVC can track it",
            )
    return Laboratory(loaded, runs, layout, code)


def _decisive(made_with: Mapping[str, str] | None) -> dict[str, str]:
    known = made_with or versions(DECISIVE_PACKAGES)
    return {package: known[package] for package in DECISIVE_PACKAGES if package in known}


@functools.cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions by package name."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
