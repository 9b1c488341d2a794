"""What `show`, `compare` and `report` say when the results are not those of the files as they are now."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspylab.commands.find import find_config
from dspylab.errors import DspylabError
from dspylab.laboratory import open_laboratory


def tell_stale(config: Path | None, summary: Mapping[str, Any]) -> None:
    """Says on stderr, which no format is printed to, how many runs are stale; nothing if none is.

    Results can be looked at whatever the files say by now, so what cannot be found out is not told either:
    an experiment file that is wrong, a dataset that is elsewhere, or code that was never imported here.

    Args:
        config: What `--config` says.
        summary: The content of `summary.json`.
    """
    try:
        stale = open_laboratory(find_config(config), with_files=False).stale(summary)
    except (DspylabError, OSError):
        return
    if stale:
        print(
            "made from other code, data or settings than the files have now "
            f"({len(stale)} of {len(summary['runs'])} runs): `dspylab run`",
            file=sys.stderr,
        )
