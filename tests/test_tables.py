"""What people read: numbers, and tables that fit the terminal and cannot be acted through."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_summaries import metric, run_summary, summary_of, timing
from rich.console import Console, RenderableType

from dspylab.jsonable import to_json
from dspylab.printable import printable
from dspylab.records import ErrorSample, ExampleCounts, Gain, RunCompile, RunSummary, SeedsSummary, Summary
from dspylab.report import numbers
from dspylab.report.folding import folded
from dspylab.report.tables import PlanRow, plan_table, results_table


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (numbers.number, 0.81234, "0.812"),
        (numbers.number, 1.0, "1.00"),
        (numbers.number, 12.345, "12.3"),
        (numbers.number, 1234.5, "1,234"),
        (numbers.number, 9.8, "9.80"),
        (numbers.number, 99.64, "99.6"),
        (numbers.number, 9.996, "10.0"),
        (numbers.number, -0.5, "-0.500"),
        (numbers.number, 0.00123456, "0.00123"),
        (numbers.number, 0.1, "0.100"),
        (numbers.number, 1.5e-7, "1.50e-07"),
        (numbers.number, 0, "0"),
        (numbers.number, None, numbers.NOTHING),
        (numbers.count, 12345, "12,345"),
        (numbers.count, None, numbers.NOTHING),
        (numbers.duration, 0.0642, "64.2 ms"),
        (numbers.duration, 0.00001, "0.0100 ms"),
        (numbers.duration, 0.9996, "1.00 s"),
        (numbers.duration, 1.2345, "1.23 s"),
        (numbers.duration, 9.8, "9.80 s"),
        (numbers.duration, 0.0099, "9.90 ms"),
        (numbers.duration, 59.96, "1 min 00 s"),
        (numbers.duration, 125, "2 min 05 s"),
        (numbers.duration, 3720, "1 h 02 min"),
        (numbers.duration, None, numbers.NOTHING),
        (numbers.cost, 0.0, "$0"),
        (numbers.cost, 0.0000348, "$0.0000348"),
        (numbers.cost, 0.001234, "$0.00123"),
        (numbers.cost, 0.1234, "$0.12"),
        (numbers.cost, 3.4, "$3.40"),
        (numbers.cost, 1234.5, "$1,234"),
        (numbers.cost, None, numbers.NOTHING),
    ],
)
def test_numbers_as_people_read_them(form: Callable[[Any], str], value: Any, text: str) -> None:
    assert form(value) == text


@pytest.mark.parametrize(
    ("mean", "ends", "text"),
    [
        (1.0, (0.94, 1.0), "1.000 [0.940, 1.000]"),
        (0.81234, (0.7212, 0.8768), "0.812 [0.721, 0.877]"),
        (0.0, (0.0, 0.16), "0.000 [0.000, 0.160]"),
        (0.9994, (0.9991, 0.9997), "0.99940 [0.99910, 0.99970]"),
        (127.06, (120.4, 133.9), "127.1 [120.4, 133.9]"),
        (9.4, (9.1, 9.7), "9.400 [9.100, 9.700]"),
        (9.99996, None, "10.00"),
        (12345.6, (12001.0, 12790.2), "12,346 [12,001, 12,790]"),
        (0.00002, (0.00001, 0.00003), "2.00e-05 [1.00e-05, 3.00e-05]"),
        (960e6, (690_431_116.0, 1.01e9), "9.60e+08 [6.90e+08, 1.01e+09]"),
        (0.0, (0.0, 5e-4), "0 [0, 0.000500]"),
        (0.0, (0.0, 5e-5), "0 [0, 5.00e-05]"),
        (0.5, None, "0.500"),
        (1.0, None, "1.000"),
        (0.0, None, "0.000"),
        (0.0123, None, "0.012"),
        (0.00123, None, "0.0012"),
        (None, None, numbers.NOTHING),
    ],
)
def test_a_mean_and_its_interval_have_the_same_decimals(
    mean: float | None, ends: tuple[float, float] | None, text: str
) -> None:
    assert numbers.estimate(mean, ends) == text


@given(st.floats(min_value=1e-4, max_value=1e8))
def test_three_digits_are_three_digits(value: float) -> None:
    shown = float(numbers.number(value).replace(",", ""))
    assert math.isclose(shown, value, rel_tol=0.0051)


def test_what_could_act_is_spelled_out() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed\x9be\u200b") == r"a\x1b[2Jb\nc\u202ed\x9be\u200b"
    assert printable("naïve 日本 🙂 'x'") == "naïve 日本 🙂 'x'"


def run(
    mean: float | None,
    *,
    attempted: int = 96,
    failed: int = 0,
    complete: bool = True,
    cost_usd: float | None = 0.0,
    errors: dict[str, int] | None = None,
) -> RunSummary:
    ends = None if mean is None else (mean - 0.1, mean + 0.1)
    return run_summary(
        metrics={"accuracy": metric(mean, ends, n=attempted), "polite": metric(0.25, n=1)},
        run_metrics={"f1": 0.5},
        examples=ExampleCounts(total=96, attempted=attempted, scored=attempted - failed, failed=failed),
        errors=errors or ({"AdapterParseError": failed} if failed else {}),
        complete=complete,
        latency_s=timing(0.3, 1.25),
        ttft_s=timing(None),
        output_tokens_per_s=timing(77.77),
        throughput_tokens_per_s=1.0,
        cost_usd=cost_usd,
    )


def summary(
    runs: dict[str, RunSummary],
    primary: str = "accuracy",
    description: str = "Which one?",
    over_seeds: dict[str, SeedsSummary] | None = None,
) -> Summary:
    return summary_of(runs, primary=primary, description=description, over_seeds=over_seeds)


def rendered(table: RenderableType, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(table)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


RESULTS = """\
triage: Which one?
                                                  latency  latency  TTFT  tok/s
