"""The command line: every command with its options. What a command does is in `commands/`."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import dspylab
from dspylab.commands.process import exit_code_of, run_process
from dspylab.errors import EnvironmentProblem, UsageError
from dspylab.levels import NOTE
from dspylab.redact import RedactingFormatter

app = typer.Typer(
    name="dspylab",
    help="Run a matrix of DSPy programs, models and optimizers as a DVC pipeline, and compare the results.",
    epilog="Start with: dspylab init lab && cd lab && dspylab run",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _complete_config(incomplete: str) -> list[str]:
    from dspylab.commands.completion import experiment_files

    return experiment_files(incomplete)


def _complete_coordinates(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    from dspylab.commands.completion import coordinates

    return coordinates(ctx.params.get("config"), [*args, *(ctx.params.get("coordinates") or ())], incomplete)


Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Experiment file. Default: the only one in this folder or under experiments/.",
        show_default=False,
        autocompletion=_complete_config,
    ),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log what happens, and show tracebacks of bugs.")
]
ResultFormat = Literal["table", "md", "csv", "json"]
ComparisonFormat = Literal["table", "md", "json"]
PlanFormat = Literal["table", "json"]
CheckFormat = Literal["text", "json"]
Coordinates = Annotated[
    list[str] | None,
    typer.Argument(
        help="The run's coordinates, such as model=smollm2 program.style=cot.",
        show_default=False,
        autocompletion=_complete_coordinates,
    ),
]


def _example(*commands: str) -> str:
    """What stands below a command's help. The control character keeps the lines apart."""
    if len(commands) == 1:
        return f"Example: {commands[0]}"
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


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


@app.command(
    epilog=_example(
        "dspylab init lab && cd lab && dspylab run   # an example, on a model that needs no key",
        "dspylab init --from program.py              # a first experiment for a program of yours",
    )
)
def init(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the laboratory; made if need be.")
    ] = Path(),
    program: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Python file with your program: write a first experiment for it. It is imported.",
            show_default=False,
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Make a laboratory to work in. Git, DVC and an example; adds what is missing, overwrites nothing."""
    from dspylab.commands.init import init_laboratory

    _log(verbose)
    init_laboratory(folder, program)


@app.command(
    epilog=_example(
        "dspylab run                                            # the only experiment here",
        "dspylab run -c experiments/triage/experiment.yaml      # this one of several",
        "dspylab run --fresh                                    # call every model again",
        "dspylab run --json | jq -r 'select(.error) | .error'   # follow it with a program",
    )
)
def run(
    config: Config = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Execute every run anew, also those that are done.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the results.")] = False,
    json_events: Annotated[bool, typer.Option("--json", help="Print events as JSON lines instead.")] = False,
    *,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask",
            metavar="ADDRESS",
            help="Execute examples on a Dask cluster: tcp://host:8786, or local:4 for 4 processes here.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Execute what is missing or stale. All runs of the matrix go together and are recorded with DVC.

    Finished examples are kept, whatever happens: run the same command again to go on.
    """
    from dspylab.commands.run import run_experiment

    _log(verbose)
    run_experiment(config, fresh=fresh, quiet=quiet, json_events=json_events, dask=dask)


