"""Whether program, dataset and metrics speak of the same fields: said before the first call."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy
import pytest
from conftest import Cli, MakeLab

from dspylab.execute.fit import misfits
from dspylab.execute.odd_rows import empty_inputs, odd_labels, repeated_inputs
from dspylab.laboratory import open_laboratory
from dspylab.records import DataRow
from dspylab.testing import FakeServer, experiment

MODULE = """
import dspy

class Router(dspy.Module):
    def __init__(self):
        super().__init__()
        self.route = dspy.Predict("text -> label")

    def forward({parameters}):
        return {returned}

build = Router
"""
CALLED = "self.route(text=text)"


def module(parameters: str, returned: str = CALLED) -> str:
    return MODULE.format(parameters=parameters, returned=returned)


def found(
    folder: Path,
    program: str | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    examples: list[dict[str, Any]] | None = None,
) -> list[str]:
    """What does not fit, each as `! address: problem: remedy`, or `~ …` when it may be meant so."""
    files = {} if program is None else {"experiments/triage/program.py": program}
    changes = {**({"program": {"args": ...}} if program is not None else {}), **(config or {})}
    lab = experiment(folder, server_url="http://127.0.0.1:9", config=changes, examples=examples, files=files)
    laboratory = open_laboratory(lab.config)
    return [
        f"{'!' if misfit.fails else '~'} {finding.where}: {finding.problem}: {finding.remedy}"
        for misfit in misfits(laboratory, [*laboratory.runs, *laboratory.compiles])
        for finding in [misfit.finding]
    ]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (module("self, question"), "missing a required argument: 'question'"),
        (module("self, text, language"), "missing a required argument: 'language'"),
        (module("self"), "got an unexpected keyword argument 'text'"),
        (module("self, *texts"), "got an unexpected keyword argument 'text'"),
    ],
)
def test_inputs_that_forward_does_not_take_are_refused(tmp_path: Path, program: str, said: str) -> None:
    (only,) = found(tmp_path, program)

    assert only.startswith("! dataset.inputs: Router.forward(")
    assert said in only


DECORATED = """
import functools
import dspy

def renamed(forward):
    @functools.wraps(forward)
    def with_question(self, **inputs):
        return forward(self, question=inputs["text"])
    return with_question

class Router(dspy.Module):
    def __init__(self):
        super().__init__()
        self.route = dspy.Predict("question -> label")

    @renamed
    def forward(self, question):
        return self.route(question=question)

build = Router
"""
OWN_CALL = """
import dspy

class Router(dspy.Predict):
    def __init__(self):
        super().__init__("question -> answer")

    def __call__(self, text):
        return dspy.Prediction(label=super().__call__(question=text).answer)

build = Router
"""
REPLACED = """
import dspy

def build():
    program = dspy.Predict("question -> answer")
    program.forward = lambda text: dspy.Prediction(label=text)
    return program
"""
STATIC = """
import dspy

class Router(dspy.Module):
    @staticmethod
    def forward(text):
        return dspy.Prediction(label=text)

