"""How to install what a feature needs: the packages of an extra, by name."""

from __future__ import annotations

import importlib.metadata

from packaging.requirements import Requirement


def install_command(extra: str) -> str:
    """The command that installs the packages of an extra.

    It names the packages, not `dspylab[extra]`: it works wherever dspylab itself came from.

    Args:
        extra: Such as `local`.
    """
    try:
        declared = importlib.metadata.requires("dspylab") or []
    except importlib.metadata.PackageNotFoundError:  # it runs from its sources
        return f"pip install 'dspylab[{extra}]'"
    requirements = map(Requirement, declared)
    packages = [
        f"'{requirement.name}{requirement.specifier}'"
        for requirement in requirements
        if requirement.marker is not None
        and requirement.marker.evaluate({"extra": extra})
        and not requirement.marker.evaluate({"extra": ""})
        and requirement.name != "dspylab"
    ]
    return f"pip install {' '.join(packages)}"
