"""Reading an experiment file: what is right is read as DVC reads it, what is wrong is said once, in place."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from experiment_text import VALID, changed, findings, read, write
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dspylab.config.document import parse
from dspylab.config.load import MAX_BYTES, load
from dspylab.config.providers import known_providers, providers_in
from dspylab.config.scoring import MEASURES, NEEDS
from dspylab.errors import InvalidExperiment
from dspylab.lm.routing import NATIVE_ROUTES
from dspylab.metrics import judge
from dspylab.metrics.builtin import COMPARISONS, WITHOUT_LABEL
from dspylab.metrics.runlevel import MEASURES as RUN_MEASURES
from dspylab.plan.runs import plan_runs
from dspylab.testing import experiment as lab_experiment

ROOT = Path(__file__).parent.parent
SECRET_REMEDY = (
    "take it out, put it into the environment or a .env file, "
    "and name its variable: api_key_env: OPENAI_API_KEY"
)


@dataclass(frozen=True)
class Case:
    """One block of findings.txt."""

    name: str
    taken_out: str
    put_in: str
    expected: list[str]


def cases() -> list[Case]:
    blocks = (Path(__file__).parent / "findings.txt").read_text(encoding="utf-8").split("\n\n")
    found = []
    for name, *lines in (block.splitlines() for block in blocks[1:]):
        parts = {mark: [line[2:] for line in lines if line.startswith(f"{mark} ")] for mark in "-+>"}
        assert sum(map(len, parts.values())) == len(lines), f"{name}: a line has no mark"
        put_in = "".join(f"{line}\n" for line in parts["+"])
        found.append(Case(name, "".join(f"{line}\n" for line in parts["-"]), put_in, parts[">"]))
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_one_thing_wrong_is_said_once(case: Case, tmp_path: Path) -> None:
    said = findings(tmp_path, changed(case.taken_out, case.put_in))
    assert [line.replace(str(tmp_path), "{folder}").replace(SECRET_REMEDY, "{secret}") for line in said] == [
        line.strip() for line in case.expected
    ]


def test_a_valid_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, VALID)
    monkeypatch.chdir(tmp_path)
    loaded = load(Path("experiment.yaml"))
    assert loaded.path == tmp_path / "experiment.yaml"
    assert loaded.folder == tmp_path
    assert loaded.experiment.name == "triage"
    assert loaded.experiment.models["tiny"].max_tokens == 64
    assert loaded.experiment.matrix.free_axes == {
        "program.style": ["predict", "cot"],
        "lm.temperature": [0.0, 0.7],
    }
    assert loaded.document["dataset"]["limit"] is None
    assert loaded.document["metrics"]["helpful"] == {"type": "path", "ref": "program.py:helpful"}


def test_later_findings_have_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, VALID)
    monkeypatch.chdir(tmp_path)
    loaded = load(Path("experiment.yaml"))
    assert loaded.line(()) == 1
    assert loaded.line(("models", "mini", "api_base")) == 16
    assert loaded.line(("matrix", "include", 0, "seed")) == 27
    finding = loaded.finding(("matrix", "include", 0), "is odd", "make it even")
    assert str(finding) == "experiment.yaml:27: matrix.include[0]: is odd: make it even"


MINIMAL = """\
name: small
program: {module: package.module}
dataset: {test: "package.module:load", inputs: [text]}
models: {mini: {model: openai/gpt-4o-mini}}
metrics: {accuracy: {type: exact_match, field: label}}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("adapter: json", 'adapter: "program.py:Short"'),
        ("adapter: json", "adapter: null"),
        ("fewshot: {type: LabeledFewShot, params: {k: 4}}", 'fewshot: {path: "program.py:Own"}'),
        ("path: program.py\n", "path: ./program.py\n"),
        ("path: program.py\n", "module: package.module\n"),
        ("path: tickets.jsonl", 'path: "program.py:load"'),
        ("path: tickets.jsonl\n", "train: tickets.jsonl\n  test: test.jsonl\n"),
        ("labels: [label]\n", "id: text\n"),
        ("local/smollm2-135m-instruct", '"local:../model.gguf"'),
        ("stream: true", "params: {top_p: 0.9, n: 2}, pricing: {input: 1, output: 2}, supports: null"),
        ("exclude: [{model: tiny,", "exclude: [{model: [tiny, mini], lm.temperature: 0,"),
        ("seed: [0, 1]\n", "seed: [0, 1]\n  compile_model: [mini]\n"),
        ("compile_model", "compile_model"),
        ("primary_metric: accuracy\n", ""),
        ("primary_metric: accuracy", "primary_metric: helpful.clarity"),
        ("field: label}", "field: label, params: {normalize: squad}}"),
        ("{type: exact_match, field: label}", "{type: regex, field: answer, params: {pattern: '[[a]'}}"),
        ("{type: exact_match, field: label}", "{type: exact_match, field: answer, label: label}"),
        ("  helpful: {", "  macro: {type: run, field: label, params: {measure: macro_f1}}\n  helpful: {"),
        ("  helpful: {", '  own: {type: run, ref: "program.py:own"}\n  helpful: {'),
        ("args: {style: predict}", "args: {style: predict, labels: {password: lost it, token: gone away}}"),
        ("description: Which", "description: max_tokens and sk-learn, hf_hub, bearer of bad news. Which"),
    ],
)
def test_what_is_allowed(old: str, new: str, tmp_path: Path) -> None:
    text = changed(old, new) if old and old in VALID else VALID
    if "train: tickets.jsonl" in new:
        text = text.replace("  split: {train: 0.3, seed: 7}\n", "")
    if "compile_model" in new:
        text = text.replace("  include:", "  # include:")
    if "module" in new:
        (tmp_path / "program.py").unlink(missing_ok=True)
    read(tmp_path, text)


