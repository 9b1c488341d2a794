"""`dspylab aggregate`: the summary from the results that are there. Also the command of the summary stage."""

from __future__ import annotations

from pathlib import Path

from dspylab.aggregate.collect import Collected, collect
from dspylab.commands.find import find_config
from dspylab.config.wording import counted
from dspylab.errors import RunsIncomplete
from dspylab.laboratory import Laboratory, open_laboratory
from dspylab.pipeline.git import file_at, git_state
from dspylab.places import shown_path


def aggregate_experiment(config: Path | None) -> None:
    """Writes `summary.json`, and `metrics.json` and `plots` for DVC.

    Raises:
        RunsIncomplete: If results were made with other settings than the file has now. They are left out.
    """
    laboratory = open_laboratory(find_config(config))
    collected = summarize_workspace(laboratory)
    runs = len(collected.summary.runs)
    print(f"{shown_path(laboratory.layout.summary)}: {runs} of {counted(len(laboratory.runs), 'run')}")
    if collected.outdated:
        raise RunsIncomplete(
            f"left out, as made with other settings, code or data: {', '.join(collected.outdated)}",
            where=laboratory.loaded.given,
            remedy="execute them with `dspylab run`, or `dspylab sync` and then `dvc repro`",
        )


def summarize_workspace(laboratory: Laboratory) -> Collected:
    """Writes the summary of what lies in the workspace; the one of the current commit if it says the same.

    Raises:
        DspylabError: As `collect`.
    """
    root = laboratory.layout.root
    state = git_state(root)
    name = laboratory.layout.summary.relative_to(root).as_posix()
    return collect(laboratory, state, None if state is None else file_at(root, state.commit, name))
