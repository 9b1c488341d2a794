"""What real DVC leaves of an experiment file when it writes it back, and what is said about it before."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, MakeLab
from dvc.utils.serialize import modify_yaml, parse_yaml
from dvc.utils.serialize._yaml import YAMLFileCorruptedError

from dspylab.config.document import parse
from dspylab.config.rewriting import as_block
from dspylab.testing import FakeServer

#: In quotes inside of {} and [], these are read; DVC writes them back without, and they are not.
LOST = [
    *("http://127.0.0.1:8377/v1", "../../p.py:metric", "a:b", "a :b", ":a", "a::b", "a?b", "a?", "?a", "? a"),
    *("1:30", "12:30:45", "é:x", "a b:c d", "a'b:c"),
]
#: These keep the quotes that they need, or need none.
KEPT = [
    *("a: b", "a:", ":", "?", "a, b:c", "a,b:c", "c:d,", "[a:b", "{a:b}", "http://h:8/{m}", "#a:b", "a #b:c"),
    *(
        "'a:b",
        '"a:b',
        "*a:b",
        "- a:b",
        "-",
        "---:a",
        " a:b",
        "a:b ",
        "a:b\nc",
        "2026-01-02 10:30:00",
        "",
        "true",
    ),
    *("plain", "it's", "a#b", "x\ty"),
]
IN_FLOW = "m: {{k: {}, z: 1}}\n", "m: {{a: 1, k: {}}}\n", "m: [{}, z]\n", "m: {{{}: 1}}\n", "m: [[z, {}]]\n"


def written_back(text: str, folder: Path) -> Any:
    """What DVC reads after it has changed another value of a file, as `dvc exp run -S` does."""
    path = folder / "params.yaml"
    path.write_text(text + "other: 0\n", encoding="utf-8")
    with modify_yaml(str(path)) as content:
        content["other"] = 1
    found = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    del found["other"]
    return found


@pytest.mark.parametrize("shape", IN_FLOW)
@pytest.mark.parametrize("value", LOST)
def test_quotes_that_are_lost_are_known_and_the_block_outlives_dvc(
    value: str, shape: str, tmp_path: Path
) -> None:
    text = shape.format(json.dumps(value, ensure_ascii=False))
    before = parse_yaml(text, "")
    with contextlib.suppress(YAMLFileCorruptedError):
        assert written_back(text, tmp_path) != before
    document = parse(text)
    assert not document.defects
    assert document.fragile == {("m",): 1}
    assert document.root
    block = as_block(("m",), document.root.value["m"]) + "\n"
    assert not parse(block).fragile
    assert written_back(block, tmp_path) == parse_yaml(block, "") == before


@pytest.mark.parametrize("shape", IN_FLOW)
@pytest.mark.parametrize("value", KEPT)
def test_what_outlives_dvc_is_not_warned_of(value: str, shape: str, tmp_path: Path) -> None:
    text = shape.format(json.dumps(value))
    assert written_back(text, tmp_path) == parse_yaml(text, "")
    assert not parse(text).fragile


def test_the_outermost_collection_is_named_with_the_line_of_the_first_value() -> None:
    text = 'a:\n  b: {c: 1,\n    d: ["x:y", {e: "p:q"}]}\n  f: ["r:s"]\n  g: "t:u"\n'
    assert parse(text).fragile == {("a", "b"): 3, ("a", "f"): 4}
    assert as_block(("a", 0), {"k": ["x:y"]}) == "- k:\n  - x:y"
    assert as_block((), {"k": "x:y"}) == "k: x:y"
    assert as_block(("k",), list(range(30))).endswith("- 18\n…")
    shared = ["x:y"]
    assert as_block(("k",), [shared, shared]) == "k:\n- - x:y\n- - x:y"


def test_the_commands_warn_before_dvc_breaks_the_file(
    server: FakeServer, make_lab: MakeLab, cli: Cli, cli_inside: Cli
) -> None:
    lab = make_lab(server.url)
    model = lab.read()["models"]["fake"]
    flow = ", ".join(f"{key}: {json.dumps(value)}" for key, value in model.items())
    lab.change({"models": ...})
    text = lab.config.read_text() + f"models:\n  fake: {{{flow}}}\n"
    lab.config.write_text(text)
    line = text.count("\n")

    done = cli_inside("validate", "-c", lab.config, cwd=lab.root)
    assert done.code == 0
    warning, *block = done.err.splitlines()
    assert warning.startswith("warning: ")
    assert f"experiment.yaml:{line}: models.fake: `dvc exp run -S` takes quotes out of this {{}}" in warning
    assert f"      api_base: {server.url}" in block
    assert cli_inside("sync", "-c", lab.config, cwd=lab.root).err == done.err
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).err == done.err
    lab.commit("Results")

    change = ("exp", "run", "-S", "experiments/triage/experiment.yaml:models.fake.temperature=0.2")
    assert cli(*change, cwd=lab.root, program="dvc").code != 0
    broken = cli_inside("validate", "-c", lab.config, cwd=lab.root)
    assert broken.code == 2
    assert "write it without {} and [], one key a line" in broken.err

    lab.git("checkout", "--", ".")
    mended = [f"  {part.removeprefix('    ')}" for part in block]
    lab.config.write_text("\n".join([*text.splitlines()[:-1], *mended, ""]))
    assert cli_inside("validate", "-c", lab.config, cwd=lab.root).err == ""
    survived = cli(*change, cwd=lab.root, program="dvc")
    assert survived.code == 0, survived.err + survived.out
    assert cli_inside("validate", "-c", lab.config, cwd=lab.root).code == 0
    assert lab.read()["models"]["fake"]["temperature"] == 0.2
