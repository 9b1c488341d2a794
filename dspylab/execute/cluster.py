"""Execute examples on a Dask cluster: one that the user has, or worker processes on this machine."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from dspylab.errors import EnvironmentProblem
from dspylab.execute import worker
from dspylab.execute.compile_jobs import has_frame
from dspylab.execute.dispatch import DaskRun, Dispatcher
from dspylab.execute.fit import Mismatch, located, refuse
from dspylab.execute.jobs import models_of_runs
from dspylab.execute.parcel import pack
from dspylab.execute.roster import Roster, lost, problem_of
from dspylab.extras import install_command
from dspylab.laboratory import Laboratory
from dspylab.lm.budget import Ledger
from dspylab.lm.build import width_of
from dspylab.records import RunSpec

logger = logging.getLogger(__name__)

#: Chunks that a worker process on this machine executes at once; its examples are bounded otherwise.
_THREADS = 4
#: How long a scheduler may take to answer, and a first worker to join.
_CONNECTING_S = 10.0
_JOINING_S = 600.0
#: How long the end of a session may take.
_GOODBYE_S = 5.0
#: Examples that are on their way for each that may be executed, so that no worker waits for the next ones.
_AHEAD = 1.5
#: Examples of a chunk: what is lost with a worker. More where they take no time, so that little is spent on
#: sending them: as long as a chunk is done in the first of these times, fewer once it takes the second.
_CHUNK, _LARGEST_CHUNK = 32, 512
_SHORT_S, _LONG_S = 0.5, 2.0
#: What a worker process on this machine does first, as Dask reads it: text, or the name of a module.
_PRELOAD = """
from dspylab.execute.worker import settle

def dask_setup(dask_worker):
    settle(int(dask_worker.name), {processes})
"""


class Cluster:
    """Workers that are processes of a Dask cluster. Use as a context manager.

    Args:
        laboratory: The experiment.
        specs: Runs that are to be executed.
        address: Of its scheduler, or the path of its scheduler file; or `local:N` for N processes here.
        ledger: The budget.
    """

    def __init__(
        self, laboratory: Laboratory, specs: Sequence[RunSpec], address: str, ledger: Ledger
    ) -> None:
        self._laboratory = laboratory
        self._specs = specs
        self._address = address
        self._ledger = ledger
        self._session = uuid4().hex
        self._growth: dict[str, int] = {}
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Connects, and makes the workers ready.

        Raises:
            EnvironmentProblem: If the cluster can not be reached or used.
            DspylabError: What a worker says is wrong with the code or the machine, or that the programs do
                not fit the experiment.
        """
        with contextlib.ExitStack() as opened:
            self._client = _connect(self._address, opened)
            self._roster = self._make_roster()
            opened.callback(self._say_goodbye)
            opened.callback(self._roster.close)
            _wait_for_worker(self._client)
            self._roster.start()
            self._refuse_misfits()
            self._dispatcher = Dispatcher(
                self._client, self._roster, self._ledger, self._session, self._note_duration
            )
            opened.callback(self._dispatcher.close)
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def open(self, spec: RunSpec) -> DaskRun:
        """Makes a run whose program stands ready."""
        compiled = self._laboratory.needed_compiles.get(spec.key)
        program = (
            None if compiled is None else self._laboratory.layout.program(compiled.key).read_text("utf-8")
        )
        return DaskRun(spec.key, models_of_runs(self._laboratory, [spec]), program, self._dispatcher)

    def room(self, model: str, in_flight: int, total: int, left: int) -> int:
        """A chunk, as long as there are not more on their way than the workers need to be busy."""
        if total and not self._dispatcher.has_room():
            return 0
        width, slots = self._width(model)
        size = self._size(model)
        # A model that few calls are allowed of does not take all threads, to wait there.
        if in_flight and width < slots and in_flight + size > _AHEAD * width:
            return 0
        # Towards the end of a run smaller ones, so that all workers have a part of it.
        return min(size, math.ceil(left / slots))

    def limits(self) -> Mapping[str, tuple[int, int]]:
        """Nothing: each worker adapts its own part."""
        return {}

    def stop(self) -> None:
        """Lets no further call start."""
        self._dispatcher.stop()

    def _make_roster(self) -> Roster:
        experiment = self._laboratory.experiment
        framed = any(
            has_frame(experiment, spec.optimizer)
            for spec in self._specs
            if spec.key in self._laboratory.needed_compiles
        )
        parcel = pack(self._laboratory, with_dataset=framed)
        settings = {
            "session": self._session,
            "digest": parcel.digest,
            "config": str(parcel.config),
            "versions": worker.decisive_versions(),
            "runs": [spec.key for spec in self._specs],
            "search": parcel.search,
            "endpoints": dict(self._laboratory.endpoints),
        }
        models = models_of_runs(self._laboratory, self._specs)
        return Roster(self._client, experiment, models, settings, parcel.content)

    def _refuse_misfits(self) -> None:
        """Has one worker build the programs: this machine may not be able to.

        Raises:
            InvalidExperiment: If every example of a run would fail.
            ProgramError: If a program cannot be built.
        """
        answer = self._roster.ask(worker.check, self._session)
        if "problem" in answer:
            raise problem_of(answer["problem"])
        found = (
            Mismatch(tuple(address), problem, remedy, fails)
            for address, problem, remedy, fails in answer["mismatches"]
        )
        refuse(located(self._laboratory, found))

    def _width(self, model: str) -> tuple[int, int]:
        """Calls of a model at once, by all workers together, and the chunks that these execute at once."""
        experiment = self._laboratory.experiment
        threads = self._roster.fit([model])
        copies = len(threads) if experiment.models[model].is_local else 1
        return width_of(experiment, model) * max(copies, 1), max(sum(threads.values()), 1)

    def _size(self, model: str) -> int:
        """Examples of a chunk."""
        width, slots = self._width(model)
        usual = min(_CHUNK, math.ceil(_AHEAD * width / slots))
        return min(usual * self._growth.get(model, 1), _LARGEST_CHUNK)

    def _note_duration(self, model: str, took_s: float, examples: int) -> None:
        growth, size = self._growth.get(model, 1), self._size(model)
        if took_s < _SHORT_S and examples >= size < _LARGEST_CHUNK:
            self._growth[model] = growth * 2
        elif took_s > _LONG_S and growth > 1:
            self._growth[model] = growth // 2

    def _say_goodbye(self) -> None:
        with contextlib.suppress(Exception):
            self._client.run(
                worker.close,
                self._session,
                workers=list(self._roster.alive),
                on_error="ignore",
                callback_timeout=_GOODBYE_S,
            )


