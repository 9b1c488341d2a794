"""`dspylab show` and `dspylab compare` on results of a real run, in a real git and DVC repository."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import API_KEY, Cli, execute, summary

from dspylab.testing import ChatRequest, FakeServer, Laboratory, experiment, reply_fields, tickets

# The laboratory is made once, so all tests of it run in one process.
pytestmark = pytest.mark.xdist_group("compare")

EXAMPLES = tickets(24)
MATRIX = {
    "matrix": {
        "model": ["fake"],
        "program.style": ["predict", "cot"],
        "seed": [0, 1],
        "include": [{"model": "fake", "program.style": "predict", "seed": 2}],
    },
    "metrics": {
        "accuracy": {"type": "exact_match", "field": "label"},
        "all": {"type": "run", "ref": "program.py:share"},
    },
}
SHARE = "\n\ndef share(rows):\n    return sum(row['error'] is None for row in rows) / len(rows)\n"


@dataclass(frozen=True)
class Lab:
    """A laboratory with results at main, at the experiment `better` and in the workspace."""

    lab: Laboratory
    experiment: str
    experiment_ref: str


def solver(right: dict[str, int]) -> Callable[[ChatRequest], str]:
    """Routes the first so many tickets right; thinking aloud it can not read ticket 3."""

    def answer(request: ChatRequest) -> str:
        style = "cot" if "reasoning" in request.system else "predict"
        number = next(index for index, row in enumerate(EXAMPLES) if row["text"] in request.question)
        if style == "cot" and number == 3:
            return "no structure at all"
        label = EXAMPLES[number]["label"]
        return reply_fields(request, {"label": label if number < right[style] else "delivery"})

    return answer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, blank_repository: Path) -> Lab:
    """Made once: results of one state are committed on main, those of another are a DVC experiment."""
    right = {"predict": 4, "cot": 20}
    root = tmp_path_factory.mktemp("compared")
    with FakeServer(answer=solver(right)) as server:
        lab = experiment(root, server_url=server.url, config=MATRIX, examples=EXAMPLES)
        lab.program.write_text(lab.program.read_text() + SHARE)
        shutil.copytree(blank_repository, root, dirs_exist_ok=True)
        lab.commit("A laboratory")
        run(lab)
        lab.commit("Results")
        right["predict"] = 18
        lab.change({"models": {"fake": {"max_tokens": 65}}, "matrix": {"program.style": ["predict"]}})
        run(lab)
    head = lab.git("rev-parse", "HEAD").strip()
    refs = lab.git("for-each-ref", "--format=%(refname:lstrip=4)", f"refs/exps/{head[:2]}/{head[2:]}")
    return Lab(lab, refs.strip(), f"refs/exps/{head[:2]}/{head[2:]}/{refs.strip()}")


def run(lab: Laboratory) -> None:
    """As the fixture `cli`, which is made anew for every test."""
    binaries = Path(sys.executable).parent
    path = f"{binaries}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "FAKE_API_KEY": API_KEY}
    command = [str(binaries / "dspylab"), "run", "--quiet"]
    subprocess.run(command, cwd=lab.root, env=environment, check=True, stdin=subprocess.DEVNULL, timeout=300)


@pytest.fixture(scope="module")
def on_main(made: Lab, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    """A copy with the results of main in the workspace."""
    lab = Laboratory(tmp_path_factory.mktemp("main"), made.lab.name)
    shutil.copytree(made.lab.root, lab.root, dirs_exist_ok=True)
    lab.git("checkout", "--quiet", "--", ".")
    lab.dvc("checkout", "--force", "--quiet")
    return lab


def test_two_revisions_are_compared_by_what_git_and_the_cache_have(made: Lab, cli_inside: Cli) -> None:
    done = cli_inside("compare", "main", made.experiment, "--format", "json", cwd=made.lab.root)

    assert done.code == 0, done.err
    document = json.loads(done.out)
    (one,) = document["comparisons"]
    found = one["comparison"]
    assert (found["a"], found["b"]) == ("fake-predict@main", f"fake-predict@{made.experiment}")
    # Tickets 3, 7, 11, … are deliveries, which is what it says when it does not know.
    assert found["mean_a"] == pytest.approx(9 / 24)
    assert found["mean_b"] == pytest.approx(20 / 24)
    assert (found["wins"], found["losses"], found["n"]) == (11, 0, 24)
    assert (found["test"], found["verdict"]) == ("wilcoxon", "better")
    assert document["only_in_a"] == ["fake-cot"]
    assert document["only_in_b"] == []
    flip = one["flips"]["wins"][0]
    assert flip["inputs"] == {"text": EXAMPLES[4]["text"]}
    assert flip["labels"] == {"label": "payment"}
    assert flip["outputs_a"] == [{"label": "delivery"}] * 3
    assert flip["outputs_b"] == [{"label": "payment"}] * 3
    assert len(one["flips"]["wins"]) == 11


def test_one_revision_is_compared_with_the_workspace(made: Lab, cli_inside: Cli) -> None:
    done = cli_inside("compare", "main", cwd=made.lab.root)

    assert done.code == 0, done.err
    assert "fake-predict@workspace is better than fake-predict@main: accuracy +0.458 [" in done.out
    assert "p < 0.001" in done.out
    assert "is better on 11, 3 of them (--flips N shows more)" in done.out
    assert "Ticket 4:" in done.out
    assert "Ticket 8:" not in done.out
    assert "Only in main: fake-cot." in done.out


def test_the_same_results_are_not_compared(made: Lab, cli_inside: Cli) -> None:
    done = cli_inside("compare", "main", "HEAD", cwd=made.lab.root)

    assert done.code == 0, done.err
    assert done.out.strip() == "The same results at both: fake-predict, fake-cot."


def test_rows_that_are_not_in_the_cache_say_which_command_gets_them(
    made: Lab, cli_inside: Cli, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    made.lab.git("clone", "--quiet", str(made.lab.root), str(clone))

    revisions = cli_inside("compare", "origin/main", "origin/main~0", cwd=clone)
    assert "The same results at both" in revisions.out
    shown = cli_inside("show", cwd=clone)
    assert shown.code == 0
    assert "0.375 [" in shown.out
    assert "Without a verdict, as their rows are not here: fake-predict-seed0" in shown.out
    assert "dvc pull" in shown.out
    for form in ("html", "md"):
        report = cli_inside("report", "--format", form, cwd=clone)
        assert report.code == 0
        lacks = (
            "without a verdict and examples, as their rows are not here (5 of 5 runs): fake-predict-seed0, "
        )
        assert lacks in report.err
        assert report.err.endswith(
            ": `dvc checkout` or `dvc pull` gets them, or `dspylab run` executes the runs\n"
        )
    runs = cli_inside("compare", "fake-predict", "fake-cot", cwd=clone)
    assert runs.code == 2
    assert "the rows of fake-predict-seed0, fake-predict-seed1, fake-predict-seed2 are not" in runs.err
    made.lab.git("push", "--quiet", str(clone), f"{made.experiment_ref}:{made.experiment_ref}")
    experiments = cli_inside("compare", "main", made.experiment, cwd=clone)
    assert experiments.code == 2
    assert "dvc fetch --all-branches" in experiments.err


def test_rows_of_another_commit_do_not_pass_for_those_of_the_summary(
    made: Lab, cli_inside: Cli, tmp_path: Path
) -> None:
    shutil.copytree(made.lab.root, tmp_path, dirs_exist_ok=True)
    made.lab.git("-C", str(tmp_path), "checkout", "--quiet", "--", ".")

    shown = cli_inside("show", "fake-predict*", cwd=tmp_path)

    assert shown.code == 0
    assert "Without a verdict, as their rows are not here: fake-predict-seed0" in " ".join(shown.out.split())
    assert "dvc checkout" in shown.out


def test_two_runs_and_what_was_lost(on_main: Laboratory, cli_inside: Cli) -> None:
    done = cli_inside("compare", "fake-predict-seed1", "fake-cot-seed0", cwd=on_main.root)

    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "fake-cot-seed0 is better than fake-predict-seed1: accuracy +0.522 [" in text
    assert "exact McNemar: p < 0.001 (not corrected); over 23 examples fake-cot-seed0 is better" in text
    assert "is better on 12, worse on 0" in text
    assert "1 of 24 examples are not compared: 1 failed in fake-cot-seed0." in text
    assert "If what failed counted as not passed: +0.458 [" in text
    assert "Examples that it takes to see a difference" not in text


def test_seeds_are_taken_together(on_main: Laboratory, cli_inside: Cli) -> None:
    done = cli_inside("compare", "--difference", "0.2", "--format", "json", cwd=on_main.root)

    assert done.code == 0, done.err
    (one,) = json.loads(done.out)["comparisons"]
    found = one["comparison"]
    assert (found["a"], found["b"], found["verdict"]) == ("fake-cot", "fake-predict", "worse")
    assert found["variance"] is not None
    assert found["variance"]["noise"] == found["variance"]["seed"] == 0
    assert one["pairing"] == {
        "examples": 24, "paired": 23, "failed_a": 1, "failed_b": 0, "absent_a": 0, "absent_b": 0,
        "other_labels": 0, "label_fields": [], "other_inputs": 0,
    }  # fmt: skip
    assert list(one["needed"]) == ["0.2"]


def test_all_others_against_one_run(on_main: Laboratory, cli_inside: Cli) -> None:
    done = cli_inside("compare", "fake-predict-seed0", "--format", "md", cwd=on_main.root)

    assert done.code == 0, done.err
    assert "fake-cot is better than fake-predict-seed0" in done.out
    assert r"| latency\_p50\_s |" in done.out


def test_show_ranks_the_runs_and_says_how_they_stand(on_main: Laboratory, cli_inside: Cli) -> None:
    done = cli_inside("show", cwd=on_main.root)

    assert done.code == 0, done.err
    lines = [line.split()[:2] for line in done.out.splitlines() if line.startswith("fake-")]
    assert lines[:5] == [
        ["fake-cot-seed0", "best"],
        ["fake-cot-seed1", "best"],
        ["fake-predict-seed0", "worse"],
        ["fake-predict-seed1", "worse"],
        ["fake-predict-seed2", "worse"],
    ]
    assert "over seeds" in done.out
    assert "Best on accuracy: fake-cot; every other one is worse" in done.out


def test_show_filters_sorts_and_chooses_columns(on_main: Laboratory, cli_inside: Cli) -> None:
    arguments = ("show", "program.style=predict", "seed=0", "seed=2", "--format", "csv")
    done = cli_inside(*arguments, "--columns", "run,seed,accuracy,ttft_s.p95,all", cwd=on_main.root)

    assert done.code == 0, done.err
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["run"] for row in rows] == ["fake-predict-seed0", "fake-predict-seed2"]
    assert list(rows[0]) == ["run", "seed", "accuracy", "accuracy_low", "accuracy_high", "ttft_s.p95", "all"]
    assert float(rows[0]["accuracy"]) == 9 / 24
    assert float(rows[0]["accuracy_low"]) < 9 / 24 < float(rows[0]["accuracy_high"])

    for order, first in (("failed", "fake-predict-seed0"), ("-failed", "fake-cot-seed0"), ("-run", "fake-p")):
        done = cli_inside("show", "--sort", order, "--format", "csv", cwd=on_main.root)
        assert next(csv.DictReader(io.StringIO(done.out)))["run"].startswith(first[:6]), order
    done = cli_inside("show", "--sort", "seed", "--columns", "run,seed", "--format", "md", cwd=on_main.root)
    assert "| run | seed |" in done.out


def test_show_as_json(on_main: Laboratory, cli_inside: Cli) -> None:
    document = json.loads(cli_inside("show", "--format", "json", cwd=on_main.root).out)

    assert document["best"] == "fake-cot"
    assert document["not_told_apart"] == ["fake-cot"]
    assert document["dominated_by"].keys() == {"fake-cot", "fake-predict"}
    assert [run["verdict"] for run in document["runs"]] == ["best", "best", "worse", "worse", "worse"]
    assert document["runs"][0]["metrics"]["accuracy"]["n"] == 23


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "program.stile=cot"), "there is no such axis: did you mean program.style?"),
        (("show", "program.style=cod"), "no run has this value: there is: "),
        (("show", "fake-predikt"), "there is no such run: did you mean fake-predict"),
        (("show", "program.style=cot", "*predict*"), "no run passes all these filters together"),
        (("show", "--columns", "accuracy,latncy_p50_s"), "there is no column latncy_p50_s: did you mean lat"),
        (("compare", "mian"), "mian: is neither a run, nor a revision of git, nor a DVC experiment"),
        (("compare", "fake-cot", "main"), "main: is no run of the workspace"),
        (("compare", "fake-cot", "fake-cot"), "is compared with itself"),
        (("compare", "HEAD~1"), "experiments/triage/summary.json at HEAD~1: no such file"),
        (("compare", "--metric", "all"), "all: is a metric over all rows"),
        (("compare", "--metric", "acuracy"), "acuracy: there is no such metric: did you mean accuracy?"),
        (("compare", "a", "b", "c"), "more than two names"),
        (("show", "--config", "nowhere.yaml"), "nowhere.yaml: no such file"),
    ],
)
def test_what_means_nothing_is_refused(
    on_main: Laboratory, cli_inside: Cli, arguments: tuple[str, ...], message: str
) -> None:
    done = cli_inside(*arguments, cwd=on_main.root)
    assert done.code == 2
    assert message in done.err
    assert done.out == ""


def test_without_results_show_says_what_to_do(cli_inside: Cli, tmp_path: Path) -> None:
    lab = experiment(tmp_path, server_url="http://127.0.0.1:9")
    for command in ("show", "compare"):
        done = cli_inside(command, cwd=lab.root)
        assert done.code == 2
        assert (
            done.err
            == "experiments/triage/summary.json: no such file: run the experiment with `dspylab run`\n"
        )


def test_show_and_compare_say_that_the_highest_mean_is_over_other_examples(
    tmp_path: Path, blank_repository: Path, cli_inside: Cli
) -> None:
    rows = tickets(40)

    def answer(request: ChatRequest) -> str:
        """Without thinking right on half of what it can do; with it on all of that, and wrong on the rest."""
        thinks = "reasoning" in request.system
        number = next(index for index, row in enumerate(rows) if row["text"] in request.question)
        if number >= 20 and not thinks:
            return "no structure at all"
        label = rows[number]["label"]
        right = number < 19 if thinks else number % 2 == 0
        return reply_fields(request, {"label": label if right else "payment" if label == "bug" else "bug"})

    with FakeServer(answer=answer) as server:
        matrix = {"program.style": ["predict", "cot"]}
        lab = experiment(tmp_path, server_url=server.url, config={"matrix": matrix}, examples=rows)
        shutil.copytree(blank_repository, tmp_path, dirs_exist_ok=True)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
    said = (
        "fake-predict has the highest mean, but over other examples than fake-cot, which is better than it "
        "on the examples that both have a value for. See what failed in fake-predict."
    )
    for command in (["compare"], ["compare", "fake-cot", "fake-predict"], ["show"]):
        ended = cli_inside(*command, cwd=lab.root)
        assert ended.code == 0
        assert said in " ".join(ended.out.split()), command
    failures = (
        "If what failed counted as not passed, fake-cot would be the best with 0.475: fake-predict, which "
        "failed 20 of 40 times, would have 0.250."
    )
    for command in (["compare"], ["show"], ["show", "--format", "md"]):
        assert failures in " ".join(cli_inside(*command, cwd=lab.root).out.split()), command
    document = json.loads(cli_inside("show", "--format", "json", cwd=lab.root).out)
    assert document["failures_in_best"]["winner"] == "fake-cot"
    table, legend, _ = cli_inside("show", cwd=lab.root).out.partition("Pareto:")
    assert bool(legend) == ("dominated" in table), (
        "said where it is needed; which run is the faster is chance"
    )
    assert "Pareto:" not in cli_inside("show", "--columns", "run,accuracy", cwd=lab.root).out


def test_one_pair_has_one_verdict_in_all_commands(
    tmp_path: Path, blank_repository: Path, cli_inside: Cli
) -> None:
    """Six losses without a win: p is 0.031 alone, and 0.125 among the six pairs of four runs."""
    rows = tickets(25)
    wrong = {
        ("predict", 0.0): range(6),
        ("predict", 0.7): range(6, 12),
        ("cot", 0.0): range(0),
        ("cot", 0.7): range(5, 19),
    }

    def answer(request: ChatRequest) -> str:
        style = "cot" if "reasoning" in request.system else "predict"
        number = next(index for index, row in enumerate(rows) if row["text"] in request.question)
        label = rows[number]["label"]
        other = "payment" if label == "bug" else "bug"
        is_wrong = number in wrong[style, request.body["temperature"]]
        return reply_fields(request, {"label": other if is_wrong else label})

    matrix = {"program.style": ["predict", "cot"], "lm.temperature": [0.0, 0.7]}
    with FakeServer(answer=answer) as server:
        lab = experiment(tmp_path, server_url=server.url, config={"matrix": matrix}, examples=rows)
        shutil.copytree(blank_repository, tmp_path, dirs_exist_ok=True)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
    best, other, worst = "fake-cot-temperature0", "fake-predict-temperature0", "fake-cot-temperature0.7"

    shown = json.loads(cli_inside("show", "--format", "json", cwd=lab.root).out)
    assert {run["run"]: run["verdict"] for run in shown["runs"]} == {
        best: "best", other: "probably worse", f"{other}.7": "probably worse", worst: "worse",
    }  # fmt: skip
    table = json.loads(cli_inside("compare", "--format", "json", cwd=lab.root).out)["comparisons"]
    verdicts = {one["comparison"]["b"]: one["comparison"]["verdict"] for one in table}
    assert verdicts == {other: "probably worse", f"{other}.7": "probably worse", worst: "worse"}
    assert [one["in_experiment"] for one in table] == [None] * 3

    settled = "About 27 more examples would settle that"
    text = " ".join(cli_inside("show", cwd=lab.root).out.split())
    assert f"Best on accuracy: {best}; every other one is worse or probably worse" in text
    assert settled in text
    assert cli_inside("report", "--format", "md", "--output", "report.md", cwd=lab.root).code == 0
    report = (lab.root / "report.md").read_text()
    assert f"**`{best}` leads: it has the highest accuracy" in report
    assert f"and every other run is worse or probably worse. {settled}" in report
    assert "Ship" not in report

    text = " ".join(cli_inside("compare", other, best, cwd=lab.root).out.split())
    assert (
        f"{best} is better than {other} if this is the one comparison that was planned (p = 0.031); among "
        "all 6 pairs of runs it is only probably better (p = 0.125): accuracy +0.240 ["
    ) in text
    (pair,) = json.loads(cli_inside("compare", other, best, "--format", "json", cwd=lab.root).out)[
        "comparisons"
    ]
    assert (pair["comparison"]["verdict"], pair["comparison"]["p_adjusted"]) == ("better", 0.03125)
    assert pair["in_experiment"] == {
        "pairs": 6, "is_bound": False, "p_adjusted": 0.125, "verdict": "probably better",
    }  # fmt: skip
    against = json.loads(cli_inside("compare", other, "--format", "json", cwd=lab.root).out)["comparisons"]
    (among,) = [one["in_experiment"] for one in against if one["comparison"]["b"] == best]
    assert among == pair["in_experiment"]

    text = " ".join(cli_inside("compare", worst, best, cwd=lab.root).out.split())
    assert f"{best} is better than {worst}: accuracy +0.560 [" in text

    # What is damaged elsewhere keeps nobody from comparing these two.
    lab.raw(worst).write_text("{\n")
    damaged = cli_inside("compare", other, best, cwd=lab.root)
    assert damaged.code == 0, damaged.err
    text = " ".join(damaged.out.split())
    assert f"{best} is better than {other}: accuracy +0.240 [" in text
    assert "What they are among all pairs of runs is not known: " in text
    # As it is when the damaged run is none of those that one run is compared with.
    without = summary(lab)
    without["runs"][worst]["complete"] = False
    lab.summary.write_text(json.dumps(without))
    damaged = cli_inside("compare", other, cwd=lab.root)
    assert damaged.code == 0, damaged.err
    assert "What they are among all pairs of runs is not known: " in " ".join(damaged.out.split())
    assert f"{worst}/raw.jsonl" in text


def test_examples_whose_data_was_edited_are_the_same_and_those_of_other_data_are_not(
    tmp_path: Path, blank_repository: Path, cli_inside: Cli
) -> None:
    shutil.copytree(blank_repository, tmp_path, dirs_exist_ok=True)
    examples: list[dict[str, str]] = [
        {"id": str(number), **example} for number, example in enumerate(EXAMPLES)
    ]
    two_styles = {"matrix": {"model": ["fake"], "program.style": ["predict", "cot"]}}
    with FakeServer(answer=solver({"predict": 4, "cot": 4})) as server:
        lab = experiment(tmp_path, server_url=server.url, examples=examples, config=two_styles)
        lab.commit("A laboratory")
        assert cli_inside("run", cwd=lab.root).code == 0
        lab.commit("Results")
        # Another id for all, a corrected label, and an example that left.
        examples[0]["label"] = "bug"
        write_rows(lab, examples[:-1])
        lab.change({"dataset": {"id": "id"}})
        assert cli_inside("run", cwd=lab.root).code == 0
        table = cli_inside("compare", "HEAD", cwd=lab.root, COLUMNS="200").out
        markdown = cli_inside("compare", "HEAD", "--format", "md", cwd=lab.root).out
        document = json.loads(cli_inside("compare", "HEAD", "--format", "json", cwd=lab.root).out)
        lab.commit("Corrected")
        write_rows(
            lab, [{**row, "id": f"new {row['id']}", "text": f"Again: {row['text']}"} for row in examples]
        )
        assert cli_inside("run", cwd=lab.root).code == 0
        apart = cli_inside("compare", "HEAD", cwd=lab.root, COLUMNS="200").out
        remarks = json.loads(cli_inside("compare", "HEAD", "--format", "json", cwd=lab.root).out)["remarks"]

    corrected = (
        "1 of 23 examples has another label than in the baseline (label): the difference is partly that"
    )
    lost = "1 of 24 examples are not compared: 1 not tried by the run."
    for text in (" ".join(table.split()), markdown.replace("\\", "")):
        assert f"fake-predict@workspace: {corrected}" in text.replace("\u200b", "")
        assert lost in text
    predict = next(
        one for one in document["comparisons"] if one["comparison"]["b"].startswith("fake-predict")
    )
    assert predict["pairing"]["other_labels"] == 1
    assert predict["pairing"]["label_fields"] == ["label"]
    assert predict["comparison"]["n"] == 23
    assert any(lost in remark for remark in document["remarks"])
    assert "No example is common to both sides, neither by its id nor by its inputs" in apart
    assert "Run both sides with the same rows and the same `dataset.id`" in " ".join(apart.split())
    assert "p: Wilcoxon" not in apart
    assert remarks[0].startswith("No example is common")


def write_rows(lab: Laboratory, rows: Sequence[Mapping[str, str]]) -> None:
    lab.dataset.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_runs_that_an_added_axis_renamed_are_compared_with_what_they_were(
    tmp_path: Path, blank_repository: Path, cli_inside: Cli
) -> None:
    shutil.copytree(blank_repository, tmp_path, dirs_exist_ok=True)
    right = {"predict": 4, "cot": 4}
    with FakeServer(answer=solver(right)) as server:
        lab = experiment(tmp_path, server_url=server.url, examples=EXAMPLES)
        lab.commit("A laboratory")
        assert cli_inside("run", cwd=lab.root).code == 0
        lab.commit("Results")
        right["predict"] = 20
        changes = {"models": {"fake": {"max_tokens": 65}}, "matrix": {"adapter": ["chat", "json"]}}
        lab.change(changes)
        assert cli_inside("run", cwd=lab.root).code == 0

        renamed = cli_inside("compare", "HEAD", cwd=lab.root, COLUMNS="200")
        lab.change({"matrix": {"adapter": ["json"], "program.style": ["predict"]}})
        assert cli_inside("run", cwd=lab.root).code == 0
        unknown = cli_inside("compare", "HEAD", cwd=lab.root, COLUMNS="200")

    assert "fake-chat@workspace is better than fake@HEAD" in renamed.out, renamed.out + renamed.err
    assert "An axis was added or removed: fake is now fake-chat." in renamed.out
    assert "Only in workspace: fake-json." in renamed.out
    assert "no run in common" in unknown.out, unknown.out + unknown.err
    assert "added or removed (adapter, program.style): name two runs." in unknown.out


BOTH = (["show"], ["show", "--format", "md"])
INVALID = (
    "the experiment file is not valid now, so it can not be told whether these results are of it "
    "(`dspylab validate`): experiments/triage/experiment.yaml:1: is no YAML: a value is missing: write it, "
    "or close the brackets\n"
)
STALE = "made from other code, data or settings than the files have now ({} of 5 runs): `dspylab run`\n"


def test_stale_results_are_said_to_be_so(on_main: Laboratory, cli_inside: Cli, tmp_path: Path) -> None:
    lab = Laboratory(tmp_path, on_main.name)
    shutil.copytree(on_main.root, tmp_path, dirs_exist_ok=True)

    def said(*arguments: str) -> str:
        done = cli_inside(*arguments, cwd=lab.root)
        assert done.code == 0, done.err
        assert "made from" not in done.out
        return done.err

    original = lab.program.read_text()
    commands = (["show"], ["show", "--format", "json"], ["compare"], ["report", "--format", "md"])
    assert [said(*command) for command in commands] == [""] * 4
    lab.program.write_text(original.replace("Route", "Send"))
    assert lab.program.read_text() != original
    assert [said(*command) for command in commands] == [STALE.format(5)] * 4
    assert said("compare", "main", "HEAD") == ""
    # Undone after another command had looked at the edited code.
    assert cli_inside("plan", cwd=lab.root).code == 0
    lab.program.write_text(original)
    assert said("show") == ""
    lab.change({"matrix": {"seed": [0]}})
    assert said("show") == STALE.format(2)
    lab.config.write_text("nonsense: [")
    assert [said(*command) for command in commands] == [INVALID] * 4
    assert said("compare", "main", "HEAD") == ""
    lab.git("checkout", "--quiet", "--", ".")
    lab.program.unlink()
    assert said("show") == STALE.format(5)
    shutil.rmtree(lab.root / ".dspylab")
    assert said("show") == ""


def words(cli_inside: Cli, lab: Laboratory, *command: str) -> str:
    """What a command prints, without the line breaks of a terminal and what Markdown escapes."""
    return " ".join(cli_inside(*command, cwd=lab.root).out.replace("\\`", "`").split())


def test_runs_of_the_matrix_that_are_not_in_the_table_are_named(
    tmp_path: Path, blank_repository: Path, cli_inside: Cli
) -> None:
    """As after Ctrl-C in a run whose settings had changed: there is one run, and it would be the best."""
    with FakeServer() as server:
        shutil.copytree(blank_repository, tmp_path, dirs_exist_ok=True)
        config = {"matrix": {"model": ["fake"], "program.style": ["predict", "cot"], "seed": [0, 1]}}
        lab = experiment(tmp_path, server_url=server.url, config=config, examples=EXAMPLES)
        execute(lab, "run", "--quiet")
        assert "Not in the table" not in cli_inside("show", cwd=lab.root).out
        lab.change({"models": {"fake": {"max_tokens": 65}}})
        execute(lab, "run-one", "model=fake", "program.style=cot", "seed=0")
        before = [words(cli_inside, lab, *command) for command in BOTH]
        report = cli_inside("report", "--format", "md", cwd=lab.root)
        two = cli_inside("compare", "fake-cot-seed0", "fake-cot-seed1", cwd=lab.root)
        assert cli_inside("aggregate", cwd=lab.root).code == 1
    after = [words(cli_inside, lab, *command) for command in BOTH]

    newer = "`dspylab aggregate` takes the newer ones that are here"
    for text in before:
        assert "Without a verdict, as their rows are not here: fake-cot-seed0: " in text
        assert text.endswith(f"{newer}.")
        assert "Not in the table" not in text
    assert f"rows are not here: `fake-cot-seed0`. {newer}." in report.out
    assert report.err.endswith(f"(1 of 4 runs): fake-cot-seed0: {newer}\n")
    assert two.err == f"workspace: the rows of fake-cot-seed0 are not on this machine: {newer}\n"
    for text in after:
        assert text.endswith(
            "Not in the table, as they have no results of the experiment as it is: "
            "fake-predict-seed0, fake-predict-seed1, fake-cot-seed1: `dspylab run`."
        )


def test_rows_that_no_summary_has_yet_are_named(
    tmp_path: Path, blank_repository: Path, cli_inside: Cli
) -> None:
    with FakeServer() as server:
        shutil.copytree(blank_repository, tmp_path, dirs_exist_ok=True)
        config = {"matrix": {"model": ["fake"], "seed": [0, 1]}}
        lab = experiment(tmp_path, server_url=server.url, config=config, examples=EXAMPLES)
        execute(lab, "run", "--quiet")
        lab.change({"models": {"fake": {"max_tokens": 65}}, "matrix": {"seed": [0, 1, 2, 3]}})
        execute(lab, "run-one", "model=fake", "seed=1")
        execute(lab, "run-one", "model=fake", "seed=2")
    lab.raw("fake-seed0").unlink()
    shown = " ".join(cli_inside("show", cwd=lab.root).out.split())
    assert (
        "are not here: fake-seed0, fake-seed1: `dspylab aggregate` takes the newer ones of fake-seed1"
        in shown
    )
    assert "that are here; `dvc checkout` or `dvc pull` gets them, or `dspylab run` executes" in shown
    assert "no results of the experiment as it is: fake-seed3: `dspylab run`." in shown
    assert "Not in the table, as the summary is older: fake-seed2: `dspylab aggregate`." in shown
    lab.raw("fake-seed2").with_name("run.json").write_text("{")
    shown = " ".join(cli_inside("show", cwd=lab.root).out.split())
    assert (
        "as they have no results of the experiment as it is: fake-seed2, fake-seed3: `dspylab run`." in shown
    )
