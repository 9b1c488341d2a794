"""What Python and DSPy need before many threads run programs at once."""

from __future__ import annotations

import sys
from typing import Any
from weakref import WeakSet

import dspy

#: Time that a thread may compute before others get their turn, in seconds.
_TURN_S = 0.001


def prepare_for_threads() -> None:
    """Prepares this process. Doing it twice is fine."""
    # With Python's default of 5 ms, a reply that arrives while other threads compute is noticed late: at
    # 64 calls at once the 95th percentile of ttft_s was 20 ms too high; so it is 10.
    sys.setswitchinterval(min(_TURN_S, sys.getswitchinterval()))
    progress_bar = dspy.utils.parallelizer.tqdm.tqdm
    if not isinstance(progress_bar._instances, _ProgressBars):  # noqa: SLF001 - what `dspy.Parallel` clears
        progress_bar.get_lock()  # made at the first use, by each of several threads one of its own
        progress_bar._instances = _ProgressBars(progress_bar._instances)  # noqa: SLF001


class _ProgressBars(WeakSet[Any]):
    """All progress bars of the process, of which some may be missing.

    `dspy.Parallel` clears them when it begins. A bar that another thread was about to remove is then gone,
    and its program would fail with a KeyError.
    """

    def remove(self, item: Any) -> None:
        self.discard(item)
