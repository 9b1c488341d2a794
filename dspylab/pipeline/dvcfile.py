"""Keeps an experiment's entries in `dvc.yaml`, `params.yaml` and `.gitignore`, and nothing else in them.

The templates that DVC's plots of an experiment need are whole files of ours.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from ruamel.yaml import YAML

from dspylab.errors import RepositoryError
from dspylab.pipeline.blocks import UNFOLDED, Unsplittable, blocks, dump, inline, load, replace
from dspylab.pipeline.plots import template_files
from dspylab.pipeline.stages import COMPILE_COMMAND, IGNORED, RUN_COMMAND, SUMMARY_COMMAND, PipelineEntry
from dspylab.record.publish import write_atomically

DVC_FILE = "dvc.yaml"
PARAMS_FILE = "params.yaml"
LOCK_FILE = "dvc.lock"
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7})( |$)", re.MULTILINE)
#: What an entry of ours in params.yaml consists of.
_PARAMS_KEYS = frozenset({"config", "sections", "settings"})
_OPTIONAL_KEYS = frozenset({"training"})


def upsert(root: Path, entry: PipelineEntry) -> bool:
    """Makes DVC's files say what an experiment's entry says.

    Stages that dspylab wrote for the same experiment file under another name go, and so do those of
    experiment files that no longer exist. Files that already say it are not touched.

    Args:
        root: Root of the DVC repository.
        entry: The experiment's entry.

    Returns:
        Whether any file changed.

    Raises:
        RepositoryError: If a file is broken or holds a merge conflict, or if something that is not ours has
            a name that the experiment needs.
        EnvironmentProblem: If a file cannot be written.
    """
    # All is read and judged before the first file is written.
    changed = _changes(root, entry)
    for name, text in changed.items():
        write_atomically(root / name, [text.encode()])
    return bool(changed)


def is_synced(root: Path, entry: PipelineEntry) -> bool:
    """Whether DVC's files say what an experiment's entry says. Writes nothing.

    Raises:
        RepositoryError: As `upsert`.
    """
    return not _changes(root, entry)


def ignore_rows(root: Path, config: PurePosixPath) -> None:
    """Has git ignore the rows of an experiment's runs: they are DVC's, and hold prompts and answers.

    Args:
        root: Root of the repository.
        config: The experiment file, relative to the root.

    Raises:
        RepositoryError: If the `.gitignore` beside the experiment file is not UTF-8 or cannot be read.
        EnvironmentProblem: If it cannot be written.
    """
    name = _ignore_file(config)
    text = _with_lines(root, name)
    if text is not None:
        write_atomically(root / name, [text.encode()])


def refuse_conflict(text: str, name: str) -> None:
    """Stops at the markers that a merge left.

    Raises:
        RepositoryError: If there are any, naming the first line.
    """
    match = _CONFLICT.search(text)
    if match:
        line = text.count("\n", 0, match.start()) + 1
        remedy = f"resolve them, or take one side: `git checkout --ours {name}` or `--theirs {name}`"
        raise RepositoryError("holds the markers of a merge conflict", where=f"{name}:{line}", remedy=remedy)


def _changes(root: Path, entry: PipelineEntry) -> dict[str, str]:
    """File name to new text, of the files that have to change."""
    stages = {name: _with_inline_lists(stage) for name, stage in entry.stages.items()}
    ignore_file = _ignore_file(entry.config)
    texts = {
        PARAMS_FILE: _with_entries(root, PARAMS_FILE, None, {entry.name: entry.params}, entry),
        DVC_FILE: _with_entries(root, DVC_FILE, "stages", stages, entry),
        ignore_file: _with_lines(root, ignore_file),
    }
    # Elsewhere a folder `.dvc` would make a repository of what is none.
    if (root / ".dvc").is_dir():
        wanted = template_files()
        texts |= {name: text for name, text in wanted.items() if _read(root, name) != text}
    return {name: text for name, text in texts.items() if text is not None}


def _with_entries(
    root: Path, name: str, section: str | None, wanted: Mapping[str, Any], entry: PipelineEntry
) -> str | None:
    """The text of a file with the wanted entries in it; None if it says all of that already."""
    text = _read(root, name)
    document = _parse(text, name)
    existing = document if section is None else document.get(section) or {}
    if not isinstance(existing, dict):
        remedy = f"write `{section}:` and below it one `name:` a line"
        raise RepositoryError(f"`{section}` is no mapping", where=name, remedy=remedy)
    owner_of = _owner_of_params if section is None else _owner_of_stage
    for key in wanted:
        if key in existing:
            _refuse_foreign(root, key, owner_of(existing[key]), entry, _place(text, name, section, key))
    left_over = [
        key
        for key, value in existing.items()
        if key not in wanted and _is_left_over(root, owner_of(value), entry)
    ]
    new_or_other = {key: value for key, value in wanted.items() if existing.get(key) != value}
    if not left_over and not new_or_other:
        return None
    new = _edited(text, section, document, {**dict.fromkeys(left_over), **new_or_other})
    return None if new == text else new


def _ignore_file(config: PurePosixPath) -> str:
    return str(config.parent / ".gitignore")


def _with_lines(root: Path, name: str) -> str | None:
    """The text of an experiment's `.gitignore` with our lines in it; None if they are there already."""
    text = _read(root, name)
    missing = [line for line in IGNORED if line not in text.splitlines()]
    if not missing:
        return None
    before = text if not text or text.endswith("\n") else text + "\n"
    return before + "".join(f"{line}\n" for line in missing)


