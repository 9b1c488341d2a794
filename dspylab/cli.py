"""The command line: parse, dispatch, and turn errors into exit codes. Commands live in `commands/`."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

import dspylab
from dspylab.errors import DspylabError, EnvironmentProblem, Interrupted, RunsIncomplete, UsageError
from dspylab.redact import RedactingFormatter, redact
from dspylab.report.numbers import printable

app = typer.Typer(
    name="dspylab",
    help="Run a matrix of DSPy programs, models and optimizers as a DVC pipeline, and compare the results.",
    epilog="Start with: dspylab run -c experiments/triage/experiment.yaml",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Experiment file. Default: the only one in this folder or under experiments/.",
        show_default=False,
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log what happens, and show tracebacks of bugs.")
]
Coordinates = Annotated[
    list[str] | None,
    typer.Argument(
        help="The run's coordinates, such as model=smollm2 program.style=cot.", show_default=False
    ),
]


def _example(text: str) -> str:
    return f"Example: {text}"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dspylab {dspylab.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Options of the command line itself."""
    try:
        Path.cwd()
    except OSError as error:
        raise EnvironmentProblem(
            f"the working folder is gone: {error.strerror}", remedy="go to one that is there: cd"
        ) from error


@app.command(epilog=_example("dspylab run -c experiments/triage/experiment.yaml"))
def run(
    config: Config = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Execute every run anew, also those that are done.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the results.")] = False,
    json_events: Annotated[bool, typer.Option("--json", help="Print events as JSON lines instead.")] = False,
    verbose: Verbose = False,
) -> None:
    """Execute what is missing or stale of the whole matrix, all runs together, and record it with DVC."""
    from dspylab.commands.run import run_experiment

    _log(verbose)
    run_experiment(config, fresh=fresh, quiet=quiet, json_events=json_events)


@app.command(
    "run-one",
    epilog=_example("dspylab run-one -c experiments/triage/experiment.yaml model=smollm2 program.style=cot"),
)
def run_one(
    coordinates: Coordinates = None,
    config: Config = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Call every example again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    verbose: Verbose = False,
) -> None:
    """Execute one run. This is the command of each DVC stage; it touches neither git nor DVC."""
    from dspylab.commands.run_one import run_one_run

    _log(verbose)
    run_one_run(config, coordinates or [], fresh=fresh, quiet=quiet)


@app.command(
    "compile-one",
    epilog=_example("dspylab compile-one -c experiments/triage/experiment.yaml optimizer=fewshot"),
)
def compile_one(
    coordinates: Coordinates = None,
    config: Config = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compile again, and call everything again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    verbose: Verbose = False,
) -> None:
    """Compile one program, unless it stands. This is the command of each DVC stage that compiles."""
    from dspylab.commands.compile_one import compile_one_program

    _log(verbose)
    compile_one_program(config, coordinates or [], fresh=fresh, quiet=quiet)


