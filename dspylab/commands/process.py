"""The process around a command: its streams, its signals, and the exit code that it ends with."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import typer

from dspylab.errors import DspylabError, EnvironmentProblem, Interrupted, UsageError
from dspylab.printable import printable
from dspylab.redact import redact
from dspylab.streams import make_streams_safe

#: typer has a click of its own, which it does not export as a whole.
_CommandLineError = typer.BadParameter.__mro__[2]
#: Commands that call models: a reader of their output that goes away stops no work that is paid for.
_LONG_COMMANDS = frozenset({"run", "run-one", "compile-one"})
_BROKEN = 70


def run_process(execute: Callable[[], int]) -> NoReturn:
    """Lets this process be a command: it obeys SIGTERM, survives its reader and ends with an exit code.

    Args:
        execute: Runs the command and returns its exit code.
    """
    # Until the first call there is nothing to wait for: SIGTERM ends the process as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    make_streams_safe(_go_on_unread)
    code = execute()
    if code:
        # Calls in flight sit in threads that Python would wait for; what finished is on disk already.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def exit_code_of(command: Callable[[], Any]) -> int:
    """Calls a command, prints its error if it raises one, and returns the exit code.

    Args:
        command: Typer's application without its own way to end: it returns an exit code or nothing.
    """
    try:
        result = command()
        sys.stdout.flush()
    except DspylabError as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        result = Interrupted.exit_code
    except Exception as error:  # noqa: BLE001 - a bug of ours must not end in a traceback either
        if isinstance(error, _CommandLineError):
            error.show()  # type: ignore[attr-defined]  # mypy does not see which class this is
            for hint in _hints(error):
                _say(hint)
            return UsageError.exit_code
        if "--verbose" in sys.argv or "-v" in sys.argv:
            _say(traceback.format_exc())
        if isinstance(error, OSError) and error.strerror:  # without it, nothing of the machine's
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


def _hints(error: Exception) -> Iterator[str]:
    """What to write instead of a bare file name, and of `--json` where the command has `--format json`."""
    for name in sys.argv[2:]:
        if name.endswith((".yaml", ".yml")) and f"({name}" in str(error):
            yield f"name the experiment with -c {name}"
    meant = str(getattr(error, "option_name", "")).removeprefix("--")
    context = getattr(error, "ctx", None)
    for option in context.command.params if context is not None else ():
        # Of what click offers, only the help says which values there are, whatever the version of typer.
        _, _, takes = str((option.get_help_record(context) or [""])[0]).partition("--format")
        if meant in re.findall(r"\w+", takes):
            yield f"write --format {meant}"


def _go_on_unread() -> None:
    """Whoever read our output has seen enough, such as `head`; a run that is under way goes on."""
    if _LONG_COMMANDS.intersection(sys.argv[1:2]):
        _say("nobody reads the output any more: going on without it; Ctrl-C stops")


def _discard_output() -> None:
    """Keeps Python from trying once more, at its end, to write what could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    """Prints to stderr, without secrets and without anything that a terminal would obey."""
    typer.echo("\n".join(printable(line) for line in redact(text).split("\n")), err=True)
