"""`dspylab plan` says what `dspylab run` will do, and changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, InitRepository, MakeLab

from dspylab.testing import FakeServer, Laboratory, answer_key, experiment, tickets

ROWS = tickets(20)
FEWSHOT = {"type": "BootstrapFewShot", "params": {"max_bootstrapped_demos": 2, "max_labeled_demos": 2}}
PRICED = {"fake": {"pricing": {"input": 1.0, "output": 2.0}}}
STYLES = {"program.style": ["predict", "cot"]}
#: Of the 20 examples, 10 are tested.
SPLIT = {"split": {"train": 0.5, "seed": 7}}


def said(text: str) -> str:
    """What was printed, without the line breaks of the terminal."""
    return " ".join(text.split())


def reasons(plan: str) -> dict[str, str]:
    """Run to what the plan says of it, without the line breaks of the terminal."""
    lines = plan.splitlines()
    (start,) = (number for number, line in enumerate(lines) if line.startswith("run "))
    begins, ends = lines[start].index("reasons"), lines[start].index("model")
    found: dict[str, str] = {}
    run = ""
    for line in lines[start + 2 :]:
        if not line[begins - 2 : begins].isspace():
            break
        run = line.partition(" ")[0] or run
        found[run] = said(f"{found.get(run, '')} {line[begins:ends]}")
    return found


def files(lab: Laboratory) -> dict[Path, bytes]:
    """What lies in the repository that somebody could miss."""
    found = (path for path in lab.root.rglob("*") if path.is_file() and "tmp" not in path.parts)
    return {path: path.read_bytes() for path in found if ".git" not in path.parts and path.suffix != ".pyc"}


def add_optimizer(lab: Laboratory) -> None:
    """The axis of an optimizer, with one run that has one."""
    without = [{"program.style": "cot", "optimizer": "fewshot"}]
    lab.change(
        {
            "optimizers": {"fewshot": FEWSHOT},
            "matrix": {"optimizer": ["none", "fewshot"], "exclude": without},
        }
    )


def test_a_run_whose_program_is_to_be_compiled_takes_nobodys_answers(
    cli_inside: Cli, make_lab: MakeLab
) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        lab = make_lab(
            server.url, config={"dataset": SPLIT, "models": PRICED, "matrix": STYLES}, examples=ROWS
        )
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        assert len(server.requests) == 20
        add_optimizer(lab)
        before = files(lab)

        plan = cli_inside("plan", cwd=lab.root, COLUMNS="300")

        assert files(lab).items() >= before.items()
        kept = "never run under this name; 10 answers are kept, to be scored again"
        assert reasons(plan.out) == {
            "fake-predict-none": kept,
            "fake-predict-fewshot": "its program fewshot-fake-predict is to be compiled",
            "fake-cot-none": kept,
        }
        assert "3 runs, 3 to execute, 2 of these without calling the program" in plan.out

        pilot = cli_inside("plan", "--pilot", "2", cwd=lab.root, COLUMNS="300")
        assert pilot.code == 0, pilot.err
        assert len(server.requests) == 20
        sentence = said(pilot.out[pilot.out.index("pilot of 2") :])
        assert "The other 16 examples, 16 of them only scored again: about" in sentence
        assert sentence.endswith("not in it: 1 run whose program is to be compiled, and the compiling")
        again = cli_inside("plan", cwd=lab.root, COLUMNS="300")
        assert again.out.count("half done 2 of 10") == 2
        assert reasons(again.out)["fake-cot-none"] == (
            "never run; 2 examples are kept: `dspylab run` goes on; 8 answers are kept, to be scored again"
        )
        assert "3 to execute, 2 of these without calling the program" in again.out
        assert cli_inside("plan", "--pilot", "9", cwd=lab.root).code == 0
        assert reasons(cli_inside("plan", cwd=lab.root, COLUMNS="300").out)["fake-cot-none"] == (
            "never run; 9 examples are kept: `dspylab run` goes on; 1 answer is kept, to be scored again"
        )

        done = cli_inside("run", cwd=lab.root)
        assert done.code == 0, done.err
        compiled = server.requests[20:-10]
        assert "fake-predict-none: done" in done.out
        assert done.out.count("1 scored again without calling the program") == 2
        assert "compiled in" in done.out
        assert 0 < len(compiled) <= 4
        assert "nothing to do" in cli_inside("plan", cwd=lab.root).out


def test_what_a_run_with_other_settings_left_is_gone_on_with_not_thrown_away(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(server.url, config={"execution": {"max_concurrency": 1}}, examples=ROWS)
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    lab.change({"models": {"fake": {"temperature": 0.7}}, "budget": {"max_calls": 4}})
    assert cli_inside("run", "-q", cwd=lab.root).code == 4

    plan = cli_inside("plan", cwd=lab.root, COLUMNS="300")

    assert "half done 4 of 20" in plan.out
    expected = "models.fake.temperature changed; 4 examples are kept: `dspylab run` goes on"
    assert reasons(plan.out) == {"fake": expected}


def test_a_pilot_tells_those_that_are_called_from_those_that_are_only_scored_again(
    cli_inside: Cli, make_lab: MakeLab
) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        config = {"models": PRICED, "matrix": {"model": ["fake"]}, "dataset": {"limit": 10}}
        lab = make_lab(server.url, config=config, examples=ROWS)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        lab.change({"dataset": {"limit": ...}})
        asked = len(server.requests)

        plan = cli_inside("plan", cwd=lab.root, COLUMNS="300")
        assert "10 answers are kept, to be scored again" in plan.out
        assert "without calling" not in plan.out
        pilot = cli_inside("plan", "--pilot", "8", cwd=lab.root, COLUMNS="300")

        called = len(server.requests) - asked
        assert 1 < called < 7
        assert f"The other 12 examples, {10 - (8 - called)} of them only scored again: about" in pilot.out
        assert "not in it" not in pilot.out
        # Each of the ten new ones costs as much as those of the pilot, and the others nothing.
        assert "and $0 [" not in pilot.out
        few = cli_inside("plan", "--pilot", "8", cwd=lab.root, COLUMNS="300")
        assert len(server.requests) == asked + called
        assert few.code == 0


def test_a_run_that_a_pilot_has_finished_calls_no_program_any_more(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(server.url)
    pilot = cli_inside("plan", "--pilot", "50", cwd=lab.root)
    assert pilot.code == 0, pilot.err
    assert "The other 0 examples: about 0 ms [0 ms, 0 ms] and $0 [$0, $0]" in said(pilot.out)

    plan = cli_inside("plan", cwd=lab.root)

    assert "1 run, 1 to execute, 1 of these without calling the program" in said(plan.out)
    asked = len(server.requests)
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    assert len(server.requests) == asked


@pytest.fixture
def styles(cli_inside: Cli, make_lab: MakeLab, server: FakeServer) -> Laboratory:
    """Two runs that are done and committed, then done again with another temperature, and committed."""
    lab = make_lab(server.url, config={"matrix": STYLES})
    for temperature in (0.0, 0.5):
        lab.change({"models": {"fake": {"temperature": temperature}}})
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        lab.commit(f"temperature {temperature}")
    assert len(server.requests) == 32
    return lab


def test_a_plan_is_a_document_for_programs_that_follow(styles: Laboratory, cli_inside: Cli) -> None:
    add_optimizer(styles)
    styles.change({"dataset": SPLIT})
    done = cli_inside("plan", "--format", "json", cwd=styles.root)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert (document["experiment"], document["examples"]) == ("triage", 4)
    (program, *_) = document["programs"]
    assert (program["state"], program["runs"]) == ("missing", 1)
    runs = {run["run"]: run for run in document["runs"]}
    assert {run["step"] for run in runs.values()} == {"execute", "wait"}
    assert all(run["coordinates"]["model"] == "fake" for run in runs.values())

    refused = cli_inside("plan", "--format", "json", "--pilot", "2", cwd=styles.root)
    assert (refused.code, refused.out) == (2, "")
    assert "a pilot is no document" in refused.err


def test_results_that_the_cache_has_are_to_be_restored(
    styles: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    styles.git("checkout", "--quiet", "HEAD~1", "--", "experiments/triage/experiment.yaml")
    shutil.rmtree(styles.raw("fake-cot").parent)
    before = files(styles)

    plan = cli_inside("plan", cwd=styles.root, COLUMNS="300")
    pilot = cli_inside("plan", "--pilot", "2", cwd=styles.root, COLUMNS="300")

    assert pilot.out == plan.out
    assert plan.code == pilot.code == 0
    assert files(styles) == before
    assert reasons(plan.out) == {
        "fake-predict": "models.fake.temperature changed; DVC's cache has its results",
        "fake-cot": "models.fake.temperature changed; DVC's cache has its results",
    }
    assert "2 runs, 2 to restore from DVC's cache" in plan.out
    assert "execute" not in plan.out
    assert "2 runs restored" in cli_inside("run", cwd=styles.root).out
    assert len(server.requests) == 32


def test_a_revision_that_is_gone_back_to_is_restored_too(
    styles: Laboratory, server: FakeServer, cli_inside: Cli
) -> None:
    styles.change({"matrix": {"seed": [1]}})
    assert cli_inside("run", "-q", cwd=styles.root).code == 0
    styles.commit("a seed")
    asked = len(server.requests)
    styles.git("checkout", "--quiet", "HEAD~1")

    plan = cli_inside("plan", cwd=styles.root, COLUMNS="300")

    assert "2 runs, 2 to restore from DVC's cache" in plan.out
    assert "answers are kept" not in plan.out
    assert "2 runs restored" in cli_inside("run", cwd=styles.root).out
    assert len(server.requests) == asked


def test_what_is_nowhere_is_not_restored(styles: Laboratory, server: FakeServer, cli_inside: Cli) -> None:
    styles.git("checkout", "--quiet", "HEAD~1", "--", "experiments/triage/experiment.yaml")
    shutil.rmtree(styles.root / ".dvc" / "cache" / "files")
    plan = cli_inside("plan", cwd=styles.root, COLUMNS="300")
    assert "2 runs, 2 to execute" in plan.out
    assert "restore" not in plan.out
    assert "restored" not in cli_inside("run", cwd=styles.root).out
    assert len(server.requests) == 48


def test_results_that_are_lost_and_whose_answers_are_kept_are_not_paid_for_again(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(server.url, config={"matrix": STYLES})
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    shutil.rmtree(lab.root / ".dvc" / "cache")
    shutil.rmtree(lab.folder / "results")

    plan = cli_inside("plan", cwd=lab.root, COLUMNS="300")
    pilot = cli_inside("plan", "--pilot", "2", cwd=lab.root, COLUMNS="300")
    done = cli_inside("run", cwd=lab.root)

    assert "2 to execute, 2 of these without calling the program" in plan.out
    assert "12 of them only scored again" in pilot.out
    assert done.code == 0, done.err
    assert len(server.requests) == 16
    assert "nothing to do" in cli_inside("plan", cwd=lab.root).out


def test_of_runs_that_would_ask_the_same_the_first_one_takes_the_answers(
    server: FakeServer, cli_inside: Cli, make_lab: MakeLab
) -> None:
    entry = {"model": "openai/fake", "api_base": server.url, "api_key_env": "FAKE_API_KEY", "max_tokens": 64}
    lab = make_lab(
        server.url, config={"models": {"fake": {"temperature": ...}, "twin": entry, "third": entry}}
    )
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    lab.change({"matrix": {"model": ["twin", "third"]}})

    plan = cli_inside("plan", cwd=lab.root, COLUMNS="300")
    done = cli_inside("run", cwd=lab.root)

    twin, third = (line for line in plan.out.splitlines() if line.startswith(("twin", "third")))
    assert "8 answers are kept" in twin
    assert "answers" not in third
    assert "2 runs, 2 to execute, 1 of these without calling the program" in plan.out
    assert "fake (now twin): renamed, the answers are kept" in done.out
    assert "moved out" not in done.out
    assert done.out.count("8 scored again") == 1
    assert len(server.requests) == 16


def test_results_that_only_dvc_does_not_know_are_to_be_recorded(
    server: FakeServer, cli: Cli, cli_inside: Cli, make_lab: MakeLab
) -> None:
    lab = make_lab(server.url)
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    (lab.folder / "helper.py").write_text("WORD = 1\n")
    lab.program.write_text("import helper  # noqa: F401\n" + lab.program.read_text())
    repro = cli("repro", cwd=lab.root, program="dvc")
    assert repro.code == 0, repro.err + repro.out
    asked = len(server.requests)

    plan = cli_inside("plan", cwd=lab.root, COLUMNS="300")

    assert "to record" in plan.out
    assert "its results are those of the files as they are" in plan.out
    assert "1 run, 1 to record" in plan.out
    assert cli_inside("run", "-q", cwd=lab.root).code == 0
    assert len(server.requests) == asked
    assert "nothing to do" in cli_inside("plan", cwd=lab.root).out


def test_a_program_that_was_set_aside_is_not_to_be_compiled(cli_inside: Cli, make_lab: MakeLab) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        config: dict[str, Any] = {
            "dataset": SPLIT,
            "optimizers": {"few": {"type": "LabeledFewShot", "params": {"k": 1}}},
            "matrix": {"optimizer": ["none", "few"]},
        }
        lab = make_lab(server.url, config=config, examples=ROWS)
        for k in (1, 2):
            lab.change({"optimizers": {"few": {"params": {"k": k}}}})
            assert cli_inside("run", "-q", cwd=lab.root).code == 0
        lab.change({"optimizers": {"few": {"params": {"k": 1}}}})

        plan = cli_inside("plan", cwd=lab.root, COLUMNS="300")

        assert "its program few-fake comes back" in plan.out
        assert "1 to restore; 2 runs, 1 to restore or execute once its program is back\n" in plan.out
        nothing = cli_inside("plan", "--pilot", "2", cwd=lab.root)
        assert nothing.code == 2
        assert "no run can have a pilot" in nothing.err
        calls = len(server.requests)
        assert "1 run restored" in cli_inside("run", cwd=lab.root).out
        assert len(server.requests) == calls


def test_a_program_that_an_added_axis_renames_is_not_to_be_compiled(
    cli_inside: Cli, make_lab: MakeLab
) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        config = {
            "dataset": SPLIT,
            "optimizers": {"fewshot": FEWSHOT},
            "matrix": {"model": ["fake"], "optimizer": ["fewshot"]},
        }
        lab = make_lab(server.url, config=config, examples=ROWS)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        calls = len(server.requests)
        lab.change({"matrix": {"program.style": ["predict"]}})
        before = files(lab)

        plan = cli_inside("plan", cwd=lab.root, COLUMNS="300")

        assert files(lab) == before
        assert reasons(plan.out) == {"fake-predict-fewshot": "its program fewshot-fake-predict comes back"}
        assert "1 program, 0 to compile, 1 to restore; 1 run, 1 to restore or execute" in plan.out
        one = cli_inside("compile-one", cwd=lab.root)
        assert "fewshot-fake-predict: is compiled from what there is now: kept" in one.out + one.err
        done = cli_inside("run", cwd=lab.root)
        assert "10 scored again without calling the program" in done.out
        assert "fewshot-fake: programs that no run needs" in done.out
        assert len(server.requests) == calls


def test_a_pilot_leaves_out_runs_whose_program_comes_back(cli_inside: Cli, make_lab: MakeLab) -> None:
    with FakeServer(answer=answer_key(ROWS)) as server:
        few = {"type": "LabeledFewShot", "params": {"k": 1}}
        config = {"dataset": SPLIT, "optimizers": {"few": few}, "matrix": {"optimizer": ["none", "few"]}}
        lab = make_lab(server.url, config=config, examples=ROWS)
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        lab.change({"optimizers": {"few": {"params": {"k": 2}}}})
        assert cli_inside("run", "-q", cwd=lab.root).code == 0
        lab.change({"optimizers": {"few": {"params": {"k": 1}}}, "matrix": {**STYLES}})

        pilot = cli_inside("plan", "--pilot", "2", cwd=lab.root, COLUMNS="300")

        assert pilot.code == 0, pilot.err
        assert "1 run whose program is to be compiled, and the compiling; 1 run whose program comes back" in (
            said(pilot.out)
        )


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_factory_that_is_not_there_is_found_with_its_line(
    command: str, server: FakeServer, init_repository: InitRepository, tmp_path: Path, cli_inside: Cli
) -> None:
    lab = experiment(tmp_path, server_url=server.url, config={"program": {"factory": "biuld"}})
    init_repository(lab)

    done = cli_inside(command, cwd=lab.root)

    assert done.code == 2
    (line,) = (n for n, text in enumerate(lab.config.read_text().splitlines(), 1) if "biuld" in text)
    assert done.err.endswith(
        f"experiment.yaml:{line}: program.factory: program.py has no 'biuld': did you mean build?\n"
    )
    assert not server.requests
