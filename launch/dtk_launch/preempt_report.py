"""What `dtk launch --preempt-test` has seen, what it is worth, and the words for it. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from dtk_launch.diagnose.evidence import PREEMPTED
from dtk_launch.progress import Line

LOST = 74
"""Exit code: work was lost, or nothing shows that none was (EX_IOERR)."""

_TOO_SOON = (
    "the notice came before the first step of the script that dtk has seen: nothing could be lost yet, and so nothing "
    "was tested; pass a longer time (docs/preemption.md says which steps dtk sees)"
)


@dataclass(frozen=True)
class Report:
    """What the test has seen. None: nothing shows it. Steps are optimizer steps as the script counts them."""

    exit_code: int
    """Of the run that got the notice."""
    step_at_notice: int | None = None
    """The newest that was logged or saved by then."""
    last_step: int | None = None
    """The same at the end of that run."""
    saved_step: int | None = None
    resumed_step: int | None = None
    """The step that the second run went on from."""
    seconds_to_end: float | None = None
    """From the notice to the end of the last process."""
    seconds_to_return: float | None = None
    """From the second start to the first step that the first run had not done."""
    second_exit_code: int | None = None
    counted_at_notice: int | None = None
    """Optimizer steps that dtk itself has counted since the start, whatever the script says, by the notice."""
    counted_at_end: int | None = None
    """The same by the end of that run."""
    counted_again: int | None = None
    """Those of the second run, from its own start on."""
    steps_seen: bool = True
    """Whether the run that got the notice logged a step, or dtk has counted one."""

    @property
    def lost_steps(self) -> int | None:
        """Steps that the second run had to do again."""
        if self.last_step is None or self.resumed_step is None:
            return None
        return max(0, self.last_step - self.resumed_step)

    @property
    def code(self) -> int:
        """The exit code of the test."""
        if self.exit_code != PREEMPTED:
            return LOST
        return self.second_exit_code or (0 if self.lost_steps == 0 else LOST)


def resumed_step(said: int | None, lines: list[Line], last_step: int | None) -> int | None:
    """The step that a run went on from: as it said, else, where it logs each step, the one before its first line."""
    if said is not None or not lines:
        return said
    each = all(after.step == before.step + 1 for before, after in itertools.pairwise(lines))
    first = lines[0].step
    return first - 1 if each and (len(lines) > 1 or first - 1 == last_step) else None


def seconds_to_return(lines: list[Line], last_step: int | None, began: float) -> float | None:
    """Seconds from the start until the run had logged a step beyond `last_step`."""
    if last_step is None:
        return None
    return next((round(line.time - began, 3) for line in lines if line.step > last_step), None)


def words(report: Report) -> list[str]:
    """The report as lines for people."""
    took = f"{report.seconds_to_end:.1f} s after the notice" if report.seconds_to_end is not None else ""
    if report.exit_code != PREEMPTED:
        return [
            f"the run ended with {report.exit_code} {took}, not with 75 (saved, start me again)",
            f"newest step logged or saved: {_known(report.last_step)}; newest step saved: {_known(report.saved_step)}",
            *_counted(report),
            "work was lost, or nothing shows that none was; docs/preemption.md says what a script must do"
            if report.steps_seen
            else _TOO_SOON,
        ]
    back = report.seconds_to_return
    lines = [
        f"step at the notice: {_known(report.step_at_notice)}; saved: {_known(report.saved_step)}; ended {took}",
        f"went on from step: {_known(report.resumed_step)}; "
        + (
            f"past step {report.last_step} {back:.1f} s after the start" if back is not None else "no later step logged"
        ),
    ]
    if report.second_exit_code:
        lines.append(f"started again, the run ended with {report.second_exit_code}")
    if report.lost_steps is None:
        unknown = "lost: unknown, for nothing shows from which step it went on; see the output of rank 0"
        return [*lines, *_counted(report), unknown if report.steps_seen else _TOO_SOON]
    return [*lines, f"lost: {report.lost_steps} steps" if report.lost_steps else "lost: nothing"]


def _counted(report: Report) -> list[str]:
    """What the heartbeat shows of a script that says nothing: how much was done, not what was kept."""
    if report.counted_at_end is None:
        return []
    by_notice = f"{report.counted_at_notice or 0} by the notice, {report.counted_at_end} by the end"
    again = f", {report.counted_again} after the second start" if report.counted_again is not None else ""
    return [f"optimizer steps that dtk has counted: {by_notice}{again}"]


def _known(step: int | None) -> str:
    return "unknown" if step is None else str(step)
