"""`dspylab sync`: the experiment as stages of the DVC pipeline."""

from __future__ import annotations

from pathlib import Path

from dspylab.commands.find import find_config
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.pipeline.dvcfile import upsert
from dspylab.pipeline.stages import build


def sync_experiment(config: Path | None) -> None:
    """Writes the experiment's stages and says whether anything changed.

    Raises:
        DspylabError: If the experiment, its code or the pipeline's files are wrong.
    """
    laboratory = open_laboratory(find_config(config))
    changed = sync(laboratory)
    runs = len(laboratory.runs)
    state = "wrote" if changed else "nothing to change:"
    print(f"{state} {runs} run{'s' * (runs != 1)} of {laboratory.experiment.name} in dvc.yaml")


def sync(laboratory: Laboratory) -> bool:
    """Writes the experiment's stages into `dvc.yaml` and `params.yaml`; returns whether anything changed."""
    root = laboratory.layout.root

    def relative(paths: dict[Path, str]) -> list[str]:
        return sorted(path.relative_to(root).as_posix() for path in paths)

    entry = build(
        laboratory.experiment,
        laboratory.runs,
        config=laboratory.config,
        code=relative(laboratory.code_files),
        data=relative(laboratory.data_files),
        document=laboratory.loaded.document,
    )
    return upsert(root, entry)
