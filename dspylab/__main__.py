"""The way in, of `dspylab` and `python -m dspylab`. Ctrl-C is no traceback while modules are imported."""

from __future__ import annotations

import gc
import sys

# Commands begin by importing a lot, which leaves hardly any garbage and all of which would be looked through.
gc.set_threshold(50_000, 10, 10)

try:
    from dspylab.cli import main
except KeyboardInterrupt:
    sys.exit(130)

__all__ = ["main"]

if __name__ == "__main__":
    main()