@app.command(
    "run-one",
    epilog=_example(
        "dspylab run-one model=smollm2 program.style=cot",
        "dspylab run-one program.style=cot               # enough, if there is one model",
    ),
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
    epilog=_example("dspylab diff-program none search-smollm2-zero_shot"),
)
def diff_program(
    first: Annotated[str, typer.Argument(help="A program or run; none for the program as it is built.")],
    second: Annotated[str, typer.Argument(help="The other one.")],
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Show what an optimizer changed. Instructions and demonstrations, line by line."""
    from dspylab.commands.programs import diff_programs

    _log(verbose)
    diff_programs(config, first, second)


@app.command(
    epilog=_example(
        "dspylab plan             # what would be executed, and why",
        "dspylab plan --pilot 5   # 5 examples of each run: what will the rest cost?",
    )
)
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
    output_format: Annotated[PlanFormat, typer.Option("--format", "-f", help="How to print it.")] = "table",
    verbose: Verbose = False,
) -> None:
    """Show the runs and which are done, stale or half done. Changes nothing, unless there is a pilot."""
    from dspylab.commands.plan import show_plan

    _log(verbose)
    show_plan(config, pilot, output_format)


@app.command(epilog=_example("dspylab validate -c experiments/triage/experiment.yaml"))
def validate(config: Config = None, verbose: Verbose = False) -> None:
    """Check an experiment file. Everything that is wrong is told at once; nothing is changed."""
    from dspylab.commands.validate import validate_experiment

    _log(verbose)
    validate_experiment(config)


@app.command(epilog=_example("dspylab sync && dvc repro"))
def sync(config: Config = None, verbose: Verbose = False) -> None:
    """Write the stages into dvc.yaml. Then plain `dvc repro` and `dvc exp run` work."""
    from dspylab.commands.sync import sync_experiment

    _log(verbose)
    sync_experiment(config)


@app.command(epilog=_example("dspylab aggregate -c experiments/triage/experiment.yaml"))
def aggregate(config: Config = None, verbose: Verbose = False) -> None:
    """Build summary.json from the results. Also metrics.json; calls no model."""
    from dspylab.commands.aggregate import aggregate_experiment

    _log(verbose)
    aggregate_experiment(config)


@app.command(
    epilog=_example(
        "dspylab show                                      # the best first",
        "dspylab show model=smollm2 --sort latency_p50_s   # some of them, the fastest first",
        "dspylab show --columns run,accuracy,cost_usd --format csv",
        "dspylab show --program smollm2-zero_shot-search",
    )
)
def show(
    *,
    filters: Annotated[
        list[str] | None,
        typer.Argument(
            help="Only runs with this coordinate (axis=value) or name (with * for any text).",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="What to show, with commas: run, verdict, pareto, an axis, a metric, latency_p50_s, "
            "cost_usd …, or the address of a number in summary.json, such as ttft_s.p95.",
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", help="Column to sort by, the best first; -COLUMN: the worst first."),
    ] = None,
    output_format: Annotated[ResultFormat, typer.Option("--format", "-f", help="How to print it.")] = "table",
    program: Annotated[
        str | None,
        typer.Option(
            "--program",
            help="Show the instructions and demonstrations of a compiled program, or of a run's, instead.",
            show_default=False,
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Show the results, ranked. Marks the runs that can not be told from the best; changes nothing."""
    _log(verbose)
    if program is not None:
        from dspylab.commands.programs import show_program

        show_program(config, program)
        return
    from dspylab.commands.show import View, show_results

    view = View(filters=filters or (), columns=columns, order=sort, format=output_format)
    show_results(config, view)


@app.command(
    epilog=_example(
        "dspylab compare                                       # all against the best",
        "dspylab compare smollm2-labels-none smollm2-cot-none  # the second run against the first",
        "dspylab compare main my-exp                           # two revisions of git, or DVC experiments",
    )
)
def compare(
    *,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Two runs, or two revisions of git or DVC experiments. One run: all others against it. One "
            "revision: the workspace against it. None: all runs against the best.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    metric: Annotated[
        str | None, typer.Option("--metric", "-m", help="Default: the primary metric.", show_default=False)
    ] = None,
    flips: Annotated[
        int | None,
        typer.Option(
            "--flips",
            min=0,
            help="Most examples that flipped to show, each way. Default: 3, in Markdown 10, in JSON all.",
            show_default=False,
        ),
    ] = None,
    difference: Annotated[
        list[float] | None,
        typer.Option("--difference", min=0, help="Say how many examples it takes to see it; repeatable."),
    ] = None,
    output_format: Annotated[
        ComparisonFormat, typer.Option("--format", "-f", help="How to print it.")
    ] = "table",
    verbose: Verbose = False,
) -> None:
    """Compare runs, or the experiment at two revisions. Which is better, by how much, and is it real?"""
    from dspylab.commands.compare import Wish, compare_results

    _log(verbose)
    if names is not None and len(names) > 2:
        raise UsageError(
            "more than two names", where=" ".join(names), remedy="name two runs or two revisions"
        )
    wish = Wish(names=names or (), metric=metric, flips=flips, sizes=difference or (), format=output_format)
    compare_results(config, wish)