def test_a_minimal_file_is_enough(tmp_path: Path) -> None:
    experiment = read(tmp_path, MINIMAL).experiment
    assert experiment.ranked_by == "accuracy"
    assert experiment.execution.max_concurrency == 64


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("experiments/*/experiment.yaml")), ids=lambda path: path.parent.name
)
def test_our_own_experiments_are_valid(path: Path) -> None:
    plan_runs(load(path))


def test_what_the_test_helper_writes_is_valid(tmp_path: Path) -> None:
    lab = lab_experiment(tmp_path, server_url="http://127.0.0.1:1/v1")
    assert load(lab.config).document == lab.read()


def test_everything_wrong_is_said_at_once_in_file_order(tmp_path: Path) -> None:
    text = """\
name: my triage
descripton: x
program: program.py
dataset:
  path: ticket.jsonl
  inputs: text
models:
  tiny: {model: local/smollm2-135m-instruct, temprature: 0.0, max_tokens: "64"}
  mini: {model: openai/gpt-4o-mini, api_key: sk-proj-0123456789abcdef}
  mini: {model: openai/gpt-4o-mini}
  max: {model: openai/gpt-4o, params: {when: 2024-01-01}}
matrix:
  model: [tiny, minni]
  lm.temperature: []
  exclude: [{model: tinny}]
metrics:
  accuracy: {type: exactmatch, field: label}
  pattern: {type: regex, field: x, params: {pattern: "a(", ignorecase: 1}}
primary_metric: acc
execution:
"""
    assert [line.split(": ", 2)[:2] for line in findings(tmp_path, text)] == [
        ["1", "name"],
        ["2", "descripton"],
        ["3", "program"],
        ["6", "dataset.inputs"],
        ["8", "models.tiny.max_tokens"],
        ["8", "models.tiny.temprature"],
        ["9", "models.mini.api_key"],
        ["10", "models.mini"],
        ["11", "models.max.params.when"],
        ["13", "matrix.model[1]"],
        ["14", "matrix.lm.temperature"],
        ["15", "matrix.exclude[0].model"],
        ["17", "metrics.accuracy.type"],
        ["18", "metrics.pattern.params.ignorecase"],
        ["18", "metrics.pattern.params.pattern"],
        ["19", "primary_metric"],
        ["20", "execution"],
    ]


def test_a_file_full_of_mistakes_gets_a_list_that_ends(tmp_path: Path) -> None:
    said = findings(tmp_path, VALID + "".join(f"wrong{number}: 1\n" for number in range(5000)))
    assert len(said) <= 101


