"""From a run to a job: the program, the model and the metrics that execute its examples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dspylab.config.models import Experiment
from dspylab.execute.compile_jobs import compiled_program, has_frame
from dspylab.execute.example import Job
from dspylab.execute.rescore import output_types
from dspylab.laboratory import Laboratory
from dspylab.lm.build import Models
from dspylab.lm.recorder import predictor_names
from dspylab.metrics.adapt import build_scorers
from dspylab.plan.identity import compile_models
from dspylab.program.adapters import adapter_of
from dspylab.records import RunSpec


def make_job(laboratory: Laboratory, spec: RunSpec, models: Models) -> Job:
    """Makes a run ready to execute. No model is called.

    Raises:
        ProgramError: If the user's code cannot be used.
        DataError: If its compiled program is absent or damaged.
        UsageError: If DSPy refuses its settings.
    """
    experiment = laboratory.experiment
    program = compiled_program(laboratory, spec, models)

    def judge(model_id: str) -> Any:
        return models.lm(model_id, {})

    return Job(
        spec=spec,
        program=program,
        names=predictor_names(program),
        lm=models.lm(spec.model, spec.lm_settings, spec.seed if "seed" in spec.coordinates else None),
        engines=tuple(models.engines[model_id] for model_id in (spec.model, *judges(experiment))),
        adapter=adapter_of(laboratory.code, spec.adapter),
        scorers=build_scorers(
            experiment.metrics, laboratory.code.attribute, judge, exported=laboratory.code.metric
        ),
        keep_prompts=experiment.execution.keep_prompts,
        types=output_types(program),
    )


def models_of_runs(laboratory: Laboratory, specs: Iterable[RunSpec]) -> list[str]:
    """Ids of the models that runs call: their own, the judges', those that some compiled programs call."""
    experiment, chosen = laboratory.experiment, list(specs)
    own = [laboratory.needed_compiles[spec.key] for spec in chosen if spec.key in laboratory.needed_compiles]
    around = [
        model
        for spec in own
        if has_frame(experiment, spec.optimizer)
        for model in compile_models(experiment, spec).values()
    ]
    found = [*(spec.model for spec in chosen), *(judges(experiment) if chosen else ()), *around]
    return list(dict.fromkeys(found))


def judges(experiment: Experiment) -> list[str]:
    """Ids of the models that metrics call."""
    return [metric.model for metric in experiment.metrics.values() if metric.model]
