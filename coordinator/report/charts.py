"""Line charts as SVG, to be put into a page: no script, no font, no request, no colour of their own.

Colours come from the page's style sheet (`--ink`, `--line` and the `s-<key>` classes); shapes tell lines
apart where colours do not. Every column of points carries a `<title>`, which browsers show as a tooltip.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from coordinator.report.axes import Axis

FONT_PX = 12  # all sizes are in viewBox units, which are CSS pixels at natural width
CHARACTER_PX = 7.0  # mean width of a character of a wide system font at FONT_PX
BOLD_PX = 8.2  # the same for short bold labels, which are mostly figures and signs
NAMED_PX = 500  # narrower charts name their lines in the legend only
ROW_PX = 19
LABEL_GAP_PX = 15
MARKER_PX = 3.2
SIZES = (("wide", 540, 340), ("narrow", 344, 320))  # of every chart; the style sheet shows the one that fits


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line.

    Attributes:
        key: colour and marker: "a", "b", "c" for what was measured, "x", "y" for what it is held against.
        name: in the legend.
        points: (x, y) in order; y is None where nobody measured, and the line is broken there.
        label: written beside the last point, in a wide chart after `short`.
        short: the name in a word.
        marked: draw every point, not only the line; lines without points are dashed.
    """

    key: str
    name: str
    points: Sequence[tuple[float, float | None]]
    label: str
    short: str
    marked: bool = True