build = Router
"""


@pytest.mark.parametrize(
    "program",
    [
        module("self, text"),
        module("self, **inputs", "self.route(**inputs)"),
        module("self, text, language='en'"),
        module("self, *, text"),
        DECORATED,
        OWN_CALL,
        REPLACED,
        STATIC,
    ],
)
def test_what_may_work_is_let_through_without_a_word(tmp_path: Path, program: str) -> None:
    assert found(tmp_path, program) == []


def build(signature: str, kind: str = "Predict") -> str:
    return f"import dspy\ndef build():\n    return dspy.{kind}({signature})\n"


@pytest.mark.parametrize("kind", ["Predict", "ChainOfThought"])
def test_prompts_without_any_input_are_refused(tmp_path: Path, kind: str) -> None:
    (only,) = found(tmp_path, build("'texts, hint: str | None -> label'", kind))

    assert only == (
        "! dataset.inputs: the program has no such input, so every prompt would be the same: text: did you "
        "mean texts?"
    )


def test_inputs_that_are_left_out_of_prompts_are_told(tmp_path: Path) -> None:
    rows = [{"text": "a", "lang": "en", "label": "bug"}]

    said = found(
        tmp_path,
        build("'text, language -> label'"),
        config={"dataset": {"inputs": ["text", "lang"]}},
        examples=rows,
    )

    assert [line.partition(", and")[0] for line in said] == [
        "~ dataset.inputs: the program's input language is not among these",
        "~ dataset.inputs: the program has no input lang",
    ]


def test_inputs_that_need_not_be_given_and_settings_of_a_call_are_none_of_our_business(
    tmp_path: Path,
) -> None:
    rows = [{"text": "a", "config": {}, "label": "bug"}]

    assert not found(
        tmp_path,
        build("'text, hint: str | None -> label'"),
        config={"dataset": {"inputs": ["text", "config"]}},
        examples=rows,
    )


JUDGED = {"type": "llm_judge", "model": "fake", "params": {"rubric": "politeness"}}


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (
            {"type": "exact_match", "field": "lable", "label": "label"},
            "! metrics.m.field: answers of the program have no field 'lable': did you mean label?",
        ),
        (
            {"type": "regex", "field": "text", "params": {"pattern": "a"}},
            "! metrics.m.field: answers of the program have no field 'text': there is: label",
        ),
        (
            {**JUDGED, "field": "labels"},
            "! metrics.m.field: answers of the program have no field 'labels': did you mean label?",
        ),
        (
            {"type": "exact_match", "field": "label", "label": "team"},
            "! metrics.m.label: no test example has 'team': there is: label, urgent",
        ),
        ({**JUDGED, "label": "lable"}, "! metrics.m.label: no test example has 'lable': did you mean label?"),
        (
            {"type": "semantic_f1", "model": "fake"},
            "! metrics.m: there is not just one of the labels (label, urgent): say which one with label:: ",
        ),
        (
            {"type": "run", "field": "label", "label": "team", "params": {"measure": "macro_f1"}},
            "! metrics.m.label: no test example has 'team': there is: label, urgent",
        ),
    ],
)
def test_metrics_that_could_score_nothing_are_refused(
    tmp_path: Path, metric: dict[str, Any], said: str
) -> None:
    rows = [{"text": "a", "label": "bug", "urgent": True}]

    assert found(tmp_path, config={"metrics": {"m": metric}}, examples=rows) == [said]


@pytest.mark.parametrize(
    "metric",
    [
        {"type": "exact_match", "field": "label", "label": "text"},
        {"type": "regex", "field": "label", "params": {"pattern": "a"}},
        JUDGED,
        {"type": "semantic_f1", "model": "fake", "label": "label"},
        {"type": "path", "ref": "program.py:build", "field": "anything", "label": "anything"},
    ],
)
def test_metrics_that_can_score_one_example_are_let_through(tmp_path: Path, metric: dict[str, Any]) -> None:
    rows = [{"text": "a", "label": "bug"}, {"text": "b", "label": "bug", "team": "login"}]

    assert found(tmp_path, config={"metrics": {"m": metric}}, examples=rows) == []


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (
            {"type": "exact_match", "field": "label", "label": "team"},
            "~ metrics.m: 2 of 3 test examples have no 'team' … a1 (a)",
        ),
        (
            {"type": "semantic_f1", "model": "fake"},
            "~ metrics.m: 1 of 3 test examples has not just one label … b1 (b)",
        ),
    ],
)
def test_examples_without_a_label_that_others_have_are_told(
    tmp_path: Path, metric: dict[str, Any], said: str
) -> None:
    rows = [
        {"id": "a1", "text": "a", "label": "bug"},
        {"id": "b1", "text": "b", "label": "bug", "team": "login"},
        {"id": "c1", "text": "c", "label": "bug"},
    ]

    config = {"metrics": {"m": metric}, "dataset": {"id": "id"}}
    (only,) = found(tmp_path, config=config, examples=rows)

    told = said.replace("…", "and will not be scored, such as")
    assert only == f"{told}: complete these rows, or take them out of the dataset"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (CALLED, ["~ metrics.m.field: nothing in the program's code is called 'lable': did you mean label?"]),
        ("dspy.Prediction(lable=text)", []),
    ],
)
def test_a_field_that_no_line_of_the_code_spells_is_told(
    tmp_path: Path, returned: str, said: list[str]
) -> None:
    metric = {"type": "exact_match", "field": "lable", "label": "label"}

    assert found(tmp_path, module("self, text", returned), config={"metrics": {"m": metric}}) == said


def test_an_adapter_of_the_users_may_make_other_prompts_and_answers(tmp_path: Path) -> None:
    program = build("'question -> answer'") + "class Own(dspy.ChatAdapter): ...\n"

    assert found(tmp_path, program)
    assert not found(tmp_path, program, config={"program": {"args": ..., "adapter": "program.py:Own"}})


def test_run_plan_and_doctor_say_it_before_any_call(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(
        server.url,
        config={
            "program": {"args": ...},
            "optimizers": {"few": {"type": "LabeledFewShot", "params": {"k": 1}}},
            "dataset": {"split": {"train": 0.5}},
            "matrix": {"optimizer": ["few"]},
        },
        files={"experiments/triage/program.py": module("self, question")},
    )

    for command, code in (("run", 2), ("plan", 2), ("doctor", 3)):
        ended = cli_inside(command, "-c", lab.config, cwd=lab.root)
        assert ended.code == code
        line = lab.config.read_text().splitlines().index("  inputs:") + 1
        assert f"experiment.yaml:{line}: dataset.inputs: Router.forward(question)" in ended.out + ended.err
    assert not [request for request in server.requests if request.body is not None]

    lab.program.write_text(module("self, text"))
    lab.change({"metrics": {"accuracy": {"field": "lable", "label": "label"}}})
    ended = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert ended.code == 1  # not one value, so nothing was measured
    assert "'lable': did you mean label?" in ended.err


def test_a_setting_that_dspy_refuses_stops_run_and_doctor_with_one_message(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(
        server.url,
        config={
            "models": {"other": {"model": "openai/b", "api_base": server.url, "api_key_env": "FAKE_API_KEY"}},
            "optimizers": {"boot": {"type": "BootstrapFewShot"}},
            "dataset": {"split": {"train": 0.5}},
            "matrix": {
                "model": ["fake"],
                "compile_model": ["other"],
                "optimizer": ["boot"],
                "lm.reasoning_effort": ["low", "colossal"],
            },
        },
    )

    ended = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert ended.code == 2
    assert ended.err == (
        "models.fake: unsupported reasoning effort: colossal: correct the settings of the model or the "
        "lm.* axes\n"
    )
    assert not server.requests
    (problem,) = (
        line
        for line in cli_inside("doctor", "-c", lab.config, cwd=lab.root).out.splitlines()
        if line.startswith("problem")
    )
    assert "models.fake: unsupported reasoning effort: colossal" in problem


@pytest.mark.parametrize("kind", ["path", "run"])
def test_plan_finds_a_metric_that_is_not_there(kind: str, cli_inside: Cli, make_lab: MakeLab) -> None:
    metrics = {"own": {"type": kind, "ref": "my_metrics.py:shirt"}}
    files = {"experiments/triage/my_metrics.py": "def short(*_):\n    return 1.0\n"}
    lab = make_lab("http://127.0.0.1:9", config={"metrics": metrics}, files=files)

    done = cli_inside("plan", cwd=lab.root)

    assert done.code == 2, done.out + done.err
    (line,) = (n for n, text in enumerate(lab.config.read_text().splitlines(), 1) if "shirt" in text)
    assert done.err.endswith(
        f"experiment.yaml:{line}: metrics.own.ref: my_metrics.py has no 'shirt': did you mean short?\n"
    )


CHOICES = """
import enum
import typing
import dspy

