"""The experiment file as pydantic models. They forbid unknown keys and are frozen once read.

`schema/experiment.schema.json` is generated from these classes, so descriptions are written for the
people who edit the file. What a key decides is part of its definition here: the classes list the keys
that change results; `plan/identity.py` and `pipeline/stages.py` read those lists.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
REF_PATTERN = r"^.+:[A-Za-z_][A-Za-z0-9_.]*$"
MODEL_PATTERN = r"^(local:.+|[^/\s:]+/\S+)$"
DASK_PATTERN = r"^(local:[1-9][0-9]{0,2}|[a-z]+://\S+|[^/\s:]+:[0-9]{2,5}|\S+\.json)$"

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN, max_length=60)]
Ref = Annotated[str, StringConstraints(pattern=REF_PATTERN)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
#: Above any price there will be, and small enough that no sum of costs is infinite.
Price = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """Base of every part of the file: unknown keys are errors, values are frozen.

    That types are exact is for the JSON Schema to say: it takes 1.0 for a whole number, as DVC may write it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Program(Section):
    """Where the DSPy program is and how it is built."""

    path: str | None = Field(None, description="Python file, relative to the experiment file.")
    module: str | None = Field(None, description="Importable module, instead of `path`.")
    factory: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        "build",
        description="Callable in that module: factory(**args) returns a dspy.Module. "
        "Or a dspy.Module itself: each run gets a copy.",
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="Arguments of the factory; the matrix may vary them as program.<argument>.",
    )
    files: list[str] = Field(
        default_factory=list,
        description="Further files and folders that the code reads, such as a corpus: a change makes runs "
        "stale.",
    )
    adapter: str | None = Field(
        None,
        description="chat, json, xml, compact (short prompts, for small models), or path:name of a "
        "dspy.Adapter. The axis `adapter` overrides it.",
    )


class Split(Section):
    """A seeded split of one dataset file into train, validation if it is named, and test."""

    train: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="Share of the examples that train, 0 to 1."
    )
    validation: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Share of the examples that optimizers validate on, 0 to 1. Default: none."
    )
    seed: int = Field(0, description="Seed of the shuffle that comes before the split.")


class Dataset(Section):
    """The examples: one file and a split, or separate files, or a loader."""

    #: Keys that decide which examples an optimizer sees. The others only choose test examples.
    TRAINING: ClassVar[tuple[str, ...]] = (
        "path", "train", "validation", "inputs", "labels", "id", "split",
    )  # fmt: skip

    path: str | None = Field(
        None,
        description="jsonl, json, csv, tsv or parquet file, or `program.py:load`: a function that returns "
        "rows, or a list of them.",
    )
    train: str | None = Field(None, description="Separate training file or loader; instead of `path`.")
    validation: str | None = Field(
        None, description="Separate file or loader of examples that optimizers validate on; beside `train`."
    )
    test: str | None = Field(None, description="Separate test file or loader; instead of `path`.")
    inputs: Annotated[list[str], Field(min_length=1)] = Field(
        description="Fields that the program is called with."
    )
    labels: list[str] | None = Field(
        None, description="Fields that metrics compare with. Default: all others."
    )
    id: str | None = Field(None, description="Field that identifies a row. Default: a digest of its content.")
    split: Split | None = Field(
        None, description="How `path` is split. Default: every example is a test example."
    )
    shuffle: int | None = Field(None, description="Seed; shuffles the test examples before `limit`.")
    limit: PositiveInt | None = Field(None, description="At most so many test examples.")


class Pricing(Section):
    """Prices in US dollars per million tokens."""

    input: Price
    output: Price
    cached_input: Price | None = None
    cache_write: Price | None = None


class Supports(Section):
    """What the endpoint can do. Unknown is `null`; then DSPy's own tables decide."""

    response_schema: bool | None = None
    function_calling: bool | None = None
    reasoning: bool | None = None
    params: list[str] | None = Field(
        None, description="Request parameters that it takes, such as response_format."
    )


