"""What git says about a repository, and how an experiment is recorded in it. Nothing here needs DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from dspylab.errors import RepositoryError
from dspylab.records import GitState

#: DVC looks for the experiments of a commit in `refs/exps/<first two digits>/<the others>/<name>`.
EXPERIMENT_REFS = "refs/exps"


@dataclass(frozen=True, slots=True)
class SavedExperiment:
    """An experiment that `dvc exp show` lists.

    Attributes:
        name: Its name.
        rev: Its commit.
        new: False when the very same state was saved before.
    """

    name: str
    rev: str
    new: bool


@dataclass(frozen=True, slots=True)
class NotSaved:
    """Why an experiment was not saved, with what to do. The results lie in the workspace all the same."""

    reason: str


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit, and what kind of name it was found by.

    Attributes:
        name: As the user says it.
        commit: Its full id.
        kind: ``branch``, ``tag``, ``experiment`` (of DVC's) or ``commit`` for anything else.
    """

    name: str
    commit: str
    kind: Literal["branch", "tag", "experiment", "commit"]


def find_git_root(start: Path) -> Path | None:
    """Top folder of the work tree that a folder lies in; None outside of git.

    Raises:
        RepositoryError: If git is not installed, or refuses to read the repository.
    """
    if shutil.which("git") is None:
        raise RepositoryError("git is not installed", remedy="install it from https://git-scm.com")
    answer = _git(start, "rev-parse", "--show-toplevel")
    if answer.returncode == 0:
        return Path(answer.stdout.strip())
    if "not a git repository" in answer.stderr or "must be run in a work tree" in answer.stderr:
        return None
    raise RepositoryError(
        f"git says: {answer.stderr.strip()}", where=str(start), remedy="do what git proposes"
    )