TAB_AND_OTHERS = [
    ("a:\n\tb: 1", "2: is no YAML: a tab indents the line: indent with spaces"),
    ("a:\n  b: 1\n\tc: 2", "3: is no YAML: a tab indents the line: indent with spaces"),
    ("a: @x", "1: is no YAML: a value can not begin with '@': put it in quotes"),
    ("a: [1,\n  2\nb: 3", "3: is no YAML: the list that begins with [ in line 1 is not closed: "),
    ("a: {b: 1\nc: 2", "2: is no YAML: the mapping that begins with { in line 1 is not closed: "),
    ("b: 1\na: 'x\nc: 2", "2: is no YAML: the quotes that open in line 2 are not closed: close them"),
    ("a: 'x\n--- b", "1: is no YAML: the quotes that open in line 1 are not closed: close them"),
    ("a: b: c", "1: is no YAML: a ':' stands where none can be: "),
    ("a: 1\nfoo\nb: 2", "2: is no YAML: the line is neither 'key: value' nor '- item': write key: value"),
    ("a:\n  - x\n  b: 1", "3: is no YAML: the line is not indented like the lines that it belongs to: "),
    ("a:\n    b: 1\n  c: 2", "3: is no YAML: the line is not indented like the lines that it belongs to: "),
    (
        'a: "\\d+"',
        "1: is no YAML: a backslash in double quotes begins an escape, and this is none: use single quotes",
    ),
    ('a: "\\ud800"', "1: is no YAML: the escape stands for no character: write the character itself"),
    ('a: "\\xzz"', "1: is no YAML: the escape is not complete: "),
    ("a: {", "1: is no YAML: a value is missing: "),
    ("a: - b", "1: is no YAML: a '- item' stands where none can be: "),
    ("a: !x!y b", "1: is no YAML: the tag is not defined: "),
    ("a: =", "1: a: '=' has a meaning of its own in YAML: put it in quotes"),
    ("%YAML 9.9\n---\na: 1", "1: is no YAML: the %YAML line asks for an unknown version: take it out"),
    ("%YAML 1.1\n---\na: yes", "1: the line %YAML changes how values are read: take it out"),
    ("a: *b", "1: the alias *b repeats &b, which is not above it: "),
    ("a: &a [1, *a]", "1: the alias *a stands inside of what it repeats: "),
    ("a: 1\n---\nb: 2", "2: a second document begins: keep one experiment to a file"),
    ("x: 1\n<<<<<<< HEAD\na: 1\n=======\n", "2: a merge conflict is not resolved: "),
    ("a: 1\nb: \x1b[31m", "2: holds the control character U+001B: "),
    ("", "1: the file is empty: "),
    ("# nothing\n\n", "1: the file is empty: "),
    ("---\n...\n", "1: the file is empty: "),
    ("- a\n- b", "1: the file is no mapping of keys: "),
    ("just text", "1: the file is no mapping of keys: "),
    ("PK\x03\x04", "1: holds the control character U+0003: "),
]


