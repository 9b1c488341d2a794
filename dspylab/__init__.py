"""dspylab: one YAML file into a DVC pipeline that runs, meters and compares DSPy programs.

The package is a chain of stages, each of which knows only those before it: ``config`` → ``plan`` →
``pipeline`` → ``execute`` → ``record`` → ``aggregate`` → ``report``. ``commands`` puts them together and
``cli`` is the door. Importing this module loads none of them; `load_results` is loaded when it is asked for.
"""

from __future__ import annotations

import importlib

# Not from typing, which takes long enough for Ctrl-C to leave a traceback: see `__main__`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dspylab.results import Results, load_results

__all__ = ["Results", "__version__", "load_results"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("Results", "load_results"):
        return getattr(importlib.import_module("dspylab.results"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
