"""The main job through the real command line: git, DVC, HTTP, nothing replaced.

Most commands are called inside of this process: it has imported dspy already, and nothing else is different.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import API_KEY, Cli, MakeLab, rows, summary
from jsonschema import Draft202012Validator

from dspylab.config.load import load
from dspylab.record.schema import raw_schema, run_schema, summary_schema
from dspylab.testing import FakeServer, Fault, Laboratory, answer_key, experiment, tickets

MATRIX = {"matrix": {"model": ["fake"], "program.style": ["predict", "cot"]}}


def assert_valid(schema: Mapping[str, Any], document: Any) -> None:
    problems = [error.message for error in Draft202012Validator(schema).iter_errors(document)]
    assert not problems, problems[:5]


@pytest.fixture
def lab(server: FakeServer, make_lab: MakeLab) -> Laboratory:
    return make_lab(server.url, config=MATRIX)


def test_a_changed_file_of_the_program_makes_its_runs_stale(
    server: FakeServer, make_lab: MakeLab, cli_inside: Cli
) -> None:
    program = {"path": "program.py", "files": ["corpus.txt", "passages"]}
    lab = make_lab(
        server.url,
        config={"program": program, "matrix": {"model": ["fake"]}},
        files={
            "experiments/triage/corpus.txt": "one passage",
            "experiments/triage/passages/deep/one.txt": "one passage",
        },
    )
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert "nothing to do" in cli_inside("run", "-c", lab.config, cwd=lab.root).out
    (lab.folder / "corpus.txt").write_text("another passage")

    assert "corpus.txt" in cli_inside("plan", "-c", lab.config, cwd=lab.root).out
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert len(server.requests) == 16

    # A folder is every file below it, also those that come.
    (lab.folder / "passages" / "deep" / "two.txt").write_text("another passage")
    assert "passages" in cli_inside("plan", "-c", lab.config, cwd=lab.root).out
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert len(server.requests) == 24
    assert "nothing to do" in cli_inside("run", "-c", lab.config, cwd=lab.root).out


def test_a_file_that_a_recorded_run_did_not_read_before_is_recorded_at_once(
    server: FakeServer, make_lab: MakeLab, cli_inside: Cli
) -> None:
    """Another test file, with the line ends of Windows, which DVC's old hash does not see, and a module."""
    lab = make_lab(server.url, config=MATRIX)
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    other = lab.dataset.with_name("other.jsonl")
    other.write_bytes(lab.dataset.read_bytes().replace(b"\n", b"\r\n"))
    lab.change({"dataset": {"path": "other.jsonl"}})
    (lab.folder / "helper.py").write_text("")
    lab.program.write_text("import helper\n" + lab.program.read_text())

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0
    assert "not recorded" not in done.err
    assert "nothing to do" in cli_inside("run", "-c", lab.config, cwd=lab.root).out
    assert "2 runs, nothing to do" in cli_inside("plan", "-c", lab.config, cwd=lab.root).out
    assert "up to date" in lab.dvc("status")
    assert "md5-dos2unix" not in (lab.root / "dvc.lock").read_text()


def test_only_what_was_executed_and_recorded_is_saved_as_an_experiment(
    make_lab: MakeLab, cli_inside: Cli
) -> None:
    def saved(lab: Laboratory) -> int:
        return len(lab.git("for-each-ref", "refs/exps").splitlines())

    refuse = [True]
    with FakeServer(fail=lambda _: Fault("status", status=401) if refuse else None) as server:
        lab = make_lab(server.url)
        refused = cli_inside("run", "-c", lab.config, cwd=lab.root)
        assert refused.code == 3
        assert "not saved as a DVC experiment: no run was completed and recorded" in refused.out
        assert saved(lab) == 0

        refuse.clear()
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)
        assert "compare with `dvc exp show --only-changed`" in done.out
        assert saved(lab) == 1

        shutil.rmtree(lab.folder / "results")
        restored = cli_inside("run", "-c", lab.config, cwd=lab.root)
        assert "come from the cache" in restored.out
        assert "not saved as a DVC experiment: nothing was executed" in restored.out
        assert saved(lab) == 1


