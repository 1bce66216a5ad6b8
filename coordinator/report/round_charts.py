"""Charts of a run's rounds: accuracy, and bytes sent up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from coordinator.report.axes import Axis, count_axis, log_axis, share_axis
from coordinator.report.charts import Chart, Mark, Series
from coordinator.report.summary import RoundSummary, fedavg_bytes
from coordinator.report.words import human_bytes, number, percent, times
from wire.ticket import Ticket

ACCURACIES = (  # key of the line, attribute of a round, name
    ("a", "personalised", "personalised"),
    ("b", "seen", "seen"),
    ("c", "unseen", "unseen"),
)


def accuracy_by_round(rounds: Sequence[RoundSummary]) -> Chart:
    """How accuracy went, round after round."""
    return Chart(
        description=f"Line chart of accuracy after each round. {_ends(rounds)}. The table of rounds has the numbers.",
        x=count_axis("round", max(r.number for r in rounds)),
        y=_accuracy_axis(rounds),
        series=_accuracy_lines(rounds, [float(r.number) for r in rounds]),
        tooltips=[(float(r.number), f"Round {r.number}\n{_accuracies(r)}") for r in rounds],
    )


def accuracy_by_bytes(rounds: Sequence[RoundSummary], ticket: Ticket) -> Chart:
    """What accuracy was had for, in bytes sent up."""
    sent = list(accumulate(r.up_bytes for r in rounds))
    fedavg = float(fedavg_bytes(ticket))
    return Chart(
        description=f"Line chart of accuracy over bytes sent up per device. {_ends(rounds)}, after "
        f"{human_bytes(sent[-1])}. FedAvg would have sent {human_bytes(fedavg)} after its first round.",
        x=log_axis("bytes up per device so far (log scale)", [*sent, fedavg], human_bytes),
        y=_accuracy_axis(rounds),
        series=_accuracy_lines(rounds, sent),
        tooltips=[
            (total, f"{number(total)} bytes up, after round {r.number}\n{_accuracies(r)}")
            for total, r in zip(sent, rounds, strict=True)
        ],
        mark=Mark(
            at=fedavg,
            rows=("FedAvg after", "its first round:", human_bytes(fedavg)),
            distance=f"{times(fedavg / sent[-1])}× the bytes" if sent[-1] else "",
        ),
        labels_outside=False,
    )


def bytes_by_round(rounds: Sequence[RoundSummary], ticket: Ticket) -> Chart:
    """What a device sends up in a round, against what others would."""
    first, last = float(rounds[0].number), float(rounds[-1].number)
    measured = [(float(r.number), r.up_bytes or None) for r in rounds]
    raw = float(-(-ticket.kept // 8))
    fedavg = float(fedavg_bytes(ticket))
    known = [value for _, value in measured if value]
    lines = [
        ("x", "FedAvg (computed)", "FedAvg", fedavg),
        ("y", "raw mask, 1 bit per kept weight (computed)", "raw", raw),
    ]
    return Chart(
        description="Line chart of bytes sent up per device in each round: "
        f"{human_bytes(min(known, default=None))} to {human_bytes(max(known, default=None))}, "
        f"against {human_bytes(raw)} raw and {human_bytes(fedavg)} for FedAvg.",
        x=count_axis("round", int(last)),
        y=log_axis("bytes up per device (log scale)", [*known, raw, fedavg], human_bytes),
        series=[
            Series(
                key="a",
                name="sent (measured)",
                points=measured,
                label=human_bytes(known[-1]) if known else "",
                short="sent",
            ),
            *(
                Series(
                    key=key,
                    name=name,
                    points=[(first, size), (last, size)],
                    label=human_bytes(size),
                    short=short,
                    marked=False,
                )
                for key, name, short, size in lines
            ),
        ],
        tooltips=[
            (float(r.number), f"Round {r.number}\nsent {number(r.up_bytes)} bytes, of them {number(r.mask_bytes)} mask")
            for r in rounds
        ],
    )


def _accuracy_axis(rounds: Sequence[RoundSummary]) -> Axis:
    known = [getattr(r, attribute) for r in rounds for _, attribute, _ in ACCURACIES]
    return share_axis("accuracy", [value for value in known if value is not None])


def _accuracy_lines(rounds: Sequence[RoundSummary], xs: list[float]) -> list[Series]:
    lines = []
    for key, attribute, name in ACCURACIES:
        values = [getattr(r, attribute) for r in rounds]
        known = [value for value in values if value is not None]
        if known:
            points = list(zip(xs, values, strict=True))
            lines.append(Series(key=key, name=name, points=points, label=percent(known[-1]), short=name))
    return lines


def _accuracies(one: RoundSummary) -> str:
    return "\n".join(f"{name} {percent(getattr(one, attribute))}" for _, attribute, name in ACCURACIES)


def _ends(rounds: Sequence[RoundSummary]) -> str:
    last = rounds[-1]
    return f"After round {last.number}: {', '.join(_accuracies(last).splitlines())}"