class Kind(enum.Enum):
    BUG = "bug"
    BILL = "billing"

def build():
    signature = dspy.Signature("text -> label").with_updated_fields("label", type_={type})
    return dspy.{kind}(signature)
"""


@pytest.mark.parametrize("kind", ["Predict", "ChainOfThought"])
@pytest.mark.parametrize(
    ("annotation", "labels", "impossible"),
    [
        ("typing.Literal['refund', 'other']", ["Refund ", "refunds", ["x", "other"], "refunds"], 2),
        ("typing.Literal['refund', 'other'] | None", [None, "other", "refunds"], 1),
        ("Kind", ["bug", "BILL", "refunds"], 1),
        ("bool", [True, "false", "refunds"], 1),
        ("typing.Literal[1, 2]", ["1", 2, 2.0], 0),
        ("str", ["refund", "refunds"], 0),
    ],
)
def test_labels_that_no_answer_can_be_are_told(
    tmp_path: Path, kind: str, annotation: str, labels: list[Any], impossible: int
) -> None:
    examples = [{"text": f"text {index}", "label": label} for index, label in enumerate(labels)]
    said = found(tmp_path, CHOICES.format(type=annotation, kind=kind), examples=examples)

    (warning, _, rest) = "".join(said).partition(" of ")
    if impossible:
        assert warning == f"~ metrics.accuracy: {impossible}"
        assert rest.startswith(f"{len(labels)} test examples ha")
        assert "a label for 'label' that no answer can be, such as \"refunds\" of " in rest
        assert rest.endswith(": correct the data or the signature")
    assert len(said) == (impossible > 0)


OWN = """
import typing
import dspy

