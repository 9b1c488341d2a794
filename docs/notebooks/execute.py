"""Execute a notebook's code cells from top to bottom and write what they show back into it.

    python docs/notebooks/execute.py docs/notebooks/results.ipynb

The working folder is the notebook's own, as in Jupyter. Needs nothing but what the cells need.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any


def execute(path: Path) -> None:
    """Executes a notebook in place. A cell that raises ends it, and leaves the file as it was."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    os.chdir(path.parent)
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(cells, start=1):
        printed, value = run_cell("".join(cell["source"]), names, f"cell {count}")
        cell["execution_count"] = count
        cell["outputs"] = outputs(printed, value, count)
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    Path(path.name).write_text(text + "\n", encoding="utf-8")


def run_cell(source: str, names: dict[str, Any], place: str) -> tuple[str, Any]:
    """Executes a cell: what it printed, and the value of its last line if that is an expression."""
    tree = ast.parse(source, place)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout):
        exec(compile(tree, place, "exec"), names)  # noqa: S102 - that is what a notebook is for
        expression = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
        value = None if expression is None else eval(compile(expression, place, "eval"), names)  # noqa: S307
    return stdout.getvalue(), value


def outputs(printed: str, value: Any, count: int) -> list[dict[str, Any]]:
    """The outputs of a cell in the notebook format 4."""
    found: list[dict[str, Any]] = []
    if printed:
        found.append({"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        html = value._repr_html_() if hasattr(value, "_repr_html_") else None
        if html:
            data["text/html"] = html.splitlines(keepends=True)
        found.append(
            {"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data}
        )
    return found


if __name__ == "__main__":
    execute(Path(sys.argv[1]).absolute())
