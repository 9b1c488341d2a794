"""What commands say to those who guess wrong: which file, which option, which package."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, MakeLab
from packaging.requirements import Requirement

from dspylab import extras
from dspylab.cli import _log
from dspylab.config.wording import counted
from dspylab.levels import NOTE
from dspylab.places import shown_path

NO_SERVER = "http://127.0.0.1:9"


@pytest.mark.parametrize("command", ["run", "plan", "show", "compare", "validate", "run-one", "check"])
def test_an_experiment_file_belongs_behind_an_option(command: str, tmp_path: Path, cli_inside: Cli) -> None:
    (tmp_path / "experiment.yaml").write_text("name: x\n")

    done = cli_inside(command, "experiments/x/experiment.yaml", cwd=tmp_path)

    assert done.code == 2
    assert done.err.endswith("name the experiment with -c experiments/x/experiment.yaml\n")


@pytest.mark.parametrize(
    ("command", "option", "meant"),
    [
        ("show", "--json", "json"), ("compare", "--json", "json"), ("show", "--csv", "csv"),
        ("report", "--md", "md"), ("plan", "--json", "json"), ("check", "--json", "json"),
        ("run", "--csv", None), ("show", "--f", None), ("show", "-j", None),
    ],
)  # fmt: skip
def test_a_format_as_an_option_is_told_how_to_write_it(
    command: str, option: str, meant: str | None, tmp_path: Path, cli_inside: Cli
) -> None:
    done = cli_inside(command, option, cwd=tmp_path)
    assert done.code == 2
    last = done.err.splitlines()[-1]
    assert (
        last.startswith(f"Error: No such option: {option}")
        if meant is None
        else last == f"write --format {meant}"
    )


def test_other_arguments_too_many_are_no_files(tmp_path: Path, cli_inside: Cli) -> None:
    done = cli_inside("run", "model=small", cwd=tmp_path)

    assert done.code == 2
    assert "Got unexpected extra argument" in done.err
    assert "-c" not in done.err


def test_paths_are_shown_without_detours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments" / "x").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "experiments" / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    monkeypatch.chdir(tmp_path)

    assert shown_path(tmp_path / "experiments/x/../../reviews.csv") == "reviews.csv"
    assert shown_path(tmp_path / "experiments/link/../rows.csv") == "experiments/link/../rows.csv"
    assert shown_path(tmp_path / "../other.csv") == str(tmp_path.parent / "other.csv")


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dspylab[dask]` would be looked for where dspylab may not be published."""
    command = extras.install_command("report")
    assert command.startswith("pip install 'altair>=")
    names = [Requirement(word.strip("'")).name for word in command.split()[2:]]
    assert names == ["altair", "vl-convert-python"]
    for extra in ("all", "dask", "local", "optuna", "parquet", "text"):
        assert "dspylab" not in extras.install_command(extra)
        assert "'" in extras.install_command(extra)


def test_a_warning_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    root, own = logging.getLogger(), logging.getLogger("dspylab")
    handlers, levels = root.handlers[:], (root.level, own.level)
    try:
        _log(verbose=False)
        logging.getLogger("dspylab.execute.fit").warning("look here")
        logging.getLogger("dspylab.lm.gguf").log(NOTE, "fetching a model")
        logging.getLogger("dspylab.lm.gguf").info("not asked for")
        logging.getLogger("somebody.else").log(NOTE, "nor this")
        logging.getLogger("somebody.else").error("and there")
        told = "warning: look here\nnote: fetching a model\nsomebody.else: and there\n"
        assert capsys.readouterr().err == told
        _log(verbose=True)
        logging.getLogger("dspylab.execute.fit").warning("look here")
        assert capsys.readouterr().err == "dspylab.execute.fit: look here\n"
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])


def test_one_of_a_thing_is_no_plural(cli_inside: Cli, make_lab: MakeLab) -> None:
    assert [counted(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]

    done = cli_inside("plan", cwd=make_lab(NO_SERVER).root)

    assert "1 run, 1 to execute" in done.out + done.err


def test_a_metric_that_is_misspelt_is_looked_for_among_metrics(cli_inside: Cli, make_lab: MakeLab) -> None:
    metrics = {"own": {"type": "path", "ref": "own.py:sentimental"}}
    code = "class Sentiment:\n    pass\ndef sentiment_metric(example, pred, trace=None):\n    return 1\n"
    lab = make_lab(NO_SERVER, config={"metrics": metrics}, files={"experiments/triage/own.py": code})

    done = cli_inside("plan", cwd=lab.root)

    assert done.code == 2
    assert "metrics.own.ref: own.py has no 'sentimental': did you mean sentiment_metric?" in done.err


def test_a_label_that_is_misspelt_is_found(cli_inside: Cli, make_lab: MakeLab) -> None:
    lab = make_lab(NO_SERVER, config={"metrics": {"accuracy": {"type": "exact_match", "field": "lable"}}})

    done = cli_inside("plan", cwd=lab.root)

    assert "metrics.accuracy.field: no test example has 'lable': did you mean label?" in done.err


def test_a_script_is_told_how_to_be_imported(tmp_path: Path, cli_inside: Cli) -> None:
    (tmp_path / "qa.py").write_text("raise RuntimeError('Set OPENAI_API_KEY')\n")

    done = cli_inside("init", "--from", "qa.py", cwd=tmp_path)

    assert done.code == 2
    assert 'what it does as a script belongs below `if __name__ == "__main__":`' in done.err


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ({}, "4 runs over model (1), program.style (2), seed (2)"),
        (
            {"exclude": [{"program.style": "cot", "seed": 1}]},
            "3 runs over model (1), program.style (2), seed (2); 1 excluded",
        ),
        (
            {"exclude": [{"seed": 1}], "include": [{"program.style": "cot", "seed": 7}]},
            "3 runs over model (1), program.style (2), seed (2); 2 excluded; 1 included",
        ),
    ],
)
def test_validate_says_what_makes_the_number_of_runs(
    matrix: dict[str, Any], said: str, make_lab: MakeLab, cli_inside: Cli
) -> None:
    axes = {"model": ["fake"], "program.style": ["predict", "cot"], "seed": [0, 1]}
    lab = make_lab(NO_SERVER, config={"matrix": {**axes, **matrix}})

    done = cli_inside("validate", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert done.out.endswith(f": valid: triage: {said}\n")


def test_what_compile_model_makes_no_difference_to_was_not_excluded(
    make_lab: MakeLab, cli_inside: Cli
) -> None:
    matrix = {"model": ["fake"], "compile_model": ["fake", "other"], "optimizer": ["none", "few"]}
    lab = make_lab(NO_SERVER, config={"dataset": {"split": {"train": 0.5}}})
    other = {**lab.read()["models"]["fake"], "model": "openai/other"}
    lab.change(
        {"models": {"other": other}, "optimizers": {"few": {"type": "LabeledFewShot"}}, "matrix": matrix}
    )

    done = cli_inside("validate", "-c", lab.config, cwd=lab.root)

    assert done.code == 0, done.err
    assert done.out.endswith("3 runs over model (1), compile_model (2), optimizer (2)\n")
