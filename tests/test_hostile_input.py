"""Whatever stands in an experiment file, `load` returns or raises InvalidExperiment, and soon.

`DSPYLAB_FUZZ_EXAMPLES` sets how many files each of the three fuzz tests generates, whose names end with
`is_survived` or `are_survived`. The default is for every day; 7,000 take some minutes.
"""

from __future__ import annotations

import copy
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiment_text import VALID, changed, findings, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dspylab.config import document
from dspylab.config.document import MAX_DEPTH, MAX_NODES, parse
from dspylab.config.load import LoadedExperiment, load
from dspylab.config.secrets import looks_secret
from dspylab.errors import InvalidExperiment
from dspylab.plan.runs import plan_runs

TREE = yaml.safe_load(VALID)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
EXAMPLES = int(os.environ.get("DSPYLAB_FUZZ_EXAMPLES", "300"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def try_to_load(folder: Path, text: str | bytes) -> LoadedExperiment | None:
    """Load a text. Anything but InvalidExperiment is a bug, so is a finding that a terminal would obey."""
    path = write(folder, text)
    try:
        loaded = load(path)
        plan_runs(loaded)
    except InvalidExperiment as error:
        found = error.findings
    else:
        return loaded
    assert found
    for finding in found:
        shown = str(finding)
        assert shown.isprintable(), shown
        assert len(shown) < 2000, shown
        assert finding.problem
        assert finding.remedy
        assert finding.line is None or finding.line >= 1
    return None


def bomb(levels: int, width: int = 9) -> str:
    lines = ["b0: &b0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


BOMBS = {
    "of aliases": bomb(9),
    "of merges": "a0: &a0 {k0: 1}\n"
    + "\n".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: *a{n - 1}}}" for n in range(1, 40)
    ),
    "of values": "x: [" + "1," * 300_000 + "1]",
    "of keys": "\n".join(f"k{number}: 1" for number in range(90_000)),
    "of one key": "k: 1\n" * 90_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bombs_do_not_go_off(text: str, tmp_path: Path) -> None:
    """Without the limit on values the first two would fill the memory of any machine."""
    assert 0 < len(findings(tmp_path, text)) <= 101


def test_values_are_counted_after_aliases_are_expanded() -> None:
    assert parse(bomb(4)).root is not None
    (defect,) = parse(bomb(6)).defects
    assert f"{MAX_NODES:,}" in defect.problem


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000 + "x",
        "? " * 100_000,
        "\n".join(" " * depth + "a:" for depth in range(1000)),
        "x: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        "x: &x " + "[" * 30 + "]" * 30 + "\ny: " + "[" * 30 + "*x" + "]" * 30,
    ],
    ids=["lists", "mappings", "items", "keys", "blocks", "just too deep", "through an alias"],
)
def test_depth_is_bounded(text: str, tmp_path: Path) -> None:
    assert any(f"nested more than {MAX_DEPTH} levels deep" in line for line in findings(tmp_path, text))


