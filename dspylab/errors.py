"""Every error that dspylab raises on purpose: one root, an exit code per class, a remedy per error.

DspylabError
├── UsageError            2  the command line is wrong
├── InvalidExperiment     2  the experiment file is wrong (carries every finding)
├── ProgramError          2  the user's program, metric, loader or adapter cannot be used
├── DataError             2  a dataset file or row cannot be used
├── EnvironmentProblem    3  the machine is not ready: a key, a model file, a package
│   ├── RepositoryError   3  git or DVC is missing, locked or broken
│   └── EndpointError     3  a model's endpoint refuses every call (wrong key, unknown model)
│       └── UnreachableEndpoint  3  nobody answers there
├── RunsIncomplete        1  some runs did not complete; what finished is kept
├── ChecksFailed          1  the results do not hold what the checks demand
├── BudgetExhausted       4  the budget of the experiment is spent; what finished is kept
└── Interrupted         130  the user stopped the run; what finished is kept
"""

from __future__ import annotations

from dataclasses import dataclass


class DspylabError(Exception):
    """Root of all errors that a user is meant to read.

    Attributes:
        message: What is wrong, in one sentence.
        where: The file (with line), model, run or command it is about; None if there is no one place.
        remedy: What to do next; None if the message says it.
        exit_code: What the process exits with when this error ends it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.message, self.remedy) if part)


class UsageError(DspylabError):
    """The command line asks for something that does not exist or cannot be done."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in a file: ``file:line: where: what is wrong: what to do``.

    Attributes:
        file: Path as the user gave it.
        line: 1-based line; None when the file could not be read at all.
        where: Dotted address inside the file, such as ``models.mini.temperature``; may be empty.
        problem: What is wrong.
        remedy: What to do about it.
    """

    file: str
    line: int | None
    where: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.where, self.problem, self.remedy) if part)


class InvalidExperiment(DspylabError):
    """The experiment file is wrong. Carries every finding at once, in file order."""

    exit_code = 2

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = tuple(sorted(findings, key=lambda f: (f.file, f.line or 0, f.where)))
        super().__init__("\n".join(str(finding) for finding in self.findings))


class ProgramError(DspylabError):
    """The user's code cannot be used: a module, attribute, factory, metric, loader or adapter."""

    exit_code = 2


class DataError(DspylabError):
    """A dataset file or one of its rows cannot be used."""

    exit_code = 2


class EnvironmentProblem(DspylabError):
    """The machine is not ready: a key is missing, a package is not installed, a model file is absent."""

    exit_code = 3


class RepositoryError(EnvironmentProblem):
    """git or DVC is missing, uninitialized, locked or in a state that we can not work with."""


class EndpointError(EnvironmentProblem):
    """An endpoint refuses every call of a model, so going on makes no sense."""


class UnreachableEndpoint(EndpointError):
    """Nobody answers at the endpoint of a model."""


class RunsIncomplete(DspylabError):
    """Some runs did not complete. Everything that finished is kept and is not called again."""

    exit_code = 1


class ChecksFailed(DspylabError):
    """The results do not hold what the checks of the experiment demand. What failed was printed before."""

    exit_code = 1


class BudgetExhausted(DspylabError):
    """The budget is spent. Everything that finished is kept and is not called again."""

    exit_code = 4


class Interrupted(DspylabError):
    """The user stopped the run. Everything that finished is kept and is not called again."""

    exit_code = 130
