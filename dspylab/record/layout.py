"""Where every file of an experiment lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dspylab.record.publish import write_atomically


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of an experiment.

    Attributes:
        folder: Folder of the experiment file. Results lie in it.
        root: Root of the repository; `folder` outside of one. Private state lies in its `.dspylab`.
    """

    folder: Path
    root: Path

    @property
    def results(self) -> Path:
        """Folder with one folder a run."""
        return self.folder / "results"

    def raw(self, run: str) -> Path:
        """One row an example, in dataset order. In the DVC cache."""
        return self.results / run / "raw.jsonl"

    def info(self, run: str) -> Path:
        """What made the rows (`RunInfo`). In the DVC cache: others have no run cache in `dvc repro`."""
        return self.results / run / "run.json"

    @property
    def programs(self) -> Path:
        """Folder of the compiled programs. In git."""
        return self.folder / "programs"

    def program(self, key: str) -> Path:
        """A compiled program: DSPy's own JSON state, which `dspy.Module.load` reads. In git."""
        return self.programs / f"{key}.json"

    def compile_record(self, key: str) -> Path:
        """What made a compiled program (`CompileRecord`). In git."""
        return self.programs / f"{key}.record.json"

    def compiled(self, key: str) -> list[Path]:
        """Both files of a compiled program."""
        return [self.program(key), self.compile_record(key)]

    @property
    def summary(self) -> Path:
        """The whole experiment in figures. In git."""
        return self.folder / "summary.json"

    @property
    def metrics(self) -> Path:
        """A few plain numbers for `dvc metrics` and `dvc exp show`. In git."""
        return self.folder / "metrics.json"

    @property
    def plots(self) -> Path:
        """Folder with one file for each plot of `dvc plots`. In git."""
        return self.folder / "plots"

    def plot(self, name: str) -> Path:
        """The points of a plot."""
        return self.plots / f"{name}.json"

    @property
    def private(self) -> Path:
        """State that is nobody else's business: journals, locks. In neither git nor DVC."""
        return self.root / ".dspylab"

    def make_private(self) -> None:
        """Makes the private folder, with a `.gitignore` of its own so that git never sees it.

        Raises:
            EnvironmentProblem: If the folder cannot be written.
        """
        ignore = self.private / ".gitignore"
        if not ignore.is_file():
            write_atomically(ignore, [b"*\n"])

    @property
    def journals(self) -> Path:
        """Folder of the journals of all experiments of the repository."""
        return self.private / "journal"

    def journal(self, config_hash: str) -> Path:
        """Finished examples of a run that is not recorded yet."""
        return self.journals / f"{config_hash}.jsonl"

    @property
    def all_answers(self) -> Path:
        """Folder with a folder of kept answers for each run."""
        return self.private / "answers" / self.folder.relative_to(self.root)

    def answers(self, run: str) -> Path:
        """Folder of the answers that a run may score again, one file for each configuration."""
        return self.all_answers / run

    @property
    def all_compiling(self) -> Path:
        """Folder with a folder for each compile of the repository that is not done."""
        return self.private / "compile"

    def compiling(self, compile_hash: str) -> Path:
        """Folder of a compile that is not done: the replies that it got, and what its optimizer keeps."""
        return self.all_compiling / compile_hash

    def set_aside(self, compile_hash: str) -> Path:
        """Folder of a compiled program that another one took the place of."""
        return self.private / "programs" / compile_hash


def find_root(folder: Path) -> Path:
    """The nearest folder upwards that has a `.dvc` or `.git`, or `folder` itself."""
    for candidate in (folder, *folder.parents):
        if is_repository(candidate):
            return candidate
    return folder


def is_repository(folder: Path) -> bool:
    """Whether a folder is the root of a git repository or of a DVC project."""
    return (folder / ".dvc").is_dir() or (folder / ".git").exists()
