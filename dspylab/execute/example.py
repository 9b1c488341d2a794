"""Execute one example: call the program, score its prediction, record every call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import dspy
from dspy import lm15
from dspy.utils.exceptions import LMError, is_retryable_lm_error

from dspylab.errors import EndpointError
from dspylab.execute.rescore import Answer, OutputTypes, answered_before, failed_before, is_exact
from dspylab.execute.workers import Outcome, Todo
from dspylab.jsonable import to_json
from dspylab.lm.faults import FATAL, RETRYABLE, first_words
from dspylab.lm.limits import Stopped
from dspylab.lm.metered import MeteredEngine
from dspylab.lm.recorder import Recorder
from dspylab.metrics.adapt import Scorer, score_all
from dspylab.printable import shortened
from dspylab.records import (
    JSON,
    AbandonedExample,
    DataRow,
    ExampleError,
    ExampleFailure,
    ExampleResult,
    RunSpec,
)
from dspylab.redact import redact

#: Longest error message that a row keeps, in characters.
_MAX_MESSAGE = 2000


@dataclass(frozen=True)
class Job:
    """A run that is ready to execute.

    Attributes:
        spec: The run.
        program: The program, shared by all examples as in `dspy.Evaluate`.
        names: Predictor object id to name.
        lm: The model that answers.
        engines: The engines behind `lm` and behind the judges.
        adapter: DSPy adapter, None for DSPy's default.
        scorers: The metrics.
        keep_prompts: Whether its rows keep what was said in each call.
        types: How to have its predictions back from JSON.
        has_ended: Set once nothing more of the run is begun.
    """

    spec: RunSpec
    program: dspy.Module
    names: Mapping[int, str]
    lm: dspy.LM
    engines: tuple[MeteredEngine, ...]
    adapter: dspy.Adapter | None
    scorers: tuple[Scorer, ...]
    keep_prompts: bool
    types: OutputTypes = field(default_factory=dict)
    has_ended: threading.Event = field(default_factory=threading.Event)

    @property
    def refusal(self) -> EndpointError | None:
        """Why one of its models refuses every call; None if none does."""
        return next((engine.refusal for engine in self.engines if engine.refusal is not None), None)


def example_of(row: DataRow) -> dspy.Example:
    """A row as metrics and optimizers get it."""
    return dspy.Example(**{**row.labels, **row.inputs}).with_inputs(*row.inputs)


def execute_example(job: Job, todo: Todo) -> Outcome:
    """Runs one example: asks the program, unless an earlier session did, and scores what it answered.

    Args:
        job: The run.
        todo: The example.

    Returns:
        The result; a failure when the program raised, or when a judge could not be reached, so that the
        example is tried again. When the run was stopped meanwhile the example counts as never begun: what
        remains of it are the calls that it made, or None.
    """
    row, stored = todo.row, todo.stored
    failure = None if stored is None else failed_before(row, stored, job.spec.key, job.spec.model)
    if failure is not None:
        return failure
    answer = None if stored is None else answered_before(row, stored, job.types, job.spec.model)
    recorder = Recorder(names=job.names, keep_prompts=job.keep_prompts, has_ended=job.has_ended)
    started_at, started = time.time(), time.perf_counter()
    try:
        with recorder.context(lm=job.lm, adapter=job.adapter, trace=[], disable_history=True):
            if answer is None:
                answer = _ask(job, row, recorder, started_at)
            return _score(job, row, answer, recorder)
    except BaseException as error:  # noqa: BLE001 - whatever the user's program raises, sys.exit() included
        failed = ExampleFailure(
            **_identity(job, row),
            error=_described(error, refused=job.refusal is not None),
            parse_failures=len(recorder.parse_failures),
            example_s=time.perf_counter() - started,
            started_at=started_at,
            calls=tuple(recorder.calls),
        )
        outcome = failed if answer is None else _with_answer(failed, answer)
        return _abandoned(outcome, recorder) if recorder.was_stopped.is_set() else outcome


def _with_answer(failed: ExampleFailure, answer: Answer) -> ExampleFailure:
    """The failure of an example that the program answered, so that it need not be asked again.

    A judge that could not be reached is no part of what the program took. When a call of the program itself
    failed, it has made up for the missing reply: that is no answer to keep.
    """
    made_up = any(call.error and call.role == "task" for call in failed.calls)
    return replace(
        failed,
        prediction=None if made_up else answer.recorded,
        exact_prediction=answer.is_exact and not made_up,
        rescored=answer.is_earlier,
        parse_failures=answer.parse_failures + failed.parse_failures,
        example_s=answer.example_s,
        started_at=answer.started_at,
        calls=(*answer.calls, *failed.calls),
    )


def _ask(job: Job, row: DataRow, recorder: Recorder, started_at: float) -> Answer:
    """Calls the program.

    Raises:
        Stopped: If a call was not made any more. What the program returned all the same is no answer.
    """
    started = time.perf_counter()
    prediction = _prediction(job.program(**row.inputs))
    example_s = time.perf_counter() - started
    if recorder.was_stopped.is_set():
        raise Stopped
    recorded = _fields(prediction)
    is_known = is_exact(prediction, recorded, job.types)
    return Answer(prediction, recorded, is_known, example_s, started_at)


def _score(job: Job, row: DataRow, answer: Answer, recorder: Recorder) -> ExampleResult:
    """Scores an answer.

    Raises:
        Stopped: If a call was not made any more.
        EndpointError: If a model refuses every call, and the program or a metric made up for that.
        Exception: If a judge could not be reached.
    """
    started = time.perf_counter()
    example = example_of(row)
    with recorder.as_role("judge").context():
        scores = score_all(job.scorers, example, answer.prediction, passes=_is_endpoint_problem)
    if recorder.was_stopped.is_set():
        raise Stopped
    if job.refusal is not None and any(call.error for call in recorder.calls):
        # With a good key nobody would have to make up for the missing reply.
        raise EndpointError(str(job.refusal))
    return ExampleResult(
        **_identity(job, row),
        prediction=answer.recorded,
        exact_prediction=answer.is_exact,
        rescored=answer.is_earlier,
        metrics=scores.values,
        metric_errors={name: redact(text)[:_MAX_MESSAGE] for name, text in scores.errors.items()},
        metric_details=scores.details,
        parse_failures=answer.parse_failures + len(recorder.parse_failures),
        example_s=answer.example_s,
        metric_s=time.perf_counter() - started,
        started_at=answer.started_at,
        calls=(*answer.calls, *recorder.calls),
    )


def _identity(job: Job, row: DataRow) -> dict[str, Any]:
    return {
        "run": job.spec.key,
        "index": row.index,
        "example_id": row.example_id,
        "inputs": row.inputs,
        "labels": row.labels,
    }


def _abandoned(failed: ExampleFailure, recorder: Recorder) -> AbandonedExample | None:
    """What is left of an example that was stopped: the calls that it made, and an answer without a score."""
    if not recorder.calls:
        return None
    reason = ExampleError(type="Stopped", message="it was not scored any more", kind="endpoint")
    is_new = failed.exact_prediction and not failed.rescored
    answer = replace(failed, error=reason) if is_new else None
    return AbandonedExample(abandoned=failed.index, calls=tuple(recorder.calls), answer=answer)


def _prediction(value: Any) -> dspy.Prediction:
    if isinstance(value, dspy.Prediction):
        return value
    if isinstance(value, Mapping):
        return dspy.Prediction(**value)
    raise TypeError(
        f"the program returned {type(value).__name__}, not a dspy.Prediction; end forward() with one"
    )


def _fields(prediction: dspy.Prediction) -> dict[str, JSON]:
    return {str(name): _recordable(value) for name, value in prediction.items()}


def _recordable(value: Any) -> JSON:
    try:
        plain: JSON = to_json(value)
    except RecursionError:  # a value that holds itself
        return repr(value)[:_MAX_MESSAGE]
    return plain


def _described(error: BaseException, *, refused: bool) -> ExampleError:
    """The error as a row keeps it.

    Args:
        error: What ended the example.
        refused: Whether a model refuses every call. If not, a refusal is one of this prompt alone (by
            moderation or policy), which another try would not change.
    """
    of_the_prompt = not refused and any(isinstance(cause, FATAL) for cause in _causes(error))
    by_model = any(isinstance(cause, LMError | lm15.LM15Error) for cause in _causes(error))
    message = first_words(error) if by_model else redact(_said(error))
    return ExampleError(
        type=type(error).__name__,
        message=shortened(message, _MAX_MESSAGE),
        kind="endpoint" if _is_endpoint_problem(error) and not of_the_prompt else "program",
    )


def _said(error: BaseException) -> str:
    """The message of an error. Even that may raise, where the user's code makes it."""
    try:
        return str(error).strip()
    except Exception as other:  # noqa: BLE001
        return f"(its message can not be had: {type(other).__name__})"


def _is_endpoint_problem(error: BaseException) -> bool:
    """Whether another try, perhaps with a better key, may succeed; looks through wrapped errors."""
    for cause in _causes(error):
        if isinstance(cause, lm15.LM15Error):
            return isinstance(cause, (*RETRYABLE, *FATAL))
        if isinstance(cause, EndpointError) or (isinstance(cause, LMError) and is_retryable_lm_error(cause)):
            return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
