"""Metrics: built-in comparisons, the user's callables, judges over HTTP, and metrics over all rows."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import dspy
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspylab.config.models import Metric
from dspylab.errors import EnvironmentProblem, ProgramError
from dspylab.lm.limits import Stopped
from dspylab.metrics.adapt import Scores, build_scorers, score_all
from dspylab.metrics.builtin import comparison, number_of
from dspylab.metrics.runlevel import build_run_metrics, evaluate
from dspylab.testing import ChatRequest, FakeServer, reply_fields

needs_text_extra = pytest.mark.skipif(
    importlib.util.find_spec("rouge_score") is None or importlib.util.find_spec("sacrebleu") is None,
    reason="needs the extra `text`",
)


def example(**fields: Any) -> dspy.Example:
    return dspy.Example(text="a ticket", **fields).with_inputs("text")


def no_judge(model: str) -> dspy.LM:
    raise AssertionError(f"no metric here asks for the model {model}")


def score(function: Any, params: Mapping[str, Any] | None = None) -> Scores:
    """What the metric `m`, a callable, says of an answer that is right."""
    metric = Metric(type="path", ref="program.py:m", params=dict(params or {}))
    scorers = build_scorers({"m": metric}, lambda _: function, no_judge, exported=no_judge)
    return score_all(scorers, example(label="bug"), dspy.Prediction(label="bug"))


def compare(kind: str, answer: Any, label: Any, **params: Any) -> float:
    return comparison(kind, params, "metrics.m")(answer, label).value


# --- built-in comparisons


@pytest.mark.parametrize(
    ("answer", "label", "params", "expected"),
    [
        (" Bug\n", "bug", {}, 1),
        ("Bug", "bug", {"case_sensitive": True}, 0),
        (" bug ", "bug", {"normalize": False}, 0),
        ("The bug!", "bug", {}, 0),
        ("The bug!", "bug", {"normalize": "squad"}, 1),
        ("STRASSE", "straße", {}, 1),
        ("e\u0301", "\u00e9", {}, 1),
        ("payment", ["bug", "Payment"], {}, 1),
        ("login", ["bug", "payment"], {}, 0),
        (["a", "B"], ["A", "b"], {}, 1),
        (["a", "b"], ["b", "a"], {}, 0),
        (["a"], ["a", "b"], {}, 0),
        ({"a": "X", "b": 1}, {"a": "x", "b": 1.0}, {}, 1),
        ({"a": 1}, {"b": 1}, {}, 0),
        (True, True, {}, 1),
        (True, "true", {}, 1),
        (True, "yes", {}, 0),
        (True, 1, {}, 0),
        (3, 3.0, {}, 1),
        ("3.0", 3, {}, 1),
        ("three", 3, {}, 0),
        (None, None, {}, 1),
        ("", None, {}, 0),
        (None, "bug", {}, 0),
    ],
)
def test_exact_match(answer: Any, label: Any, params: dict[str, Any], expected: int) -> None:
    assert compare("exact_match", answer, label, **params) == expected


@pytest.mark.parametrize(
    ("answer", "label", "params", "expected"),
    [
        ("It is a Bug.", "bug", {}, 1),
        ("It is a Bug.", "bug", {"case_sensitive": True}, 0),
        ("bug and login", ["login", "payment"], {}, 1),
        ("bug and login", ["login", "payment"], {"every": True}, 0),
        ("login by payment", ["login", "payment"], {"every": True}, 1),
        (["Bug", "login"], "bug", {}, 1),
        (["debugging"], "bug", {}, 0),
        (None, "bug", {}, 0),
        (1234, 23, {}, 1),
    ],
)
def test_contains(answer: Any, label: Any, params: dict[str, Any], expected: int) -> None:
    assert compare("contains", answer, label, **params) == expected


def test_an_empty_label_is_in_every_answer_and_says_nothing() -> None:
    with pytest.raises(ValueError, match="label is empty"):
        compare("contains", "anything", "")


@pytest.mark.parametrize(
    ("answer", "label", "expected"),
    [
        ("the Eiffel Tower is in Paris", "Paris", 2 * 1 / (5 + 1)),
        ("The Eiffel Tower.", "eiffel tower", 1.0),
        ("a b b c", "b b d", 2 * 2 / (3 + 3)),  # `a` is an article; b counts twice
        ("London", "Paris", 0.0),
        ("Paris", ["London", "Paris, France"], 2 * 1 / (1 + 2)),
        ("the", "", 1.0),
        ("", "Paris", 0.0),
        (None, "Paris", 0.0),
        (42, "42", 1.0),
    ],
)
def test_token_f1(answer: Any, label: Any, expected: float) -> None:
    assert compare("token_f1", answer, label) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so the answer is 42.", 42),
        ("12 apples and 3 pears", 3),
        ("$1,234.50", 1234.5),
        ("1,2345", 2345),
        ("3,14", 14),
        ("-7", -7),
        ("\u22127 degrees", -7),
        ("10-7", 7),
        ("x = -.5", -0.5),
        ("6.02e23", 6.02e23),
        ("1e999", None),
        ("none", None),
        ("", None),
        (None, None),
        (True, 1),
        (2.5, 2.5),
    ],
)
def test_the_last_number_of_a_text(text: Any, number: float | None) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize(
    ("answer", "label", "params", "expected"),
    [
        ("The answer is 3.1415927", math.pi, {}, 1),
        (3.14, math.pi, {}, 0),
        (3.14, math.pi, {"rel_tol": 0.01}, 1),
        (3.14, math.pi, {"abs_tol": 0.01}, 1),
        (0.001, 0, {"rel_tol": 0.5}, 0),
        ("1,000", "1000", {}, 1),
        ("no idea", 3, {}, 0),
        (5, [3, 5], {}, 1),
    ],
)
def test_numeric(answer: Any, label: Any, params: dict[str, Any], expected: int) -> None:
    assert compare("numeric", answer, label, **params) == expected


def test_a_label_without_a_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no number"):
        compare("numeric", 3, "three")


def test_regex_needs_no_label() -> None:
    assert compare("regex", "see INV-123\nbelow", None, pattern=r"INV-\d+") == 1
    assert compare("regex", "see inv-123", None, pattern=r"INV-\d+") == 0
    assert compare("regex", "see inv-123", None, pattern=r"INV-\d+", ignore_case=True) == 1
    assert compare("regex", "see INV-123", None, pattern=r"INV-\d+", full=True) == 0
    assert compare("regex", "a\nb", None, pattern="a.b", full=True) == 1


def test_json_schema_says_what_is_wrong() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    check = comparison("json_schema", {"schema": schema}, "metrics.m")
    assert check('{"city": "Paris"}', None).value == 1
    assert check({"city": "Paris"}, None).value == 1
    wrong = check({"city": 3}, None)
    assert (wrong.value, wrong.detail) == (0, "$.city: 3 is not of type 'string'")
    assert "not JSON" in str(check("Paris", None).detail)


def test_json_schema_fetches_nothing() -> None:
    with FakeServer() as server:
        check = comparison("json_schema", {"schema": {"$ref": f"{server.url}/schema.json"}}, "metrics.m")
        with pytest.raises(Exception, match="Unresolvable"):
            check({}, None)
        assert not server.requests


@needs_text_extra
def test_rouge_l_is_the_longest_common_subsequence() -> None:
    # LCS of the two is "police the gunman": P = R = 3/4.
    answer, label = "police ended the gunman", "police killed the gunman"
    assert compare("rouge_l", answer, label) == pytest.approx(0.75)
    assert compare("rouge_l", answer, ["nothing alike", label]) == pytest.approx(0.75)


@needs_text_extra
def test_bleu_lies_between_0_and_1() -> None:
    text = "the quick brown fox jumps over the lazy dog"
    assert compare("bleu", text, text) == 1.0
    assert compare("bleu", "something else entirely", text) < 0.1
    assert 0.3 < compare("bleu", "the quick brown fox leaps over the lazy dog", [text]) < 1


@pytest.mark.skipif(importlib.util.find_spec("rouge_score") is not None, reason="the extra `text` is here")
def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(EnvironmentProblem, match="pip install 'rouge-score"):
        comparison("rouge_l", {}, "metrics.m")


@pytest.mark.parametrize(
    ("kind", "params", "says"),
    [
        ("exact_match", {"case_sensitiv": True}, "did you mean 'case_sensitive'?"),
        ("token_f1", {"x": 1}, "it takes no settings"),
        ("regex", {}, "the setting 'pattern' is missing"),
        ("regex", {"pattern": "("}, "metrics.m.params"),
        ("regex", {"pattern": 3}, "metrics.m.params"),
        ("json_schema", {"schema": {"type": "nonsense"}}, "nonsense"),
        ("numeric", {"rel_tol": -1}, "must not be negative"),
        ("exact_match", {"normalize": "all"}, "normalize must be"),
    ],
)
def test_settings_of_no_use_are_found_before_the_first_call(
    kind: str, params: dict[str, Any], says: str
) -> None:
    with pytest.raises(ProgramError, match=re.escape(says)):
        comparison(kind, params, "metrics.m")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_every_answer_matches_itself(value: Any) -> None:
    assert compare("exact_match", value, value) == 1


@given(json_values, json_values)
def test_comparisons_of_anything_stay_between_0_and_1_or_say_why_not(answer: Any, label: Any) -> None:
    for kind in ("exact_match", "contains", "token_f1", "numeric"):
        try:
            value = compare(kind, answer, label)
        except ValueError as error:
            assert "label" in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert 0 <= value <= 1


# --- fields and labels


def scored_by(metric: Metric, labels: Mapping[str, Any], outputs: Mapping[str, Any]) -> Scores:
    scorers = build_scorers({"m": metric}, no_judge, no_judge, exported=no_judge)
    return score_all(scorers, example(**labels), dspy.Prediction(**outputs))


def test_the_only_label_and_the_only_output_need_no_name() -> None:
    metric = Metric(type="exact_match")
    assert scored_by(metric, {"label": "x"}, {"reasoning": "…", "label": "x"}).values == {"m": 1.0}
    assert scored_by(metric, {"label": "x"}, {"reasoning": "…", "answer": "x"}).values == {"m": 1.0}


def test_the_label_may_be_called_otherwise_than_the_output() -> None:
    metric = Metric(type="exact_match", field="answer", label="gold")
    assert scored_by(metric, {"gold": "x", "more": 1}, {"answer": "x", "more": 1}).values == {"m": 1.0}


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (Metric(type="exact_match"), "say which one with label:"),
        (Metric(type="exact_match", field="label"), "no field 'label'; its fields: answer, other"),
        (Metric(type="exact_match", field="answer"), "no label 'answer'; its labels: label, level"),
        (Metric(type="regex", params={"pattern": "x"}), "say which one with field:"),
    ],
)
def test_a_missing_field_says_which_ones_there_are(metric: Metric, says: str) -> None:
    scores = scored_by(metric, {"label": "x", "level": 1}, {"answer": "x", "other": "y"})
    assert says in scores.errors["m"]
    assert not scores.values


def test_predictions_that_are_objects_are_compared_as_json() -> None:
    class City(pydantic.BaseModel):
        name: str

    metric = Metric(type="exact_match", field="city")
    assert scored_by(metric, {"city": {"name": "Paris"}}, {"city": City(name="paris")}).values == {"m": 1.0}


# --- what a metric returns


@pytest.mark.parametrize(
    ("result", "values"),
    [
        (True, {"m": 1.0}),
        (3, {"m": 3.0}),
        (0.5, {"m": 0.5}),
        ("0.5", {"m": 0.5}),
        (Decimal("0.25"), {"m": 0.25}),
        (Fraction(1, 4), {"m": 0.25}),
        (np.float32(0.5), {"m": 0.5}),
        (np.bool_(True), {"m": 1.0}),  # noqa: FBT003
        (np.array(2), {"m": 2.0}),
        ({"a": True, "b": np.float64(0.5)}, {"m.a": 1.0, "m.b": 0.5}),
        ({"score": 0.5, "b": 1}, {"m": 0.5, "m.b": 1.0}),
        (dspy.Prediction(score=0.5, feedback="nearly"), {"m": 0.5}),
        (dspy.Prediction(score=True), {"m": 1.0}),
    ],
)
def test_numbers_of_every_kind_become_plain_floats(result: Any, values: dict[str, float]) -> None:
    scores = score(lambda example, prediction, trace=None: result)
    assert scores.values == values
    assert all(type(value) is float for value in scores.values.values())
    assert not scores.errors


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (None, "TypeError: returned None"),
        (math.nan, "ValueError: returned nan"),
        (np.float64("inf"), "ValueError: returned inf"),
        (-1e308, "ValueError: returned -1e+308, which is too large to be averaged"),
        ("good", "TypeError: returned the text 'good'"),
        ("nan", "ValueError: returned nan"),
        ([1.0], "TypeError: returned list"),
        (np.array([1.0, 2.0]), "TypeError: returned ndarray"),
        (1 + 2j, "TypeError: returned complex"),
        (10**400, "ValueError: returned a number too large"),
        ({}, "TypeError: returned a dict without a number"),
        ({"a": None}, "TypeError: 'a': returned None"),
        ({"a": math.nan, "b": 1}, "ValueError: 'a': returned nan"),
        (dspy.Prediction(feedback="?"), "TypeError: returned Prediction without a field 'score'"),
    ],
)
def test_what_is_no_number_fails_the_metric_on_that_example(result: Any, says: str) -> None:
    scores = score(lambda example, prediction, trace=None: result)
    assert says in scores.errors["m"]
    assert not scores.values


def test_feedback_and_texts_go_to_the_details() -> None:
    scores = score(lambda example, prediction: dspy.Prediction(score=1, feedback="well done", parts=(1, 2)))
    assert scores.details == {"m": {"feedback": "well done", "parts": [1, 2]}}
    scores = score(lambda example, prediction: {"a": 1, "why": "because"})
    assert scores.details == {"m": {"why": "because"}}
    json.dumps(dict(scores.details), allow_nan=False)


# --- how a metric is called


def two(example: Any, prediction: Any) -> bool:
    return bool(example.label == prediction.label)


def three(gold: Any, pred: Any, tr: Any) -> bool:
    assert tr is None
    return two(gold, pred)


def five(gold: Any, pred: Any, trace: Any, pred_name: Any, pred_trace: Any) -> dspy.Prediction:
    assert (trace, pred_name, pred_trace) == (None, None, None)
    return dspy.Prediction(score=two(gold, pred), feedback="as GEPA likes it")


def keyword_only(example: Any, prediction: Any, *, trace: Any) -> bool:
    assert trace is None
    return two(example, prediction)


def any_arguments(*arguments: Any, **named: Any) -> bool:
    return two(*arguments, **named)


async def later(example: Any, prediction: Any, trace: Any = None) -> bool:
    await asyncio.sleep(0)
    return two(example, prediction)


class Strict:
    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold

    def __call__(self, example: Any, prediction: Any, trace: Any = None) -> float:
        return self.threshold + 0.5


class Module(dspy.Module):  # type: ignore[misc]
    def forward(self, example: Any, pred: Any, trace: Any) -> dspy.Prediction:
        return dspy.Prediction(score=two(example, pred))


@pytest.mark.parametrize(
    "metric", [two, three, five, keyword_only, any_arguments, later, Strict, Strict(), Module, Module()]
)
def test_metrics_work_as_they_are_written(metric: Any) -> None:
    scores = score(metric)
    assert scores.values == {"m": 1.0}, scores.errors


def test_settings_reach_functions_and_classes() -> None:
    def within(example: Any, prediction: Any, limit: int, trace: Any) -> int:
        assert trace is None
        return limit

    assert score(within, {"limit": 3}).values == {"m": 3.0}
    assert score(Strict, {"threshold": 2}).values == {"m": 2.5}


def test_dspy_metrics_work_unchanged() -> None:
    scorers = build_scorers(
        {"m": Metric(type="path", ref="dspy.evaluate:answer_exact_match", params={"frac": 0.5})},
        lambda _: dspy.evaluate.answer_exact_match,
        no_judge,
        exported=no_judge,
    )
    scores = score_all(
        scorers, example(answer="Eiffel Tower"), dspy.Prediction(answer="the Eiffel Tower, Paris")
    )
    assert scores.values == {"m": 1.0}


@pytest.mark.parametrize(
    ("metric", "params", "says"),
    [
        (3, {}, "refers to int, which can not be called"),
        (lambda example: 1, {}, "can not be called as metric(example, prediction)"),
        (lambda a, b, c, d, e, f, g: 1, {}, "needs the argument 'g'"),
        (two, {"limit": 3}, "unexpected keyword argument 'limit'"),
        (Strict, {"limit": 3}, "unexpected keyword argument 'limit'"),
    ],
)
def test_a_metric_that_can_not_be_called_is_found_before_the_first_call(
    metric: Any, params: dict[str, Any], says: str
) -> None:
    with pytest.raises(ProgramError, match=re.escape(says)) as caught:
        score(metric, params)
    assert "metrics.m" in str(caught.value)


def test_one_that_raises_fails_alone() -> None:
    def broken(example: Any, prediction: Any) -> float:
        raise KeyError("answer")

    def leaving(example: Any, prediction: Any) -> float:
        sys.exit("no answer")

    functions: dict[str, Callable[..., Any]] = {"broken": broken, "leaving": leaving, "good": two}
    metrics = {name: Metric(type="path", ref=f"program.py:{name}") for name in functions}
    scorers = build_scorers(
        metrics, lambda ref: functions[ref.partition(":")[2]], no_judge, exported=no_judge
    )
    scores = score_all(scorers, example(label="bug"), dspy.Prediction(label="bug"))
    errors = {"broken": "KeyError: 'answer'", "leaving": "SystemExit: no answer"}
    assert scores == Scores({"good": 1.0}, errors, {})


def test_what_ends_the_run_is_no_failure_of_a_metric() -> None:
    def spent(example: Any, prediction: Any) -> float:
        raise Stopped

    with pytest.raises(Stopped):
        score(spent)


def test_async_metrics_keep_the_context_and_the_loop_of_their_thread() -> None:
    seen: list[tuple[int, int, Any]] = []

    async def metric(example: Any, prediction: Any) -> bool:
        await asyncio.sleep(0)
        seen.append((threading.get_ident(), id(asyncio.get_running_loop()), dspy.settings.adapter))
        return True

    adapters = [dspy.ChatAdapter(), dspy.ChatAdapter()]

    def work(adapter: dspy.Adapter) -> None:
        for _ in range(2):
            with dspy.context(adapter=adapter):
                assert score(metric).values == {"m": 1.0}

    for adapter in adapters:
        thread = threading.Thread(target=work, args=(adapter,))
        thread.start()
        thread.join()
    first, second = seen[:2], seen[2:]
    assert len(set(first)) == len(set(second)) == 1
    assert [first[0][2], second[0][2]] == adapters


# --- judges


@dataclass
class Judge:
    """A judge over HTTP whose next output fields a test can choose."""

    server: FakeServer
    fields: dict[str, Any]

    def lm(self, model: str) -> dspy.LM:
        return dspy.LM(f"openai/{model}", api_base=f"{self.server.url}", api_key="fake", cache=False)


@pytest.fixture
def judge() -> Iterator[Judge]:
    fields: dict[str, Any] = {}

    def answer(request: ChatRequest) -> str:
        return reply_fields(request, fields)

    with FakeServer(answer) as server:
        yield Judge(server, fields)


RUBRIC = {"rubric": "The reply is polite.", "scale": [1, 5]}


def judged(judge: Judge, metric: Metric, **outputs: Any) -> Scores:
    scorers = build_scorers({"helpful": metric}, no_judge, judge.lm, exported=no_judge)
    run_lm = dspy.LM("openai/run", api_base="http://127.0.0.1:9/v1", api_key="fake", num_retries=0)
    with dspy.context(lm=run_lm, adapter=dspy.XMLAdapter()):
        return score_all(scorers, example(label="Dear customer, …"), dspy.Prediction(**outputs))


def test_a_judge_rates_by_a_rubric_and_gives_its_reason(judge: Judge) -> None:
    judge.fields.update(reason="It says please.", rating=4)
    scores = judged(judge, Metric(type="llm_judge", model="critic", params=RUBRIC), reply="Please wait.")
    assert scores.values == {"helpful": 0.75}, scores.errors
    assert scores.details == {"helpful": {"reason": "It says please.", "rating": 4.0}}
    (request,) = judge.server.requests
    prompt = json.dumps(request.body)
    assert request.body is not None
    assert request.body["model"] == "critic"
    for part in (
        "The reply is polite.",
        "Please wait.",
        "Dear customer",
        "a ticket",
        "from 1 (worst) to 5 (best)",
    ):
        assert part in prompt


def test_a_rating_off_the_scale_is_an_error(judge: Judge) -> None:
    judge.fields.update(reason="Superb.", rating=11)
    scores = judged(judge, Metric(type="llm_judge", model="critic", params=RUBRIC), reply="Please wait.")
    assert not scores.values
    assert "rated 11, which is not on the scale 1 to 5" in scores.errors["helpful"]


def test_a_judge_that_does_not_answer_fails_alone(judge: Judge) -> None:
    judge.fields.update(reason="?", rating="no idea")
    scores = judged(judge, Metric(type="llm_judge", model="critic", params=RUBRIC), reply="Please wait.")
    assert not scores.values
    assert scores.errors["helpful"]


def test_semantic_f1_is_the_harmonic_mean(judge: Judge) -> None:
    judge.fields.update(reasoning="Half of it.", recall=0.5, precision=1.7)
    metric = Metric(type="semantic_f1", model="critic", field="reply", label="label")
    scores = judged(judge, metric, reply="Please wait.", other="ignored")
    assert scores.values == {"helpful": pytest.approx(2 / 3)}, scores.errors
    assert scores.details == {"helpful": {"reason": "Half of it.", "recall": 0.5, "precision": 1.0}}
    assert "ignored" not in json.dumps(judge.server.requests[0].body)


def test_the_users_metric_may_name_its_judge(judge: Judge) -> None:
    def polite(example: Any, prediction: Any, trace: Any = None) -> bool:
        return bool(dspy.Predict("reply -> polite: bool")(reply=prediction.reply).polite)

    judge.fields.update(polite=True)
    scorers = build_scorers(
        {"polite": Metric(type="path", ref="program.py:polite", model="critic")},
        lambda _: polite,
        judge.lm,
        exported=no_judge,
    )
    scores = score_all(scorers, example(label=""), dspy.Prediction(reply="Please wait."))
    assert scores.values == {"polite": 1.0}, scores.errors
    assert '"critic"' in json.dumps(judge.server.requests[0].body)


def test_dspys_own_judge_works_unchanged(judge: Judge) -> None:
    judge.fields.update(reasoning="All of it.", recall=1.0, precision=0.5)
    metric = Metric(type="path", ref="dspy.evaluate:SemanticF1", params={"threshold": 0.9}, model="critic")
    scorers = build_scorers({"m": metric}, lambda _: dspy.evaluate.SemanticF1, judge.lm, exported=no_judge)
    asked = dspy.Example(question="Which team?", response="bug").with_inputs("question")
    scores = score_all(scorers, asked, dspy.Prediction(response="bug or login"))
    assert scores.values == {"m": pytest.approx(2 / 3)}, scores.errors


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (Metric(type="llm_judge", params=RUBRIC), "the judge is missing"),
        (Metric(type="llm_judge", model="critic"), "the setting 'rubric' is missing"),
        (Metric(type="llm_judge", model="critic", params={"rubric": " "}), "rubric must be a text"),
        (Metric(type="llm_judge", model="critic", params={**RUBRIC, "scale": [5, 1]}), "scale must be"),
        (Metric(type="llm_judge", model="critic", params={**RUBRIC, "scale": 5}), "metrics.helpful.params"),
        (Metric(type="semantic_f1", model="critic", params={"decomposition": True}), "'decompositional'"),
        (Metric(type="path"), "ref is missing"),
    ],
)
def test_a_judge_that_is_half_described_is_found_before_the_first_call(metric: Metric, says: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(says)):
        build_scorers(
            {"helpful": metric},
            no_judge,
            lambda _: dspy.LM("openai/critic", api_key="fake"),
            exported=no_judge,
        )


# --- metrics over all rows


def row(index: int, answer: Any, label: Any, error: dict[str, str] | None = None) -> dict[str, Any]:
    prediction = None if error else {"label": answer}
    return {"index": index, "prediction": prediction, "labels": {"label": label}, "error": error}


def run_metric(rows: list[dict[str, Any]], **settings: Any) -> float | None:
    metrics = build_run_metrics({"m": Metric(type="run", **settings)}, no_judge)
    return metrics["m"](iter(rows))


def test_macro_f1_weighs_every_class_alike() -> None:
    answers = ["bug", "bug", "Bug ", "login", "login", "spam"]
    labels = ["bug", "bug", "login", "login", "bug", "login"]
    rows = [row(i, a, b) for i, (a, b) in enumerate(zip(answers, labels, strict=True))]
    rows.append(row(6, None, "bug", {"type": "Timeout", "message": "", "kind": "endpoint"}))
    # bug: TP 2 of 3 predicted and 3 true; login: TP 1 of 2 and 3; spam: TP 0 of 1 and 0.
    expected = (4 / 6 + 2 / 5 + 0) / 3
    assert run_metric(rows, field="label", params={"measure": "macro_f1"}) == pytest.approx(expected)
    assert run_metric([], field="label", params={"measure": "macro_f1"}) is None


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_correlation_is_scipys(method: str) -> None:
    from scipy import stats

    rng = np.random.default_rng(1)
    answers = rng.integers(0, 5, 40)
    labels = answers + rng.integers(0, 4, 40)
    rows = [row(i, f"I say {a}", int(b)) for i, (a, b) in enumerate(zip(answers, labels, strict=True))]
    expected = getattr(stats, f"{method}r")(answers, labels).statistic
    value = run_metric(rows, field="label", params={"measure": "correlation", "method": method})
    assert value == pytest.approx(expected)


def test_a_correlation_with_a_constant_does_not_exist() -> None:
    rows = [row(i, 3, i) for i in range(5)]
    assert run_metric(rows, field="label", params={"measure": "correlation"}) is None
    assert run_metric(rows[:1], field="label", params={"measure": "correlation"}) is None


def test_the_users_metric_gets_all_rows_as_plain_dicts() -> None:
    def failures(rows: list[dict[str, Any]], weight: float = 1) -> np.float64:
        assert all(type(own) is dict for own in rows)
        return np.float64(weight * sum(own["error"] is not None for own in rows) / len(rows))

    rows = [row(0, "a", "a"), row(1, None, "b", {"type": "T", "message": "", "kind": "program"})]
    metric = Metric(type="run", ref="program.py:failures", params={"weight": 2})
    metrics = build_run_metrics({"m": metric, "n": Metric(type="exact_match")}, lambda _: failures)
    assert list(metrics) == ["m"]
    assert metrics["m"](rows) == 1.0


def test_a_run_metric_that_raises_fails_alone() -> None:
    functions: dict[str, Callable[..., Any]] = {
        "bad": lambda rows: rows[99],
        "leaving": lambda rows: sys.exit(4),
        "good": len,
    }
    metrics = build_run_metrics(
        {name: Metric(type="run", ref=f"program.py:{name}") for name in functions},
        lambda ref: functions[ref.partition(":")[2]],
    )
    values, errors = evaluate(metrics, lambda: [row(0, "a", "a")])
    assert values == {"bad": None, "leaving": None, "good": 1.0}
    assert errors == {"bad": "IndexError: list index out of range", "leaving": "SystemExit: 4"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "needs ref or params.measure"),
        ({"params": {"measure": "macro_f1"}}, "the field is missing"),
        (
            {"field": "label", "params": {"measure": "correlation", "methd": "spearman"}},
            "did you mean 'method'?",
        ),
        (
            {"field": "label", "params": {"measure": "correlation", "method": "kendall"}},
            "pearson or spearman",
        ),
    ],
)
def test_a_run_metric_that_is_half_described_is_found_at_once(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(says)):
        build_run_metrics({"m": Metric(type="run", **settings)}, no_judge)


def test_a_run_metric_of_the_wrong_shape_is_found_at_once() -> None:
    with pytest.raises(ProgramError, match="can not be called with a list of rows"):
        build_run_metrics({"m": Metric(type="run", ref="program.py:m")}, lambda _: two)
