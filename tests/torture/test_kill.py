"""The torture of `kill.py`, in short. By hand: ``python tests/torture/kill.py --kills 50 --examples 400``."""

from __future__ import annotations

from pathlib import Path

import pytest
from kill import torture


@pytest.mark.torture
def test_killed_at_random_nothing_is_lost_or_paid_twice(tmp_path: Path) -> None:
    figures = torture(tmp_path, kills=3, examples=40, seed=3)

    assert figures.wrong == []
    assert figures.rows == 40
    assert figures.requests <= figures.allowed
    assert sum(figures.signals.values()) == 3