@app.command(
    "diff-program",
    epilog=_example("dspylab diff-program none fewshot-smollm2 -c experiments/triage/experiment.yaml"),
)
def diff_program(
    first: Annotated[str, typer.Argument(help="A program or run; none for the program as it is built.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Show what an optimizer changed: instructions and demonstrations of two programs, line by line."""
    from dspylab.commands.programs import diff_programs

    _log(verbose)
    diff_programs(config, first, second)


@app.command(epilog=_example("dspylab plan -c experiments/triage/experiment.yaml"))
def plan(
    config: Config = None,
    pilot: Annotated[
        int | None,
        typer.Option(
            "--pilot",
            min=2,
            help="Execute K examples of each run, keep them, and say what the rest will take.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Show the runs and which are done, stale or half done. Changes nothing, unless there is a pilot."""
    from dspylab.commands.plan import show_plan

    _log(verbose)
    show_plan(config, pilot)


@app.command(epilog=_example("dspylab validate -c experiments/triage/experiment.yaml"))
def validate(config: Config = None, verbose: Verbose = False) -> None:
    """Check an experiment file and report everything that is wrong with it. Changes nothing."""
    from dspylab.commands.validate import validate_experiment

    _log(verbose)
    validate_experiment(config)


@app.command(epilog=_example("dspylab sync && dvc repro"))
def sync(config: Config = None, verbose: Verbose = False) -> None:
    """Write the experiment's stages into dvc.yaml, so that plain `dvc repro` and `dvc exp run` work."""
    from dspylab.commands.sync import sync_experiment

    _log(verbose)
    sync_experiment(config)


@app.command(epilog=_example("dspylab aggregate -c experiments/triage/experiment.yaml"))
def aggregate(config: Config = None, verbose: Verbose = False) -> None:
    """Build summary.json and metrics.json from the results that are there. Calls no model."""
    from dspylab.commands.aggregate import aggregate_experiment

    _log(verbose)
    aggregate_experiment(config)


@app.command(epilog=_example("dspylab doctor -c experiments/triage/experiment.yaml --call"))
def doctor(
    config: Config = None,
    call: Annotated[
        bool, typer.Option("--call", help="Call each model for a few tokens, which may cost a little.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Look at everything that an experiment needs, from Python to the endpoints, and say what to do."""
    from dspylab.commands.doctor import diagnose

    _log(verbose)
    diagnose(config, call=call)


@app.command(epilog=_example("dspylab schema experiment > experiment.schema.json"))
def schema(
    name: Annotated[
        str | None, typer.Argument(help="experiment, raw, run or summary; all of them with --output.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write all schemas to.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of a file that dspylab reads or writes, or write all of them to a folder."""
    from dspylab.commands.schema import print_or_write_schemas

    print_or_write_schemas(name, output)


def _log(verbose: bool) -> None:
    """Logs of our own at --verbose; those of libraries only when they warn."""
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING if verbose else logging.ERROR, handlers=[handler], force=True)
    logging.getLogger("dspylab").setLevel(logging.DEBUG if verbose else logging.WARNING)


def main() -> None:
    """The console script: run the command, print its error, exit with its code."""
    # Until the first call there is nothing to wait for: SIGTERM ends the process as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _make_streams_safe()
    code = execute_command_line()
    if code == Interrupted.exit_code:
        # Calls in flight sit in threads that Python would wait for; what finished is on disk already.
        os._exit(code)
    sys.exit(code)


#: typer has a click of its own, which it does not export as a whole.
_CommandLineError = typer.BadParameter.__mro__[2]
#: Commands whose output says how far they are: a reader that goes away ends them before they are complete.
_LONG_COMMANDS = frozenset({"run", "run-one", "compile-one"})
_BROKEN = 70


def execute_command_line() -> int:
    """Runs the command that `sys.argv` names, prints its error, and returns the exit code."""
    try:
        result = app(standalone_mode=False)
        sys.stdout.flush()
    except DspylabError as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        result = Interrupted.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough, such as `head`.
        _discard_output()
        return RunsIncomplete.exit_code if _LONG_COMMANDS.intersection(sys.argv[1:2]) else 0
    except Exception as error:  # noqa: BLE001 - a bug of ours must not end in a traceback either
        if isinstance(error, _CommandLineError):
            error.show()  # type: ignore[attr-defined]  # mypy does not see which class this is
            return UsageError.exit_code
        if "--verbose" in sys.argv or "-v" in sys.argv:
            _say(traceback.format_exc())
        if isinstance(error, OSError):
            _say(f"{error.filename or 'output'}: {error.strerror}: mend it; what was finished is kept")
            _discard_output()
            return EnvironmentProblem.exit_code
        _say(
            f"dspylab has a bug: {type(error).__name__}: {error}: please report it with the output of "
            "the same command and --verbose; finished examples are kept"
        )
        return _BROKEN
    if result == Interrupted.exit_code:
        # By ourselves or by typer, which turns Ctrl-C into this code.
        _say("interrupted: what was finished is kept: run the same command again to go on")
    return result if isinstance(result, int) else 0


def _make_streams_safe() -> None:
    """A closed stream swallows what is printed; one that is not UTF-8 shows a `?` for what it has not."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open to the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_output() -> None:
    """Keeps Python from trying once more, at its end, to write what could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    """Prints to stderr, without secrets and without anything that a terminal would obey."""
    typer.echo("\n".join(printable(line) for line in redact(text).split("\n")), err=True)


if __name__ == "__main__":
    main()
