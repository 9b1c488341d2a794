"""From runs to what `dvc.yaml` and `params.yaml` say about them. Pure.

Two facts about DVC shape what is written here:

* `dvc exp show` prints the whole of `params.yaml` and every interpolated value that comes from a params file.
  So the items of the `foreach` stage stand in `dvc.yaml` itself, where DVC treats them as local.
* DVC compares the values of the addresses that a stage lists and nothing else. A key that was taken out of a
  model is no longer listed, hence no change. So `params.yaml` keeps which keys each model sets, and the runs
  depend on that too. An endpoint that only the environment names stands there as well.

A run that has an optimizer depends on its compiled program, not on what that was compiled from. Both files of
a compile persist: DVC must not remove them before it calls `compile-one`, which keeps a program that stands.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from dspylab.config.models import Dataset, Experiment
from dspylab.config.values import is_json
from dspylab.pipeline.plots import plots
from dspylab.plan.compiles import compiles, distinct_compiles
from dspylab.plan.identity import compile_addresses, param_addresses
from dspylab.records import JSON, CompileSpec, RunSpec

RUN_COMMAND = "dspylab run-one --config"
COMPILE_COMMAND = "dspylab compile-one --config"
SUMMARY_COMMAND = "dspylab aggregate --config"
#: What lies in the folder of a run and is kept in the DVC cache.
RUN_OUTPUTS = ("raw.jsonl", "run.json")
#: Lines of the `.gitignore` beside the experiment file.
IGNORED = tuple(f"/results/**/{name}" for name in RUN_OUTPUTS)
#: Of the files of a compiled program, which lie in git.
COMPILE_ENDINGS = (".json", ".record.json")
#: Sections of the experiment file that the summary is made from, beside the rows.
SUMMARY_SECTIONS = (
    "name",
    "program",
    "dataset",
    "models",
    "optimizers",
    "matrix",
    "metrics",
    "primary_metric",
)
#: How Python prints what JSON writes otherwise.
_AS_IN_PYTHON: Mapping[str, JSON] = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class PipelineEntry:
    """Everything that DVC's files say about one experiment.

    Attributes:
        name: Name of the experiment, of its run stage and of its entry in `params.yaml`.
        config: Experiment file, relative to the root of the repository.
        stages: Stage name to definition, for `dvc.yaml`.
        params: The experiment's entry in `params.yaml`.
    """

    name: str
    config: PurePosixPath
    stages: Mapping[str, Any]
    params: Mapping[str, Any]


def build(
    experiment: Experiment,
    runs: Sequence[RunSpec],
    *,
    config: PurePosixPath,
    code: Sequence[str],
    data: Sequence[str],
    training: Sequence[str],
    document: Mapping[str, Any],
    endpoints: Mapping[str, str],
) -> PipelineEntry:
    """Says what DVC's files have to say about an experiment.

    Args:
        experiment: The experiment.
        runs: Its runs, at least one.
        config: The experiment file, relative to the root of the repository.
        code: Python files that the program consists of, relative to the root.
        data: Dataset files, relative to the root.
        training: Those of them that optimizers learn from.
        document: The experiment file as plain data.
        endpoints: Model id to its endpoint, for those whose endpoint only the environment names.

    Returns:
        The entry. It depends on nothing but the arguments, so two calls agree.
    """
    addresses = {run.key: param_addresses(experiment, run, document) for run in runs}
    needed = compiles(runs)
    specs = distinct_compiles(needed)
    compile_params = {spec.key: compile_addresses(experiment, spec, document) for spec in specs}
    settings = _settings([*addresses.values(), *compile_params.values()], endpoints)
    programs = literal(str(config.parent / "programs"))
    sections = [section for section in SUMMARY_SECTIONS if section in document]
    stages: dict[str, Any] = {}
    params: dict[str, Any] = {"config": str(config), "sections": sections, "settings": settings}
    if specs:
        stages[compile_stage_name(experiment.name)] = _compile_stage(
            experiment.name, config, specs, compile_params, [*code, *training]
        )
        params["training"] = [key for key in Dataset.TRAINING if key in document["dataset"]]
    files = [literal(path) for path in dict.fromkeys([*code, *data])]
    needs = {run.key: _program_of(run, needed, programs, files) for run in runs} if needed else {}
    stages[experiment.name] = _run_stage(
        experiment.name, runs, config, addresses, files=files, programs=needs
    )
    stages[summary_stage_name(experiment.name)] = _summary_stage(
        experiment, config, sections, [programs] if needed else []
    )
    return PipelineEntry(
        name=experiment.name,
        config=config,
        stages=stages,
        params=params,
    )


def _run_stage(
    name: str,
    runs: Sequence[RunSpec],
    config: PurePosixPath,
    addresses: Mapping[str, Sequence[str]],
    *,
    files: Sequence[str],
    programs: Mapping[str, str],
) -> dict[str, Any]:
    """The stage of all runs.

    Args:
        name: Name of the experiment.
        runs: The runs.
        config: The experiment file.
        addresses: Run key to what it reads of the file.
        files: What every run depends on, as `dvc.yaml` spells it.
        programs: Run key to the program that it depends on; empty when nothing is compiled.
    """
    reading = _Reading.of(name, addresses)
    deps = [*files, *(["${item.program}"] if programs else [])]
    return {
        "foreach": {
            run.key: {**reading.item(run), **({"program": programs[run.key]} if programs else {})}
            for run in runs
        },
        "do": {
            "cmd": f"{RUN_COMMAND} {quote(str(config))} ${{item.args}}",
            **({"deps": deps} if deps else {}),
            "params": reading.params(config),
            "outs": [f"{literal(str(config.parent / 'results'))}/${{key}}/{out}" for out in RUN_OUTPUTS],
        },
    }


def _summary_stage(
    experiment: Experiment, config: PurePosixPath, sections: Sequence[str], programs: Sequence[str]
) -> dict[str, Any]:
    """The stage that makes the summary, and what DVC shows of it, from the results of all runs."""
    folder = config.parent
    return {
        "cmd": f"{SUMMARY_COMMAND} {quote(str(config))}",
        # The folder stands for every run's files: one entry in dvc.lock instead of two a run.
        "deps": [literal(str(folder / "results")), *programs],
        "params": [{literal(str(config)): list(sections)}, f"{experiment.name}.sections"],
        "outs": [{literal(str(folder / "summary.json")): {"cache": False}}],
        "metrics": [{literal(str(folder / "metrics.json")): {"cache": False}}],
        "plots": [
            {literal(str(folder / "plots" / f"{name}.json")): {"cache": False, **plot}}
            for name, plot in plots(experiment.name, literal(experiment.ranked_by)).items()
        ],
    }


def _compile_stage(
    name: str,
    config: PurePosixPath,
    specs: Sequence[CompileSpec],
    addresses: Mapping[str, Sequence[str]],
    files: Sequence[str],
) -> dict[str, Any]:
    """The stage that compiles each program once."""
    reading = _Reading.of(name, addresses)
    place = f"{literal(str(config.parent / 'programs'))}/${{key}}"
    return {
        "foreach": {spec.key: reading.item(spec) for spec in specs},
        "do": {
            "cmd": f"{COMPILE_COMMAND} {quote(str(config))} ${{item.args}}",
            "deps": [literal(path) for path in dict.fromkeys(files)],
            "params": reading.params(config, f"{name}.training"),
            "outs": [{f"{place}{ending}": {"cache": False, "persist": True}} for ending in COMPILE_ENDINGS],
        },
    }


def _program_of(run: RunSpec, needed: Mapping[str, CompileSpec], programs: str, files: Sequence[str]) -> str:
    """The compiled program that a run depends on.

    A run without one names a file again that it depends on anyway: DVC interpolates single strings, and
    every item must have one. It takes that as said once. Where there is no such file, all code being that
    of installed packages, it is the program of another run.
    """
    own = needed.get(run.key)
    if own is None and files:
        return files[0]
    return f"{programs}/{(own or next(iter(needed.values()))).key}.json"


def summary_stage_name(name: str) -> str:
    """Name of the stage that builds the summary of an experiment."""
    return f"{name}-summary"


def compile_stage_name(name: str) -> str:
    """Name of the stage that compiles the programs of an experiment."""
    return f"{name}-compile"


def compile_item_name(name: str, key: str) -> str:
    """Address of the stage of one compile, as in `dvc repro triage-compile@fewshot-smollm2`."""
    return f"{compile_stage_name(name)}@{key}"


def run_stage_name(name: str, key: str) -> str:
    """Address of the stage of one run, as in `dvc repro triage@smollm2-predict`."""
    return f"{name}@{key}"


def arguments(run: RunSpec | CompileSpec) -> str:
    """The coordinates of a run or a compile as the command line of its stage names them, for a shell."""
    return " ".join(quote(coordinate(axis, value)) for axis, value in run.coordinates.items())


def coordinate(axis: str, value: JSON) -> str:
    """One coordinate as an argument, not quoted: `model=smollm2`, `lm.temperature=0.7`.

    A value is JSON, except that a string which is no JSON by itself stands bare. `parse_coordinate` is the
    inverse.
    """
    bare = isinstance(value, str) and value.isprintable() and not is_json(value)
    return f"{axis}={value if bare else json.dumps(value)}"


def parse_coordinate(argument: str) -> tuple[str, JSON]:
    """Axis and value of an argument that `coordinate` wrote or a person typed.

    Raises:
        ValueError: If the argument has no `=`.
    """
    axis, equals, text = argument.partition("=")
    if not equals or not axis:
        raise ValueError(argument)
    return axis, json.loads(text) if is_json(text) else text


def meant_value(value: JSON, values: Collection[JSON]) -> JSON:
    """What a person meant who typed a value as Python writes it: `False` is false.

    Args:
        value: Of `parse_coordinate`.
        values: Those that the axis has.

    Returns:
        The value itself if it is one of them, or stands for none of them.
    """
    if not isinstance(value, str) or value not in _AS_IN_PYTHON or value in values:
        return value
    meant = _AS_IN_PYTHON[value]
    return meant if any(found is meant for found in values) else value


def quote(text: str) -> str:
    """Quotes an argument for a shell, in such a way that DVC sees no `${` to interpolate in it."""
    # Whatever has a `$` is in single quotes, so they can be closed and opened again between `$` and `{`.
    return shlex.quote(text).replace("${", "$''{")


def literal(path: str) -> str:
    """A path as `dvc.yaml` has to spell it, so that DVC does not interpolate it."""
    return path.replace("${", "\\${")


@dataclass(frozen=True, slots=True)
class _Tracked:
    """Addresses that all runs track, and those that differ from run to run.

    DVC interpolates single strings, never lists, into `params:`. So every run names the same number of own
    addresses; one that has fewer names its last one again, which DVC takes as said once.
    """

    common: list[str]
    own: Mapping[str, list[str]]
    width: int

    @classmethod
    def split(cls, addresses: Mapping[str, Sequence[str]]) -> _Tracked:
        first, *others = addresses.values()
        shared = set(first).intersection(*others)
        common = [address for address in first if address in shared]
        own = {
            key: [address for address in found if address not in shared] for key, found in addresses.items()
        }
        width = max(map(len, own.values()))
        padded = {key: found + [(found or common)[-1]] * (width - len(found)) for key, found in own.items()}
        return cls(common, padded, width)

    def places(self, field: str) -> list[str]:
        return [f"${{item.{field}[{position}]}}" for position in range(self.width)]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the items of a stage read: addresses of the experiment file, and of `params.yaml`."""

    file: _Tracked
    settings: _Tracked

    @classmethod
    def of(cls, name: str, addresses: Mapping[str, Sequence[str]]) -> _Reading:
        models = {key: _models_of(found, name) for key, found in addresses.items()}
        return cls(_Tracked.split(addresses), _Tracked.split(models))

    def item(self, spec: RunSpec | CompileSpec) -> dict[str, Any]:
        return {
            "args": arguments(spec),
            **({"params": self.file.own[spec.key]} if self.file.width else {}),
            **({"settings": self.settings.own[spec.key]} if self.settings.width else {}),
        }

    def params(self, config: PurePosixPath, *further: str) -> list[Any]:
        of_file = [*self.file.common, *self.file.places("params")]
        return [
            {literal(str(config)): of_file},
            *further,
            *self.settings.common,
            *self.settings.places("settings"),
        ]


def _settings(addresses: Iterable[Sequence[str]], endpoints: Mapping[str, str]) -> dict[str, list[str]]:
    """Model id to its keys that decide results and stand in the file, and to an endpoint that does not."""
    keys: dict[str, list[str]] = {}
    for address in dict.fromkeys(address for found in addresses for address in found):
        section, _, rest = address.partition(".")
        model, _, key = rest.partition(".")
        if section == "models":
            keys.setdefault(model, []).append(key)
    return {
        model: [*found, *([f"api_base: {endpoints[model]}"] if model in endpoints else [])]
        for model, found in keys.items()
    }


def _models_of(addresses: Sequence[str], name: str) -> list[str]:
    """Addresses in `params.yaml` of the models that a run's addresses belong to."""
    models = (address.split(".")[1] for address in addresses if address.startswith("models."))
    return [f"{name}.settings.{model}" for model in dict.fromkeys(models)]
