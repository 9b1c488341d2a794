"""`dspylab report` without a browser: what it says, what it keeps, and that nothing in it can act."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html.parser
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, InitRepository
from hatchling.builders.wheel import WheelBuilder
from report_pages import (
    answered,
    call,
    failed,
    material_of,
    page_of,
    results_of,
    scored,
    summary_of,
    write_results,
)

from dspylab.records import Message
from dspylab.report.compiled import compiled_program
from dspylab.report.markdown import render_markdown
from dspylab.report.material import gather
from dspylab.report.plots import plots
from dspylab.report.standing import contradiction, settling, standing_of
from dspylab.report.verdict import verdict
from dspylab.testing import FakeServer, experiment

pytestmark = pytest.mark.xdist_group("report")

ROOT = Path(__file__).parent.parent
GOOD, BAD = scored(*[1.0] * 30, 0.0, 0.0), scored(*[0.0] * 28, *[1.0] * 4)
HOSTILE = '</script><script>hacked()</script><img src=x onerror="hacked()">'


def blocks(page: str) -> dict[str, Any]:
    """The data of a page by name."""
    found = re.findall(r'<script type="text/plain" id="data-([\w-]+)">([^<]*)</script>', page)
    return {name: json.loads(gzip.decompress(base64.b64decode(text))) for name, text in found}


# --- the verdict


def test_a_run_that_is_better_than_all_others_is_to_be_shipped() -> None:
    said = verdict(material_of({"good": GOOD, "bad": BAD}))
    assert said.headline.startswith("Ship `good`: with 0.938 [")
    assert "Against the next, `bad`: +0.812 [+" in said.points[0]
    assert "32 paired examples" in said.points[0]
    assert "exact McNemar test" in said.points[0]


def test_runs_that_cannot_be_told_apart_are_named_with_what_else_decides() -> None:
    cheap = [
        answered(i, float(i % 3 != 0), call(prompt_tokens=10, completion_tokens=1), example_s=0.1)
        for i in range(30)
    ]
    dear = [answered(i, float(i % 3 != 0 or i == 3), example_s=2.0) for i in range(30)]
    said = verdict(material_of({"cheap": cheap, "dear": dear}))
    text = "\n".join(said.points)
    assert said.headline.startswith("No clear winner: `dear` has the highest accuracy")
    assert "Of these 2, `cheap` is the cheapest: $0.0000200 against $0.000200 for `dear` an example." in text
    assert "Of these 2, `cheap` is the fastest: 100 ms against 2.00 s for `dear` an example." in text
    assert "examples to see it; here are 30." in text


def test_a_cheap_run_that_is_probably_worse_is_not_recommended() -> None:
    """Six losses without a win are enough for one comparison, but not for three."""
    runs = {
        "good": [answered(i, 1.0, example_s=2.0) for i in range(30)],
        "near": [answered(i, float(i > 0), example_s=2.0) for i in range(30)],
        "cheap": [
            answered(i, float(i > 5), call(prompt_tokens=10, completion_tokens=1), example_s=0.1)
            for i in range(30)
        ],
    }
    material = material_of(runs)
    assert material.standing.comparisons["cheap"].p_value == 2 * 0.5**6
    assert material.standing.probably_worse == ("cheap",)
    assert material.decision.verdicts() == {"good": "best", "near": "cannot tell", "cheap": "probably worse"}
    standings = {run.key: standing_of(material, run) for run in material.runs}
    assert standings == {"good": "best", "near": "level", "cheap": "leaning"}
    said = verdict(material)
    text = "\n".join(said.points)
    assert said.headline.endswith("but `near` can not be told from it.")
    assert "`cheap`: probably worse (-0.200 [-0.3" in text
    settled = (
        "About 25 more examples would settle that with a chance of 80%, if the differences are as large as "
        "they look."
    )
    assert f"but not after correction for 3 runs: too many runs for 30 examples. {settled}" in text
    assert "`cheap` is the cheapest" not in text

    other = {**runs, "near": scored(*[1.0] * 24, *[0.0] * 6)}
    both = verdict(material_of(other))
    assert both.headline == (
        "`good` leads: it has the highest accuracy, 1.000 [0.886, 1.000], and every other run is probably "
        f"worse. {settled}"
    )
    assert "probably worse (up to -0.200 [-0.3" in "\n".join(both.points)
    assert "would settle that" not in "\n".join(both.points)
    assert "Ship" not in render_markdown(material_of(other), both)
    mixed = verdict(material_of({**runs, "near": scored(*[1.0] * 6, *[0.0] * 14, *[1.0] * 10)}))
    assert "and every other run is worse or probably worse. " in mixed.headline

    cheap, family = material.standing.comparisons["cheap"], material.standing.family
    assert settling([cheap], family) == settled
    assert settling([cheap, replace(cheap, spread=None)], family) is None
    assert settling([replace(cheap, n=1000)], family) is None


def test_of_two_runs_no_one_is_probably_worse() -> None:
    """There is nothing to correct for: where the test alone can not tell, neither command can."""
    material = material_of({"good": scored(*[1.0] * 5), "cheap": scored(0.6, 0.5, 0.4, 0.5, 0.55)})
    found = material.standing.comparisons["cheap"]
    assert found.ci95 is not None
    assert found.ci95[1] < 0
    assert found.p_value == 2 * 0.5**5
    assert material.decision.verdicts() == {"good": "best", "cheap": "cannot tell"}
    assert verdict(material).headline.startswith("No clear winner: `good` has the highest accuracy")


def test_a_run_that_is_probably_better_where_both_have_a_score_is_called_so() -> None:
    runs = {
        "failing": scored(*[1.0] * 10, *[0.0] * 6, *[None] * 24),
        "near": scored(*[1.0] * 9, *[0.0] * 7, *[None] * 24),
        "sound": scored(*[1.0] * 16, *[0.0] * 24),
    }
    material = material_of(runs)
    assert material.decision.verdicts()["sound"] == "probably better"
    said = verdict(material)
    assert "but `sound` is probably better on the examples that both have a value for." in said.headline
    assert "probably better on shared examples, +0.375" in render_markdown(material, said)
    assert '<tr class="ahead">' in page_of(material)
    assert "sound, which is probably better than it on the" in str(contradiction(material.standing))


def test_of_runs_that_are_the_same_the_cheapest_and_then_the_fastest_is_the_best() -> None:
    values = [float(i % 3 != 0) for i in range(30)]

    def made(tokens: int, example_s: float) -> list[dict[str, Any]]:
        used = call(prompt_tokens=tokens, completion_tokens=1)
        return [answered(i, value, used, example_s=example_s) for i, value in enumerate(values)]

    runs = {"dear": made(100, 0.1), "slow": made(10, 2.0), "fast": made(10, 0.1)}
    material = material_of(runs)
    assert material.standing.best == "fast"
    assert list(material.standing.comparisons) == ["slow", "dear"]
    assert [run.key for run in material.runs] == ["fast", "dear", "slow"]
    said = verdict(material)
    assert "Against the next, `slow`: the same on all 30 paired examples." in said.points
    assert "better on 0" not in "\n".join(said.points)
    assert 'title="the same on all 30 examples; p = 1.000' in page_of(material)


def test_a_run_that_is_better_where_both_have_a_score_is_named_beside_the_highest_mean() -> None:
    runs = {
        "failing": scored(*[1.0, 0.0] * 10, *[None] * 20),
        "sound": scored(*[1.0] * 19, *[0.0] * 21),
        "other": scored(*[0.0] * 40),
    }
    material = material_of(runs)
    said = verdict(material)
    assert said.headline == (
        "No clear winner: `failing` has the highest accuracy, 0.500 [0.299, 0.701], but `sound` is better "
        "on the examples that both have a value for. Their means are over different examples: see what "
        "failed in `failing`."
    )
    assert "better on shared examples, +0.450" in render_markdown(material, said)
    assert '<tr class="better">' in page_of(material)
    assert contradiction(material.standing) == (
        "failing has the highest mean, but over other examples than sound, which is better than it on the "
        "examples that both have a value for. See what failed in failing."
    )


def test_a_run_is_not_to_be_shipped_for_what_it_did_not_fail_on() -> None:
    runs = {
        "failing": scored(*[1.0] * 8, 0.0, *[None] * 11),
        "sound": scored(*[1.0] * 8, 0.0, *[1.0, 0.0] * 5, 0.0),
    }
    said = verdict(material_of(runs))
    assert said.headline == (
        "No clear winner: `failing` has the highest accuracy, 0.889 [0.565, 0.980], but failed 11 of 20 "
        "times: if that counted as not passed, `sound` would be the best."
    )
    assert said.points[0] == (
        "If what failed counted as not passed, `sound` would be the best with 0.650: `failing`, which failed "
        "11 of 20 times, would have 0.400."
    )


def test_one_run_and_no_run_have_no_comparison() -> None:
    assert "nothing to compare it with" in verdict(material_of({"only": GOOD})).headline
    assert "No verdict yet" in verdict(gather(results_of(summary_of({"only": GOOD}), {}))).headline


def test_failed_incomplete_and_absent_runs_are_said() -> None:
    bad = scored(None, None, *[0.0] * 30)
    material = gather(results_of(summary_of({"good": GOOD, "bad": bad}), {"bad": bad}))
    text = "\n".join(verdict(material).points)
    assert "`bad` failed on 2 of 32 examples, most often with `AdapterParseError`" in text
    assert "Not compared, as their rows are not here: `good`. `dvc pull`." in text


def test_seeds_are_one_side() -> None:
    material = material_of({"a-s0": GOOD, "a-s1": GOOD, "b-s0": BAD, "b-s1": BAD})
    assert set(material.decision.sides) == {"a", "b"}
    assert verdict(material).headline.startswith("Ship `a`")
    assert "Over seeds" in page_of(material, plots=[])


# --- the page


def test_the_page_names_its_script_and_style_and_allows_no_other() -> None:
    page = page_of(material_of({"good": GOOD, "bad": BAD}))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    for tag, directive in (("<style>", "style-src"), ("<script>", "script-src")):
        content = page.split(tag)[1].split(tag.replace("<", "</"))[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "style=" not in page, "a style attribute would need 'unsafe-inline'"


class Elements(html.parser.HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_no_name_text_or_answer_becomes_markup() -> None:
    tame = page_of(material_of({"good": GOOD, "bad": BAD}))
    rows = [
        answered(
            index, 1.0,
            call(response=HOSTILE, prompt=(Message(role=HOSTILE, text=HOSTILE),), error=None),
            example_id=HOSTILE, inputs={HOSTILE: HOSTILE}, labels={"label": HOSTILE},
            prediction={"label": HOSTILE}, metric_details={HOSTILE: HOSTILE},
        )
        for index in range(32)
    ]  # fmt: skip
    wild = page_of(
        material_of({HOSTILE: rows, "bad": [*BAD[:31], failed(31, HOSTILE)]}, description=HOSTILE),
        programs={HOSTILE: compiled_program({HOSTILE: {"signature": {"instructions": HOSTILE}}})},
    )
    parsed = {name: Elements() for name in ("tame", "wild")}
    parsed["tame"].feed(tame)
    parsed["wild"].feed(wild)
    assert set(parsed["wild"].tags) <= {*parsed["tame"].tags, "details", "summary", "pre", "h4"}
    assert "img" not in parsed["wild"].tags
    assert not [name for name in parsed["wild"].attributes if name.startswith("on")]
    assert blocks(wild)["answers-0"][0]["runs"][0]["prediction"] == {"label": HOSTILE}


def test_secrets_and_control_characters_do_not_reach_the_page() -> None:
    secret = "sk-proj-abcdefgh12345678"
    rows = [answered(0, 1.0, call(response=f"key {secret}"), inputs={"text": f"{secret} \x1b[31m"})]
    page = page_of(material_of({"only": rows}, description=f"{secret} \x1b[31mred\u202e"), plots=[])
    assert secret not in page
    assert secret not in json.dumps(blocks(page))
    assert "\x1b" not in page
    assert "\\x1b[31mred\\u202e" in page


def test_examples_are_in_parts_and_texts_that_prompts_share_stand_once() -> None:
    runs = {f"r{number}": scored(*[1.0] * 300) for number in range(5)}
    data = blocks(page_of(material_of(runs), plots=[]))
    assert data["index"]["part_size"] == 200
    assert [len(data["answers-0"]), len(data["answers-1"])] == [200, 100]
    assert data["index"]["runs"][0]["score"] == [1.0] * 300
    # What the first part says for itself, later parts share: in sum twice, for 1,500 calls.
    assert data["calls-0"]["texts"] == ["Route the ticket.", "It broke.", '{"label": "bug"}']
    assert data["shared"] == ["Route the ticket.", "It broke.", '{"label": "bug"}']
    assert data["calls-1"]["texts"] == []
    assert data["calls-1"]["examples"][0][0][0]["prompt"] == [["system", -1], ["user", -2]]


def test_a_page_for_many_examples_keeps_those_that_matter() -> None:
    rows = scored(*[1.0] * 50, None, 0.0, *[1.0] * 50)
    page = page_of(material_of({"a": rows, "b": scored(*[1.0] * 102)}), most_examples=3, plots=[])
    assert blocks(page)["index"]["indexes"] == [0, 50, 51]
    assert "3 of 102 examples are in this page" in page


def test_rows_of_an_earlier_version_have_no_prompts() -> None:
    row = answered(0, 1.0)
    for name in ("prompt", "response", "reasoning"):
        del row["calls"][0][name]
    data = blocks(page_of(material_of({"only": [row]}), plots=[]))
    assert "prompt" not in data["calls-0"]["examples"][0][0][0]


def test_lone_surrogates_are_kept_apart_from_the_file() -> None:
    rows = [answered(0, 1.0, prediction={"label": "\ud800"})]
    page = page_of(material_of({"only": rows}), plots=[])
    assert blocks(page)["answers-0"][0]["runs"][0]["prediction"] == {"label": "\ud800"}


# --- plots


def test_plots_follow_the_theme_and_say_what_they_show() -> None:
    judged = [answered(i, 1.0, call(), call(role="judge")) for i in range(30)]
    drawn = plots(material_of({"good": judged, "bad": BAD}))
    assert [plot.title for plot in drawn] == [
        "accuracy", "Time against accuracy", "Cost against accuracy", "Cost by role", "Latency of a call",
        "Time to first token",
    ]  # fmt: skip
    for plot in drawn:
        assert "var(--" in plot.svg
        assert 'fill="currentColor"' in plot.svg
        assert "style=" not in plot.svg
    assert 'aria-label="good: 1.000 [0.886, 1.000]"' in drawn[0].svg
    assert "judge" in drawn[3].svg


def test_control_characters_in_names_do_not_end_the_process() -> None:
    drawn = plots(material_of({"a\x1b[31m\ud800": GOOD, "b": BAD}))
    assert "a\\x1b[31m\\ud800" in drawn[0].svg


def test_what_does_not_exist_is_not_drawn() -> None:
    whole = [answered(0, 1.0, call(ttft_s=None, prompt_tokens=0, completion_tokens=0))]
    titles = [plot.title for plot in plots(material_of({"only": whole}))]
    assert titles == ["accuracy", "Latency of a call"]


# --- compiled programs


def test_a_compiled_program_shows_instructions_and_demonstrations() -> None:
    state = {
        "route.predict": {
            "demos": [{"text": "it <broke>", "label": ["bug"], "augmented": True}],
            "signature": {
                "instructions": "Route it.\nBe brief.",
                "fields": [{"prefix": "Text:", "description": "the ticket"}],
            },
        },
        "metadata": {"dependency_versions": {}},
    }
    program = compiled_program(state, {"optimizer": "GEPA", "cost_usd": 0.5, "seed": None, "long": "x" * 300})
    assert program.facts == (("optimizer", "GEPA"), ("cost_usd", "0.5"))
    page = page_of(material_of({"only": GOOD}), programs={"only": program}, plots=[])
    assert "<pre>Route it.\nBe brief.</pre>" in page
    assert "text: it &lt;broke&gt;\nlabel: [&quot;bug&quot;]" in page


def test_a_program_that_is_a_predictor_itself_is_shown_too() -> None:
    (predictor,) = compiled_program({"signature": {"instructions": "Route it."}, "demos": []}).predictors
    assert (predictor.name, predictor.instructions) == ("self", "Route it.")


@pytest.mark.parametrize(
    "state", [{}, {"a": 1, "b": {"signature": None}}, {"a": {"signature": {}, "demos": 3}}]
)
def test_a_state_of_another_kind_is_no_error(state: dict[str, Any]) -> None:
    assert all(not predictor.demos for predictor in compiled_program(state).predictors)


# --- Markdown


def test_markdown_for_a_pull_request() -> None:
    material = material_of({"good": GOOD, "bad": BAD})
    text = render_markdown(material, verdict(material))
    assert text.startswith("## triage\n\nWhich one?\n\n**Ship `good`")
    assert "| **`good`** | 0.938 \\[" in text
    assert "| `bad` | 0.125 \\[" in text
    assert "worse, -0.812 \\[-" in text
    assert "abcdef012345" in text


def test_markdown_lets_nothing_act() -> None:
    hostile = "x` @team #1 <img src=x> | ![](y) \x1b[31m"
    material = material_of({hostile: GOOD, "bad": BAD}, description=hostile.replace("@team", ""))
    text = render_markdown(material, verdict(material))
    outside = re.sub(r"`[^`\n]*`", "", text).replace("<sub>", "").replace("</sub>", "")
    assert not re.search(r"(?<!\\)[<\[]", outside)
    assert "@team" not in outside
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {9}


# --- the command


def test_the_command_writes_a_page_beside_the_experiment(
    tmp_path: Path, server: FakeServer, init_repository: InitRepository, cli_inside: Cli
) -> None:
    lab = experiment(tmp_path, server_url=server.url)
    init_repository(lab)
    assert cli_inside("run", "-q", "-c", lab.config, cwd=lab.root).code == 0
    done = cli_inside("report", "-c", lab.config, cwd=lab.root)
    assert done.code == 0, done.err
    assert "report.html: 1 run," in done.out
    data = blocks((lab.folder / "report.html").read_text())
    first = data["calls-0"]["examples"][0][0][0]
    texts = data["calls-0"]["texts"]
    said = [(role, texts[number]) for role, number in first["prompt"]]
    assert [role for role, _ in said] == ["system", "user"]
    assert "Route a support ticket" in said[0][1]
    assert "Ticket 0" in said[1][1]
    assert "[[ ## label ## ]]" in texts[first["response"]]
    markdown = cli_inside("report", "-c", lab.config, "--format", "md", cwd=lab.root)
    assert markdown.out.startswith("## triage")
    assert lab.git("status", "--porcelain", "--", "experiments/triage/results") == ""


def test_rows_of_other_results_are_not_shown(tmp_path: Path, cli_inside: Cli) -> None:
    lab = experiment(tmp_path, server_url="http://127.0.0.1:1/v1")
    nothing = cli_inside("report", "-c", lab.config, cwd=lab.root)
    assert nothing.code == 2
    assert "summary.json: no such file: run the experiment" in nothing.err
    write_results(lab.folder, {"good": GOOD})
    path = lab.folder / "results" / "good" / "run.json"
    path.write_text(path.read_text().replace("1" * 64, "2" * 64))
    other = cli_inside("report", "-c", lab.config, "--format", "md", cwd=lab.root)
    assert "Not compared, as their rows are not here: `good`" in other.out


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, cli_inside: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspylab.report.plots._PACKAGES", ("altair", "not_installed_here"))
    lab = experiment(tmp_path, server_url="http://127.0.0.1:1/v1")
    write_results(lab.folder, {"good": GOOD})
    done = cli_inside("report", "-c", lab.config, cwd=lab.root)
    assert done.code == 3
    assert "not_installed_here" in done.err
    assert "pip install 'altair" in done.err
    assert cli_inside("report", "-c", lab.config, "--format", "md", cwd=lab.root).code == 0


def test_the_wheel_has_the_files_of_the_page(tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        assert {"dspylab/report/page.html", "dspylab/report/report.css", "dspylab/report/report.js"} <= set(
            archive.namelist()
        )
