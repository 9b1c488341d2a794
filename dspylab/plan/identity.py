"""What decides the results of a run, as a digest and as addresses in the experiment file. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dspylab.config.models import Dataset, Experiment, Model
from dspylab.config.optimizers import nested_ids
from dspylab.config.values import canonical
from dspylab.records import JSON, CompileSpec, RunSpec


def resolved_model(experiment: Experiment, model_id: str, settings: Mapping[str, JSON]) -> dict[str, JSON]:
    """The settings of a model that reach its endpoint, with the run's `lm.*` settings laid over them.

    Args:
        experiment: The experiment.
        model_id: Id of the model entry.
        settings: Request settings of the run; `temperature` and `max_tokens` replace the entry's own,
            anything else goes to `params`.

    Returns:
        JSON values by key, without keys that are unset; never a key, a limit, a timeout or a price.
    """
    entry = experiment.models[model_id].model_dump(mode="json", exclude_none=True)
    chosen: dict[str, Any] = {key: entry[key] for key in Model.DECISIVE if key in entry}
    params = dict(chosen["params"])
    for name, value in settings.items():
        if name in ("temperature", "max_tokens"):
            chosen[name] = value
        else:
            params[name] = value
    chosen["params"] = params
    return chosen


def config_hash(
    experiment: Experiment,
    run: RunSpec,
    files: Mapping[str, str],
    versions: Mapping[str, str],
    program: str | None = None,
) -> str:
    """Digest of everything that decides the results of a run.

    Args:
        experiment: The experiment.
        run: The run.
        files: Path, relative to the root, of every code and data file to the digest of its content.
        versions: Package name to version, for the packages that shape prompts and replies.
        program: Digest of the compiled program's file. It stands for all that decided the program. None for
            a run without an optimizer, and as long as there is no program.

    Returns:
        64 hexadecimal digits.
    """
    decisive = {
        **_answering(experiment, run, files, versions, program),
        "dataset": experiment.dataset.model_dump(mode="json"),
        "coordinates": dict(run.coordinates),
        "judges": {judge: resolved_model(experiment, judge, {}) for judge in _judges(experiment)},
        "metrics": {name: metric.model_dump(mode="json") for name, metric in experiment.metrics.items()},
    }
    return digest(decisive)


def answers_hash(
    experiment: Experiment,
    run: RunSpec,
    files: Mapping[str, str],
    versions: Mapping[str, str],
    program: str | None = None,
) -> str:
    """Digest of everything that decides what the program of a run answers.

    It is `config_hash` without the metrics, their code and their judges, without the examples, which are
    compared one by one, and without the names of axes and models: two runs of one matrix may have it in
    common only if they would ask the same.

    Args:
        experiment: The experiment.
        run: The run.
        files: Path, relative to the root, of every file that the program reads, and every code file but
            those that only metrics need, to the digest of its content.
        versions: Package name to version, for the packages that shape prompts and replies.
        program: As for `config_hash`.

    Returns:
        64 hexadecimal digits.
    """
    decisive = {
        **_answering(experiment, run, files, versions, program),
        # Not the coordinates: an axis that is added later renames a run, and changes no answer.
        "inputs": sorted(experiment.dataset.inputs),
        "is_seeded": "seed" in run.coordinates,
    }
    return digest(decisive)


def _answering(
    experiment: Experiment,
    run: RunSpec,
    files: Mapping[str, str],
    versions: Mapping[str, str],
    program: str | None,
) -> dict[str, Any]:
    """What decides the answers of a run's program, by whatever name the run goes."""
    return {
        "program": experiment.program.model_dump(mode="json"),
        "program_args": dict(run.program_args),
        "adapter": run.adapter,
        "seed": run.seed,
        "model": resolved_model(experiment, run.model, run.lm_settings),
        "optimizer": program,
        "files": dict(files),
        "versions": dict(versions),
    }