def _edited(text: str, section: str | None, document: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """The text with entries replaced: line by line where they have lines of their own, else as a whole."""
    written = {key: None if value is None else dump(key, value) for key, value in changes.items()}
    before = document if section is None else document.get(section) or {}
    after = {key: value for key, value in before.items() if written.get(key, "") is not None}
    after |= {key: load(block)[key] for key, block in written.items() if block is not None}
    expected = after if section is None else {**document, section: after}
    try:
        new = replace(text, section, written)
        if load(new) == expected:
            return new
    except (Unsplittable, yaml.YAMLError):
        pass
    return _rewritten(text, section, changes)


def _rewritten(text: str, section: str | None, changes: Mapping[str, Any]) -> str:
    """The text through a YAML round trip, for files that are not one entry a line (flow style)."""
    editor = YAML()
    editor.width = UNFOLDED
    document = editor.load(text)
    mapping = document if section is None else document[section]
    for key, value in changes.items():
        if value is None:
            del mapping[key]
        else:
            mapping[key] = value
    stream = io.StringIO()
    editor.dump(document, stream)
    return stream.getvalue()


def _read(root: Path, name: str) -> str:
    try:
        # Not read_text(): it would turn the line ends of Windows into ours.
        return (root / name).read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise RepositoryError("is not UTF-8", where=name, remedy="save it as UTF-8") from error
    except OSError as error:
        raise RepositoryError(
            f"cannot be read: {error.strerror}", where=name, remedy="make it readable"
        ) from error


def _parse(text: str, name: str) -> dict[Any, Any]:
    refuse_conflict(text, name)
    try:
        document = load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or "it is not YAML"
        remedy = f"mend that line, or go back to the last commit: `git checkout -- {name}`"
        raise RepositoryError(f"cannot be read: {problem}", where=where, remedy=remedy) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise RepositoryError("is no mapping", where=f"{name}:1", remedy="write one `key: value` a line")
    return document


def _refuse_foreign(root: Path, key: str, owner: str | None, entry: PipelineEntry, place: str) -> None:
    if owner == str(entry.config):
        return
    if owner is None:
        raise RepositoryError(
            f"`{key}` is yours, and the experiment {entry.config} needs that name",
            where=place,
            remedy="rename it there, or give the experiment another `name:`",
        )
    if (root / owner).exists():
        raise RepositoryError(
            f"`{key}` belongs to {owner}, and {entry.config} needs that name too",
            where=place,
            remedy="give one of the two experiments another `name:`",
        )


def _is_left_over(root: Path, owner: str | None, entry: PipelineEntry) -> bool:
    return owner is not None and (owner == str(entry.config) or not (root / owner).exists())


def _owner_of_stage(stage: Any) -> str | None:
    """The experiment file that a stage of ours belongs to; None for a stage of the user."""
    if not isinstance(stage, dict):
        return None
    body = stage.get("do", stage)
    command = body.get("cmd") if isinstance(body, dict) else None
    ours = tuple(f"{own} " for own in (RUN_COMMAND, COMPILE_COMMAND, SUMMARY_COMMAND))
    if not isinstance(command, str) or not command.startswith(ours):
        return None
    try:
        return shlex.split(command)[3]
    except (ValueError, IndexError):
        return None


def _owner_of_params(value: Any) -> str | None:
    ours = isinstance(value, dict) and value.keys() - _OPTIONAL_KEYS == _PARAMS_KEYS
    return str(value["config"]) if ours else None


def _place(text: str, name: str, section: str | None, key: str) -> str:
    try:
        return f"{name}:{blocks(text, section)[key].start + 1}"
    except (Unsplittable, KeyError):
        return name


def _with_inline_lists(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage whose items write their lists in one line, so that a run takes three lines instead of ten."""
    items = stage.get("foreach")
    if items is None:
        return dict(stage)
    short = {
        key: {field: inline(value) if isinstance(value, list) else value for field, value in item.items()}
        for key, item in items.items()
    }
    return {**stage, "foreach": short}