@app.command(
    epilog=_example(
        "dspylab report                            # report.html beside the experiment file",
        "dspylab report --format md -o report.md   # for a pull request",
    )
)
def report(
    config: Config = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write. Default: report.html beside the experiment file; Markdown is printed.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Literal["html", "md"],
        typer.Option("--format", "-f", help="html: one page that needs no network; md: for a pull request."),
    ] = "html",
    examples: Annotated[
        int, typer.Option("--examples", min=1, help="Examples in the page at most; failed ones come first.")
    ] = 5000,
    verbose: Verbose = False,
) -> None:
    """Write a report of the results. One HTML page with every example, or Markdown."""
    from dspylab.commands.report import write_report

    _log(verbose)
    write_report(config, output, form, examples)


@app.command(epilog=_example("dspylab check --junit check.xml"))
def check(
    *,
    config: Config = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Also write the result as JUnit XML.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", help="Also write it as Markdown, for a pull request.", show_default=False),
    ] = None,
    github: Annotated[
        bool | None,
        typer.Option(
            "--github/--no-github",
            help="Print annotations for GitHub. Default: only inside GitHub Actions.",
            show_default=False,
        ),
    ] = None,
    output_format: Annotated[CheckFormat, typer.Option("--format", "-f", help="How to print it.")] = "text",
    verbose: Verbose = False,
) -> None:
    """Judge the results by the checks of the file. Says why, and exits with 1 if any fails."""
    from dspylab.commands.check import check_experiment

    _log(verbose)
    check_experiment(config, junit_file=junit, markdown_file=markdown, github=github, form=output_format)


@app.command(
    epilog=_example(
        "dspylab doctor          # reads and looks; calls no model",
        "dspylab doctor --call   # also has each model answer a few tokens",
    )
)
def doctor(
    config: Config = None,
    call: Annotated[
        bool, typer.Option("--call", help="Call each model for a few tokens, which may cost a little.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Check all that an experiment needs. From Python to the endpoints, with what to do about it."""
    from dspylab.commands.doctor import diagnose

    _log(verbose)
    diagnose(config, call=call)


@app.command(
    epilog=_example(
        "dspylab schema experiment > experiment.schema.json",
        "dspylab schema --output schema                       # all of them, into a folder",
    )
)
def schema(
    name: Annotated[
        str | None,
        typer.Argument(help="experiment, raw, run, compile or summary; with --output all of them."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write all schemas to.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of a file. There is one for each that dspylab reads or writes."""
    from dspylab.commands.schema import print_or_write_schemas

    print_or_write_schemas(name, output)


def _log(verbose: bool) -> None:
    """Logs of our own at --verbose; those of libraries only when they warn."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        RedactingFormatter("%(name)s: %(message)s" if verbose else "%(sender)s: %(message)s")
    )
    level = logging.WARNING if verbose else logging.ERROR
    # A library that sets the level of its own logger would get past the one of the root.
    handler.addFilter(lambda record: record.levelno >= level or record.name.partition(".")[0] == "dspylab")
    handler.addFilter(_name_sender)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("dspylab").setLevel(logging.DEBUG if verbose else NOTE)


def _name_sender(record: logging.LogRecord) -> bool:
    """Who speaks, for people: of our own messages only how grave they are, as no user knows our modules."""
    is_ours = record.name.partition(".")[0] == "dspylab"
    gravity = "note" if record.levelno == NOTE else record.levelname.lower()
    record.sender = gravity if is_ours else record.name
    return True


def main() -> None:
    """The console script: run the command, print its error, exit with its code."""
    run_process(execute_command_line)


def execute_command_line() -> int:
    """Runs the command that `sys.argv` names, prints its error, and returns the exit code."""
    return exit_code_of(lambda: _command()(standalone_mode=False))


@functools.cache
def _command() -> Any:
    """All commands as typer reads them off their signatures: a process that calls several does that once."""
    return typer.main.get_command(app)