def test_a_library_that_sets_its_own_log_level_stays_quiet(
    server: FakeServer, make_lab: MakeLab, cli_inside: Cli
) -> None:
    program = (
        "import logging\n"
        "chatty = logging.getLogger('chatty')\n"
        "chatty.setLevel(logging.DEBUG)\n"
        "chatty.debug('building')\n"
        "chatty.error('broken')\n"
        "import dspy\n"
        "def build(style): return dspy.Predict('text -> label')\n"
    )
    lab = make_lab(
        server.url,
        config={"matrix": {"model": ["fake"]}},
        files={"experiments/triage/program.py": program},
    )

    assert cli_inside("plan", "-c", lab.config, cwd=lab.root).err == "chatty: broken\n"


def test_run_leaves_rows_summary_and_a_clean_pipeline(lab: Laboratory, server: FakeServer, cli: Cli) -> None:
    done = cli("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert "fake-predict" in done.out
    assert "fake-cot" in done.out
    assert len(server.requests) == 16
    for run in ("fake-predict", "fake-cot"):
        written = rows(lab, run)
        assert [row["index"] for row in written] == list(range(8))
        for row in written:
            assert_valid(raw_schema(), row)
            assert row["error"] is None
            assert row["metrics"]["accuracy"] in (0.0, 1.0)
            assert row["calls"][0]["ttft_s"] > 0
            assert row["calls"][0]["predictor"]
        assert_valid(run_schema(), json.loads((lab.raw(run).parent / "run.json").read_text()))
    document = summary(lab)
    assert_valid(summary_schema(), document)
    assert document["runs"]["fake-cot"]["examples"] == {"total": 8, "attempted": 8, "scored": 8, "failed": 0}
    assert document["git"]["commit"] == lab.git("rev-parse", "HEAD").strip()
    assert "up to date" in lab.dvc("status")
    assert "fake-predict" in lab.dvc("exp", "show", "--md") or "accuracy" in lab.dvc("exp", "show", "--md")


def test_a_second_run_and_dvc_repro_have_nothing_to_do(
    lab: Laboratory, server: FakeServer, cli: Cli, cli_inside: Cli
) -> None:
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    before = len(server.requests)

    again = cli_inside("run", "-c", lab.config, cwd=lab.root)
    repro = cli("repro", cwd=lab.root, program="dvc")

    assert again.code == 0
    assert "nothing to do" in again.out
    assert repro.code == 0, repro.err
    assert len(server.requests) == before


def test_dvc_repro_alone_does_the_same_and_run_agrees(
    lab: Laboratory, server: FakeServer, cli: Cli, cli_inside: Cli
) -> None:
    assert cli_inside("sync", "-c", lab.config, cwd=lab.root).code == 0
    repro = cli("repro", cwd=lab.root, program="dvc")
    assert repro.code == 0, repro.err + repro.out
    assert len(server.requests) == 16
    assert set(summary(lab)["runs"]) == {"fake-predict", "fake-cot"}

    again = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert "nothing to do" in again.out, again.out + again.err
    assert len(server.requests) == 16


def test_repro_force_and_fresh_really_execute_again(
    lab: Laboratory, server: FakeServer, cli: Cli, cli_inside: Cli
) -> None:
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0

    forced = cli("repro", "-f", "triage@fake-predict", cwd=lab.root, program="dvc")
    assert forced.code == 0, forced.err + forced.out
    assert len(server.requests) == 24
    again = cli("repro", "-f", "triage@fake-predict", cwd=lab.root, program="dvc")
    assert again.code == 0, again.err + again.out
    assert len(server.requests) == 32

    fresh = cli_inside("run", "--fresh", "-c", lab.config, cwd=lab.root)
    assert fresh.code == 0, fresh.err
    assert len(server.requests) == 48


def test_exp_run_of_one_model_runs_only_its_runs(
    server: FakeServer, cli: Cli, cli_inside: Cli, make_lab: MakeLab
) -> None:
    other = {
        "model": "openai/other",
        "api_base": server.url,
        "api_key_env": "FAKE_API_KEY",
        "temperature": 0.0,
    }
    lab = make_lab(
        server.url,
        config={"models": {"other": other}, "matrix": {"model": ["fake", "other"]}},
    )
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    lab.commit("Results")
    before = len(server.requests)

    change = "experiments/triage/experiment.yaml:models.other.temperature=0.2"
    done = cli("exp", "run", "-S", change, cwd=lab.root, program="dvc")

    assert done.code == 0, done.err + done.out
    new = server.requests[before:]
    assert {record.model for record in new} == {"other"}
    assert len(new) == 8
    assert new[0].body is not None
    assert new[0].body["temperature"] == 0.2


def test_what_the_docs_say_of_axes_and_failures_with_exp_run(
    lab: Laboratory, cli: Cli, cli_inside: Cli
) -> None:
    assert cli_inside("run", cwd=lab.root).code == 0
    lab.commit("Results")
    file = lab.config.relative_to(lab.root).as_posix()
    before = lab.config.read_text()

    dotted = cli("exp", "run", "-S", f"{file}:matrix.program.style=[cot]", cwd=lab.root, program="dvc")
    assert "Could not override 'matrix.program.style'" in dotted.err
    mapping = f"{file}:matrix={{program.style: [cot, other]}}"
    done = cli("exp", "run", "-S", mapping, cwd=lab.root, program="dvc")
    assert done.code == 0, done.err + done.out
    assert f"{lab.folder.relative_to(lab.root)}/summary.json: 1 of 2 runs" in done.out
    assert load(lab.config).document["matrix"] == {"model": ["fake"], "program.style": ["cot", "other"]}
    lab.git("reset", "--hard", "--quiet")

    failed = cli("exp", "run", "-S", f"{file}:models.fake.temperature=hot", cwd=lab.root, program="dvc")
    assert failed.code != 0
    assert "temperature: hot" in lab.config.read_text()
    lab.config.touch()
    lab.git("checkout", file)
    assert lab.config.read_text() == before


def test_a_helper_module_decides_and_a_description_does_not(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    helper = lab.folder / "wording.py"
    helper.write_text("HINT = 'one'\n")
    lab.program.write_text("import wording\n" + lab.program.read_text())
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    before = len(server.requests)

    lab.change({"description": "Something else", "execution": {"max_concurrency": 3}})
    assert "nothing to do" in cli_inside("run", "-c", lab.config, cwd=lab.root).out
    assert len(server.requests) == before

    helper.write_text("HINT = 'two'\n")
    assert "wording.py" in cli_inside("plan", "-c", lab.config, cwd=lab.root).out
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert len(server.requests) == before + 16


def test_what_dvc_has_cached_is_restored_not_called(
    lab: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    before = len(server.requests)
    lab.change({"models": {"fake": {"temperature": 0.5}}})
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0
    assert len(server.requests) == before + 16

    lab.change({"models": {"fake": {"temperature": 0.0}}})
    back = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert back.code == 0, back.err
    assert len(server.requests) == before + 16
    assert "up to date" in lab.dvc("status")


def test_an_example_that_fails_is_a_failure_and_no_score(cli_inside: Cli, make_lab: MakeLab) -> None:
    examples = tickets(6)

    def answer(request: Any) -> str:
        return "no structure at all" if "Ticket 3" in request.text else answer_key(examples)(request)

    with FakeServer(answer=answer) as server:
        lab = make_lab(server.url, examples=examples)
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    failed = rows(lab, "fake")[3]
    assert failed["metrics"] == {}
    assert failed["prediction"] is None
    assert failed["error"]["type"] == "AdapterParseError"
    assert failed["error"]["kind"] == "program"
    assert [call["fallback"] for call in failed["calls"]] == [False, True]
    result = summary(lab)["runs"]["fake"]
    assert result["examples"] == {"total": 6, "attempted": 6, "scored": 5, "failed": 1}
    assert result["metrics"]["accuracy"]["mean"] == 1.0
    assert result["metrics"]["accuracy"]["n"] == 5


def test_endpoint_failures_are_tried_again_alone(cli_inside: Cli, make_lab: MakeLab) -> None:
    broken = {"now": True}

    def fail(request: Any) -> Fault | None:
        return Fault("status", status=500) if broken["now"] and "Ticket 2" in request.text else None

    with FakeServer(fail=fail) as server:
        config = {"models": {"fake": {"num_retries": 1}}}
        lab = make_lab(server.url, config=config)
        first = cli_inside("run", "-c", lab.config, cwd=lab.root)
        assert first.code == 1, first.out + first.err
        assert "7/8" in first.err or "1 failed" in first.err
        assert rows(lab, "fake")[2]["error"]["kind"] == "endpoint"
        asked = len(server.requests)
        broken["now"] = False

        second = cli_inside("run", "-c", lab.config, cwd=lab.root)

        assert second.code == 0, second.err
        assert len(server.requests) == asked + 1
    assert all(row["error"] is None for row in rows(lab, "fake"))
    assert summary(lab)["runs"]["fake"]["complete"]


def test_a_killed_run_goes_on_where_it_was(cli_inside: Cli, make_lab: MakeLab) -> None:
    with FakeServer(ttft_s=0.25) as server:
        config = {"execution": {"max_concurrency": 2}}
        lab = make_lab(server.url, config=config, examples=tickets(24))
        environment = {**os.environ, "FAKE_API_KEY": API_KEY}
        process = subprocess.Popen(
            [sys.executable, "-m", "dspylab", "run", "-c", str(lab.config)],
            cwd=lab.root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while len(server.requests) < 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        asked = len(server.requests)
        assert 8 <= asked < 24

        plan = cli_inside("plan", "-c", lab.config, cwd=lab.root)
        assert "half done" in plan.out
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)

        assert done.code == 0, done.err
        assert "kept from before" in done.out
        assert len(server.requests) <= 24 + 2
    assert [row["index"] for row in rows(lab, "fake")] == list(range(24))


def test_ctrl_c_keeps_everything_and_says_how_to_go_on(cli_inside: Cli, make_lab: MakeLab) -> None:
    with FakeServer(ttft_s=0.25) as server:
        config = {"execution": {"max_concurrency": 2}}
        lab = make_lab(server.url, config=config, examples=tickets(24))
        process = subprocess.Popen(
            [sys.executable, "-m", "dspylab", "run", "-c", str(lab.config)],
            cwd=lab.root, env={**os.environ, "FAKE_API_KEY": API_KEY},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while len(server.requests) < 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert "finished and kept" in err
        assert "goes on where it stopped" in err
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)
        assert done.code == 0, done.err
        assert len(server.requests) <= 24 + 2


def test_missing_keys_are_told_at_once_before_any_call(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    other = {"model": "openai/other", "api_base": server.url, "api_key_env": "OTHER_KEY"}
    config = {
        "models": {"fake": {"api_key_env": "FIRST_KEY"}, "other": other},
        "matrix": {"model": ["fake", "other"]},
    }
    lab = make_lab(server.url, config=config)

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 3
    assert "FIRST_KEY" in done.err
    assert "OTHER_KEY" in done.err
    assert not server.requests
    (lab.root / ".env").write_text(f"FIRST_KEY={API_KEY}\nOTHER_KEY={API_KEY}\n")
    assert cli_inside("run", "-c", lab.config, cwd=lab.root).code == 0


def test_a_wrong_key_stops_its_model_with_one_message(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    with FakeServer(api_key="right-key") as strict:
        other = {
            "model": "openai/other",
            "api_base": strict.url,
            "api_key_env": "FAKE_API_KEY",
            "max_concurrency": 2,
        }
        config = {"models": {"other": other}, "matrix": {"model": ["fake", "other"]}}
        lab = make_lab(server.url, config=config, examples=tickets(20))
        done = cli_inside("run", "-c", lab.config, cwd=lab.root)

        assert done.code == 1
        assert len(strict.requests) <= 2
    assert len(rows(lab, "fake")) == 20
    assert done.err.count("models.other") == 1
    assert API_KEY not in done.out + done.err


def test_an_endpoint_where_nobody_is_is_not_said_to_refuse(cli_inside: Cli, make_lab: MakeLab) -> None:
    with FakeServer() as server:
        gone = server.url
    lab = make_lab(gone, config={"models": {"fake": {"num_retries": 0}}, "execution": {"max_concurrency": 1}})

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 3
    assert "1 of 1 run is incomplete; " in done.err
    assert "models.fake: failed to connect" in done.err
    (line,) = (line for line in done.out.splitlines() if "stopped" in line)
    assert line.startswith("fake: stopped after ")
    assert ": nobody answers at the endpoint of its model: " in line
    assert line.endswith("1 failed")


def test_runs_that_nothing_was_finished_of_are_named_below_the_table(
    cli_inside: Cli, make_lab: MakeLab
) -> None:
    with FakeServer() as server:
        gone = server.url
    config = {
        "models": {"fake": {"num_retries": 0}},
        "matrix": {"lm.temperature": [0.0, 1.0]},
        "execution": {"max_concurrency": 1},
    }
    lab = make_lab(gone, config=config)
    done = cli_inside("run", "-q", cwd=lab.root)
    assert done.code == 3
    assert "\nnot in the table, as they have no results yet: fake-temperature1\n" in done.out
    assert cli_inside("run", "--json", cwd=lab.root).out.count("not in the table") == 0


def test_no_key_is_written_anywhere(lab: Laboratory, cli_inside: Cli) -> None:
    done = cli_inside("run", "-v", "-c", lab.config, cwd=lab.root)
    assert done.code == 0, done.err
    assert API_KEY not in done.out + done.err
    for path in lab.root.rglob("*"):
        if path.is_file():
            assert API_KEY.encode() not in path.read_bytes(), path


def test_threads_that_a_program_starts_are_metered(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    program = """
import asyncio
import dspy

class Both(dspy.Module):
    def __init__(self):
        super().__init__()
        self.first = dspy.Predict("text -> label")
        self.second = dspy.Predict("text, hint -> label")

    def forward(self, text):
        pairs = [(self.first, dspy.Example(text=t).with_inputs("text")) for t in (text, text + "!")]
        answers = dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)
        asynchronous = asyncio.run(dspy.asyncify(self.second)(text=text, hint=answers[0].label))
        return asyncio.run(self.second.acall(text=text, hint=asynchronous.label))

def build():
    return Both()
"""
    lab = make_lab(
        server.url,
        config={"program": {"args": ...}},
        files={"experiments/triage/program.py": program},
        examples=tickets(3),
    )

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    for row in rows(lab, "fake"):
        assert sorted(call["predictor"] for call in row["calls"]) == ["first", "first", "second", "second"]
        assert all(call["ttft_s"] > 0 for call in row["calls"])


def test_bad_programs_name_file_line_and_remedy(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    bad = {
        "import nothing_there\n": "nothing_there",
        "import json\nx = 1\n": "program.factory: program.py has no 'build': define it\n",
        "x = 1\ndef route(text): ...\n": "has no 'build': define it, or name what there is: route\n",
        "def build():\n    raise RuntimeError('no luck')\n": "program.py:2",
        "def build():\n    return 3\n": "not a dspy.Module",
        "def build(:\n": "not valid Python",
    }
    lab = make_lab(server.url, config={"program": {"args": ...}})
    for text, expected in bad.items():
        lab.program.write_text(text)
        done = cli_inside("run-one", "-c", lab.config, "model=fake", cwd=lab.root)
        assert done.code == 2, done.err
        assert expected in done.err
        assert "program.py" in done.err
        assert "Traceback" not in done.err
    assert not server.requests


def test_run_one_selects_by_coordinates(lab: Laboratory, server: FakeServer, cli_inside: Cli) -> None:
    assert cli_inside("run-one", "-c", lab.config, "program.style=cot", cwd=lab.root).code == 0
    assert len(rows(lab, "fake-cot")) == 8

    several = cli_inside("run-one", "-c", lab.config, "model=fake", cwd=lab.root)
    nothing = cli_inside("run-one", "-c", lab.config, "model=nobody", cwd=lab.root)

    assert several.code == nothing.code == 2
    assert "program.style=predict" in several.err
    assert "program.style=predict" in nothing.err


def test_it_works_from_a_subfolder_and_finds_the_only_experiment(lab: Laboratory, cli_inside: Cli) -> None:
    assert cli_inside("run", cwd=lab.folder).code == 0
    for folder in (lab.root, lab.root / "experiments", lab.root / "schema", lab.folder / "results" / "fake"):
        folder.mkdir(exist_ok=True)
        assert "nothing to do" in cli_inside("run", cwd=folder).out
    validated = cli_inside("validate", cwd=lab.root / "experiments")
    assert validated.out.startswith(f"{lab.folder.name}/experiment.yaml: valid")


def test_several_experiments_are_listed_from_any_folder(lab: Laboratory, cli_inside: Cli) -> None:
    other = lab.folder.parent / "other"
    shutil.copytree(lab.folder, other)
    (below := other / "data").mkdir()
    schema = lab.root / "schema"
    schema.mkdir(exist_ok=True)
    refused = cli_inside("validate", cwd=schema)
    assert refused.code == 2
    listed = f"../experiments/other/experiment.yaml, ../experiments/{lab.folder.name}/experiment.yaml"
    assert f"there are several experiments: {listed}: name one of them" in refused.err
    assert cli_inside("validate", cwd=below).out.startswith("../experiment.yaml: valid")


def test_an_experiment_of_another_repository_around_is_none_here(lab: Laboratory, cli_inside: Cli) -> None:
    (lab.root / "inner" / ".git").mkdir(parents=True)
    refused = cli_inside("run", cwd=lab.root / "inner")
    assert refused.code == 2
    assert "there is no experiment here: make one with `dspylab init`" in refused.err


@pytest.mark.parametrize("state", ["no git", "no dvc"])
def test_without_a_repository_the_mending_command_is_named(
    tmp_path: Path, server: FakeServer, cli_inside: Cli, state: str
) -> None:
    lab = experiment(tmp_path, server_url=server.url)
    if state == "no dvc":
        lab.init_git()

    done = cli_inside("run", "-c", lab.config, cwd=lab.root)

    assert done.code == 3, done.err
    assert ("git init" if state == "no git" else "dvc init") in done.err
    assert not server.requests


def test_json_events_are_json(lab: Laboratory, cli_inside: Cli) -> None:
    done = cli_inside("run", "--json", "-c", lab.config, cwd=lab.root)
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in events].count("example_finished") == 16
    assert [event["event"] for event in events].count("run_ended") == 2

    # Whoever follows hears why nothing else comes.
    (event,) = map(json.loads, cli_inside("run", "--json", "-c", lab.config, cwd=lab.root).out.splitlines())
    assert (event["event"], event["runs"]) == ("nothing_to_do", ["fake-predict", "fake-cot"])


PRINTING = """
import ctypes, os, subprocess, sys
import dspy

print("imported")

class Loud(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("text -> label")

    def forward(self, text):
        print("printed")
        print("kept", file=sys.__stdout__)
        os.write(1, b"written\\n")
        subprocess.run(["echo", "child"], check=True)
        ctypes.CDLL(None).puts(b"from C")
        return self.answer(text=text)

def build():
    return Loud()
"""


def test_json_events_are_alone_on_standard_output_whatever_the_program_prints(
    server: FakeServer, make_lab: MakeLab, cli: Cli
) -> None:
    lab = make_lab(
        server.url, config={"program": {"args": ...}}, files={"experiments/triage/program.py": PRINTING}
    )
    done = cli("run", "--json", "-c", lab.config, cwd=lab.root)
    assert done.code == 0, done.err
    events = [json.loads(line)["event"] for line in done.out.splitlines()]
    assert events == ["run_begun", *["example_finished"] * 8, "run_ended"]
    assert all(done.err.count(text) == 8 for text in ("printed", "kept", "written", "child", "from C"))
    assert "imported" in done.err