run                accuracy       scored  failed      p50      p95   p50    p50  cost  polite     f1
────────────────────────────────────────────────────────────────────────────────────────────────────
good   0.812 [0.713, 0.912]        96/96       0   300 ms   1.25 s     –   77.8    $0   0.250  0.500
poor   0.250 [0.150, 0.350]        93/96       3   300 ms   1.25 s     –   77.8     –   0.250  0.500
none                      –        96/96       0   300 ms   1.25 s     –   77.8    $0   0.250  0.500
part*  0.990 [0.890, 1.090]  40/40 of 96       0   300 ms   1.25 s     –   77.8    $0   0.250  0.500
[…]: 95% interval. scored: of those attempted. latency: a call from sending it to its last token. tok/s:
tokens of a reply by its latency. –: no such figure.
* not complete: `dspylab run` goes on, or says why not. Its figures are over what is done.
poor: 3 failed: AdapterParseError
A cost is missing where a model has no known price (give it pricing: in the file) or is the program's own.
"""  # noqa: RUF001 - dashes stand for figures that do not exist


def test_results_are_ranked_and_whole_on_a_wide_terminal() -> None:
    table = results_table(
        summary(
            {
                "poor": run(0.25, failed=3, cost_usd=None),
                "part": run(0.99, attempted=40, complete=False),
                "none": run(None),
                "good": run(0.8125),
            }
        )
    )
    assert rendered(table, 110) == RESULTS


def test_eighty_columns_keep_what_matters() -> None:
    key = "smollm2-balanced_demos-json-lm.temperature=0.7"
    text = rendered(results_table(summary({key: run(0.8125), "b": run(0.5)})), 80)
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    for part in ("accuracy", "0.812 [0.713, 0.912]", "96/96", "failed", "300 ms", "$0"):
        assert part in text
    assert "Left out in this width: latency p95, TTFT p50, tok/s p50, f1." in text
    names = "".join(line.split("  ")[0].strip() for line in lines[3:-2])
    assert key in names


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
def test_no_width_breaks_the_table(width: int) -> None:
    text = rendered(results_table(summary({"good": run(0.8125), "part": run(0.5, complete=False)})), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "good" in text


def test_a_summary_file_gives_the_same_table() -> None:
    whole = summary({"good": run(0.8125), "poor": run(0.25)})
    assert rendered(results_table(to_json(whole)), 120) == rendered(results_table(whole), 120)


def test_a_gain_says_what_it_is_and_what_tests_it() -> None:
    compiled = RunCompile(
        program="fewshot-mini", cost_usd=0.0, calls=0, compile_s=1.0, validation_score=None,
        gain=Gain(baseline="plain", difference=0.056, ci95=(0.009, 0.12), n=36), cost_per_point_usd=None,
    )  # fmt: skip
    text = rendered(results_table(summary({"few": replace(run(0.5), compile=compiled)})), 300)
    assert "+0.056 [+0.009, +0.120]" in text
    assert "gain: over the same run without an optimizer; `dspylab compare` tests it." in text


def test_names_can_not_act() -> None:
    hostile = "[bold red]x[/]\x1b[2J"
    out = io.StringIO()
    named = summary({hostile: run(0.5)}, primary=hostile, description=hostile)
    Console(file=out, width=200, force_terminal=True).print(results_table(named))
    text = out.getvalue()
    assert "\x1b[2J" not in text
    assert text.count(r"[bold red]x[/]\x1b[2J") >= 3


def test_a_metric_of_several_numbers_says_how_to_rank() -> None:
    text = rendered(results_table(summary({"good": run(0.8125)}, primary="polite.tone")), 200)
    assert numbers.NOTHING in text
    whole = summary({"good": run(0.5)}, primary="pol")
    document = to_json(whole)
    document["runs"]["good"]["metrics"] = {"pol.a": document["runs"]["good"]["metrics"]["accuracy"]}
    assert "pol gives several numbers; rank by one of them: pol.a." in rendered(results_table(document), 200)


def test_an_experiment_without_runs_has_an_empty_table_that_needs_no_legend() -> None:
    lines = rendered(results_table(summary({})), 120).splitlines()
    assert "accuracy" in lines[2]
    assert set(lines[3]) == {"─"}
    assert lines[4:] == []


def test_a_note_stands_only_where_it_applies() -> None:
    document = to_json(summary({"good": run(0.8125)}))
    figures = document["runs"]["good"]
    figures["ttft_s"] = figures["latency_s"]
    text = rendered(results_table(document), 200)
    assert text.endswith(
        "[…]: 95% interval. scored: of those attempted. latency: a call from sending it to its last token. "
        "tok/s: tokens of a reply by its latency.\n"
    )
    figures["metrics"]["accuracy"]["ci95"] = None
    assert "[…]" not in rendered(results_table(document), 200)
    assert "latency:" not in rendered(results_table(document), 30)


def test_failures_are_red_and_say_what_they_are() -> None:
    runs = {
        "cot": run(0.5, failed=10),
        "rag": run(0.4, failed=1200, errors={"LMTimeoutError": 1, "ValueError": 1199}),
        "good": run(0.3),
    }
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=True).print(results_table(summary(runs)))
    assert out.getvalue().count("\x1b[31m") == 2
    lines = rendered(results_table(summary(runs)), 200).splitlines()
    assert lines[-2:] == [
        "cot: 10 failed: AdapterParseError",
        "rag: 1,200 failed: ValueError (1,199 of them)",
    ]


def test_failures_are_told_with_the_first_example_and_what_it_said() -> None:
    sample = ErrorSample(example_id="t7", message="no [bold]label[/]: \x1b[31m{}")
    failed = replace(run(0.5, failed=10), first_errors={"AdapterParseError": sample})
    unscored = replace(run(0.4), metric_errors={"polite": 3}, first_metric_errors={"polite": sample})
    lines = rendered(results_table(summary({"cot": failed, "rag": unscored})), 200).splitlines()
    assert lines[-2:] == [
        r"cot: 10 failed: AdapterParseError, such as example t7: no [bold]label[/]: \x1b[31m{}",
        r"rag: polite has no value for 3 of 96 examples, such as example t7: no [bold]label[/]: \x1b[31m{}",
    ]


def test_a_metric_that_raised_names_all_runs_where_it_did() -> None:
    def raised(often: int, attempted: int = 96) -> RunSummary:
        sample = ErrorSample(example_id=f"t{often}", message="ValueError: no stars")
        return replace(
            run(0.4, attempted=attempted),
            metric_errors={"polite": often},
            first_metric_errors={"polite": sample},
        )

    def last(**runs: RunSummary) -> str:
        return rendered(results_table(summary(runs)), 200).splitlines()[-1]

    such_as = ", such as example t{}: ValueError: no stars"
    assert last(a=raised(96), good=run(0.3), b=raised(96)) == (
        f"a, b: polite has no value for 96 of 96 examples each{such_as.format(96)}"
    )
    assert last(a=raised(3), b=raised(7), c=raised(5)) == (
        f"a, b, c: polite has no value for up to 7 of 96 examples{such_as.format(7)}"
    )
    assert last(**{f"r{number}": raised(1) for number in range(10)}).startswith(
        "r0, r1, r2, r3, r4, r5, r6, r7 and 2 more: polite has no value for 1 of 96 examples each"
    )


@pytest.mark.parametrize(
    ("runs", "last"), [(6, "1 more run has failed examples."), (7, "2 more runs have failed examples.")]
)
def test_the_failures_of_many_runs_are_not_all_told(runs: int, last: str) -> None:
    failed = {f"r{i}": run(1.0 - i / 10, failed=1) for i in range(runs)}
    lines = rendered(results_table(summary(failed)), 200).splitlines()
    assert lines[-6:] == [*(f"r{i}: 1 failed: AdapterParseError" for i in range(5)), last]


OVER_SEEDS = """\

