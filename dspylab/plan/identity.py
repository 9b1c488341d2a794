"""What decides the results of a run, as a digest and as addresses in the experiment file. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from dspylab.config.models import Experiment, Model
from dspylab.config.values import canonical
from dspylab.records import JSON, RunSpec


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
    params = dict(chosen.get("params", {}))
    for name, value in settings.items():
        if name in ("temperature", "max_tokens"):
            chosen[name] = value
        else:
            params[name] = value
    chosen["params"] = params
    return chosen


def config_hash(
    experiment: Experiment, run: RunSpec, files: Mapping[str, str], versions: Mapping[str, str]
) -> str:
    """Digest of everything that decides the results of a run.

    Args:
        experiment: The experiment.
        run: The run.
        files: Path, relative to the root, of every code and data file to the digest of its content.
        versions: Package name to version, for the packages that shape prompts and replies.

    Returns:
        64 hexadecimal digits.
    """
    judges = {metric.model for metric in experiment.metrics.values() if metric.model}
    decisive = {
        "coordinates": dict(run.coordinates),
        "program": experiment.program.model_dump(mode="json"),
        "program_args": dict(run.program_args),
        "adapter": run.adapter,
        "seed": run.seed,
        "model": resolved_model(experiment, run.model, run.lm_settings),
        "judges": {judge: resolved_model(experiment, judge, {}) for judge in sorted(judges)},
        "optimizer": _optimizer(experiment, run),
        "dataset": experiment.dataset.model_dump(mode="json"),
        "metrics": {name: metric.model_dump(mode="json") for name, metric in experiment.metrics.items()},
        "files": dict(files),
        "versions": dict(versions),
    }
    return digest(decisive)


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
    models = [run.model, *sorted({m.model for m in experiment.metrics.values() if m.model})]
    if run.optimizer != "none":
        models += [run.compile_model or run.model, *experiment.optimizers[run.optimizer].lms.values()]
    addresses = ["program", "dataset", "metrics"]
    for model_id in dict.fromkeys(models):
        present = document.get("models", {}).get(model_id, {})
        addresses += [f"models.{model_id}.{key}" for key in Model.DECISIVE if key in present]
    if run.optimizer != "none":
        addresses.append(f"optimizers.{run.optimizer}")
    return addresses


def _optimizer(experiment: Experiment, run: RunSpec) -> JSON:
    entry = experiment.optimizers.get(run.optimizer)
    if entry is None:
        return None
    lms = {role: resolved_model(experiment, model, {}) for role, model in entry.lms.items()}
    compile_model = resolved_model(experiment, run.compile_model or run.model, run.lm_settings)
    return {**entry.model_dump(mode="json"), "lms": lms, "compile_model": compile_model}
