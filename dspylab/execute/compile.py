"""Compile one program: run its optimizer on metered models, keep the program and the record of it."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from dspylab.aggregate.calls import is_unmetered
from dspylab.aggregate.stats import metric_summary
from dspylab.compiled import drop_set_aside, set_aside
from dspylab.errors import EndpointError, EnvironmentProblem, RepositoryError
from dspylab.jsonable import to_json
from dspylab.lm.budget import Ledger
from dspylab.lm.faults import first_words
from dspylab.lm.limits import Stopped
from dspylab.lm.metered import MeteredEngine
from dspylab.lm.recorder import Recorder
from dspylab.lm.replies import Noted, Replies, noted
from dspylab.optimize.build import Compile
from dspylab.optimize.metric import OptimizerMetric
from dspylab.optimize.mute import muted
from dspylab.optimize.state import write_state
from dspylab.printable import printable, shortened
from dspylab.program.dataset import file_digest
from dspylab.program.modules import own_frame
from dspylab.record.layout import Layout
from dspylab.record.publish import write_json
from dspylab.records import JSON, CompileRecord, CompileSpec, Rates, ValidationScore
from dspylab.redact import redact

logger = logging.getLogger(__name__)

#: Longest error that a report shows, in characters.
_MAX_ERROR = 300


@dataclass(frozen=True)
class CompileJob:
    """A compile that is ready to begin.

    Attributes:
        spec: The compile.
        compile_hash: Digest of everything that decides its program.
        layout: Where its files lie.
        place: Where the experiment file names the optimizer, for messages.
        build: Calls the factory.
        optimize: From the program to the compiled one.
        frame: Makes the module that the compiled program's state is loaded into.
        metric: The metric that is optimized.
        lm: The model that compiles.
        engines: The engines behind all models that it calls.
        adapter: DSPy adapter, None for DSPy's default.
        train: Training examples, in the order in which the optimizer gets them.
        validation: Validation examples.
        width: Examples that an optimizer may evaluate at once.
        ledger: The budget that its calls count against.
        optimizer: Type of the optimizer, or `path:name`.
        params: Its parameters.
        note: What decides how the program runs and is in no state of it.
        models: Role to id of its model.
        rates: Model id to its price rates.
        versions: Package name to version.
    """

    spec: CompileSpec
    compile_hash: str
    layout: Layout
    place: str
    build: Callable[[], dspy.Module]
    optimize: Compile
    frame: Callable[[], dspy.Module]
    metric: OptimizerMetric
    lm: dspy.LM
    engines: tuple[MeteredEngine, ...]
    adapter: dspy.Adapter | None
    train: Sequence[dspy.Example]
    validation: Sequence[dspy.Example]
    width: int
    ledger: Ledger
    optimizer: str
    params: Mapping[str, JSON]
    note: Mapping[str, JSON]
    models: Mapping[str, str]
    rates: Mapping[str, Rates | None]
    versions: Mapping[str, str]

    @property
    def refusal(self) -> EndpointError | None:
        """Why one of its models refuses every call; None if none does."""
        return next((engine.refusal for engine in self.engines if engine.refusal is not None), None)


@dataclass(frozen=True, slots=True)
class CompileReport:
    """How a compile ended.

    Attributes:
        program: Key of the compile.
        record: What is recorded of the program; None if there is none.
        stopped: Why there is none.
        refused: Whether that is because a model refuses every call.
        held: Whether another process compiles it.
    """

    program: str
    record: CompileRecord | None = None
    stopped: str | None = None
    refused: bool = False
    held: bool = False


def calls_file(layout: Layout, compile_hash: str) -> Path:
    """Where a compile that is not done keeps its calls and their replies."""
    return layout.compiling(compile_hash) / "calls.jsonl"


def compile_program(job: CompileJob) -> CompileReport:
    """Compiles a program and publishes it. What an earlier session paid for is not asked again.

    Args:
        job: What to compile.

    Returns:
        How it ended; whatever the optimizer or the user's code raises is in it.

    Raises:
        EnvironmentProblem: If the disk is full.
    """
    path = calls_file(job.layout, job.compile_hash)
    earlier, began, was_stopped = noted(path), time.monotonic(), threading.Event()
    try:
        with Replies(path) as replies:
            if earlier.unanswered:
                _drop_states(path.parent)
            recorder = Recorder(names={}, role="optimizer", replies=replies, was_stopped=was_stopped)
            program, validation = _optimized(job, recorder)
            _refuse_makeshift(job, recorder, found := noted(path))
            _warn_of_unmetered(job, found)
            compile_s = earlier.duration_s + time.monotonic() - began
            record = _published(job, program, validation, found, compile_s)
            drop_compiling(job.layout, job.compile_hash)
        return CompileReport(job.spec.key, record)
    except RepositoryError as error:
        return CompileReport(job.spec.key, stopped=str(error), held=True)
    except EnvironmentProblem:
        if job.refusal is None:
            raise  # the disk is full: nothing else will do better
        return CompileReport(job.spec.key, stopped=str(job.refusal), refused=True)
    except BaseException as error:  # noqa: BLE001 - whatever an optimizer raises, sys.exit() included
        # That a call of another one may not be paid is no reason why this one fails.
        reached = job.ledger.exhausted or (job.ledger.refused_paid if was_stopped.is_set() else None)
        if isinstance(error, Stopped) or job.ledger.is_stopped or reached is not None:
            return CompileReport(job.spec.key, stopped=str(reached or "interrupted"))
        if job.refusal is not None:
            return CompileReport(job.spec.key, stopped=str(job.refusal), refused=True)
        return CompileReport(job.spec.key, stopped=_described(error, job))


def _drop_states(folder: Path) -> None:
    """Removes what optimizers would go on from: it holds what they made of calls that had no reply.

    They ask again for all that they need, and most of it is answered from the replies that are kept.
    """
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _refuse_makeshift(job: CompileJob, recorder: Recorder, found: Noted) -> None:
    """Optimizers that catch everything make the best of calls that had no reply: that is no program.

    Raises:
        Stopped: If calls were not made any more.
        EndpointError: If a model refuses every call, or none of them was answered.
    """
    if recorder.was_stopped.is_set():
        raise Stopped
    if job.refusal is not None:
        raise job.refusal
    failed = found.unanswered
    answered = sum(call["error"] is None for call in found.calls)
    if failed and not answered:
        raise _Unanswered(f"none of its {len(failed)} calls was answered: {failed[-1]}")
    if failed:
        logger.warning(
            "%s: %d of %d calls were not answered (%s): its program is made without them",
            job.spec.key, len(failed), answered + len(failed), failed[-1],
        )  # fmt: skip


def _warn_of_unmetered(job: CompileJob, found: Noted) -> None:
    foreign = Counter(call["model"] for call in found.calls if is_unmetered(call))
    if foreign:
        logger.warning(
            "%s: %d of %d calls went to models that are none of the experiment's (%s): what they cost is not "
            "known",
            job.spec.key, foreign.total(), len(found.calls), printable(", ".join(foreign)),
        )  # fmt: skip


class _Unanswered(Exception):
    """No call was answered; it never leaves this module."""


def drop_compiling(layout: Layout, compile_hash: str) -> None:
    """Removes what a compile kept until it was done."""
    shutil.rmtree(layout.compiling(compile_hash), ignore_errors=True)


def _optimized(job: CompileJob, recorder: Recorder) -> tuple[dspy.Module, ValidationScore | None]:
    settings: dict[str, Any] = {
        "lm": job.lm,
        "adapter": job.adapter,
        "trace": [],
        "disable_history": True,
        "num_threads": job.width,
    }
    with recorder.context(**settings), muted():
        program = job.optimize(job.build())
        if not isinstance(program, dspy.Module):
            raise TypeError(f"the optimizer returned {type(program).__name__}, not a dspy.Module")
        if _predictors(program) != _predictors(job.frame()):
            raise TypeError(
                "the optimizer returned a program with other predictors than the factory's, which no file "
                "of its state can hold; change the program in the factory instead"
            )
        return program, None if recorder.was_stopped.is_set() else _validated(job, program)


def _predictors(program: dspy.Module) -> set[str]:
    return {name for name, _ in program.named_parameters()}


def _validated(job: CompileJob, program: dspy.Module) -> ValidationScore | None:
    """Scores the program on the validation examples, which an optimizer may have paid for already."""
    if not job.validation:
        return None

    def score(example: dspy.Example) -> float:
        with contextlib.suppress(Exception):  # it has no score then
            return float(job.metric(example, program(**example.inputs())))
        return math.nan

    with ThreadPoolExecutor(job.width, thread_name_prefix="dspylab-validation") as threads:
        # The recorder and the models are in the context, which threads do not inherit.
        futures = [
            threads.submit(contextvars.copy_context().run, score, example) for example in job.validation
        ]
        values = [value for value in (future.result() for future in futures) if not math.isnan(value)]
    return ValidationScore(
        metric=job.metric.name, score=metric_summary(values), failed=len(job.validation) - len(values)
    )


def _published(
    job: CompileJob,
    program: dspy.Module,
    validation: ValidationScore | None,
    found: Noted,
    compile_s: float,
) -> CompileRecord:
    """Writes the program and then its record: a program without its record does not count."""
    spec, layout, calls = job.spec, job.layout, found.calls
    priced = [call["cost_usd"] for call in calls if call["error"] is None]
    set_aside(layout, spec.key)
    write_state(layout.program(spec.key), program, job.note)
    record = CompileRecord(
        program=spec.key,
        coordinates=spec.coordinates,
        compile_hash=job.compile_hash,
        program_sha256=file_digest(layout.program(spec.key)),
        optimizer=job.optimizer,
        params=job.params,
        metric=job.metric.name,
        models=job.models,
        seed=spec.seed,
        train=len(job.train),
        validation=len(job.validation),
        validation_score=validation,
        compile_s=compile_s,
        calls=len(calls),
        failed_calls=len(found.unanswered),
        prompt_tokens=sum(call["prompt_tokens"] or 0 for call in calls),
        completion_tokens=sum(call["completion_tokens"] or 0 for call in calls),
        cost_usd=None if None in priced else math.fsum(priced),
        rates=job.rates,
        versions=job.versions,
    )
    write_json(layout.compile_record(spec.key), to_json(record))
    drop_set_aside(layout, job.compile_hash)
    return record


def _described(error: BaseException, job: CompileJob) -> str:
    """The error on one line, with what to correct: the optimizer's entry, or the code that raised it."""
    text = redact(first_words(error) if isinstance(error, Exception) else str(error))
    named = text if isinstance(error, _Unanswered) else f"{type(error).__name__}: {text}"
    reason = shortened(" ".join(named.split()), _MAX_ERROR)
    if isinstance(error, dspy.LMError | _Unanswered):  # the endpoint is to blame
        return reason
    code = own_frame(error, job.layout.root)
    return f"{reason} ({job.place}: correct its entry{f', or {code}' if code else ''})"
