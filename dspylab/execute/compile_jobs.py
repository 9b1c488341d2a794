"""From the compiles of an experiment to jobs: everything that can be wrong is found before the first call."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import dspy

from dspylab.config.models import Experiment
from dspylab.config.optimizers import WITH_FRAME
from dspylab.errors import InvalidExperiment
from dspylab.execute.compile import CompileJob
from dspylab.execute.example import example_of
from dspylab.laboratory import REPORTED_PACKAGES, Laboratory, versions
from dspylab.lm.build import Models
from dspylab.optimize.build import Optimizers, Supplies, UnusableOptimizer
from dspylab.optimize.metric import OptimizerMetric, optimizer_metric
from dspylab.optimize.state import load_state
from dspylab.plan.identity import compile_models, optimized_metric
from dspylab.program.adapters import adapter_of
from dspylab.records import CompileSpec, RunSpec


def has_frame(experiment: Experiment, optimizer_id: str) -> bool:
    """Whether an optimizer's programs call models beside those of the program itself."""
    return experiment.optimizers[optimizer_id].type in WITH_FRAME


def compile_job(laboratory: Laboratory, spec: CompileSpec, models: Models) -> CompileJob:
    """Prepares a compile. No model is called.

    Raises:
        InvalidExperiment: If the optimizer cannot be made as the file describes it.
        ProgramError: If the user's code cannot be used.
        DataError: If the dataset cannot be read.
    """
    experiment = laboratory.experiment
    entry = experiment.optimizers[spec.optimizer]
    supplies = _supplies(laboratory, spec, models)
    with _findings(laboratory):
        optimize = Optimizers(experiment, supplies).make(spec.optimizer)
    roles = compile_models(experiment, spec)

    def build() -> dspy.Module:
        return laboratory.code.build(spec.program_args)

    build()  # what the factory raises is known before the first call
    return CompileJob(
        spec=spec,
        compile_hash=laboratory.compile_hash(spec),
        layout=laboratory.layout,
        place=laboratory.loaded.place(("optimizers", spec.optimizer)),
        build=build,
        optimize=optimize,
        metric=supplies.metric(spec.optimizer),
        lm=supplies.task_lm,
        engines=tuple(models.engines[model_id] for model_id in dict.fromkeys(roles.values())),
        adapter=adapter_of(laboratory.code, spec.adapter),
        train=supplies.train,
        validation=supplies.validation,
        width=models.width(spec.model),
        ledger=models.ledger,
        optimizer=str(entry.type or entry.path),
        params=entry.params,
        frame=lambda: Optimizers(experiment, supplies).frame(spec.optimizer, build),
        note={"optimizer": entry.type, "params": entry.params}
        if has_frame(experiment, spec.optimizer)
        else {},
        models=roles,
        rates={model_id: models.rates(model_id) for model_id in dict.fromkeys(roles.values())},
        versions=versions(REPORTED_PACKAGES),
    )


def compiled_program(laboratory: Laboratory, run: RunSpec, models: Models) -> dspy.Module:
    """The program of a run: what the factory builds, as its optimizer left it.

    Raises:
        ProgramError: If the compiled program does not fit what the factory builds.
        DataError: If its file is absent or damaged.
    """

    def build() -> dspy.Module:
        return laboratory.code.build(run.program_args)

    spec = laboratory.needed_compiles.get(run.key)
    if spec is None:
        return build()
    program = build()
    if has_frame(laboratory.experiment, spec.optimizer):
        with _findings(laboratory):
            optimizers = Optimizers(laboratory.experiment, _supplies(laboratory, spec, models))
            program = optimizers.frame(spec.optimizer, build)
    return load_state(program, laboratory.layout.program(spec.key))


def _supplies(laboratory: Laboratory, spec: CompileSpec, models: Models) -> Supplies:
    experiment = laboratory.experiment

    def lm(model_id: str) -> dspy.LM:
        return models.lm(model_id, {}, spec.seed)

    def metric(optimizer_id: str) -> OptimizerMetric:
        name = optimized_metric(experiment, optimizer_id)
        code = laboratory.code
        return optimizer_metric(name, experiment.metrics, code.attribute, lm, code.metric)

    train = list(laboratory.splits.train)
    if spec.seed is not None:
        random.Random(spec.seed).shuffle(train)
    return Supplies(
        metric=metric,
        lm=lm,
        task_lm=models.lm(spec.model, spec.lm_settings, spec.seed),
        train=[example_of(row) for row in train],
        validation=[example_of(row) for row in laboratory.splits.validation],
        seed=spec.seed,
        folder=laboratory.layout.compiling(laboratory.compile_hash(spec)),
        resolve=laboratory.code.attribute,
    )


@contextlib.contextmanager
def _findings(laboratory: Laboratory) -> Iterator[None]:
    """Says of an optimizer that cannot be made where in the file it stands."""
    try:
        yield
    except UnusableOptimizer as error:
        raise InvalidExperiment(
            [laboratory.loaded.finding(found.address, found.problem, found.remedy) for found in error.defects]
        ) from error
