"""From how the runs ended to what the process says and exits with."""

from __future__ import annotations

from collections.abc import Sequence

from dspylab.errors import Interrupted, RunsIncomplete
from dspylab.execute.active import RunReport
from dspylab.execute.pool import Stop


def raise_unless_complete(reports: Sequence[RunReport], stop: Stop) -> None:
    """Says what is left, if anything is.

    Raises:
        Interrupted: If the user stopped the execution.
        RunsIncomplete: If examples are left that another try may mend.
    """
    left = [report for report in reports if not report.complete]
    if not left:
        return
    kept = sum(report.done for report in reports)
    total = sum(report.total for report in reports)
    progress = f"{kept} of {total} examples are finished and kept"
    if stop.requested:
        raise Interrupted(f"stopped: {progress}", remedy="run the same command again to go on")
    reasons = "\n".join(f"  {report.run}: {_reason(report)}" for report in left)
    raise RunsIncomplete(
        f"{len(left)} of {len(reports)} runs are incomplete; {progress}",
        remedy=f"mend the cause and run the same command again: only what is missing is called\n{reasons}",
    )


def _reason(report: RunReport) -> str:
    parts = [f"{report.done}/{report.total} examples"]
    if report.retryable:
        parts.append(f"{report.retryable} failed at the endpoint")
    if report.stopped:
        parts.append(report.stopped)
    return ", ".join(parts)
