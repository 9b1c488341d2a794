"""`dspylab validate`: is the file right, and what does it say?"""

from __future__ import annotations

from pathlib import Path

from dspylab.commands.console import warn
from dspylab.commands.find import find_config
from dspylab.config.load import load
from dspylab.plan.matrix import axis_values, excluded
from dspylab.plan.runs import plan_runs


def validate_experiment(config: Path | None) -> None:
    """Checks an experiment file and says what it holds.

    Raises:
        InvalidExperiment: If it is wrong, with every finding.
    """
    path = find_config(config)
    loaded = load(path)
    experiment, runs = loaded.experiment, plan_runs(loaded)
    warn(loaded.warnings)
    over = ", ".join(f"{axis} ({len(values)})" for axis, values in axis_values(experiment).items())
    numbers = (("excluded", excluded(experiment)), ("included", len(experiment.matrix.include)))
    changes = [f"{number} {what}" for what, number in numbers if number]
    runs_of = f"{len(runs)} run{'s' * (len(runs) != 1)} over {over}"
    print(f"{path}: valid: {experiment.name}: {'; '.join([runs_of, *changes])}")
