"""The workers of a Dask cluster: which are ready for an experiment, and which part of its limits each has."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dspylab import errors
from dspylab.config.models import Experiment
from dspylab.errors import DspylabError, EnvironmentProblem
from dspylab.execute import worker
from dspylab.lm.build import width_of

logger = logging.getLogger(__name__)

#: How often the scheduler is asked for its workers, and how long it may take to answer.
_EVERY_S = 1.0
_SILENCE_S = 30.0
#: How long a worker may take to import the code and to load its models.
_PREPARING_S = 300.0
#: How long the others wait for a worker to hear its new part of the limits.
_TELLING_S = 5.0
#: Workers that are asked at once.
_ASKED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Part:
    """One worker's part of the limits.

    Attributes:
        total: Examples in flight at once.
        models: Model id to calls at once, requests per minute and tokens per minute.
    """

    total: int
    models: Mapping[str, tuple[int, float | None, float | None]]


def parts(experiment: Experiment, models: Collection[str], workers: Sequence[str]) -> dict[str, Part]:
    """Shares the limits of an experiment out, so that all workers together keep them.

    Where a limit is smaller than the number of workers, only the first ones get a part. An embedded model is
    no common endpoint: every worker has its own, with all its slots.

    Args:
        experiment: The experiment.
        models: Ids of the models that are called.
        workers: Addresses, in the order in which they joined.

    Returns:
        Address to its part, for the workers that have any.
    """
    totals = _split(experiment.execution.max_concurrency, len(workers))
    found: dict[str, Part] = {}
    for position, (address, total) in enumerate(zip(workers, totals, strict=False)):
        shares: dict[str, tuple[int, float | None, float | None]] = {}
        for model_id in models:
            entry, width = experiment.models[model_id], width_of(experiment, model_id)
            if entry.is_local:
                shares[model_id] = (width, entry.requests_per_minute, entry.tokens_per_minute)
                continue
            requests, tokens = entry.requests_per_minute, entry.tokens_per_minute
            widths = _split(width, min(len(workers), int(requests or width) or 1))
            if position < len(widths):
                several = len(widths)
                shares[model_id] = (
                    widths[position],
                    None if requests is None else requests / several,
                    None if tokens is None else tokens / several,
                )
        found[address] = Part(total, shares)
    return found


def _split(amount: int, ways: int) -> list[int]:
    """An amount in parts that are as equal as may be; in fewer, rather than empty ones."""
    count = min(amount, ways)
    return [amount // count + (position < amount % count) for position in range(count)]


class Roster:
    """Keeps the workers of a cluster ready, those that join late included. Thread-safe.

    Args:
        client: The `distributed.Client`.
        experiment: The experiment.
        models: Ids of the models that its runs call.
        settings: As `dspylab.execute.worker.prepare` takes them.
        archive: The code.
    """

    def __init__(
        self,
        client: Any,
        experiment: Experiment,
        models: Sequence[str],
        settings: Mapping[str, Any],
        archive: bytes,
    ) -> None:
        self._client = client
        self._experiment = experiment
        self._models = models
        self._settings = settings
        self._archive = archive
        self._lock = threading.Lock()
        self._ready: dict[str, int] = {}
        self._paused: frozenset[str] = frozenset()
        self._parts: dict[str, Part] = {}
        self._refused: dict[str, DspylabError] = {}
        self._preparing: dict[str, Future[Any]] = {}
        #: Address to the scheduler's time of the last heartbeat, and our monotonic time of hearing of it.
        self._heard: dict[str, tuple[float, float]] = {}
        self._error: DspylabError | None = None
        self._closed = threading.Event()
        # One thread a worker: a question to one that is dying is answered late, if ever.
        self._asking = ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="dspylab-ask")
        self._thread = threading.Thread(target=self._watch, name="dspylab-roster", daemon=True)

    def start(self) -> None:
        """Prepares the workers that are there, and from now on those that join.

        Raises:
            DspylabError: If one of them can not be used: all of them should be mended before the first call.
        """
        self._refresh()
        while waited_for := self._waited_for():
            futures.wait(waited_for, timeout=_EVERY_S)
            self._refresh()
        if self._refused:
            problems = [f"{address}: {error}" for address, error in sorted(self._refused.items())]
            first = next(iter(self._refused.values()))
            raise type(first)(
                f"{len(problems)} of {len(problems) + len(self._ready)} workers can not be used",
                where="dask",
                remedy="mend them, or stop them\n" + "\n".join(f"  {problem}" for problem in problems),
            )
        self._thread.start()

    def close(self) -> None:
        """Looks no more."""
        self._closed.set()
        self._asking.shutdown(wait=False, cancel_futures=True)

    def check(self) -> None:
        """Nothing, as long as the cluster can be reached.

        Raises:
            DspylabError: If it can not.
        """
        if self._error is not None:
            raise self._error

    @property
    def alive(self) -> frozenset[str]:
        """Addresses of the workers that are ready."""
        with self._lock:
            return frozenset(self._ready)

    def fit(self, models: Collection[str]) -> dict[str, int]:
        """Address of each worker that may call some models now, to its threads."""
        with self._lock:
            return {
                address: self._ready[address]
                for address, part in self._parts.items()
                if address in self._ready
                and address not in self._paused
                and all(name in part.models for name in models)
            }

    def ask(self, function: Any, *args: Any) -> Any:
        """Has one of the workers that are ready call a function, and gives what it answers.

        Raises:
            EnvironmentProblem: If it does not answer.
        """
        problem = "has no worker left"
        for address in sorted(self.alive):
            try:
                return self._ask(address, function, *args, timeout_s=_PREPARING_S).result()
            except Exception as error:  # noqa: BLE001 - another one is asked
                problem = f"has lost the worker {address} ({type(error).__name__}: {error})"
        raise lost(problem)

    def tell(self, function: Any, *args: Any) -> None:
        """Has all workers that are ready call a function, and does not wait for it."""
        for address in self.alive:
            with contextlib.suppress(RuntimeError):  # it is closed
                self._ask(address, function, *args, timeout_s=_TELLING_S)

    def forget(self, address: str) -> None:
        """A worker says that it is not prepared: another process has its address."""
        with self._lock:
            self._ready.pop(address, None)
            self._parts.pop(address, None)

    def set_aside(self, address: str, problem: DspylabError) -> None:
        """Uses a worker no more, as it turned out that it does not fit."""
        with self._lock:
            self._ready.pop(address, None)
            self._parts.pop(address, None)
            self._refused[address] = problem
        logger.warning("the worker %s is not used any more: %s", address, problem)

    def _waited_for(self) -> list[Future[Any]]:
        """Workers that the first chunk waits for: not for one that is silent, as long as there are others.

        It is prepared all the same, and works once it is ready.
        """
        silent = {
            address for address in self._preparing if time.monotonic() - self._heard[address][1] > _SILENCE_S
        }
        if silent and (self._ready or self._refused) and silent == set(self._preparing):
            for address in silent:
                logger.warning("the worker %s has been silent for %g s: not waited for", address, _SILENCE_S)
            return []
        return list(self._preparing.values())

    def _watch(self) -> None:
        while not self._closed.wait(_EVERY_S):
            try:
                self._refresh()
            except DspylabError as error:
                self._error = error
                return
            except Exception as error:  # noqa: BLE001 - a client that is being closed raises anything
                self._error = lost(f"can not be asked any more ({type(error).__name__}: {error})")
                return

    def _refresh(self) -> None:
        """Looks which workers there are, has the new ones prepared and shares the limits out.

        Raises:
            EnvironmentProblem: If the scheduler does not answer.
        """
        present = self._present()
        with self._lock:
            # Those that are short of memory finish what they have, and get nothing new.
            self._paused = frozenset(
                address for address, about in present.items() if about.get("status") == "paused"
            )
            for known in (self._ready, self._parts, self._refused, self._preparing):
                for address in [address for address in known if address not in present]:
                    del known[address]
            known_already = {*self._ready, *self._refused, *self._preparing}
        for address in present:
            if address not in known_already:
                self._preparing[address] = self._ask(
                    address, worker.prepare, self._settings, self._archive, timeout_s=_PREPARING_S
                )
        for address in [address for address, future in self._preparing.items() if future.done()]:
            self._take_in(address, present[address]["nthreads"], self._preparing.pop(address))
        self._share_out()

    def _present(self) -> Mapping[str, Mapping[str, Any]]:
        """Address to description of the workers that the scheduler knows.

        Raises:
            EnvironmentProblem: If it does not answer.
        """
        try:
            info = self._client.sync(
                self._client.scheduler.identity, n_workers=-1, callback_timeout=_SILENCE_S
            )
        except TimeoutError as error:
            raise lost(f"has not answered for {_SILENCE_S:g} s") from error
        except OSError as error:
            raise lost("is gone") from error
        workers: Mapping[str, Mapping[str, Any]] = info["workers"]
        now = time.monotonic()
        # By our clock: that of the scheduler may be another one.
        self._heard = {
            address: self._heard[address]
            if address in self._heard and self._heard[address][0] == about["last_seen"]
            else (about["last_seen"], now)
            for address, about in workers.items()
        }
        return workers

    def _take_in(self, address: str, threads: int, answer: Future[Any]) -> None:
        """Takes in a worker that was prepared, or could not be."""
        problem = _problem(answer)
        with self._lock:
            if problem is None:
                self._ready[address] = threads
            else:
                self._refused[address] = problem
        if problem is not None and self._thread.is_alive():
            logger.warning("the worker %s is not used: %s", address, problem)

    def _share_out(self) -> None:
        """Tells each worker its part, where it is another than before."""
        wanted = parts(self._experiment, self._models, list(self._ready)) if self._ready else {}
        changed = {address: part for address, part in wanted.items() if self._parts.get(address) != part}
        known = {address for address in changed if address in self._parts}
        # Those that have had a larger part before those that have had none.
        for addresses in (known, changed.keys() - known):
            told = {
                self._ask(
                    address,
                    worker.share,
                    self._settings["session"],
                    {"total": changed[address].total, "models": dict(changed[address].models)},
                    timeout_s=_SILENCE_S,
                ): address
                for address in addresses
            }
            # One that does not answer now is told again the next time.
            for future in futures.wait(told, timeout=_TELLING_S).done:
                if future.exception() is None:
                    with self._lock:
                        self._parts[told[future]] = changed[told[future]]

    def _ask(self, address: str, function: Any, *args: Any, timeout_s: float) -> Future[Any]:
        """Has a worker call a function at once, whatever else it does."""

        def ask() -> Any:
            return self._client.run(function, *args, workers=[address], callback_timeout=timeout_s)[address]

        return self._asking.submit(ask)


def lost(what: str) -> EnvironmentProblem:
    """The cluster can not be used any more."""
    return EnvironmentProblem(
        f"the scheduler {what}",
        where="dask",
        remedy="what is finished is kept: run the same command again to go on, or without --dask",
    )


def problem_of(value: Mapping[str, Any]) -> DspylabError:
    """The error that `dspylab.execute.worker.problem_to_json` was given, as near as may be."""
    kind = getattr(errors, value["kind"], None)
    if isinstance(kind, type) and issubclass(kind, DspylabError) and kind is not errors.InvalidExperiment:
        return kind(value["message"], where=value["where"], remedy=value["remedy"])
    logger.debug("on a worker: %s", value.get("trace"))
    return EnvironmentProblem(
        f"a worker failed: {value['kind']}: {value['message']}",
        remedy="see the worker's log, or use --verbose",
    )


def _problem(answer: Future[Any]) -> DspylabError | None:
    """Why a worker can not be used; None if it is prepared."""
    error = answer.exception()
    if error is None:
        return None if answer.result() is None else problem_of(answer.result())
    if isinstance(error, ImportError | AttributeError):
        return EnvironmentProblem(f"has no dspylab, or another version of it ({error})")
    return EnvironmentProblem(f"can not be prepared: {type(error).__name__}: {error}")