class LocalOptions(Section):
    """How an embedded model (local/…) is served in this process."""

    n_ctx: PositiveInt | None = Field(None, description="Context window in tokens, over all slots.")
    n_parallel: PositiveInt | None = Field(None, description="Slots: requests that are decoded together.")
    n_threads: PositiveInt | None = Field(None, description="CPU threads.")


class Model(Section):
    """One language model and the endpoint that serves it."""

    #: Keys that reach the endpoint or shape the reply: they decide results, so DVC tracks them.
    DECISIVE: ClassVar[tuple[str, ...]] = (
        "model", "api_base", "engine", "model_type", "temperature", "max_tokens", "params", "supports",
        "stream", "local",
    )  # fmt: skip

    model: Annotated[str, StringConstraints(pattern=MODEL_PATTERN)] = Field(
        description="LiteLLM's provider/model, or local/<name> or local:<file.gguf> for an embedded model."
    )
    api_base: str | None = Field(None, description="URL of the endpoint. Default: the provider's own.")
    api_key_env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = Field(
        None,
        description="Environment variable (or .env entry) that holds the key. Never the key itself.",
    )
    engine: Literal["auto", "native", "litellm"] = Field(
        "auto",
        description="native: DSPy's own client; litellm: LiteLLM; auto: native where it knows the provider.",
    )
    model_type: Literal["chat", "responses"] = Field(
        "chat", description="Which API of the provider is called."
    )
    temperature: NonNegative | None = None
    max_tokens: PositiveInt | None = None
    params: dict[str, Any] = Field(
        default_factory=dict, description="Any other request setting, such as top_p."
    )
    stream: bool = Field(
        True, description="false for endpoints that can not stream: then there is no ttft_s."
    )
    max_concurrency: PositiveInt | None = Field(
        None, description="Calls in flight at once. Default: execution's."
    )
    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    timeout_s: Positive | None = Field(None, description="Longest silence of the endpoint, in seconds.")
    num_retries: Annotated[int, Field(ge=0)] = Field(
        5, description="Further attempts after a transient failure."
    )
    cache: bool = Field(
        False, description="DSPy's response cache. Off, because it would make latency look like zero."
    )
    pricing: Pricing | None = Field(
        None, description="Prices. Default: LiteLLM's table; local models are free."
    )
    supports: Supports | None = None
    local: LocalOptions | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is an embedded model, served in this process."""
        return self.model.startswith(("local/", "local:"))


class Optimizer(Section):
    """A DSPy optimizer, its parameters, its metric and the models of its roles."""

    type: str | None = Field(None, description="Name of a DSPy optimizer, such as BootstrapFewShot.")
    path: Ref | None = Field(None, description="path:name of your own optimizer, instead of `type`.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Parameters of the optimizer, of its compile() too."
    )
    metric: Id | None = Field(
        None, description="Id of the metric that it optimizes. Default: primary_metric."
    )
    lms: dict[str, Id] = Field(
        default_factory=dict,
        description="Role, such as teacher, prompt_model or reflection_lm, to model id. "
        "Default: the model that it compiles with.",
    )


class Matrix(Section):
    """The axes. Every combination is a run, less `exclude`, plus `include`.

    Beside the named axes: `program.<argument>` varies an argument of the factory, `lm.<setting>` a
    request setting of the model. Values of those two may be any scalar or mapping or list.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra={
            "additionalProperties": False,
            "patternProperties": {
                r"^program\.[A-Za-z_][A-Za-z0-9_]*$": {
                    "type": "array", "minItems": 1, "description": "Values of an argument of the factory.",
                },
                r"^lm\.[A-Za-z_][A-Za-z0-9_]*$": {
                    "type": "array", "minItems": 1, "description": "Values of a request setting.",
                },
            },
        },
    )  # fmt: skip

    model: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Model ids. Default: all."
    )
    compile_model: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Model ids that optimizers compile with. Default: the run's own model."
    )
    optimizer: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Optimizer ids or `none`. Default: [none]."
    )
    adapter: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="chat, json, xml, compact or path:name. Default: [program.adapter]."
    )
    seed: Annotated[list[int], Field(min_length=1)] | None = Field(None, description="Seeds. Default: [0].")
    exclude: list[dict[str, Any]] = Field(
        default_factory=list, description="Runs that match all of an entry go."
    )
    include: list[dict[str, Any]] = Field(
        default_factory=list, description="Further runs, each with its coordinates."
    )

    @property
    def free_axes(self) -> dict[str, list[Any]]:
        """The `program.*` and `lm.*` axes, in file order."""
        return dict(self.__pydantic_extra__ or {})


