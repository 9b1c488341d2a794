"""A compiled program as a file: DSPy's own JSON state, which `dspy.Module.load` reads too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy
from dspy.utils.saving import get_dependency_versions

from dspylab.errors import ProgramError
from dspylab.jsonable import to_json
from dspylab.places import shown_path
from dspylab.record.publish import read_json, write_json

_METADATA = "metadata"


def write_state(path: Path, program: dspy.Module, note: Mapping[str, Any]) -> None:
    """Writes what an optimizer changed of a program: instructions, fields and demonstrations.

    Models are left out: the program runs on those of the experiment file.

    Args:
        path: Where it goes.
        program: The compiled program.
        note: What decides how it runs and is in no state of it; kept among the metadata.

    Raises:
        EnvironmentProblem: If it cannot be written.
    """
    metadata = {"dependency_versions": get_dependency_versions(), **({"dspylab": note} if note else {})}
    write_json(path, {**program_state(program), _METADATA: to_json(metadata)})


def program_state(program: dspy.Module) -> dict[str, Any]:
    """What an optimizer can change of a program, as JSON; without models, which only DSPy's own can be."""
    predictors = program.predictors()
    lms = [predictor.lm for predictor in predictors]
    try:
        for predictor in predictors:
            predictor.lm = None
        state: dict[str, Any] = to_json(program.dump_state())
    finally:
        for predictor, lm in zip(predictors, lms, strict=True):
            predictor.lm = lm
    return state


def load_state(program: dspy.Module, path: Path) -> dspy.Module:
    """Gives a program what an optimizer made of it.

    Args:
        program: As the factory builds it.
        path: File of the compiled program.

    Returns:
        The same program.

    Raises:
        DataError: If the file is absent or damaged.
        ProgramError: If it is of another program.
    """
    state = read_json(path)
    state.pop(_METADATA, None)
    own_lms = [predictor.lm for predictor in program.predictors()]
    try:
        program.load_state(state)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ProgramError(
            f"does not fit the program that the factory builds: {type(error).__name__}: {error}",
            where=shown_path(path),
            remedy="compile it anew: `dspylab run`, or `dspylab compile-one --fresh`",
        ) from error
    for predictor, lm in zip(program.predictors(), own_lms, strict=True):
        predictor.lm = lm
    return program
