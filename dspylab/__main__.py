"""The way in, of `dspylab` and `python -m dspylab`. Ctrl-C is no traceback while modules are imported."""

from __future__ import annotations

import sys

try:
    from dspylab.cli import main
except KeyboardInterrupt:
    sys.exit(130)

__all__ = ["main"]

if __name__ == "__main__":
    main()