class Sort(dspy.Signature):
    text: str = dspy.InputField()
    note: str | None = dspy.InputField()
    label: {type} = dspy.OutputField()

def build():
    return dspy.Predict(Sort)

def right(example, prediction, trace=None):
    return example.label == prediction.label
"""
ODD = "is empty or unlike nearly all others"
RIGHT = {"accuracy": ..., "right": {"type": "path", "ref": "program.py:right"}}


@pytest.mark.parametrize(
    ("annotation", "labels", "said"),
    [
        (
            "typing.Literal['pos', 'neg']",
            ["pos", "neg", "", "3", "pos"],
            "2 of 5 test examples have a label for 'label' that no answer can be, such as \"\" of 2 (text 2)",
        ),
        # Most of them are none: the metric translates.
        ("typing.Literal['pos', 'neg']", ["P", "N", "P", "neg"], None),
        (
            "str",
            ["a", "b", "", None],
            f"2 of 4 test examples have a label 'label' that {ODD}, such as \"\" of 2 (text 2)",
        ),
        (
            "str",
            [*"abcdefghij", 3],
            f"1 of 11 test examples has a label 'label' that {ODD}, such as 3 of 10 (text 10)",
        ),
        ("str", [*"abcdefghij", ["k", "l"]], None),  # several that are right
        ("str", ["a", 3], None),
        ("str | None", ["a", None], None),
    ],
)
def test_odd_labels_are_told_with_a_metric_of_ones_own(
    tmp_path: Path, annotation: str, labels: list[Any], said: str | None
) -> None:
    examples = [
        {"id": str(number), "text": f"text {number}", "note": "", "label": label}
        for number, label in enumerate(labels)
    ]
    config = {
        "dataset": {"inputs": ["text", "note"], "id": "id"},
        "metrics": RIGHT,
        "primary_metric": "right",
    }

    everything = found(tmp_path, OWN.format(type=annotation), config=config, examples=examples)

    problems = [text.rpartition(": ")[0] for text in everything]
    assert problems == ([] if said is None else [f"~ dataset: {said}"])


def test_empty_inputs_are_told_once_a_field(tmp_path: Path) -> None:
    texts = ["a", "", None, " ", "b"]
    examples = [{"id": f"row-{n}", "text": text, "label": "x"} for n, text in enumerate(texts)]

    program = "import dspy\nbuild = dspy.Predict('text -> label')\n"

    (only,) = found(tmp_path, program, config={"dataset": {"id": "id"}}, examples=examples)

    assert only == (
        "~ dataset: 3 of 5 test examples have nothing in the input 'text', such as row-1: "
        "complete these rows, or take them out"
    )


def test_rows_that_init_wrote_are_told(tmp_path: Path) -> None:
    examples = [{"text": "TODO: text of row 1", "label": "a"}, {"text": "Mine: TODO", "label": "b"}]

    (only,) = found(tmp_path, "import dspy\nbuild = dspy.Predict('text -> label')\n", examples=examples)

    assert "1 of 2 test examples has the input 'text' that `dspylab init` wrote, such as " in only
    assert "(TODO: text of row 1): complete these rows, or take them out" in only


def test_examples_that_ask_what_another_one_asks_are_told(tmp_path: Path) -> None:
    texts = ["a", "b", "a", "c", "a", "b", "", ""]
    examples = [{"id": f"row-{n}", "text": text, "label": "xy"[n % 2]} for n, text in enumerate(texts)]
    program = "import dspy\nbuild = dspy.Predict('text -> label')\n"

    empty, repeated = found(tmp_path, program, config={"dataset": {"id": "id"}}, examples=examples)

    assert "2 of 8 test examples have nothing in the input 'text'" in empty
    assert repeated == (
        "~ dataset: 3 of 8 test examples have the inputs of an earlier one, such as row-2 (a): "
        "counted as independent, they make intervals too narrow: take them out, unless they are meant"
    )


def test_odd_rows_are_found_quickly(tmp_path: Path) -> None:
    labels = ["pos", "neg"]
    rows = [
        DataRow(index=n, example_id=str(n), inputs={"text": f"text {n}"}, labels={"label": labels[n % 2]})
        for n in range(100_000)
    ]
    program = dspy.Predict("text -> label")
    started = time.perf_counter()
    assert not [*empty_inputs(program, ["text"], rows), *odd_labels(program, ["label"], rows)]
    assert not [*repeated_inputs(rows)]
    assert time.perf_counter() - started < 20  # about a second here; quadratic, it would be minutes


STEPS = """
import dspy