over seeds
runs                   accuracy  seeds  examples  polite
────────────────────────────────────────────────────────
mini-cot   0.750 [0.640, 0.860]      2        96   0.250
mini-rag*  0.900 [0.800, 1.000]      2        96   0.250
[…]: 95% interval. examples: distinct; each is one unit of the interval, whatever the number of seeds.
"""


def test_runs_that_differ_in_their_seed_alone_stand_together() -> None:
    alone = run(0.9).metrics

    def group(mean: float, ends: tuple[float, float], *runs: str) -> SeedsSummary:
        accuracy = replace(metric(mean, ends, n=192), examples=96)
        return SeedsSummary(runs=runs, coordinates={}, metrics={**alone, "accuracy": accuracy})

    runs = {"a": run(0.8), "b": run(0.7), "c": run(0.9), "d": run(0.9, complete=False)}
    groups = {
        "mini-rag": group(0.9, (0.8, 1.0), "c", "d"),
        "mini-cot": group(0.75, (0.64, 0.86), "a", "b"),
    }
    text = rendered(results_table(summary(runs, over_seeds=groups)), 140)
    assert text.endswith(OVER_SEEDS)
    assert "over seeds" not in rendered(results_table(summary(runs)), 140)


PLAN = [
    PlanRow(
        run="mini-predict",
        coordinates={"model": "mini", "program.style": "predict"},
        state="half done",
        done=3,
        total=9,
        reasons=["program.py changed", "models.mini.temperature changed"],
        model="openai/gpt-4o-mini",
        engine="native",
    ),
    PlanRow(
        run="mini-[red]cot",
        coordinates={"model": "mini", "program.style": "cot"},
        state="done",
        done=9,
        total=9,
        reasons=[],
        model="openai/gpt-4o-mini",
        engine="litellm",
    ),
]


PLANNED = """\
Plan
run            coordinates                       state             reasons                                              model               engine
───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
mini-predict   model=mini program.style=predict  half done 3 of 9  program.py changed; models.mini.temperature changed  openai/gpt-4o-mini  native
mini-[red]cot  model=mini program.style=cot      done              –                                                    openai/gpt-4o-mini  litellm
"""  # noqa: RUF001, E501 - as on the screen


def test_a_plan_on_a_wide_terminal() -> None:
    assert rendered(plan_table(PLAN), 160) == PLANNED


def test_a_plan_on_a_narrow_terminal() -> None:
    text = rendered(plan_table(PLAN), 70)
    assert all(len(line) <= 70 for line in text.splitlines())
    for part in ("mini-predict", "mini-[red]cot", "half done 3 of 9", "done", "Left out in this width"):
        assert part in text


# --- names in narrow columns


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("small-two_steps-true-fewshot", 24, "small-two_steps-true-\nfewshot"),
        ("small-two_steps-true-fewshot@HEAD", 24, "small-two_steps-true-\nfewshot@HEAD"),
        ("mini-predict@workspace", 18, "mini-predict@\nworkspace"),
        ("model-0.25-few", 9, "model-0.\n25-few"),
        ("a-muchlongerthanaline", 8, "a-muchlo\nngerthan\naline"),
        ("abcdefghij", 4, "abcd\nefgh\nij"),
        ("short words stay, mini-longest_of_all", 15, "short words stay, mini-longest_\nof_all"),
        ("漢字-漢字漢字", 6, "漢字-\n漢字漢\n字"),
        ("", 5, ""),
    ],
)
def test_names_are_folded_between_their_parts(text: str, width: int, lines: str) -> None:
    assert folded(text, width) == lines


@example("😀-\u0301ab-a@", 2)  # hung with rich 14.3.0
@given(st.text(alphabet="ab-_@. 漢\U0001f600\u0301", max_size=60), st.integers(2, 12))
def test_folding_takes_nothing_away(text: str, width: int) -> None:
    assert folded(text, width).replace("\n", "") == text


def test_a_table_folds_the_names_of_its_runs() -> None:
    summary = summary_of({"small-two_steps-true-fewshot@HEAD": run_summary()})
    shown = rendered(results_table(summary), 58)
    assert (
        "small-two_steps-true-\n"
        in "\n".join(line.split("  ")[0].rstrip() for line in shown.splitlines()) + "\n"
    )
    assert "fewshot@HEAD" in shown
