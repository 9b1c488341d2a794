"""The programs that the runs of a matrix need compiled, each once. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dspylab.config.axes import NO_OPTIMIZER
from dspylab.config.values import canonical
from dspylab.plan.matrix import run_keys
from dspylab.records import JSON, CompileSpec, RunSpec

#: Axes that say which model answers, which is not always the one that compiles.
_MODEL_AXES = ("model", "compile_model")


def compiles(runs: Sequence[RunSpec]) -> dict[str, CompileSpec]:
    """What each run needs compiled.

    Runs that agree in the optimizer, the model that compiles, the program's arguments, the adapter and the
    seed share one compiled program. Where a `compile_model` is named, the settings `lm.*` are those of the
    model that answers, so they do not count; where the run's own model compiles, it does so with them.

    Args:
        runs: The runs of a matrix.

    Returns:
        Run key to its compile, for the runs that have an optimizer. Two runs with the same compile have the
        same object. Keys are made like those of runs, the optimizer first: ``fewshot-smollm2-predict``.
    """
    distinct: dict[str, CompileSpec] = {}
    needed: dict[str, str] = {}
    for run in runs:
        if run.optimizer != NO_OPTIMIZER:
            spec = _spec(run)
            identity = _identity(spec)
            distinct.setdefault(identity, spec)
            needed[run.key] = identity
    keys = run_keys([spec.coordinates for spec in distinct.values()])
    named = {
        identity: replace(spec, key=key) for (identity, spec), key in zip(distinct.items(), keys, strict=True)
    }
    return {run: named[identity] for run, identity in needed.items()}


def distinct_compiles(needed: Mapping[str, CompileSpec]) -> tuple[CompileSpec, ...]:
    """The compiles of a result of `compiles`, each once, in the order of the matrix."""
    return tuple({spec.key: spec for spec in needed.values()}.values())


def _spec(run: RunSpec) -> CompileSpec:
    model = run.compile_model or run.model
    settings = {} if run.compile_model is not None else run.lm_settings
    left_out = (*_MODEL_AXES, *([] if settings else _settings_axes(run)))
    others = {axis: value for axis, value in run.coordinates.items() if axis not in left_out}
    coordinates: dict[str, JSON] = {"optimizer": run.optimizer, "model": model, **others}
    return CompileSpec(
        key="",
        coordinates=coordinates,
        optimizer=run.optimizer,
        model=model,
        seed=run.seed if "seed" in run.coordinates else None,
        adapter=run.adapter,
        program_args=run.program_args,
        lm_settings=settings,
    )


def _settings_axes(run: RunSpec) -> list[str]:
    return [axis for axis in run.coordinates if axis.startswith("lm.")]


def _identity(spec: CompileSpec) -> str:
    deciding = [spec.optimizer, spec.model, spec.seed, spec.adapter]
    return canonical([*deciding, dict(spec.program_args), dict(spec.lm_settings)])