class Router(dspy.Module):
    def __init__(self, two_steps=False):
        super().__init__()
        self.route = dspy.Predict("text -> label")

    def forward(self, text):
        return self.route(text=text)

build = Router
"""


def test_an_argument_that_the_factory_does_not_take_moves_nothing_out(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(
        server.url,
        config={
            "program": {"args": ...},
            "optimizers": {"few": {"type": "LabeledFewShot", "params": {"k": 1}}},
            "dataset": {"split": {"train": 0.5}},
            "matrix": {"optimizer": ["few"], "program.two_steps": [False, True]},
        },
        files={"experiments/triage/program.py": STEPS},
    )
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    there = {path for path in lab.folder.rglob("*") if path.is_file()}
    calls = len(server.requests)

    lab.change({"matrix": {"program.two_steps": ..., "program.two_step": [False, True]}})
    ended = cli_inside("run", "-c", lab.config, cwd=lab.root)

    line = lab.config.read_text().splitlines().index("  program.two_step:") + 1
    assert ended.code == 2
    assert ended.err.endswith(
        f"experiment.yaml:{line}: matrix.program.two_step: build() takes no argument 'two_step': "
        "did you mean two_steps?\n"
    )
    assert "moved" not in ended.out
    assert there <= {path for path in lab.folder.rglob("*") if path.is_file()}
    assert len(server.requests) == calls
    lab.change({"matrix": {"program.two_step": ..., "program.two_steps": [False]}})
    ended = cli_inside("run", "-c", lab.config, cwd=lab.root)
    assert "fake-two_steps-true-few: no longer in the matrix: moved out" in ended.out
    assert "few-fake-two_steps-true: programs that no run needs: moved to .dspylab" in ended.out


@pytest.mark.parametrize(
    ("program", "changes", "said"),
    [
        (
            STEPS,
            {"program": {}},
            "! program.args.style: build() takes no argument 'style': there is: two_steps",
        ),
        (
            STEPS,
            {"matrix": {"include": [{"model": "fake", "program.a": 1}]}},
            "! matrix.include[0].program.a: build() takes no argument 'a': there is: two_steps",
        ),
        ("import dspy\nbuild = dspy.Predict('text -> label')\n", {}, None),
        (
            "import dspy\ndef build(**_): return dspy.Predict('text -> label')\n",
            {"matrix": {"program.a": [1]}},
            None,
        ),
    ],
)
def test_arguments_that_the_factory_does_not_take_are_refused(
    tmp_path: Path, program: str, changes: dict[str, Any], said: str | None
) -> None:
    assert found(tmp_path, program, config=changes) == ([] if said is None else [said])