@dataclass(frozen=True, kw_only=True)
class Mark:
    """An x pointed out with a vertical line.

    Attributes:
        at: where.
        rows: of text beside it.
        distance: how far it is from the last points, written over an arrow.
    """

    at: float
    rows: Sequence[str]
    distance: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart before it is drawn, at any width.

    Attributes:
        description: all of it in one sentence, for those who do not see it.
        x, y: the axes.
        series: the lines.
        tooltips: by x, what is known there.
        mark: an x to point out.
        labels_outside: make room right of the plot for the labels of the last points.
    """

    description: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    tooltips: Sequence[tuple[float, str]]
    mark: Mark | None = None
    labels_outside: bool = True


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """The plot's rectangle, and where values lie in it."""

    chart: Chart
    left: float
    top: float
    right: float
    bottom: float

    def x(self, value: float) -> float:
        return round(self.left + self.chart.x.share(value) * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        return round(self.bottom - self.chart.y.share(value) * (self.bottom - self.top), 1)


@dataclass
class _Pen:
    """Adds elements to an SVG."""

    parent: ET.Element = field(default_factory=lambda: ET.Element("svg"))

    def add(self, tag: str, text: str | None = None, **attributes: object) -> _Pen:
        names = {name.rstrip("_").replace("_", "-"): _plain(value) for name, value in attributes.items()}
        element = ET.SubElement(self.parent, tag, names)
        element.text = text
        return _Pen(element)


def drawn(chart: Chart) -> list[Markup]:
    """The chart at every size, for a template."""
    return [Markup(draw(chart, width=w, height=h, css_class=f"chart {size}")) for size, w, h in SIZES]  # noqa: S704


def draw(chart: Chart, *, width: int, height: int, css_class: str) -> str:
    """The chart as one `<svg>` element that fills the width it is given.

    Args:
        chart: what to draw.
        width: natural width, CSS pixels; text has its natural size there.
        height: natural height.
        css_class: class of the element.
    """
    pen = _Pen(
        ET.Element(
            "svg",
            {
                "class": css_class,
                "viewBox": f"0 0 {width} {height}",
                "role": "img",
                "aria-label": chart.description,
            },
        )
    )
    legend_bottom = _legend(pen, chart.series, width)
    ticks_px = CHARACTER_PX * max((len(chart.y.text(tick)) for tick in chart.y.ticks), default=0)
    labels = [_label(one, width) for one in chart.series]
    labels_px = BOLD_PX * max(map(len, labels), default=0) + 9 if chart.labels_outside else 14
    frame = _Frame(
        chart=chart,
        left=round(ticks_px + 14),
        top=legend_bottom + 2 * ROW_PX + 2,
        right=width - round(labels_px),
        bottom=height - 44,
    )
    _axes(pen, frame, legend_bottom + ROW_PX + 2)
    if chart.mark is not None:
        _mark(pen, frame, chart.mark)
    for series in chart.series:
        _line(pen, frame, series)
    _columns(pen, frame)
    _labels(pen, frame, width)
    ET.indent(pen.parent, space="")
    return ET.tostring(pen.parent, encoding="unicode")


def _legend(pen: _Pen, series: Sequence[Series], width: int) -> float:
    """Name every line, in as many rows as it takes; returns where the last row ends."""
    x, y = 0.0, FONT_PX
    for one in series:
        needed = 26 + len(one.name) * CHARACTER_PX
        if x and x + needed > width:
            x, y = 0.0, y + ROW_PX
        group = pen.add("g", class_=f"s-{one.key}")
        group.add("path", d=f"M{_plain(x)} {y - 4}h18", class_="line" if one.marked else "line dash")
        if one.marked:
            _marker(group, one.key, x + 9, y - 4, MARKER_PX)
        group.add("text", one.name, x=x + 24, y=y, class_="name")
        x += needed + 14
    return y


def _axes(pen: _Pen, frame: _Frame, title_y: float) -> None:
    chart = frame.chart
    pen.add("text", chart.y.title, x=0, y=title_y, class_="axis")
    for tick in chart.y.ticks:
        y = frame.y(tick)
        pen.add("path", d=f"M{_plain(frame.left)} {y}H{_plain(frame.right)}", class_="grid")
        pen.add("text", chart.y.text(tick), x=frame.left - 8, y=y + 4, class_="tick end")
    pen.add("path", d=f"M{_plain(frame.left)} {frame.bottom}H{_plain(frame.right)}", class_="base")
    for tick in chart.x.ticks:
        x = frame.x(tick)
        pen.add("path", d=f"M{x} {frame.bottom}v5", class_="base")
        pen.add("text", chart.x.text(tick), x=x, y=frame.bottom + 19, class_="tick middle")
    pen.add("text", chart.x.title, x=frame.right, y=frame.bottom + 38, class_="axis end")


def _mark(pen: _Pen, frame: _Frame, mark: Mark) -> None:
    """A vertical line with its text beside it, low in the plot or high, wherever the lines are not."""
    x, middle = frame.x(mark.at), round((frame.top + frame.bottom) / 2)
    ends = [one.points[-1] for one in frame.chart.series]
    last = [(frame.x(x), frame.y(y)) for x, y in ends if y is not None]
    lines_are_high = sum(y for _, y in last) <= len(last) * middle
    y = frame.bottom - 14 - (ROW_PX - 3) * (len(mark.rows) - 1) if lines_are_high else frame.top + 16
    group = pen.add("g", class_="s-x")
    group.add("title", " ".join(mark.rows))
    group.add("path", d=f"M{x} {_plain(frame.top)}V{_plain(frame.bottom)}", class_="line dash")
    before = x - frame.left > max(map(len, mark.rows)) * BOLD_PX
    for number, row in enumerate(mark.rows):
        place = {"x": x - 8, "class_": "label end"} if before else {"x": x + 8, "class_": "label"}
        group.add("text", row, y=y + number * (ROW_PX - 3), **place)
    start = max((x for x, _ in last), default=x) + 6
    if x - start > len(mark.distance) * BOLD_PX + 8:
        group.add("path", d=f"M{_plain(start)} {middle}H{x - 3}m-6 -4l6 4l-6 4", class_="line arrow")
        group.add("text", mark.distance, x=(start + x) / 2, y=middle - 7, class_="label middle")


def _line(pen: _Pen, frame: _Frame, series: Series) -> None:
    drawn, command = [], "M"
    for x, y in series.points:
        if y is None:
            command = "M"
            continue
        drawn.append(f"{command}{_plain(frame.x(x))} {_plain(frame.y(y))}")
        command = "L"
    if drawn:
        pen.add("path", d="".join(drawn), class_=f"s-{series.key} " + ("line" if series.marked else "line dash"))


def _columns(pen: _Pen, frame: _Frame) -> None:
    """The points, those of one x together under one tooltip as wide as half the way to the next ones."""
    known = {one.key: dict(one.points) for one in frame.chart.series if one.marked}
    places = [frame.x(x) for x, _ in frame.chart.tooltips]
    room = (places[-1] - places[len(places) // 2]) / max(len(places) // 2, 1) if len(places) > 1 else math.inf
    size = MARKER_PX if room >= 7 else 2.0 if room >= 3 else 1.2
    for number, (x, tooltip) in enumerate(frame.chart.tooltips):
        at = places[number]
        left = (places[number - 1] + at) / 2 if number else max(at - 12, frame.left)
        right = (at + places[number + 1]) / 2 if number + 1 < len(places) else min(at + 12, frame.right)
        group = pen.add("g", class_="point")
        group.add("title", tooltip)
        group.add("rect", x=left, y=frame.top, width=max(right - left, 1), height=frame.bottom - frame.top)
        for key, points in known.items():
            y = points.get(x)
            if y is not None:
                _marker(group, key, at, frame.y(y), size, css_class=f"s-{key}")


def _labels(pen: _Pen, frame: _Frame, width: int) -> None:
    """Name the last point of every line beside it, moved apart where they would overlap."""
    ends = []
    for one in frame.chart.series:
        known = [(x, y) for x, y in one.points if y is not None]
        if known and one.label:
            ends.append((frame.y(known[-1][1]), frame.x(known[-1][0]), one))
    ends.sort(key=lambda end: end[0])
    places = [end[0] for end in ends]
    for number in range(1, len(places)):
        places[number] = max(places[number], places[number - 1] + LABEL_GAP_PX)
    over = max(places[-1] - frame.bottom, 0.0) if places else 0.0
    for number in range(len(places) - 1, -1, -1):
        below = places[number + 1] - LABEL_GAP_PX if number + 1 < len(places) else places[number] - over
        places[number] = min(places[number], below)
    for y, (_, x, one) in zip(places, ends, strict=True):
        label = _label(one, width)
        if x + 9 + len(label) * BOLD_PX > width:  # it would lie on the line
            label = one.label
        pen.add("text", label, x=min(x + 9, width - len(label) * BOLD_PX), y=y + 4, class_=f"label s-{one.key}")


def _label(series: Series, width: int) -> str:
    return f"{series.short} {series.label}" if series.label and width >= NAMED_PX else series.label


def _marker(pen: _Pen, key: str, x: float, y: float, size: float, css_class: str | None = None) -> None:
    """A circle, square or triangle, so that lines differ without colour too."""
    classes = {"class_": css_class} if css_class else {}
    match key:
        case "b":
            pen.add("rect", x=x - size + 0.3, y=y - size + 0.3, width=2 * size - 0.6, height=2 * size - 0.6, **classes)
        case "c":
            half = size + 0.8
            sides = f"l{_plain(half)} {_plain(2 * size)}h{_plain(-2 * half)}z"
            pen.add("path", d=f"M{_plain(x)} {_plain(y - half)}{sides}", **classes)
        case _:
            pen.add("circle", cx=x, cy=y, r=size, **classes)


def _plain(value: object) -> str:
    """A number without needless digits."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
