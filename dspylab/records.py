"""The frozen values that cross from one stage to the next, and the shape that they have in files.

Units stand in the names: ``_s`` seconds, ``_usd`` US dollars, ``_tokens`` tokens. A figure that does not
exist is None, never a stand-in. The schemas of the files that dspylab writes are generated from these classes
(see ``record/schema.py``), so what is said of a field here is said there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RAW_SCHEMA_VERSION = 1
COMPILE_SCHEMA_VERSION = 1
SUMMARY_SCHEMA_VERSION = 1

JSON = None | bool | int | float | str | list[Any] | dict[str, Any]
Role = Literal["task", "judge", "optimizer"]
IntervalMethod = Literal["wilson", "hall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One cell of the matrix: everything that says which run this is.

    Attributes:
        key: Unique, readable name; safe as a DVC stage item and as a folder name.
        coordinates: Axis name to value, in canonical axis order, for the axes that the matrix names.
        model: Id of the model that answers.
        optimizer: Id of the optimizer, or ``none``.
        compile_model: Id of the model that the optimizer compiles with; None means ``model``.
        seed: Seed of the run.
        adapter: ``chat``, ``compact``, ``json``, ``xml``, ``path:name``; None is DSPy's default.
        program_args: Arguments of the factory, defaults of the file merged with the axes.
        lm_settings: Request settings that the axes ``lm.*`` lay over the model entry.
    """

    key: str
    coordinates: Mapping[str, JSON]
    model: str
    optimizer: str = "none"
    compile_model: str | None = None
    seed: int = 0
    adapter: str | None = None
    program_args: Mapping[str, JSON] = field(default_factory=dict)
    lm_settings: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileSpec:
    """One program to compile: everything that says which one this is. Several runs may share it.

    Attributes:
        key: Unique, readable name; safe as a DVC stage item and as a file name.
        coordinates: Axis name to value, as in the runs that need it; `model` is the one that compiles.
        optimizer: Id of the optimizer.
        model: Id of the model that it compiles with.
        seed: Seed of the optimizer and of the order of the training examples; None leaves both as they are.
        adapter: As in RunSpec.
        program_args: As in RunSpec.
        lm_settings: Request settings laid over the model's entry.
    """

    key: str
    coordinates: Mapping[str, JSON]
    optimizer: str
    model: str
    seed: int | None = None
    adapter: str | None = None
    program_args: Mapping[str, JSON] = field(default_factory=dict)
    lm_settings: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRow:
    """One example of a dataset split.

    Attributes:
        index: 0-based position in the split.
        example_id: The row's own ``id`` field, or a digest of its content.
        inputs: Field name to value, what the program is called with.
        labels: Field name to value, what metrics compare with.
    """

    index: int
    example_id: str
    inputs: Mapping[str, JSON]
    labels: Mapping[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a prompt.

    Attributes:
        role: ``system``, ``developer``, ``user``, ``assistant`` or ``tool``.
        text: What it says. Images and the like are named in brackets.
    """

    role: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LMCall:
    """One call of a language model, as DSPy asked for it (retries included in ``attempts``).

    Every timing is of the attempt that succeeded and counts from the moment it was sent. See
    ``docs/measurements.md`` for the exact definitions.

    Attributes:
        model: Id of the model entry.
        role: Who asked: the program (task), a metric (judge) or an optimizer.
        predictor: Name of the predictor in the program; None when no predictor made the call.
        adapter: Class name of the adapter that formatted the prompt; None for a bare ``lm(...)`` call.
        fallback: True when an adapter made this call because its first reply could not be parsed.
        started_at: Wall-clock time when the attempt was sent, seconds since the epoch.
        ttft_s: First content, reasoning or tool-call delta that is not empty.
        ttfot_s: First such delta that is not reasoning.
        latency_s: Last delta that is not empty; the return of the call when it was not streamed.
        itl_s: (last delta - first delta) / (tokens streamed - 1). Tokens streamed: ``completion_tokens``,
            less ``reasoning_tokens`` when no reasoning was streamed.
        decode_tokens_per_s: 1 / itl_s.
        output_tokens_per_s: completion_tokens / latency_s.
        queue_s: Wait for our own limits before the first attempt.
        retry_wait_s: All waiting after that, from the failure of an attempt to the next one: the backoff or
            the pause that a 429 imposes, and again our own limits.
        attempts: How often it was sent. 0 when DSPy's cache answered, and for a call of a model that the
            program built itself: of that nothing is measured, and its cost is not known.
        prompt_tokens: Tokens of the prompt, cached ones included.
        cached_tokens: Tokens of the prompt that the provider read from its cache.
        cache_write_tokens: Tokens of the prompt that the provider wrote to its cache.
        completion_tokens: Tokens of the reply, reasoning included.
        reasoning_tokens: Tokens of the reply that were reasoning.
        token_source: Whether the token counts are the provider's or our estimate.
        cost_usd: What the call cost; None when no price is known.
        saved_usd: What a cached answer would have cost; None when it was not cached.
        cached: True when DSPy's cache answered and nothing was sent.
        streamed: True when the reply came as a stream.
        finish_reason: As the provider says: stop, length, tool_call, content_filter.
        error: ``Type: message`` when the call failed for good; None otherwise.
        prompt: What was sent, with secrets taken out and the middle of long prompts left out; None when
            ``execution.keep_prompts`` is false.
        response: What came back, in the same way, tool calls included; None also when nothing did.
        reasoning: Reasoning that came with it; None when there was none.
    """

    model: str
    role: Role = "task"
    predictor: str | None = None
    adapter: str | None = None
    fallback: bool = False
    started_at: float | None = None
    ttft_s: float | None = None
    ttfot_s: float | None = None
    latency_s: float | None = None
    itl_s: float | None = None
    decode_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None
    queue_s: float = 0.0
    retry_wait_s: float = 0.0
    attempts: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    token_source: Literal["provider", "estimate"] | None = None
    cost_usd: float | None = None
    saved_usd: float | None = None
    cached: bool = False
    streamed: bool = False
    finish_reason: str | None = None
    error: str | None = None
    prompt: tuple[Message, ...] | None = None
    response: str | None = None
    reasoning: str | None = None

    @property
    def is_unmetered(self) -> bool:
        """Whether it was answered by a model that is none of the experiment's."""
        return not (self.attempts or self.cached or self.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleError:
    """Why an example has no result.

    Attributes:
        type: Class name of the exception.
        message: Its message, with secrets taken out.
        kind: ``endpoint`` when another try may succeed (limits, outages, cut streams); ``program`` when
            the same input would fail again (unparsable replies, exceptions in the user's code).
    """

    type: str
    message: str
    kind: Literal["endpoint", "program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleResult:
    """An example that the program answered.

    Attributes:
        run: Key of the run.
        index: 0-based position in the test split.
        example_id: Stable id of the example.
        inputs: What the program was called with.
        labels: What the metrics compared with.
        prediction: Output field name to value.
        exact_prediction: Whether the prediction can be had back from its JSON, and so be scored again.
        rescored: Whether the answer is an earlier session's and only the metrics are new. Then ``calls`` of
            the role task, ``parse_failures``, ``example_s`` and ``started_at`` are of that session.
        metrics: Metric name to number.
        metric_errors: Metric name to ``Type: message`` for metrics that raised.
        metric_details: Metric name to what it says beside its number (a judge's reason, feedback).
        parse_failures: Replies that an adapter could not parse, fallbacks included.
        example_s: Duration of the program call alone.
        metric_s: Duration of the metrics, judges included.
        started_at: When the program was called, seconds since the epoch.
        calls: Every LM call, in the order in which they ended.
    """

    run: str
    index: int
    example_id: str
    inputs: Mapping[str, JSON]
    labels: Mapping[str, JSON]
    prediction: Mapping[str, JSON]
    exact_prediction: bool = False
    rescored: bool = False
    metrics: Mapping[str, float]
    metric_errors: Mapping[str, str] = field(default_factory=dict)
    metric_details: Mapping[str, JSON] = field(default_factory=dict)
    parse_failures: int = 0
    example_s: float
    metric_s: float
    started_at: float
    calls: tuple[LMCall, ...] = ()
    error: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleFailure:
    """An example that has no result. It is never scored; fields as in ExampleResult.

    Attributes:
        error: Why it has none.
        prediction: What the program answered, when it did and only the scoring could not be done.
        rescored: Whether the answer, or the failure of the program, is an earlier session's.
    """

    run: str
    index: int
    example_id: str
    inputs: Mapping[str, JSON]
    labels: Mapping[str, JSON]
    error: ExampleError
    parse_failures: int = 0
    example_s: float
    started_at: float
    calls: tuple[LMCall, ...] = ()
    prediction: Mapping[str, JSON] | None = None
    exact_prediction: bool = False
    rescored: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    metric_errors: Mapping[str, str] = field(default_factory=dict)
    metric_details: Mapping[str, JSON] = field(default_factory=dict)
    metric_s: float = 0.0


ExampleOutcome = ExampleResult | ExampleFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonedExample:
    """An example that a stop or the budget ended midway: it counts as never begun, its calls were paid.

    Attributes:
        abandoned: 0-based position in the test split.
        calls: The calls that had finished.
        answer: The answer of the program, when only its scoring is missing, as a row that was not scored.
    """

    abandoned: int
    calls: tuple[LMCall, ...]
    answer: ExampleFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What ``results/<run>/run.json`` says about a run, beside its rows.

    Attributes:
        run: Key of the run.
        coordinates: Axis name to value.
        total: Examples of the test split.
        config_hash: Digest of everything that decides the run's results.
        answers_hash: Digest of what decides the answers of its program: all but the metrics, their code and
            their judges. None in results of a version that did not record it.
        model: Resolved settings of the model that reach the endpoint (no keys).
        engine: ``native`` or ``litellm``, for the model that answered.
        rates: Model id to the price rates used, None where no price is known.
        versions: Package name to version.
        torn_lines: Journal lines that were cut by a crash and dropped.
    """

    run: str
    coordinates: Mapping[str, JSON]
    total: int
    config_hash: str
    model: Mapping[str, JSON]
    engine: str
    rates: Mapping[str, Rates | None]
    versions: Mapping[str, str]
    answers_hash: str | None = None
    torn_lines: int = 0
    schema_version: int = RAW_SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationScore:
    """How the compiled program scored on the validation examples, by the metric that was optimized.

    Attributes:
        metric: Name of the metric.
        score: Its mean and interval.
        failed: Examples without a score.
    """

    metric: str
    score: MetricSummary
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRecord:
    """What ``programs/<key>.record.json`` says about a compiled program, beside the program itself.

    Attributes:
        program: Key of the compiled program.
        coordinates: Axis name to value; `model` is the one that compiled.
        compile_hash: Digest of everything that decides the compiled program.
        program_sha256: Digest of the program's file.
        optimizer: Type of the optimizer, or ``path:name``.
        params: Its parameters, as the experiment file gives them.
        metric: Name of the metric that it optimized.
        models: Role (`task` for the program's own) to id of the model.
        seed: Seed that it was given; None when the matrix has none.
        train: Training examples.
        validation: Validation examples.
        validation_score: The score on them; None when there are none or none could be scored.
        compile_s: Time that it took, over all sessions when it was interrupted, of those before the last one
            until their last reply.
        calls: Calls that were sent, over all sessions; replies that were given again are not in it.
        failed_calls: Those of them without a reply that the program was made without. What an earlier session
            was not answered, the one that made the program asked again.
        prompt_tokens: Sum.
        completion_tokens: Sum.
        cost_usd: US dollars; None when a call has no price.
        rates: Model id to the price rates used, None where no price is known.
        versions: Package name to version.
    """

    program: str
    coordinates: Mapping[str, JSON]
    compile_hash: str
    program_sha256: str
    optimizer: str
    params: Mapping[str, JSON]
    metric: str
    models: Mapping[str, str]
    seed: int | None
    train: int
    validation: int
    validation_score: ValidationScore | None
    compile_s: float
    calls: int
    failed_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    rates: Mapping[str, Rates | None]
    versions: Mapping[str, str]
    schema_version: int = COMPILE_SCHEMA_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices of a model in US dollars per million tokens, and where they come from.

    Attributes:
        input_usd: Prompt tokens.
        cached_input_usd: Prompt tokens read from the provider's cache; None means ``input_usd``.
        cache_write_usd: Prompt tokens written to the provider's cache; None means ``input_usd``.
        output_usd: Completion tokens, reasoning included.
        source: ``experiment file``, ``litellm <version>`` or ``local``.
    """

    input_usd: float
    output_usd: float
    cached_input_usd: float | None = None
    cache_write_usd: float | None = None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSummary:
    """A metric over the examples of a run that have it.

    Attributes:
        mean: Arithmetic mean over ``n`` values.
        stderr: Standard error of the mean; None for fewer than two examples.
        ci95: Lower and upper end of the 95% interval; None for fewer than two examples, and when all
            values are the same number other than 0 or 1.
        method: How ``ci95`` was computed: ``wilson`` (all values 0 or 1) or ``hall`` (t, skewness removed).
        n: Values that the mean is over, one for each row that has the metric.
        examples: Distinct examples among them; fewer than ``n`` when examples repeat.
    """

    mean: float | None
    stderr: float | None
    ci95: tuple[float, float] | None
    method: IntervalMethod | None = None
    n: int
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A timing or rate over calls or examples; each statistic None for n = 0."""

    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleCounts:
    """How many examples were attempted, how many have a score, how many failed.

    Attributes:
        total: Examples of the split.
        attempted: Examples that were tried: ``scored + failed`` and those without any metric.
        scored: Examples with a result and the primary metric.
        failed: Examples without a result.
    """

    total: int
    attempted: int
    scored: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Sums over the calls of a run.

    Attributes:
        prompt: Prompt tokens.
        cached: Prompt tokens that the provider read from its cache.
        completion: Completion tokens.
        reasoning: Completion tokens that were reasoning.
        estimated_calls: Calls whose counts are an estimate.
    """

    prompt: int
    cached: int
    completion: int
    reasoning: int
    estimated_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCounts:
    """Counts over the calls of a run.

    Attributes:
        total: Calls that DSPy asked for, cached and failed ones included.
        failed: Calls without a reply, after all attempts.
        cached: Calls that DSPy's cache answered.
        attempts: Requests that were sent.
        fallbacks: Calls that an adapter made because its first reply could not be parsed.
        fallback_rate: ``fallbacks`` / the other calls of the task; None without such calls.
        truncated: Replies that ended at the token limit (finish_reason ``length``).
        parse_failures: Replies of the task that an adapter could not parse.
        by_role: Role to its calls.
        by_predictor: Name of a predictor to its calls under the role ``task``.
    """

    total: int
    failed: int
    cached: int
    attempts: int
    fallbacks: int
    fallback_rate: float | None
    truncated: int
    parse_failures: int
    by_role: Mapping[str, int]
    by_predictor: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSummary:
    """What a run cost at the rates given in the summary. ``total`` is None as soon as a call has no price.

    A call that failed and reported no tokens is not in it: what it cost, nobody says, unless its model is
    free.

    Attributes:
        total: US dollars, all roles; None when a call has no price, or when all calls failed as just said.
        by_role: Role to US dollars; None as the total, for the calls of the role.
        saved: What cached answers would have cost, as far as their price is known.
        unpriced_calls: Calls with no known price.
    """

    total: float | None
    by_role: Mapping[str, float | None]
    saved: float
    unpriced_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorSummary:
    """One predictor of the program over a run; timings are of its calls that were sent and succeeded.

    Attributes:
        calls: Its calls under the role ``task``.
        failed: Those without a reply.
        fallbacks: Those that an adapter made because a reply could not be parsed.
        truncated: Replies that ended at the token limit.
        latency_s: Send to last token.
        ttft_s: Send to first token.
        prompt_tokens: Sum.
        completion_tokens: Sum.
        cost_usd: US dollars; None when a call has no price.
    """

    calls: int
    failed: int
    fallbacks: int
    truncated: int
    latency_s: Distribution
    ttft_s: Distribution
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """How many examples of a run were under way at once, while any was; None when there is none.

    Attributes:
        mean: Sum of ``example_s`` / ``active_s``.
        peak: Greatest number at any moment.
    """

    mean: float | None
    peak: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A difference of the primary metric between two runs, over the examples that both have scored.

    Attributes:
        baseline: Key of the run without an optimizer that is otherwise the same.
        difference: Mean of the run's score minus the baseline's, example by example.
        ci95: Lower and upper end of its 95% interval; None for fewer than two examples.
        n: Examples that both have scored.
    """

    baseline: str
    difference: float
    ci95: tuple[float, float] | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCompile:
    """The compiled program of a run: what it cost, and what it gained.

    Attributes:
        program: Key of the compiled program, which other runs may share.
        cost_usd: What compiling it cost, once for all its runs; None when a call has no price.
        calls: Calls that compiling it took.
        compile_s: Time that compiling it took.
        validation_score: Mean score on the validation examples; None without them.
        gain: Over the same run without an optimizer; None when there is no such run.
        cost_per_point_usd: `cost_usd` / (100 x `gain.difference`), one point being 0.01 of the primary
            metric; None unless the gain is above zero.
    """

    program: str
    cost_usd: float | None
    calls: int
    compile_s: float
    validation_score: float | None
    gain: Gain | None
    cost_per_point_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSample:
    """One error among others of its kind.

    Attributes:
        example_id: The example on which it occurred, the first one of the dataset.
        message: What it said, on one line, cut.
    """

    example_id: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run of ``summary.json``. Timings are of task calls that were sent and succeeded.

    Attributes:
        coordinates: Axis name to value.
        config_hash: Digest of everything that decides the run's results.
        complete: Every example has an outcome, none of them failed for a reason that may pass, and at least
            one has a value of the primary metric.
        started_at: ISO 8601, UTC: when the first example was started.
        finished_at: ISO 8601, UTC: when the last example ended.
        active_s: Time during which at least one example was under way; pauses are not in it.
        engine: ``native`` or ``litellm``.
        examples: How many were attempted, scored and failed.
        metrics: Metric name to its mean and interval.
        metric_errors: Metric name to the examples on which it raised.
        run_metrics: Name of a metric over all rows to its value.
        errors: Type of exception to the examples that it failed.
        latency_s: Send to last token.
        ttft_s: Send to first token.
        ttfot_s: Send to first token that is not reasoning.
        itl_s: Time between tokens.
        decode_tokens_per_s: 1 / itl_s.
        output_tokens_per_s: Completion tokens / latency_s of a call.
        example_s: Duration of the program on an example that succeeded.
        metric_s: Duration of the metrics on an example, judges included.
        queue_s: Wait for our own limits before a call was sent.
        throughput_tokens_per_s: Completion tokens of all task calls / active_s; None without any.
        concurrency: Examples under way at once.
        tokens: Sums over the task calls.
        calls: Counts over the calls of all roles.
        predictors: Name of a predictor to its figures; calls outside of any predictor are under ``(none)``.
        cost_usd: Cost by role.
        compile: The compiled program that it ran; None without an optimizer.
        versions: Package name to version.
        first_errors: Key of ``errors`` to the first of these.
        first_metric_errors: Key of ``metric_errors`` to the first of these.
    """

    coordinates: Mapping[str, JSON]
    config_hash: str
    complete: bool
    started_at: str | None
    finished_at: str | None
    active_s: float
    engine: str
    examples: ExampleCounts
    metrics: Mapping[str, MetricSummary]
    metric_errors: Mapping[str, int]
    run_metrics: Mapping[str, float | None]
    errors: Mapping[str, int]
    latency_s: Distribution
    ttft_s: Distribution
    ttfot_s: Distribution
    itl_s: Distribution
    decode_tokens_per_s: Distribution
    output_tokens_per_s: Distribution
    example_s: Distribution
    metric_s: Distribution
    queue_s: Distribution
    throughput_tokens_per_s: float | None
    concurrency: Concurrency
    tokens: TokenCounts
    calls: CallCounts
    predictors: Mapping[str, PredictorSummary]
    cost_usd: CostSummary
    versions: Mapping[str, str]
    compile: RunCompile | None = None
    first_errors: Mapping[str, ErrorSample] = field(default_factory=dict)
    first_metric_errors: Mapping[str, ErrorSample] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedsSummary:
    """Runs that differ in their seed alone, taken together.

    Attributes:
        runs: Their keys, at least two, in the order of the matrix.
        coordinates: Axis name to value, without ``seed``.
        metrics: Metric name to its mean and interval over all rows of these runs, clustered by example.
        example_s: Duration of the program on an example that succeeded, over all rows of these runs. None in
            results of a version that did not record it.
    """

    runs: tuple[str, ...]
    coordinates: Mapping[str, JSON]
    metrics: Mapping[str, MetricSummary]
    example_s: Distribution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GitState:
    """The commit that the results were made on; None outside of git or before the first commit."""

    commit: str
    branch: str | None
    dirty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The whole of ``summary.json``.

    Attributes:
        experiment: Its name.
        description: What the file says it is for.
        config_hash: Digest of the experiment file.
        primary_metric: Name of the metric that ranks the runs.
        git: The commit that the results were made on.
        created_at: ISO 8601, UTC.
        versions: Package name to version.
        rates: Model id to the price rates used, None where no price is known.
        runs: Run key to its figures, in the order of the matrix.
        over_seeds: Name of what such runs have in common, to their metrics taken together; empty when no two
            runs differ in their seed alone.
    """

    experiment: str
    description: str
    config_hash: str
    primary_metric: str
    git: GitState | None
    created_at: str
    versions: Mapping[str, str]
    rates: Mapping[str, Rates | None]
    runs: Mapping[str, RunSummary]
    over_seeds: Mapping[str, SeedsSummary] = field(default_factory=dict)
    schema_version: int = SUMMARY_SCHEMA_VERSION
