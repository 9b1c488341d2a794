"""What decides the answers of a run's program, apart from what decides how they are scored. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from dspylab.config.models import Experiment
from dspylab.plan.identity import digest, resolved_model
from dspylab.records import RunSpec


def answers_hash(
    experiment: Experiment,
    run: RunSpec,
    files: Mapping[str, str],
    versions: Mapping[str, str],
    program: str | None = None,
) -> str:
    """Digest of everything that decides what the program of a run answers.

    It is `config_hash` without the metrics, their code and their judges, and without the names of the axes:
    two runs of one matrix may have it in common only if they would ask the same.

    Args:
        experiment: The experiment.
        run: The run.
        files: Path, relative to the root, of every data file, and every code file but those that only
            metrics need, to the digest of its content.
        versions: Package name to version, for the packages that shape prompts and replies.
        program: As for `config_hash`.

    Returns:
        64 hexadecimal digits.
    """
    decisive = {
        # Not the coordinates: an axis that is added later renames a run, and changes no answer.
        "model_id": run.model,
        "is_seeded": "seed" in run.coordinates,
        "program": experiment.program.model_dump(mode="json"),
        "program_args": dict(run.program_args),
        "adapter": run.adapter,
        "seed": run.seed,
        "model": resolved_model(experiment, run.model, run.lm_settings),
        "optimizer": program,
        "dataset": experiment.dataset.model_dump(mode="json"),
        "files": dict(files),
        "versions": dict(versions),
    }
    return digest(decisive)