def compile_hash(
    experiment: Experiment,
    spec: CompileSpec,
    code: Mapping[str, str],
    training: str,
    versions: Mapping[str, str],
) -> str:
    """Digest of everything that decides a compiled program.

    Neither the test examples nor any metric but the one that is optimized are in it.

    Args:
        experiment: The experiment.
        spec: The compile.
        code: Path, relative to the root, of every code file to the digest of its content.
        training: Digest of the training and validation examples.
        versions: Package name to version, for the packages that shape prompts and replies.

    Returns:
        64 hexadecimal digits.
    """
    entry = experiment.optimizers[spec.optimizer]
    others = nested_optimizers(experiment, spec.optimizer)
    decisive = {
        "program": experiment.program.model_dump(mode="json"),
        "program_args": dict(spec.program_args),
        "adapter": spec.adapter,
        "optimizer": entry.model_dump(mode="json", exclude={"metric"}),
        "nested": {name: experiment.optimizers[name].model_dump(mode="json") for name in others},
        "metrics": {
            optimizer: {"name": name, **experiment.metrics[name.partition(".")[0]].model_dump(mode="json")}
            for optimizer, name in _optimized_metrics(experiment, spec).items()
        },
        "models": {
            "task": resolved_model(experiment, spec.model, spec.lm_settings),
            **{role: resolved_model(experiment, model, {}) for role, model in _roles(experiment, spec)},
        },
        "seed": spec.seed,
        "training": training,
        "files": dict(code),
        "versions": dict(versions),
    }
    return digest(decisive)


def optimized_metric(experiment: Experiment, optimizer: str) -> str:
    """Name of the metric that an optimizer optimizes; `helpful.clarity` for one number of several."""
    return experiment.optimizers[optimizer].metric or experiment.ranked_by


def compile_models(experiment: Experiment, spec: CompileSpec) -> dict[str, str]:
    """Role to id of every model that a compile calls: `task`, the optimizer's roles and `judge`."""
    return {"task": spec.model, **dict(_roles(experiment, spec))}


def nested_optimizers(experiment: Experiment, optimizer: str) -> list[str]:
    """Ids of the optimizers that another one is made of, such as those of BetterTogether; each once."""
    return list(dict.fromkeys(nested_ids(experiment.optimizers[optimizer])))


def digest(value: object) -> str:
    """SHA-256 of a JSON value, independent of the order of keys, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def param_addresses(experiment: Experiment, run: RunSpec, document: Mapping[str, Any]) -> list[str]:
    """Addresses in the experiment file that a run reads, for DVC's `params:`.

    Only keys that stand in the file can be listed (DVC refuses others), so the whole of a section is
    listed where all its keys are decisive, and key by key where some are not.

    Args:
        experiment: The experiment.
        run: The run.
        document: The file as plain data.

    Returns:
        Dotted addresses, without duplicates, in a stable order.
    """
    models = [run.model, *_judges(experiment)]
    return ["program", "dataset", "metrics", *_model_addresses(models, document)]


def compile_addresses(experiment: Experiment, spec: CompileSpec, document: Mapping[str, Any]) -> list[str]:
    """Addresses in the experiment file that a compile reads; otherwise as `param_addresses`."""
    metrics = _optimized_metrics(experiment, spec)
    present = document.get("dataset", {})
    addresses = ["program", *(f"dataset.{key}" for key in Dataset.TRAINING if key in present)]
    addresses += [f"optimizers.{name}" for name in metrics]
    addresses += dict.fromkeys(f"metrics.{name.partition('.')[0]}" for name in metrics.values())
    falls_back = any(experiment.optimizers[name].metric is None for name in metrics)
    if falls_back and "primary_metric" in document:
        addresses.append("primary_metric")
    return [*addresses, *_model_addresses(compile_models(experiment, spec).values(), document)]


def _judges(experiment: Experiment) -> list[str]:
    """Ids of the models that judge, sorted."""
    return sorted({metric.model for metric in experiment.metrics.values() if metric.model})


def _model_addresses(models: Iterable[str], document: Mapping[str, Any]) -> list[str]:
    addresses = []
    for model_id in dict.fromkeys(models):
        present = document.get("models", {}).get(model_id, {})
        addresses += [f"models.{model_id}.{key}" for key in Model.DECISIVE if key in present]
    return addresses


def _roles(experiment: Experiment, spec: CompileSpec) -> Iterator[tuple[str, str]]:
    """Roles beside the program's own, with the ids of their models."""
    yield from experiment.optimizers[spec.optimizer].lms.items()
    for name in nested_optimizers(experiment, spec.optimizer):
        yield from ((f"{name}.{role}", model) for role, model in experiment.optimizers[name].lms.items())
    for name, metric in _optimized_metrics(experiment, spec).items():
        judge = experiment.metrics[metric.partition(".")[0]].model
        if judge is not None:
            yield ("judge" if name == spec.optimizer else f"{name}.judge"), judge


def _optimized_metrics(experiment: Experiment, spec: CompileSpec) -> dict[str, str]:
    """Id of the optimizer, and of each that it is made of, to the name of the metric that it optimizes."""
    names = [spec.optimizer, *nested_optimizers(experiment, spec.optimizer)]
    return {name: optimized_metric(experiment, name) for name in names}
