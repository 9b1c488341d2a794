"""How grave a log message is, where Python's own levels do not tell."""

from __future__ import annotations

import logging
from typing import Final

#: Worth saying without being asked, such as what takes a while, though it warns of nothing.
NOTE: Final = (logging.INFO + logging.WARNING) // 2