def test_what_is_just_deep_enough_is_read() -> None:
    assert parse("x: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)).defects == ()


@pytest.mark.parametrize("size", [900_000, 10_000_000], ids=["within the limit", "10 MB"])
def test_a_long_text_does_not_fill_the_screen(size: int, tmp_path: Path) -> None:
    said = findings(tmp_path, changed("adapter: json", f"adapter: '{'x' * size}'"))
    assert len(said) == 1
    assert len(said[0]) < 500


@pytest.mark.parametrize(
    "key",
    [
        '"\\e[31mred\\e[0m"',
        '"a\\nb"',
        '"\\u202Eevil"',
        '"\\0"',
        '"<script>"',
        '" "',
        '""',
        '"a.b.c"',
        '"../../etc/passwd"',
        "'${HOME}'",
        "'[bold]'",
        "x" * 1000,
        "Ünïcödé",
        "__proto__",
        "__class__",
        "model_config",
        "model_dump",
        "self",
    ],
)
def test_odd_keys_are_shown_safely(key: str, tmp_path: Path) -> None:
    places = [
        ("name: triage", f"name: triage\n{key}: 1"),
        ("  tiny: {model", f"  {key}: {{x: 1}}\n  tiny: {{model"),
    ]
    places += [
        ("model: [tiny, mini]", f"model: [tiny, {key}]"),
        ("seed: [0, 1]", f"seed: [0, 1]\n  {key}: [1]"),
    ]
    for old, new in places:
        assert try_to_load(tmp_path, changed(old, new)) is None


@pytest.mark.parametrize(
    "value",
    [
        '"../../../etc/passwd"',
        '"/etc/passwd"',
        '"a\\0b"',
        '"\\e]0;title\\a"',
        '"~/x.py"',
        '""',
        '"."',
        '".."',
        '"//host/x.py"',
    ],
)
@pytest.mark.parametrize("place", ["path: program.py\n", "path: tickets.jsonl\n"])
def test_paths_that_lead_astray_are_refused(place: str, value: str, tmp_path: Path) -> None:
    assert try_to_load(tmp_path, changed(place, f"path: {value}\n")) is None


def test_half_a_character_is_refused_without_libyaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The parser in C knows no such escape; the one in Python makes a text of it that can not be written."""
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    said = findings(tmp_path, changed("name: triage", 'name: "tri\\ud800age"'))
    assert said == ["1: name: the text has half a character: write the whole character"]


def test_both_parsers_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    in_c = parse(VALID)
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    assert parse(VALID) == in_c


@pytest.mark.parametrize(
    "matrix",
    [
        {"seed": list(range(1000)), "program.a": list(range(1000))},
        {"seed": list(range(1000)), "exclude": [{"seed": number % 1000} for number in range(20_000)]},
        {f"program.a{number}": [0, 1] for number in range(64)},
    ],
    ids=["a million runs", "many exclusions", "2 to the 64 runs"],
)
def test_a_matrix_out_of_bounds_is_refused_before_it_is_built(matrix: dict[str, Any], tmp_path: Path) -> None:
    text = VALID[: VALID.index("matrix:")] + VALID[VALID.index("metrics:") :]
    said = findings(tmp_path, text + yaml.safe_dump({"matrix": matrix}, default_flow_style=None))
    assert len(said) == 1
    assert "matrix" in said[0]


@pytest.mark.parametrize(
    "pattern", ["(" * 5000 + ")" * 5000, "a{1,99999999999}", "(?P<x>a)(?P<x>b)", "[[:alpha:]]", "(?i", "\\"]
)
def test_patterns_that_python_chokes_on(pattern: str, tmp_path: Path) -> None:
    metric = yaml.safe_dump(
        {"type": "regex", "field": "x", "params": {"pattern": pattern}}, default_flow_style=True
    )
    try_to_load(tmp_path, changed("{type: exact_match, field: label}", metric.strip()))


@pytest.mark.parametrize(
    "schema",
    [
        "{$schema: 5}",
        "{$schema: []}",
        "{$schema: 'http://127.0.0.1:9/schema'}",
        "{$ref: 'http://127.0.0.1:9/schema'}",
        "{$ref: '#'}",
        "{$ref: 5}",
        "{type: {}}",
        "{pattern: '('}",
        "{$id: '%%%'}",
        "{properties: [1]}",
        "[]",
        "true",
    ],
)
def test_schemas_that_are_none(schema: str, tmp_path: Path) -> None:
    metric = f"{{type: json_schema, field: x, params: {{schema: {schema}}}}}"
    try_to_load(tmp_path, changed("{type: exact_match, field: label}", metric))


TOKENS = [
    "null", "~", "no", "true", "1", "-1", "1e999", ".nan", "0x_", "''", '"\\e[31m"', "[]", "{}", "[",
    "{", "]", "}", ":", ": ", "- ", "? ", "&a ", "*a", "<<: ", "!x ", "!!str ", "|", ">", "#", "%", "@",
    "\t", "\n", "\r", "  ", "---\n", "...\n", ",", "2024-01-01", "\u202e", "\ufeff", "\u2028", "\x00",
    "\x1b", "\U0001f600", "\xe9", "${HOME}", "sk-proj-0123456789abcdef", "a.b", "../..", "none",
    "model", "path", "program.py:x", "matrix", "include", "x" * 300, "9" * 400,
]  # fmt: skip


@st.composite
def mutated_texts(draw: st.DrawFn) -> str:
    """The valid text after a few cuts, repetitions and insertions."""
    text = VALID
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 40)))
        middle = draw(st.one_of(st.sampled_from(TOKENS), st.text(max_size=5), st.just(text[start:end] * 2)))
        text = text[:start] + middle + text[end:]
    return text


@FUZZ
@given(text=mutated_texts())
@example(text="")
def test_any_change_of_the_text_is_survived(text: str, tmp_path: Path) -> None:
    try_to_load(tmp_path, text.encode("utf-8", "surrogatepass"))


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(TOKENS),
        st.just(VALID),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def change_one_value(data: st.DataObject, tree: Any) -> None:
    """Replace, remove or rename something anywhere in the file."""
    place = tree
    key = data.draw(st.sampled_from(list(place)))
    while place[key] and isinstance(place[key], dict | list) and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    action = data.draw(st.sampled_from(["replace", "remove", "rename"]))
    if action == "remove":
        del place[key]
    elif action == "rename" and isinstance(place, dict):
        place[data.draw(st.one_of(st.text(max_size=6), st.sampled_from(TOKENS)))] = place.pop(key)
    else:
        place[key] = data.draw(JSON_VALUES)


@FUZZ
@given(data=st.data())
def test_any_change_of_a_value_is_survived(data: st.DataObject, tmp_path: Path) -> None:
    tree = copy.deepcopy(TREE)
    for _ in range(data.draw(st.integers(1, 3))):
        change_one_value(data, tree)
    text = yaml.dump(tree, Dumper=DUMPER, allow_unicode=data.draw(st.booleans()), sort_keys=False)
    try_to_load(tmp_path, text.encode("utf-8", "surrogatepass"))


@FUZZ
@given(content=st.binary(max_size=200))
@example(content=b"\xff\xfe")
@example(content=b"\xef\xbb\xbf")
def test_any_bytes_are_survived(content: bytes, tmp_path: Path) -> None:
    assert try_to_load(tmp_path, content) is None


def test_a_valid_file_stays_valid_whatever_its_order(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(list(TREE.items()), len(TREE))
    assert try_to_load(tmp_path, yaml.safe_dump(dict(shuffled), sort_keys=False)) is not None


@pytest.mark.parametrize(
    "unit",
    [
        "sk-",
        "sk-ant-",
        "eyJaaaaaaaaaaaa-",
        "hf_-",
        "bearer ",
        "://",
        "://:",
        "://a:b",
        "?key=",
        "-----BEGIN ",
        "AKIA",
        "x",
    ],
)
def test_the_search_for_keys_is_linear(unit: str) -> None:
    """Ten times the text is far from a hundred times the work: a quadratic search would take minutes here."""
    looks_secret(unit * (1_000_000 // len(unit)))


def test_findings_never_hold_terminal_escapes(tmp_path: Path) -> None:
    said = findings(tmp_path, changed("name: triage", 'name: "\\e[2J\\e]0;x\\a"'))
    assert said[0].startswith("1: name: '\\x1b[2J\\x1b]0;x\\x07' is no id: ")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", said[0])
