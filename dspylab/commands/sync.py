"""`dspylab sync`: the experiment as stages of the DVC pipeline."""

from __future__ import annotations

from pathlib import Path

from dspylab.commands.console import warn
from dspylab.commands.find import find_config
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.pipeline.dvcfile import upsert
from dspylab.pipeline.stages import PipelineEntry, build
from dspylab.scaffold.editors import refresh_schema


def sync_experiment(config: Path | None) -> None:
    """Writes the experiment's stages and says whether anything changed.

    Raises:
        DspylabError: If the experiment, its code or the pipeline's files are wrong.
    """
    laboratory = open_laboratory(find_config(config))
    warn(laboratory.loaded.warnings)
    changed = upsert(laboratory.layout.root, pipeline_entry(laboratory))
    refresh_schema(laboratory.loaded.path, laboratory.layout.root)
    runs = len(laboratory.runs)
    state = "wrote" if changed else "nothing to change:"
    print(f"{state} {runs} run{'s' * (runs != 1)} of {laboratory.experiment.name} in dvc.yaml")


def pipeline_entry(laboratory: Laboratory) -> PipelineEntry:
    """What DVC's files have to say about the experiment.

    Raises:
        ProgramError: If the user's code cannot be imported.
    """
    root = laboratory.layout.root

    def relative(paths: dict[Path, str]) -> list[str]:
        return sorted(path.relative_to(root).as_posix() for path in paths)

    return build(
        laboratory.experiment,
        laboratory.runs,
        config=laboratory.config,
        code=relative(laboratory.code_files),
        data=relative(laboratory.data_files),
        training=sorted(path.relative_to(root).as_posix() for path in laboratory.training_files),
        document=laboratory.loaded.document,
        endpoints=laboratory.endpoints,
    )
