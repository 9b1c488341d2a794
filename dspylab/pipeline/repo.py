"""The only module that imports DVC: asks it what is stale, restores, and records results in one batch.

DVC's own loop over stages reads and writes the whole of `dvc.lock` and parses the params several times for
every stage. Here a batch takes the lock once, hashes every dependency once, reads every params file once and
writes `dvc.lock` once. What is recorded is the same, byte for byte: after either way the other has nothing to
do.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.dvcfile import ProjectFile
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.rwlock import RWLOCK_FILE, rwlock
from dvc.scm import SCMError
from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash
from dvc.stage.loader import StageLoader
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError

from dspylab.errors import RepositoryError
from dspylab.pipeline import git, ignored
from dspylab.pipeline.dvcfile import DVC_FILE, LOCK_FILE, PARAMS_FILE, refuse_conflict
from dspylab.pipeline.lockfile import LockTexts
from dspylab.pipeline.plots import template_files
from dspylab.pipeline.reading import ReadOnce, input_changes, inputs, output_changes
from dspylab.pipeline.stages import PipelineEntry, compile_item_name, run_stage_name, summary_stage_name
from dspylab.pipeline.states import NEVER_RUN, RunState, judge
from dspylab.record.publish import write_atomically
from dspylab.records import GitState

logger = logging.getLogger(__name__)

#: How often DVC's lock is asked for; DVC waits three seconds each time.
LOCK_ATTEMPTS = 4
_NOT_IN_GIT = "is not in a git repository"


def open_repository(start: Path) -> Repository:
    """Opens the DVC repository that a folder lies in.

    Args:
        start: The folder, or a folder below the root.

    Raises:
        RepositoryError: If there is no git or DVC repository, or it cannot be used.
    """
    _silence_libraries()
    git_root = git.find_git_root(start)
    try:
        root = Path(Repo.find_root(os.fspath(start)))
    except NotDvcRepoError as error:
        if git_root is None:
            problem, remedy = _NOT_IN_GIT, "make it one: `git init && dvc init`, or `dspylab init`"
        else:
            problem, remedy = "is not in a DVC repository", f"set it up: `cd {git_root} && dvc init`"
        raise RepositoryError(problem, where=str(start), remedy=remedy) from error
    with _explained(root):
        return Repository(Repo(os.fspath(root)), root)


def init_repository(root: Path, git_root: Path) -> list[Path]:
    """Makes a folder a DVC repository that sends no analytics.

    Args:
        root: The folder.
        git_root: Top of the git work tree that it lies in.

    Returns:
        The files that were made; none if it is a DVC repository, or lies in one.

    Raises:
        RepositoryError: If DVC cannot.
    """
    try:
        Repo.find_root(os.fspath(root))
    except NotDvcRepoError:
        _silence_libraries()
        with (
            _explained(root),
            Repo.init(os.fspath(root), subdir=root != git_root) as dvc,
            dvc.config.edit("repo") as config,
        ):
            config["core"]["analytics"] = False
        return [root / ".dvc" / "config", root / ".dvc" / ".gitignore", root / ".dvcignore"]
    return []


class Repository:
    """A DVC repository. Every method takes DVC's lock for as long as it runs, and not longer.

    Attributes:
        root: Root of the DVC repository.
    """

    def __init__(self, dvc: Any, root: Path) -> None:
        self.root = root
        self._dvc = dvc
        self._loaded: _Loaded | None = None
        self._inputs: dict[str, list[Any]] = {}

    def check(self) -> int:
        """Reads the whole pipeline, the user's own stages included, as `dvc repro` would.

        Returns:
            How many stages there are.

        Raises:
            RepositoryError: If the repository is locked, or a file of the pipeline is broken.
        """
        for name in (DVC_FILE, PARAMS_FILE, LOCK_FILE):
            refuse_conflict(_content(self.root / name), name)
        with self._locked():
            return len(self._dvc.index.stages)

    def states(self, entry: PipelineEntry, keys: Iterable[str]) -> dict[str, RunState]:
        """Says for each run whether DVC would execute it, and why.

        What the runs read is remembered, see `commit`.

        Args:
            entry: The experiment's entry. What it says counts, also if `dvc.yaml` says something else.
            keys: Keys of runs.

        Raises:
            RepositoryError: If the repository is locked or broken.
        """
        return self._states_of(entry, {run_stage_name(entry.name, key): key for key in keys})

    def compile_states(self, entry: PipelineEntry, keys: Iterable[str]) -> dict[str, RunState]:
        """As `states`, for compiles."""
        return self._states_of(entry, {compile_item_name(entry.name, key): key for key in keys})

    def summary_state(self, entry: PipelineEntry) -> RunState:
        """Says whether DVC would build the summary again, and why.

        Raises:
            RepositoryError: If the repository is locked or broken.
        """
        name = summary_stage_name(entry.name)
        with self._locked():
            return self._states(entry, [name])[name]

    def refuse_tracked(self, entry: PipelineEntry, keys: Iterable[str]) -> None:
        """Stops where git tracks what DVC has to keep of runs, which no run could be recorded with.

        Args:
            entry: The experiment's entry.
            keys: Keys of runs that are to be executed.

        Raises:
            RepositoryError: If it does; if the repository is locked or broken.
        """
        names = [run_stage_name(entry.name, key) for key in keys]
        if not names or not self.has_git:
            return  # as in most sessions: nothing is locked where nothing is asked
        with self._locked():
            stages = self._load(entry, pristine=False).stages
            ignored.refuse_tracked(self.root, (out for name in names for out in stages[name].outs))

    def restore(self, entry: PipelineEntry, keys: Iterable[str]) -> set[str]:
        """Brings back what DVC's cache holds of runs that are not done, and records it.

        Args:
            entry: The experiment's entry.
            keys: Keys of runs that are not done.

        Returns:
            Keys of the runs that are done now.

        Raises:
            RepositoryError: If the repository is locked or broken.
        """
        with self._locked():
            loaded = self._load(entry, pristine=True)
            loaded.pristine = False
            stages = {key: loaded.stages[run_stage_name(entry.name, key)] for key in keys}
            found = {key: stage for key, stage in stages.items() if self._bring_back(stage)}
            self._record(loaded, list(found.values()))
        return set(found)

    def restorable(self, entry: PipelineEntry, keys: Iterable[str]) -> set[str]:
        """Says which runs `restore` would bring back. Changes nothing.

        Args:
            entry: The experiment's entry.
            keys: Keys of runs that are not done.

        Raises:
            RepositoryError: If the repository is locked or broken.
        """
        if not (self.root / PARAMS_FILE).is_file():
            # Not written yet. DVC does without no file that a stage reads, and has seen no run without it.
            return set()
        with self._locked():
            loaded = self._load(entry, pristine=True)
            loaded.pristine = False
            return {
                key
                for key in keys
                if self._lacking(loaded.stages[run_stage_name(entry.name, key)]) is not None
            }

    def commit(
        self, entry: PipelineEntry, keys: Iterable[str], *, compiles: Iterable[str] = (), summary: bool = True
    ) -> set[str]:
        """Records finished runs and compiles, and the summary that was built from them, in one batch.

        A run whose program, data or params were changed since `states` was asked is left out: its results
        belong to what was there before.

        Args:
            entry: The experiment's entry.
            keys: Keys of runs whose files lie in the workspace.
            compiles: Keys of compiles whose files lie in the workspace.
            summary: Whether the summary was built from what lies in the workspace now.

        Returns:
            Keys of the runs that were recorded.

        Raises:
            RepositoryError: If the repository is locked or broken.
        """
        with self._locked():
            loaded = self._load(entry, pristine=False)
            loaded.pristine = False
            stages = {key: loaded.stages[run_stage_name(entry.name, key)] for key in keys}
            chosen = {key: stage for key, stage in stages.items() if self._may_commit(stage)}
            built = [loaded.stages[summary_stage_name(entry.name)]] if summary else []
            compiled = [loaded.stages[compile_item_name(entry.name, key)] for key in compiles]
            compiled = [stage for stage in compiled if self._may_commit(stage)]
            self._record(loaded, [*compiled, *chosen.values(), *built])
        return set(chosen)

    def save_experiment(self, prefix: str, paths: Iterable[Path]) -> git.SavedExperiment | git.NotSaved:
        """Records the workspace as an experiment, for `dvc exp show`.

        Args:
            prefix: First part of its name.
            paths: Files that belong to it even if git does not track them yet. DVC's own files always do.
        """
        own = [self.root / name for name in (DVC_FILE, PARAMS_FILE, LOCK_FILE, *template_files())]
        return git.save_experiment(self.root, prefix, [*own, *paths])

    @property
    def has_git(self) -> bool:
        """Whether DVC works with git here, so that there are commits and DVC experiments."""
        return not self._dvc.config["core"].get("no_scm", False)

    def git_state(self) -> GitState | None:
        """The commit that the work tree is on; None outside of git and before the first commit."""
        return git.git_state(self.root)

    def cached(self, md5: str) -> Path | None:
        """Where DVC's cache on this machine has a file; None if it has not.

        Args:
            md5: What `dvc.lock` calls it.
        """
        path = Path(self._dvc.cache.local.oid_to_path(md5))
        return path if path.is_file() else None

    def close(self) -> None:
        """Lets go of DVC's databases."""
        self._dvc.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _explained(self.root), ExitStack() as stack:
            for attempt in range(1, LOCK_ATTEMPTS + 1):
                try:
                    stack.enter_context(lock_repo(self._dvc))
                    break
                except LockError:
                    if attempt == LOCK_ATTEMPTS:
                        raise
                    logger.info("another DVC holds the lock, waiting")
            _drop_damaged(Path(self._dvc.tmp_dir, RWLOCK_FILE))
            yield

    def _load(self, entry: PipelineEntry, *, pristine: bool) -> _Loaded:
        """The stages of an experiment as DVC's own objects, with what `dvc.lock` says about them.

        Args:
            entry: The experiment's entry.
            pristine: Whether they have to hold what `dvc.lock` says. What a restore or a commit used holds
                what lies in the workspace instead, which another commit overwrites anyway.
        """
        lock = _content(self.root / LOCK_FILE)
        loaded = self._loaded
        if loaded is None or loaded.lock != lock or loaded.entry != entry or pristine > loaded.pristine:
            refuse_conflict(lock, LOCK_FILE)
            file = ProjectFile(self._dvc, os.fspath(self.root / DVC_FILE))
            # DVC resolves the entry itself, so the stages are what they will be once it is written.
            file.__dict__["contents"] = {"stages": dict(entry.stages)}
            stages = dict(file.stages)
            self._loaded = loaded = _Loaded(entry, lock, stages, file.lockfile_contents.get("stages", {}))
        ReadOnce(entry, self.root / PARAMS_FILE).attach(loaded.stages.values())
        return loaded

    def _states_of(self, entry: PipelineEntry, keys: Mapping[str, str]) -> dict[str, RunState]:
        """States by the keys that belong to names of stages; nothing is locked where nothing is asked."""
        if not keys:
            return {}
        with self._locked():
            states = self._states(entry, keys)
        return {key: states[name] for name, key in keys.items()}

    def _states(self, entry: PipelineEntry, names: Iterable[str]) -> dict[str, RunState]:
        loaded = self._load(entry, pristine=True)
        states = {}
        for name in names:
            stage = loaded.stages[name]
            self._inputs[name] = inputs(stage)
            if name in loaded.recorded:
                states[name] = judge(list(input_changes(stage, entry)), output_changes(stage))
            else:
                states[name] = NEVER_RUN
        return states

    def _may_commit(self, stage: Any) -> bool:
        absent = [out.def_path for out in stage.outs if not out.exists]
        if absent:
            logger.warning("%s is not recorded: %s is missing", stage.name, ", ".join(absent))
            return False
        now = inputs(stage)
        if self._inputs.get(stage.name, now) != now:
            logger.warning("%s is not recorded: what it reads was changed while it was executed", stage.name)
            return False
        return True

    def _bring_back(self, stage: Any) -> bool:
        """Puts a run's results into the workspace if the cache has them."""
        lacking = self._lacking(stage)
        if lacking is None:
            return False
        for out in lacking:
            out.commit(relink=False)
        for out in stage.outs:
            # Not StageCache.restore(): it asks on the terminal before it replaces a file.
            out.checkout(force=True)
        return True

    def _lacking(self, stage: Any) -> list[Any] | None:
        """Looks for a run's results; the stage holds what is known of them afterwards.

        Returns:
            The outputs that the cache lacks and the workspace still has; None if any is nowhere.
        """
        unchanged = not stage.changed_stage() and stage.deps_cached()
        if not (unchanged and all(out.hash_info for out in stage.outs)):
            stage.save_deps()
            known = self._in_run_cache(stage)
            if known is None:
                return None
            StageLoader.fill_from_lock(stage, known)
        lacking = [out for out in stage.outs if out.changed_cache()]
        is_there = all(out.exists and not out.changed_checksum() for out in lacking)
        return lacking if is_there else None

    def _in_run_cache(self, stage: Any) -> Any | None:
        """What a stage once had for the inputs that it has now."""
        if not _can_hash(stage):
            return None
        cache = self._dvc.stage_cache
        folder = Path(cache._get_cache_dir(_get_stage_hash(stage)))  # noqa: SLF001
        # A kill leaves an empty folder, which DVC does not expect.
        is_there = folder.is_dir() and any(folder.iterdir())
        return cache._load(stage) if is_there else None  # noqa: SLF001

    def _record(self, loaded: _Loaded, stages: Sequence[Any]) -> None:
        """Saves what stages read and wrote, fills the cache and the run cache, writes the lock file."""
        if not stages:
            return
        reads = [dep.fs_path for stage in stages for dep in stage.deps]
        writes = [out.fs_path for stage in stages for out in stage.outs]
        config = self._dvc.config["core"]
        guard = rwlock(
            self._dvc.tmp_dir,
            self._dvc.fs,
            " ".join(sys.argv),
            reads,
            writes,
            config.get("hardlink_lock", False),
        )
        relink = next(iter(self._dvc.cache.local.cache_types), None) in ("hardlink", "symlink")
        with guard, self._dvc.scm_context(quiet=True):
            if self.has_git:
                ignored.skip_ignored(self.root, (out for stage in stages for out in stage.outs))
            for stage in stages:
                stage.save_deps()
                stage.save_outs()
                for out in stage.outs:
                    out.commit(relink=relink)
            texts = LockTexts()
            for stage in stages:
                self._fill_run_cache(stage, texts)
            self._write_lock(loaded, stages, texts)

    def _fill_run_cache(self, stage: Any, texts: LockTexts) -> None:
        """As `StageCache.save`, for stages whose outputs are all in the cache."""
        if not _can_hash(stage) or not all(out.use_cache for out in stage.outs):
            return
        cache = self._dvc.stage_cache
        content = to_single_stage_lockfile(stage)
        path = Path(cache._get_cache_path(_get_stage_hash(stage), _get_cache_hash(content)))  # noqa: SLF001
        if path.exists():
            return
        # Not beside its place: DVC takes every file there for an entry.
        temporary = Path(self._dvc.tmp_dir, f"run-cache.{os.getpid()}")
        temporary.write_text(texts.run_cache_entry(content), encoding="utf-8")
        self._dvc.cache.legacy.makedirs(os.fspath(path.parent))
        self._dvc.cache.legacy.move(os.fspath(temporary), os.fspath(path))

    def _write_lock(self, loaded: _Loaded, stages: Sequence[Any], texts: LockTexts) -> None:
        contents = {stage.name: to_single_stage_lockfile(stage) for stage in stages}
        changed = {
            name: content for name, content in contents.items() if loaded.recorded.get(name) != content
        }
        if not changed:
            return
        text = texts.updated(loaded.lock, loaded.recorded, changed)
        if text is None:
            stages[0].dvcfile.dump_stages(list(stages), update_pipeline=False)
        else:
            write_atomically(self.root / LOCK_FILE, [text.encode()])
            self._dvc.scm_context.track_file(os.path.relpath(self.root / LOCK_FILE))