def git_state(root: Path) -> GitState | None:
    """The commit that a work tree is on; None outside of git and before the first commit."""
    answer = _git(root, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if answer.returncode != 0:
        return None
    lines = answer.stdout.splitlines()
    header = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    commit, branch = header.get("branch.oid", "(initial)"), header.get("branch.head", "(detached)")
    if commit == "(initial)":
        return None
    return GitState(
        commit=commit,
        branch=None if branch == "(detached)" else branch,
        dirty=any(not line.startswith("#") for line in lines),
    )


def has_identity(root: Path) -> bool:
    """Whether git knows whose name to put on a commit."""
    return _git(root, "var", "GIT_COMMITTER_IDENT").returncode == 0


def has_untracked(root: Path) -> bool:
    """Whether there are files that git neither tracks nor ignores."""
    return bool(_git(root, "ls-files", "--others", "--exclude-standard").stdout.strip())


def init_git(root: Path) -> None:
    """Makes a folder a git repository.

    Raises:
        RepositoryError: If git cannot.
    """
    answer = _git(root, "init", "--quiet")
    if answer.returncode != 0:
        raise RepositoryError(
            f"git says: {answer.stderr.strip()}", where=str(root), remedy="do what git proposes"
        )


def commit_files(root: Path, paths: Iterable[Path], message: str) -> str | None:
    """Commits files, and nothing else.

    Returns:
        What git says against it; None when it is done.
    """
    names = [os.path.relpath(path, root) for path in paths]
    for arguments in (["add", "--", *names], ["commit", "--quiet", "--message", message, "--", *names]):
        answer = _git(root, *arguments)
        if answer.returncode != 0:
            return answer.stderr.strip() or answer.stdout.strip()
    return None


def unmerged(root: Path) -> list[str]:
    """Files that a merge left in conflict, relative to `root`."""
    answer = _git(root, "diff", "--name-only", "--diff-filter=U", "--relative", "-z")
    return answer.stdout.split("\0")[:-1]


def tracked(root: Path, names: Iterable[str]) -> list[str]:
    """What git tracks below the folders that hold the folders of some files.

    Args:
        root: Root of the repository.
        names: Files, relative to `root`, each in a folder of its own.

    Returns:
        Files, relative to `root`.
    """
    folders = dict.fromkeys(str(PurePath(name).parent.parent) for name in names)
    return _git(root, "ls-files", "-z", "--", *folders).stdout.split("\0")[:-1]


def is_tracked(root: Path, name: str) -> bool:
    """Whether git tracks a file, or any file of a folder, named relative to `root`."""
    return bool(_git(root, "ls-files", "-z", "--", name).stdout)


def ignored(root: Path, names: Iterable[str]) -> list[str]:
    """Those of the files, relative to `root`, that git ignores."""
    return _git(root, "check-ignore", "--stdin", "-z", stdin="\0".join(names)).stdout.split("\0")[:-1]


def find_revision(root: Path, name: str) -> Revision | None:
    """The commit that a branch, a tag, a DVC experiment or anything else that git understands names.

    Args:
        root: Root of the repository.
        name: A name of git's comes first, then a DVC experiment, of the current commit if several have it.

    Returns:
        The commit; None if the name means nothing.

    Raises:
        RepositoryError: If DVC experiments of several commits have the name, none of them the current one.
    """
    answer = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if answer.returncode == 0:
        full = _git(root, "rev-parse", "--symbolic-full-name", "--end-of-options", name).stdout
        branch, tag = "refs/heads/" in full or "refs/remotes/" in full, "refs/tags/" in full
        kind: Literal["branch", "tag", "commit"] = "branch" if branch else "tag" if tag else "commit"
        return Revision(name, answer.stdout.strip(), kind)
    # DVC keeps other things below as well, such as its stash: experiments are three levels deep.
    listed = _git(root, "for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENT_REFS).stdout
    entries = [line.split(" ", 1) for line in listed.splitlines()]
    found = {ref: commit for commit, ref in entries if ref.count("/") == 4 and ref.endswith(f"/{name}")}
    head = _git(root, "rev-parse", "HEAD").stdout.strip()
    own = found.get(f"{EXPERIMENT_REFS}/{head[:2]}/{head[2:]}/{name}")
    if own is None and len(set(found.values())) > 1:
        raise RepositoryError(
            f"is an experiment of several commits: {', '.join(commit[:9] for commit in found.values())}",
            where=name,
            remedy="name one of these ids instead",
        )
    commit = own or next(iter(found.values()), None)
    return None if commit is None else Revision(name, commit, "experiment")


def file_at(root: Path, commit: str, name: str) -> str | None:
    """A text file as a commit has it, named relative to `root`; None if it has none."""
    answer = _git(root, "show", f"{commit}:./{name}")
    return answer.stdout if answer.returncode == 0 else None


def save_experiment(root: Path, prefix: str, paths: Iterable[Path]) -> SavedExperiment | NotSaved:
    """Records the work tree as a DVC experiment on top of the current commit.

    The commit is made beside the work tree, from a copy of git's index: neither the files, nor what is
    staged, nor the branch is touched, so a crash leaves nothing to mend. (`dvc exp save` stashes the work
    tree, checks out and applies the stash, and commits every stage by force, also those that are stale.)

    Args:
        root: Root of the DVC repository.
        prefix: First part of the experiment's name; the rest follows from its content.
        paths: Files that belong to it even if git does not track them yet.

    Returns:
        The experiment, or why there is none.
    """
    state = git_state(root)
    if state is None:
        return NotSaved(
            "there is no commit yet that it could belong to: `git add --all && git commit -m 'First commit'`"
        )
    if not has_identity(root):
        return NotSaved(
            "git does not know who you are: `git config user.name NAME` and `git config user.email ADDRESS`"
        )
    with tempfile.TemporaryDirectory(prefix="dspylab-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        own_index = Path(root, _git(root, "rev-parse", "--git-path", "index").stdout.strip())
        if own_index.exists():
            # The copy keeps what git knows about unchanged files, so it does not read them again.
            shutil.copy2(own_index, index["GIT_INDEX_FILE"])
        present = [os.path.relpath(path, root) for path in paths if path.exists()]
        # What git ignores stays out: it may be private, or a data file that DVC keeps.
        hidden = set(ignored(root, present))
        named = [name for name in present if name not in hidden]
        for arguments in (["add", "--update", ":/"], ["add", "--", *named]):
            answer = _git(root, *arguments, env=index)
            if answer.returncode != 0:
                return NotSaved(f"git says: {answer.stderr.strip()}")
        tree = _git(root, "write-tree", env=index).stdout.strip()
    if tree == _git(root, "rev-parse", f"{state.commit}^{{tree}}").stdout.strip():
        return NotSaved("nothing differs from the last commit")
    return _record(root, state.commit, tree, prefix)


def _record(root: Path, baseline: str, tree: str, prefix: str) -> SavedExperiment | NotSaved:
    name = f"{prefix}-{tree[:7]}"
    ref = f"{EXPERIMENT_REFS}/{baseline[:2]}/{baseline[2:]}/{name}"
    known = _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").stdout.strip()
    if known:
        return SavedExperiment(name, known, new=False)
    made = _git(root, "commit-tree", tree, "-p", baseline, "-m", f"dspylab: {name}")
    rev = made.stdout.strip()
    if made.returncode == 0:
        made = _git(root, "update-ref", ref, rev)
    if made.returncode != 0:
        return NotSaved(f"git says: {made.stderr.strip()}")
    return SavedExperiment(name, rev, new=True)


def _git(
    root: Path, *arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        cwd=root,
        env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", **(env or {})},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
