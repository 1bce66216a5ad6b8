"""Two runs, figure by figure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from coordinator.report.spent import figure
from coordinator.report.summary import Summary
from coordinator.report.words import DASH, number, percent

CHANGED = 1.05  # a device's step is listed from a change of 5 % on


@dataclass(frozen=True, kw_only=True)
class Line:
    """A figure of both runs; None where nobody measured."""

    name: str
    before: float | None
    after: float | None
    share: bool = False
    digits: int = 0

    def shown(self, value: float | None) -> str:
        """A value for people."""
        return percent(value) if self.share else number(value, self.digits)

    @property
    def change(self) -> str:
        """Percentage points of shares, percent of all else."""
        if self.before is None or self.after is None:
            return DASH
        if self.share:
            return f"{100 * (self.after - self.before):+.1f} points"
        return f"{self.after / self.before - 1:+.1%}" if self.before else DASH


def compare(before: Summary, after: Summary) -> list[Line]:
    """Accuracies, bytes and costs of two runs; then devices in both whose median step changed by 5 % or more."""
    lines = [
        Line(name=f"{name} accuracy", before=getattr(before, name), after=getattr(after, name), share=True)
        for name in ("personalised", "seen", "unseen")
    ]
    lines += [
        Line(name="bytes up per device and round", before=before.up_bytes, after=after.up_bytes),
        Line(name="bytes down per device and round", before=before.down_bytes, after=after.down_bytes),
        Line(name="weight density", before=before.ticket.density, after=after.ticket.density, share=True),
        Line(name="rounds", before=len(before.rounds), after=len(after.rounds)),
        Line(name="seconds", before=before.seconds, after=after.seconds, digits=1),
    ]
    for name, attribute, digits in (
        ("step, ms (median of devices)", "step_ms", 2),
        ("step p95, ms (median of devices)", "step_p95_ms", 2),
        ("peak memory, MB (median of devices)", "peak_mb", 1),
        ("energy, J per round (median of devices)", "round_j", 2),
    ):
        was, now = (figure(median, one.spent, attribute) for one in (before, after))
        lines.append(Line(name=name, before=was, after=now, digits=digits))
    earlier = {one.name: one.step_ms for one in before.spent}
    for one in after.spent:
        was = earlier.get(one.name)
        if was and one.step_ms and max(was / one.step_ms, one.step_ms / was) >= CHANGED:
            lines.append(Line(name=f"{one.name}: step, ms", before=was, after=one.step_ms, digits=2))
    return lines