@dataclass(slots=True)
class _Loaded:
    """Stages as DVC loaded them, and what they were loaded from."""

    entry: PipelineEntry
    lock: str
    stages: dict[str, Any]
    recorded: Mapping[str, Any]
    pristine: bool = True


def _drop_damaged(rwlock_file: Path) -> None:
    """Removes DVC's list of files in use when a kill has cut it: DVC itself would never work again.

    Only who holds DVC's lock writes it, so nobody is writing it now.
    """
    try:
        json.loads(rwlock_file.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        logger.warning("%s was damaged when DVC was killed: removed", rwlock_file)
        rwlock_file.unlink(missing_ok=True)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise RepositoryError(
            "is not UTF-8", where=path.name, remedy=f"`git checkout -- {path.name}`"
        ) from error


def _silence_libraries() -> None:
    """What they log they raise too, and that is what the user gets to read."""
    if not logger.isEnabledFor(logging.DEBUG):
        for library in ("dvc", "dvc_data", "dvc_objects"):
            logging.getLogger(library).setLevel(logging.CRITICAL)


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Turns what DVC and the file system raise into errors that say what to do."""
    try:
        yield
    except LockError as error:
        raise _locked_by(root, error) from error
    except (YAMLSyntaxError, YAMLValidationError) as error:
        # DVC gives the path from the working directory.
        path = str(getattr(error, "relpath", None) or getattr(error, "path", ""))
        name = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
        mark = getattr(getattr(getattr(error, "exc", None), "__cause__", None), "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        remedy = f"mend it, or go back to the last commit: `git checkout -- {name}`"
        if name == LOCK_FILE:
            remedy += ", or delete it: `dspylab run` brings the results back from DVC's cache"
        raise RepositoryError("is not what DVC expects", where=where, remedy=remedy) from error
    except DvcException as error:
        if isinstance(error, SCMError) and git.find_git_root(root) is None:
            remedy = "make it one: `git init`, or do without git: `dvc config core.no_scm true`"
            raise RepositoryError(_NOT_IN_GIT, where=str(root), remedy=remedy) from error
        raise RepositoryError(
            f"DVC says: {error}", where=str(root), remedy="`dvc doctor` shows its set-up"
        ) from error
    except OSError as error:
        where = str(error.filename or root)
        remedy = "make the folder writable, and see that the disk is not full"
        raise RepositoryError(f"DVC cannot work: {error.strerror}", where=where, remedy=remedy) from error


def _locked_by(root: Path, error: LockError) -> RepositoryError:
    if "is being blocked by" in str(error):
        return RepositoryError(
            f"DVC says: {error}", where=str(root), remedy="wait for it to end, then run this again"
        )
    holder = "another DVC"
    try:
        pid = (root / ".dvc" / "tmp" / "lock").read_text(encoding="utf-8").strip()
        shown = subprocess.run(
            ["ps", "-o", "args=", "-p", str(int(pid))], capture_output=True, text=True, check=False
        ).stdout.strip()
        holder = f"process {pid}" + (f" ({shown})" if shown else "")
    except (OSError, ValueError):
        pass
    return RepositoryError(
        f"is locked by {holder}", where=str(root), remedy="wait for it to end, then run this again"
    )