class Metric(Section):
    """One named figure of quality."""

    type: Literal[
        "exact_match", "contains", "token_f1", "numeric", "regex", "json_schema",
        "rouge_l", "bleu", "semantic_f1", "llm_judge", "path", "program", "run",
    ] = Field(
        description="program: the metric of this name that metrics() of the program returns; path: any other "
        "callable; run: over all rows; else a metric of dspylab's."
    )  # fmt: skip
    field: str | None = Field(None, description="Output field to score; also the label to compare it with.")
    label: str | None = Field(None, description="Label to compare with, when it is not called like `field`.")
    ref: Ref | None = Field(None, description="path:name or module:name of a callable (type: path or run).")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the metric, such as a tolerance."
    )
    model: Id | None = Field(
        None, description="Id of the model that judges (llm_judge, semantic_f1, path, program)."
    )


class Budget(Section):
    """Upper bounds over the whole matrix, judges and optimizers included."""

    max_cost_usd: NonNegative | None = None
    max_tokens: PositiveInt | None = None
    max_calls: PositiveInt | None = None


class Execution(Section):
    """How the matrix is worked off. Nothing here changes results."""

    max_concurrency: PositiveInt = Field(64, description="Examples in flight at once, over all runs.")
    max_errors: PositiveInt | None = Field(
        None,
        description="Stop a run after so many failed examples. Default: never; a wrong key stops it at once.",
    )
    keep_prompts: bool = Field(
        True,
        description="Keep what was said in each call, for the report. False keeps the figures alone.",
    )
    dask: Annotated[str, StringConstraints(pattern=DASK_PATTERN)] | None = Field(
        None,
        description="Execute examples on a Dask cluster: the address of its scheduler, such as "
        "tcp://10.0.0.5:8786, or its scheduler file, or local:4 for 4 processes on this machine. "
        "Default: threads of one process.",
    )


class Check(Section):
    """What `dspylab check` demands of a figure. Every condition that is given has to hold.

    A metric is judged by its 95% interval: it holds when the whole interval is on the right side, it is
    violated when the whole interval is on the wrong side, and undecided otherwise.
    """

    min: Finite | None = Field(None, description="Least value.")
    max: Finite | None = Field(None, description="Greatest value.")
    no_worse_than: str | None = Field(
        None, description="Branch, tag, commit or DVC experiment whose results are compared with."
    )
    margin: NonNegative | None = Field(
        None, description="How much worse than no_worse_than is still accepted, in the figure's unit."
    )
    runs: Literal["best", "all"] | dict[str, Any] = Field(
        "best",
        description="best: the best by primary_metric; all; or coordinates, such as {model: mini}.",
    )
    undecided: Literal["fail", "pass"] = Field(
        "fail", description="What becomes of the check when the interval does not decide it."
    )


class Experiment(Section):
    """A whole experiment file."""

    name: Id = Field(description="Name of the experiment; also of its DVC stages.")
    description: str = ""
    program: Program
    dataset: Dataset
    models: Annotated[dict[Id, Model], Field(min_length=1)]
    optimizers: dict[Id, Optimizer] = Field(default_factory=dict)
    matrix: Matrix = Field(default_factory=Matrix)
    metrics: Annotated[dict[Id, Metric], Field(min_length=1)]
    primary_metric: str | None = Field(None, description="Metric that ranks the runs. Default: the first.")
    checks: dict[str, Check] = Field(
        default_factory=dict,
        description="What `dspylab check` demands: a metric, or a figure such as latency_s.p95 or cost_usd.",
    )
    budget: Budget = Field(default_factory=Budget)
    execution: Execution = Field(default_factory=Execution)

    @property
    def ranked_by(self) -> str:
        """Name of the metric that ranks the runs."""
        return self.primary_metric or next(iter(self.metrics))
