"""`dspylab schema`: the JSON Schemas of the files that dspylab reads and writes."""

from __future__ import annotations

from pathlib import Path

from dspylab.errors import UsageError
from dspylab.record.publish import write_atomically
from dspylab.record.schema import dumps, schema_files


def print_or_write_schemas(name: str | None, output: Path | None) -> None:
    """Prints one schema, or writes all of them.

    Raises:
        UsageError: If there is no schema of that name.
    """
    files = schema_files()
    if output is not None:
        for file, content in files.items():
            write_atomically(output / file, [dumps(content).encode()])
        print(f"wrote {', '.join(files)} to {output}")
        return
    wanted = f"{name or 'experiment'}.schema.json"
    if wanted not in files:
        known = ", ".join(file.partition(".")[0] for file in files)
        raise UsageError(f"there is no schema {name!r}", remedy=f"one of: {known}")
    print(dumps(files[wanted]), end="")