def _connect(address: str, opened: contextlib.ExitStack) -> Any:
    """A `distributed.Client`.

    Raises:
        EnvironmentProblem: If Dask is not installed, or if nobody answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise EnvironmentProblem(
            "Dask is not installed", where="dask", remedy=install_command("dask")
        ) from error
    place: dict[str, Any] = {"address": address}
    if address.startswith("local:"):
        place = {"address": _local_cluster(int(address.removeprefix("local:")), opened)}
    elif address.endswith(".json"):
        place = {"scheduler_file": address}
    if not logger.isEnabledFor(logging.DEBUG):
        _silence()
    try:
        if "scheduler_file" in place:
            Path(address).read_bytes()  # Dask would wait for it without end
        client = Client(**place, timeout=_CONNECTING_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:  # a TypeError of tls:// without certificates
        raise EnvironmentProblem(
            f"no scheduler answers at {address}: {' '.join(str(error).split())}",
            where="dask",
            remedy="start one with `dask scheduler`, correct the address, or take --dask local:2",
        ) from error
    opened.callback(_close, client)
    return client


def _close(connection: Any) -> None:
    """Closes a client or a cluster. One that does not end in time changes nothing of what is done."""
    try:
        connection.close(timeout=_GOODBYE_S)
    except Exception as error:  # noqa: BLE001 - a TimeoutError, or whatever ending processes raise
        logger.debug("while closing: %s: %s", type(error).__name__, error)


def _silence() -> None:
    """Keeps Dask's log to itself: what matters is raised or logged by us, Dask tells of it in tracebacks."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    for name in ("distributed", *names):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _local_cluster(workers: int, opened: contextlib.ExitStack) -> Any:
    import dask
    from distributed import LocalCluster

    # Dask looks a hundred times a second at what its workers do. That took a quarter of a short call's CPU.
    opened.enter_context(dask.config.set({"distributed.worker.profile.enabled": False}))
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=_THREADS,
        processes=True,
        host="127.0.0.1",
        # Any free port: Dask serves figures about itself in any case, and warns where its usual one is taken.
        dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0",
        # As in one process: the machine's memory is the limit, and nothing is paused or killed before.
        memory_limit=None,
        silence_logs=logging.CRITICAL,
        preload=[_PRELOAD.format(processes=workers)],
    )
    opened.callback(_close, cluster)
    return cluster


def _wait_for_worker(client: Any) -> None:
    """Waits until there is a worker. The queue of a cluster may take its time."""
    began, told = time.monotonic(), False
    while not client.scheduler_info()["workers"]:
        if time.monotonic() - began > _JOINING_S:
            raise lost(f"has had no worker for {_JOINING_S:g} s")
        if not told and time.monotonic() - began > 1:
            told = True
            logger.warning("the Dask cluster has no worker yet: waiting up to %g s for one", _JOINING_S)
        time.sleep(0.2)
