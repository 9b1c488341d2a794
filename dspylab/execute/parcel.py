"""The code of an experiment as one archive, for workers that do not see the repository.

It holds the experiment file, the Python files that the code consists of, the files that `program.files`
names, and separate files of training and validation examples: what DVC knows of as dependencies of the
runs, but no test examples, which travel by themselves, and no `.env`. A program that finds all it needs in it
is one whose changes are noticed, too.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from uuid import uuid4

from dspylab.laboratory import Laboratory
from dspylab.program.footprint import data_files, files_of, readable_files
from dspylab.program.modules import own_path

#: No archive of the same content has other times.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Parcel:
    """An archive.

    Attributes:
        content: The zip.
        digest: SHA-256 of it, in hexadecimal.
        config: The experiment file in it.
        search: Folders in it that modules are imported from here, as `src` is in many repositories.
    """

    content: bytes
    digest: str
    config: PurePosixPath
    search: tuple[str, ...] = ()


def pack(laboratory: Laboratory, *, with_dataset: bool) -> Parcel:
    """Archives the code of an experiment. The same files give the same bytes.

    Args:
        laboratory: The experiment.
        with_dataset: Whether compiled programs need the training examples when they run.

    Raises:
        ProgramError: If the code cannot be imported.
    """
    folder, root, experiment = laboratory.layout.folder, laboratory.layout.root, laboratory.experiment
    read = (data_files if with_dataset else readable_files)(experiment, folder)
    files = {
        laboratory.loaded.path,
        *laboratory.code_files,
        *(file for path in read for file in files_of(path)),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(files):
            name = path.relative_to(root).as_posix()
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
    content = buffer.getvalue()
    search = _searched(laboratory.code_files, root)
    return Parcel(content, hashlib.sha256(content).hexdigest(), laboratory.config, search)


def _searched(modules: Iterable[Path], root: Path) -> tuple[str, ...]:
    """What of `sys.path` holds modules of the repository, relative to its root and in order."""
    holding = {folder for module in modules for folder in module.parents if folder.is_relative_to(root)}
    entries = [own_path(os.path.abspath(entry), root) for entry in sys.path]  # noqa: PTH100
    found = (entry for entry in entries if entry is not None and entry in holding)
    return tuple(dict.fromkeys(entry.relative_to(root).as_posix() for entry in found))


def unpack(content: bytes, place: Path) -> None:
    """Unpacks an archive, unless it lies there. Several processes may do so at once.

    Args:
        content: From `pack`.
        place: The folder to make, named after the content.

    Raises:
        OSError: If it cannot be written.
    """
    if place.is_dir():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.{uuid4().hex}")
    try:
        # The marker of a repository's root: what lies above is not the experiment's.
        (fresh / ".dvc").mkdir(parents=True, mode=0o700)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(fresh)
        os.rename(fresh, place)  # noqa: PTH104 - fails where another process was faster
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        if not place.is_dir():
            raise
