"""What a Dask worker is asked to do. Light to import: Dask's scheduler imports this module, too.

Everything that travels is plain data. Keys never do: a worker reads them from its own environment.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspylab.errors import DspylabError, EnvironmentProblem
from dspylab.execute.parcel import unpack
from dspylab.execute.turns import Turns
from dspylab.lm import local

if TYPE_CHECKING:
    from dspylab.execute.session import Session

#: A session of which nothing was asked for so long belongs to a client that is gone.
_FORGOTTEN_S = 600.0
#: What must be the same everywhere, or results would depend on where an example was executed.
_DECISIVE = ("dspylab", "dspy")
#: How much of an unforeseen error a worker sends back, in characters.
_MAX_TRACE = 4000

_sessions: dict[str, Session] = {}
_opening = threading.Lock()
#: One code at a time is executed: Python finds modules by their name alone, and in two experiments the same
#: name may stand for two modules.
_turns = Turns()
#: All code is imported and all programs are built on one thread: DSPy lets no second one configure it.
_builder = ThreadPoolExecutor(1, thread_name_prefix="dspylab-build")


def decisive_versions() -> dict[str, str]:
    """Versions here of what must be the same everywhere; of Python, the first two numbers."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"Python": python, **{name: importlib.metadata.version(name) for name in _DECISIVE}}


def settle(position: int, processes: int) -> None:
    """Makes this process one of several on a machine that belong to one command.

    Where the system can, each has cores of its own. The threads of a process hand Python's lock on to each
    other, and where the core of the next one is busy with another process, all of them wait: two processes
    of 32 threads that compute leave a fifth of two cores unused without it.

    Args:
        position: Which of them it is, from 0.
        processes: How many there are.
    """
    # A terminal sends Ctrl-C to all of them: what they have in flight is to come back first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        if processes <= len(cores):
            os.sched_setaffinity(0, cores[position::processes])


async def prepare(settings: Mapping[str, Any], archive: bytes, dask_worker: Any) -> dict[str, Any] | None:
    """Opens a session: unpacks the code, builds the models with the keys of this machine.

    Args:
        settings: `session`, an id; `digest` of the archive, and `config`, the experiment file in it; `runs`,
            keys of the runs that are to be executed; `versions` as `decisive_versions` has them there;
            `search`, folders that modules are imported from there, relative to the root of the repository;
            `endpoints`, where the models are called whose endpoint only the environment names.
        archive: The code.
        dask_worker: Filled in by Dask.

    Returns:
        What is wrong, as `problem_of` takes it; None when the worker is ready.
    """
    place = Path(dask_worker.local_directory) / f"dspylab-{settings['digest']}"
    # On a thread: importing dspy takes seconds, in which the worker must go on answering the scheduler.
    return await asyncio.to_thread(_prepare, settings, archive, place)


def _prepare(settings: Mapping[str, Any], archive: bytes, place: Path) -> dict[str, Any] | None:
    try:
        here, there = decisive_versions(), settings["versions"]
        if here != there:
            return problem_to_json(_other_versions(here, there))
        unpack(archive, place)
        _drop_forgotten()
        with _turns.of(str(place)), _opening:
            if settings["session"] not in _sessions:
                _sessions[settings["session"]] = _builder.submit(_open, settings, place).result()
    except BaseException as error:  # noqa: BLE001 - an exception might not be readable where it arrives
        return problem_to_json(error)
    return None


def _open(settings: Mapping[str, Any], place: Path) -> Session:
    # It imports dspy.
    from dspylab.execute.session import Session

    same = [session.code for session in list(_sessions.values()) if session.place == place]
    return Session(settings, place, _builder, same[0] if same else None)


async def check(session: str) -> dict[str, Any]:
    """Builds the programs of a session's runs, and compares them with what the experiment says of them.

    Args:
        session: Id of the session.

    Returns:
        `mismatches`, each as the values of a `dspylab.execute.fit.Mismatch`; or `problem`.
    """
    # On a thread, as `prepare`: it may have to wait for its turn.
    return await asyncio.to_thread(_check, session)


def _check(session: str) -> dict[str, Any]:
    try:
        opened = _sessions[session]
        with _turns.of(str(opened.place)):
            return {"mismatches": opened.mismatches()}
    except BaseException as error:  # noqa: BLE001 - an exception might not be readable where it arrives
        return {"problem": problem_to_json(error)}


def share(session: str, part: Mapping[str, Any]) -> None:
    """Sets what part of the limits is this worker's.

    Args:
        session: Id of the session.
        part: `total`, its examples in flight at once, and `models`: model id to calls at once, requests per
            minute and tokens per minute.
    """
    if session in _sessions:
        _sessions[session].share(part["models"], part["total"])


def stop(session: str) -> None:
    """Lets no further call of a session start."""
    if session in _sessions:
        _sessions[session].stop()


def end(session: str, run: str) -> None:
    """Lets no further example of a run begin; what is in flight does not try again."""
    if session in _sessions:
        _sessions[session].end(run)


def close(session: str) -> None:
    """Ends a session."""
    closing = _sessions.pop(session, None)
    if closing is not None:
        # Not awaited: connections may take their time, and nobody waits for this.
        threading.Thread(target=_close, args=(closing,), daemon=True).start()


def _close(closing: Session) -> None:
    closing.close()
    with _opening:
        if not _sessions:
            # All sessions share the embedded models of a process.
            local.close_all()


def execute_chunk(chunk: str) -> str:
    """Executes examples of a run. The only function that becomes tasks of Dask.

    Args:
        chunk: JSON: `session`, its id; `run`, its key; `program`, the compiled program's file or null;
            `todos`, the examples; `lent`, what they may spend.

    Returns:
        JSON: `outcomes`, what became of each; `refusal`, why a model refuses every call, or null; `spent`;
        `took_s`.
        Or `problem` alone; or `unprepared` alone, the worker's address, when it has no such session.
    """
    # An exception is not raised: it might be one that cannot be read where it arrives.
    try:
        asked = json.loads(chunk)
        session = _sessions.get(asked["session"])
        if session is None:
            from distributed import get_worker

            return json.dumps({"unprepared": get_worker().address})
        with session.in_use(), _turns.of(str(session.place)):
            return json.dumps(session.execute(asked))
    except BaseException as error:  # noqa: BLE001
        return json.dumps({"problem": problem_to_json(error)})


def problem_to_json(error: BaseException) -> dict[str, Any]:
    """What is wrong, as plain data."""
    if isinstance(error, DspylabError):
        remedy = error.remedy
        if isinstance(error.__cause__, FileNotFoundError):
            remedy = f"{remedy}; files that the code reads are sent to workers if program.files names them"
        return {
            "kind": type(error).__name__,
            "message": error.message,
            "where": error.where,
            "remedy": remedy,
        }
    trace = "".join(traceback.format_exception(error))[-_MAX_TRACE:]
    return {
        "kind": type(error).__name__,
        "message": f"{error}",
        "where": None,
        "remedy": None,
        "trace": trace,
    }


def _other_versions(here: Mapping[str, str], there: Mapping[str, str]) -> DspylabError:
    others = [f"{name} {here[name]} instead of {there[name]}" for name in there if here[name] != there[name]]
    return EnvironmentProblem(
        f"has {', '.join(others)}", remedy="install the same versions on every worker: results depend on them"
    )


def _drop_forgotten() -> None:
    now = time.monotonic()
    for name, session in list(_sessions.items()):
        if session.idle_since is not None and now - session.idle_since > _FORGOTTEN_S:
            close(name)
