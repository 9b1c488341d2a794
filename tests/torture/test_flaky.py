"""The torture of `flaky.py`, in short. By hand: ``python tests/torture/flaky.py --examples 1000``."""

from __future__ import annotations

from pathlib import Path

import pytest
from flaky import torture


@pytest.mark.torture
def test_a_flaky_endpoint_loses_nothing_and_is_not_asked_too_often(tmp_path: Path) -> None:
    figures = torture(tmp_path, examples=60)

    assert figures.wrong == []
    assert figures.faults
    assert figures.failed_after[-1] == 0
    assert 1 < figures.most_requests <= 4
