"""The built wheel by itself: `make wheel-test` runs this with the Python of a fresh environment.

Nothing of the checkout may be in reach: it is run from another folder, with `-I`, and imports only what was
installed. With the extra `local` installed, the example is run too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

BINARIES = Path(sys.executable).parent
SCHEMAS = {"experiment.schema.json", "raw.schema.json", "run.schema.json", "summary.schema.json"}
PERSON = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Somebody"), ("EMAIL", "somebody@example.org"))
}


def dspylab(*arguments: str, folder: Path, code: int = 0) -> str:
    """What a command prints, after a look at its exit code."""
    path = f"{BINARIES}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **PERSON, "PATH": path, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        [BINARIES / "dspylab", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def check_package() -> None:
    package = Path(str(files("dspylab")))
    assert package.is_relative_to(sys.prefix), f"{package} is not the installed package"
    published = {path.name: path for path in (package / "schema").iterdir()}
    assert published.keys() >= SCHEMAS, published
    for path in published.values():
        json.loads(path.read_text(encoding="utf-8"))
    assert (package / "py.typed").is_file()


def check_commands(folder: Path) -> None:
    assert dspylab("--version", folder=folder).startswith("dspylab ")
    printed = dspylab("schema", "experiment", folder=folder)
    assert printed == files("dspylab").joinpath("schema", "experiment.schema.json").read_text("utf-8")
    dspylab("init", "lab", folder=folder)
    lab = folder / "lab"
    assert "valid: topics" in dspylab("validate", folder=lab)
    assert "2 runs, 2 to execute" in dspylab("plan", folder=lab)
    dspylab("sync", folder=lab)
    if importlib.util.find_spec("xllamacpp") is None:
        assert "pip install 'huggingface-hub" in dspylab("run", folder=lab, code=3)
        return
    assert "32/32" in dspylab("run", folder=lab)
    assert "nothing to do" in dspylab("run", folder=lab)


def main() -> None:
    check_package()
    with tempfile.TemporaryDirectory(prefix="dspylab-wheel-") as folder:
        check_commands(Path(folder))
    print(f"the wheel works with Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