@pytest.mark.parametrize(("text", "expected"), TAB_AND_OTHERS, ids=[repr(text) for text, _ in TAB_AND_OTHERS])
def test_what_is_no_yaml_is_explained(text: str, expected: str, tmp_path: Path) -> None:
    assert any(line.startswith(expected) for line in findings(tmp_path, text)), findings(tmp_path, text)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: path.write_bytes(b"name: \xff\xfe"), ":1: is not UTF-8: save the file as UTF-8"),
        (lambda path: path.write_bytes(b"a: 1\nname: caf\xe9"), ":2: is not UTF-8: save the file as UTF-8"),
        (lambda path: path.write_bytes(VALID.encode("utf-16")), ":1: is not UTF-8: save the file as UTF-8"),
        (lambda path: path.write_bytes(b"a: '\xed\xa0\x80'"), ":1: is not UTF-8: save the file as UTF-8"),
        (lambda path: path.write_text("#" * (MAX_BYTES + 1)), ": is larger than 1,000,000 bytes: "),
        (lambda path: path.mkdir(), ": is a folder: name the experiment file in it"),
        (lambda path: path.symlink_to("nowhere.yaml"), ": is not there: correct the path"),
        (_fifo, ": is no regular file: name an experiment file"),
    ],
)
def test_what_can_not_be_read_is_said(make: Callable[[Path], Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    make(path)
    with pytest.raises(InvalidExperiment) as caught:
        load(path)
    assert str(caught.value).removeprefix(str(path)).startswith(expected)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    path.chmod(0)
    with pytest.raises(InvalidExperiment, match="can not be read: Permission denied"):
        load(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("experimnt.yaml", "is not there: did you mean {}/experiment.yaml?"),
        ("missing/experiment.yaml", "is not there: correct the path: its folder is not there either"),
        ("experiment.yaml/x.yaml", "is not there: correct the path: its folder is not there either"),
        ("a" * 300, "can not be read: File name too long: correct the path or its permissions"),
    ],
)
def test_a_path_that_leads_nowhere(name: str, expected: str, tmp_path: Path) -> None:
    write(tmp_path, VALID)
    with pytest.raises(InvalidExperiment) as caught:
        load(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {expected.format(tmp_path)}"
    assert caught.value.exit_code == 2


def test_a_path_with_a_null_character() -> None:
    with pytest.raises(InvalidExperiment) as caught:
        load(Path("a\0b.yaml"))
    assert str(caught.value).startswith("a\\x00b.yaml: ")


@pytest.mark.parametrize(
    "text", ["\ufeff" + VALID, VALID.replace("\n", "\r\n"), "\ufeff" + VALID.replace("\n", "\r\n")]
)
def test_windows_files_are_read(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text).experiment == read(tmp_path, VALID).experiment
    assert findings(tmp_path, text.replace("seed: [0, 1]", "seed: []"))[0].startswith("25: matrix.seed: ")


def test_paths_hold_beside_the_link_to_a_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    target = write(tmp_path, VALID).rename(tmp_path / "there" / "target.yaml")
    (tmp_path / "link.yaml").symlink_to(target)
    assert load(tmp_path / "link.yaml").folder == tmp_path


@pytest.mark.parametrize(
    ("edit", "remedy"),
    [
        ("exclude: [{model: [tiny, mini]}]", "matrix: the matrix has no run: exclude less, or include a run"),
        (
            "include: [{model: mini, seed: 0, optimizer: none, program.style: cot, lm.temperature: 0}]",
            "stands twice",
        ),
        (
            "include: [{model: mini}]",
            "matrix.include[0]: does not say its program.style: add program.style: one of",
        ),
    ],
)
def test_a_matrix_that_makes_no_sense_is_a_finding(edit: str, remedy: str, tmp_path: Path) -> None:
    kept = [line for line in VALID.splitlines() if not line.startswith(("  exclude", "  include"))]
    kept.insert(kept.index("metrics:"), f"  {edit}")
    loaded = read(tmp_path, "\n".join(kept))
    with pytest.raises(InvalidExperiment) as caught:
        plan_runs(loaded)
    line = 20 if edit.startswith("exclude") else 26
    assert str(caught.value).startswith(f"{tmp_path}/experiment.yaml:{line}: matrix")
    assert remedy in str(caught.value)


def test_runs_that_differ_in_words_alone_are_the_same(tmp_path: Path) -> None:
    loaded = read(tmp_path, MINIMAL + "matrix: {include: [{model: mini, seed: 0}]}\n")
    with pytest.raises(InvalidExperiment, match="the run model=mini seed=0 stands twice"):
        plan_runs(loaded)


def test_aliases_and_merges(tmp_path: Path) -> None:
    text = changed(
        "  tiny: {model: local/smollm2-135m-instruct, temperature: 0.0, max_tokens: 64}\n",
        "  tiny: &base\n    model: local/smollm2-135m-instruct\n    temperature: 0.0\n    max_tokens: 64\n"
        "  warm:\n    <<: *base\n    temperature: 0.9\n  same: *base\n",
    )
    loaded = read(tmp_path, text)
    models = loaded.experiment.models
    assert (models["warm"].temperature, models["warm"].max_tokens) == (0.9, 64)
    assert models["same"] == models["tiny"]
    assert loaded.line(("models", "warm", "max_tokens")) == 18
    assert loaded.line(("models", "warm", "temperature")) == 21
    assert loaded.line(("models", "same")) == 22
    broken = text.replace("max_tokens: 64", "max_tokens: 0")
    assert [line.split(":")[0] for line in findings(tmp_path, broken)] == ["18", "18", "18"]


def test_a_key_may_have_an_anchor_and_be_an_alias(tmp_path: Path) -> None:
    text = changed(
        "  args: {style: predict}\n", "  args: {&word style: predict, again: *word, ? *word : cot}\n"
    )
    (said,) = findings(tmp_path, text)
    assert said.startswith("6: program.args.style: stands twice")
    loaded = read(tmp_path, text.replace(", ? *word : cot", ""))
    assert loaded.experiment.program.args == {"style": "predict", "again": "style"}


YAML_WORDS = [
    "no", "yes", "on", "off", "y", "n", "true", "True", "TRUE", "false", "null",
    "Null", "~", "none", "1e-3", "1e-05", "1E5", "1.e3", "1.5", "010", "08", "0o17",
    "0x1F", "1_000", "0b11", "1:30", "12:30:45", ".5", "5.", "+1", "-0", "0.0", "-.5e-3",
    "1e3", "e3", "a-b", "a.b", "2024-1-1", "1.2.3", "v1", "<<<", "==", "0o8", "1__0",
    "0.1_0",
]  # fmt: skip
YAML_SCALARS = st.one_of(
    st.sampled_from(YAML_WORDS),
    st.integers(-(10**18), 10**18).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"[-+0-9._eExob]{1,8}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._/+-]{1,12}", fullmatch=True),
)


@given(text=YAML_SCALARS)
@example(text="1e-05")
@example(text="._0")
@example(text="-_1")
@example(text="0x_")
def test_values_are_read_as_dvc_reads_them(text: str) -> None:
    document = parse(f"key: {text}")
    if document.root is None or document.defects:
        return
    theirs = YAML(typ="safe").load(f"key: {text}")
    ours = document.root.value
    assert (ours, type(ours["key"])) == (theirs, type(theirs["key"]))


def test_the_whole_file_is_read_as_dvc_reads_it() -> None:
    root = parse(VALID).root
    assert root is not None
    assert root.value == YAML(typ="safe").load(VALID) == YAML(typ="rt").load(VALID)


def test_what_dvc_reads_differently_from_pyyaml_is_read_like_dvc() -> None:
    document = parse("[no, on, 1e-3, 010, 1:30]")
    assert document.root is not None
    assert document.root.value == ["no", "on", 0.001, 10, "1:30"]


CANARY = "sk-proj-CaNaRy0123456789abcdef"
PLANTED = [
    ("name: triage", f"name: {CANARY}"),
    ("name: triage", f"# {CANARY}\nname: triage"),
    ("name: triage", f"name: [{CANARY}"),
    ("name: triage", f"{CANARY}: triage"),
    ("name: triage", f"name: triage\n{CANARY}: 1\n{CANARY}: 2"),
    ("name: triage", f"name: &{CANARY} triage\ndescription: *{CANARY}x"),
    ("name: triage", f"name: !{CANARY} triage"),
    ("path: program.py\n", f"path: {CANARY}.py\n"),
    ("temperature: 0.0, max", f"temperature: {CANARY}, max"),
    ("stream: true", f"api_key: {CANARY}"),
    ("stream: true", f"engine: {CANARY}"),
    ("stream: true", f"api_base: 'http://x:{CANARY}@host'"),
    ("stream: true", f"params: {{extra_body: {{deep: [{{key: {CANARY}}}]}}}}"),
    ("api_key_env: OPENAI_API_KEY", f"api_key_env: {CANARY}"),
    ("model: [tiny, mini]", f"model: [tiny, {CANARY}]"),
    ("exclude: [{model: tiny,", f"exclude: [{{model: {CANARY},"),
    ("lm.temperature: [0.0, 0.7]", f"lm.temperature: [0.0, {CANARY}]"),
    ("lm.temperature: [0.0, 0.7]", f"lm.api_key: [{CANARY}]"),
    ("{type: exact_match, field: label}", f"{{type: {CANARY}, field: label}}"),
    ("primary_metric: accuracy", f"primary_metric: {CANARY}"),
]


@pytest.mark.parametrize(("old", "new"), PLANTED, ids=[new for _, new in PLANTED])
def test_a_literal_key_is_found_and_never_repeated(old: str, new: str, tmp_path: Path) -> None:
    said = "\n".join(findings(tmp_path, changed(old, new)))
    assert SECRET_REMEDY in said
    assert "CaNaRy" not in said


@pytest.mark.parametrize(
    "value",
    [
        "AIzaSyA0123456789abcdefghijklmnop",
        "ghp_0123456789abcdefghijABCDEFGHIJ",
        "github_pat_0123456789abcdefghij",
        "hf_abcdefghijABCDEFGHIJklmn",
        "gsk_abcdefghij0123456789",
        "AKIA0123456789ABCDEF",
        "xoxb-0123456789-abcdef",
        "sk-ant-abcdefghijkl",
        "Bearer abcdef012345",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "https://host/v1?api_key=abcdef012345",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_shapes_of_keys(value: str, tmp_path: Path) -> None:
    said = findings(tmp_path, changed("style: predict}", f"style: '{value}'}}"))
    assert said == [
        f"6: program.args.style: holds what must be secret: a key, token or password: {SECRET_REMEDY}"
    ]


@pytest.mark.parametrize(
    "name", ["api_key", "API-KEY", "apiKey", "token", "Authorization", "password", "x-api-key"]
)
def test_names_of_keys(name: str, tmp_path: Path) -> None:
    said = findings(tmp_path, changed("stream: true", f"params: {{extra_body: {{{name}: hunter2}}}}"))
    assert len(said) == 1
    assert SECRET_REMEDY in said[0]
    assert "hunter2" not in said[0]


def test_names_and_settings_agree_with_what_uses_them() -> None:
    for kind, factory in COMPARISONS.items():
        parameters = inspect.signature(factory).parameters
        assert sorted(NEEDS[kind].settings or ()) == sorted(parameters), kind
        required = [name for name, value in parameters.items() if value.default is value.empty]
        assert list(NEEDS[kind].required) == required, kind
        assert NEEDS[kind].label == (kind not in WITHOUT_LABEL), kind
    for kind in ("llm_judge", "semantic_f1"):
        parameters = inspect.signature(getattr(judge, kind)).parameters
        assert sorted(NEEDS[kind].settings or ()) == sorted(parameters), kind
    assert set(MEASURES) == set(RUN_MEASURES)


@pytest.mark.parametrize("text", ["{a: http://x/v1}", "[program.py:load]", "{a: {b: 10:30}}"])
def test_what_the_parser_of_dvc_refuses_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"x: {text}\n")
    with pytest.raises(YAMLError):
        YAML(typ="safe").load(path)  # as DVC does
    (defect,) = parse(f"x: {text}\n").defects
    assert "DVC can not read an unquoted value with a colon" in defect.problem


@pytest.mark.parametrize("text", [VALID.replace("temperature: 0.0, max", "temprature: 0.0, max"), "a: [", ""])
def test_the_command_ends_with_2_and_no_traceback(text: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dspylab", "validate", "--config", str(write(tmp_path, text))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search(r"experiment\.yaml:\d+: ", done.stderr)


def test_a_provider_that_the_program_may_register_is_left_to_litellm(tmp_path: Path) -> None:
    path = write(tmp_path, VALID.replace("openai/gpt-4o-mini", "mine/small, engine: litellm"))
    assert load(path).experiment.models["mini"].model == "mine/small"


def test_providers_are_read_off_the_litellm_that_is_installed(tmp_path: Path) -> None:
    known = known_providers()
    assert {"openai", "anthropic", "bedrock", "vertex_ai", "text-completion-openai"} <= known
    assert set(NATIVE_ROUTES) <= known

    # Where LiteLLM has them elsewhere, none is said to be wrong.
    assert providers_in(tmp_path) == frozenset()
    source = tmp_path / "types" / "utils.py"
    addresses = tmp_path / "llms" / "openai_like" / "providers.json"
    for file in (source, addresses):
        file.parent.mkdir(parents=True)
    source.write_text("LlmProviders = make()\n")
    addresses.write_text('{"address": {}}')
    assert providers_in(tmp_path) == frozenset()
    source.write_text('class LlmProviders(str, Enum):\n    OPENAI = "openai"\n\nOTHER = "other"\n')
    assert providers_in(tmp_path) == {"openai", "address"}
