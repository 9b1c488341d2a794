"""What DSPy needs before several threads may run programs that start threads of their own."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import dspy


def make_safe_for_threads() -> None:
    """Lets `dspy.Parallel` be used by many threads at once. Doing it twice is fine.

    It clears the list of all progress bars of the process when it begins. A bar that another thread is
    about to take off that list is then missing, and its program fails with a KeyError.
    """
    progress_bar = dspy.utils.parallelizer.tqdm.tqdm
    if not isinstance(progress_bar._instances, _ProgressBars):  # noqa: SLF001 - what DSPy clears
        progress_bar.get_lock()  # made at the first use, by each of several threads one of its own
        progress_bar._instances = _ProgressBars(progress_bar._instances)  # noqa: SLF001


class _ProgressBars(WeakSet[Any]):
    """Progress bars, of which some may be missing."""

    def remove(self, item: Any) -> None:
        self.discard(item)
