"""Reference pages of the documentation, generated from the code whenever the site is built.

MkDocs calls `on_files`. The configuration page comes from the JSON Schema, the page of the command line from
Typer, and the pages of the files from their schemas, so none of them can say something else than the code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from dspylab.cli import app

SCHEMAS = Path(__file__).parent.parent / "schema"
#: File name of a schema to the title and the first sentences of its page.
FILES = {
    "raw": ("raw.jsonl", "One row an example of one run: `experiments/<name>/results/<run>/raw.jsonl`."),
    "run": ("run.json", "What made the rows of a run: `experiments/<name>/results/<run>/run.json`."),
    "compile": (
        "record.json",
        "What made a compiled program: `experiments/<name>/programs/<key>.record.json`.",
    ),
    "summary": ("summary.json", "The whole experiment in figures: `experiments/<name>/summary.json`."),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    pages = {
        "reference/config.md": _config_page(),
        "reference/cli.md": _cli_page(),
        "reference/files.md": _files_page(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def _config_page() -> str:
    schema = _schema("experiment")
    lines = [
        "# The experiment file",
        "",
        "Every key, as the JSON Schema has it: `dspylab schema experiment`. Unknown keys are errors.",
        "Keys in *italics* may be left out.",
        "",
        *_object("experiment.yaml", schema, level=2),
    ]
    for name, definition in sorted(schema["$defs"].items()):
        lines += _object(name, definition, level=2)
    return "\n".join(lines)


def _files_page() -> str:
    lines = ["# Files", "", "What each figure means is in [Measurements](../measurements.md)."]
    for key, (title, text) in FILES.items():
        schema = _schema(key)
        lines += ["", f"## {title}", "", text, "", *_table(schema)]
        for name, definition in sorted(schema.get("$defs", {}).items()):
            if definition.get("properties"):
                lines += ["", f"### {title}: {name}", "", definition.get("description", ""), ""]
                lines += _table(definition)
    return "\n".join(lines)


def _object(title: str, schema: Mapping[str, Any], *, level: int) -> Iterator[str]:
    yield from ("", f"{'#' * level} {title}", "", schema.get("description", ""), "")
    yield from _table(schema)
    for pattern, value in schema.get("patternProperties", {}).items():
        yield from ("", f"Further keys, `{pattern}`: {value.get('description', '')}")


def _table(schema: Mapping[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    yield "| key | type | default | what it is |"
    yield "|---|---|---|---|"
    for key, value in schema.get("properties", {}).items():
        name = f"`{key}`" if key in required else f"*`{key}`*"
        default = f"`{json.dumps(value['default'])}`" if value.get("default") is not None else ""
        yield f"| {name} | {_type(value)} | {default} | {_cell(value.get('description', ''))} |"


def _type(value: Mapping[str, Any]) -> str:
    """The type of a value in words; other objects are links to their heading."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name in _schema("experiment")["$defs"] else name
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(dict.fromkeys(_type(one) for one in value[several]))
    if "enum" in value:
        return ", ".join(f"`{one}`" for one in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kinds = value.get("type", "any")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_of(kind, value) for kind in kinds)


def _of(kind: str, value: Mapping[str, Any]) -> str:
    if kind == "array" and isinstance(value.get("items"), dict):
        return f"list of {_type(value['items'])}"
    if kind == "object":
        inner = value.get("additionalProperties")
        inner = inner or next(iter(value.get("patternProperties", {}).values()), None)
        return f"mapping of {_type(inner)}" if isinstance(inner, dict) and inner else "mapping"
    return kind


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _cli_page() -> str:
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="dspylab")
    codes = "Exit codes are in [Reliability](../reliability.md#exit-codes)."
    lines = ["# Commands", "", command.help or "", "", codes]
    for name in sorted(command.list_commands(context)):  # type: ignore[attr-defined]
        child = command.get_command(context, name)  # type: ignore[attr-defined]
        inner = typer.Context(child, info_name=f"dspylab {name}")
        lines += ["", f"## dspylab {name}", "", child.help or ""]
        lines += ["", "```text", child.get_help(inner).strip(), "```"]
    return "\n".join(lines)


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema
