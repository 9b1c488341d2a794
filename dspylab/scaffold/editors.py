"""The schema that an experiment file names for editors: a file of the laboratory, kept up to date.

The line `# yaml-language-server: $schema=…` is what editors complete and check YAML by. It names a file in
the repository: that works without a network, for whatever version is installed, and on every clone.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from dspylab.config.schema import EXPERIMENT_ID, experiment_schema
from dspylab.record.publish import write_atomically
from dspylab.record.schema import dumps

#: Where a laboratory keeps the schema, relative to its folder.
SCHEMA_FILE = Path("schema", "experiment.schema.json")
_LINE = re.compile(r"^#\s*yaml-language-server:\s*\$schema=(?P<path>\S+)", re.MULTILINE)
#: The line stands at the top; so many characters are searched.
_HEAD = 2000


def schema_text() -> str:
    """The schema of the experiment file, as this version of dspylab has it."""
    return dumps(experiment_schema())


def schema_line_path(config: Path, laboratory: Path) -> str:
    """What the schema line of an experiment file has to name.

    Args:
        config: The experiment file.
        laboratory: Folder that holds `schema/`.
    """
    return Path(os.path.relpath(laboratory / SCHEMA_FILE, config.parent)).as_posix()


def refresh_schema(config: Path, root: Path) -> Path | None:
    """Brings the schema file that an experiment names up to date, if it is a copy of ours.

    Args:
        config: The experiment file.
        root: Root of the repository; nothing outside of it is written.

    Returns:
        The file, if it was written.

    Raises:
        EnvironmentProblem: If it cannot be written.
    """
    named = _LINE.search(config.read_text(encoding="utf-8", errors="replace")[:_HEAD])
    if named is None or ":" in named["path"]:
        return None
    path = (config.parent / named["path"]).resolve()
    if not path.is_relative_to(root.resolve()) or not _is_ours(path):
        return None
    text = schema_text()
    if path.read_text(encoding="utf-8") == text:
        return None
    write_atomically(path, [text.encode()])
    return path


def _is_ours(path: Path) -> bool:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("$id") == EXPERIMENT_ID
