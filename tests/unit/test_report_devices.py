"""The report's charts and sections of single devices, boards profiled by themselves, and the page on paper."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from coordinator.cli import main
from coordinator.report import paper
from coordinator.report.axes import amount_axis
from coordinator.report.device_charts import bars, latency, memory, spark
from coordinator.report.page import render
from coordinator.report.spent import Spent, groups
from coordinator.report.summary import Summary
from tests.unit.test_profiler import bundle_of, measured
from tests.unit.test_report_page import HOSTILE, svgs, words
from wire.telemetry import bucket_of


def device(name: str, **figures: object) -> Spent:
    """A device that told something."""
    return Spent(name=name, profile="pi-4-4gb", runtime="sparse", train_samples=1, **figures)  # type: ignore[arg-type]


def test_latency_is_a_share_of_all_steps_of_a_kind() -> None:
    """Shares of a line add up to 1, buckets of two devices together, with an empty one at both ends."""
    members = [device("a", histogram={40: 3, 42: 1}), device("b", histogram={40: 1})]
    chart = latency(groups(members))
    assert chart is not None
    [line] = chart.series
    assert [y for _, y in line.points] == [0, 0.8, 0, 0.2, 0]
    middle_us = line.points[1][0] * 1e3
    assert bucket_of(middle_us) == 40
    assert len(chart.tooltips) == len(line.points)
    assert latency(groups([device("a")])) is None


def test_memory_is_sorted_and_held_against_limits() -> None:
    """Whoever is above its limit is named so; a device that nobody asked is left out."""
    found = memory(
        [device("big", peak_mb=90.0, arena_mb=2.0), device("small", peak_mb=40.0), device("silent")],
        {"big": 80.0, "small": 80.0},
    )
    assert found is not None
    assert [(line.short, [y for _, y in line.points]) for line in found.series] == [
        ("peak", [40.0, 90.0]),
        ("arena", [None, 2.0]),
        ("limit", [80.0, 80.0]),
    ]
    assert "1 are above" in found.description
    assert found.tooltips[1][1].splitlines() == ["big", "largest 90.0 MB", "arena 2.00 MB", "limit 80 MB: above it"]
    assert memory([device("silent")], {}) is None


def test_small_charts_stay_inside() -> None:
    """And are left out where there is nothing to draw."""
    drawn = bars({40: 3, 44: 1}) + spark([1.0, 5.0, 2.0])
    assert all(-26 <= float(number) <= 132 for number in re.findall(r"-?\d+\.?\d*", drawn))
    assert bars({}) == spark([]) == spark([1.0]) == spark([0.0, 0.0]) == ""


@pytest.mark.parametrize("most", [0.0, 0.03, 0.6, 1.0, 47.3, 51.5, 60.0, 999.0])
def test_amounts_have_round_ticks(most: float) -> None:
    """From 0 to at least the greatest value, in three to seven steps."""
    axis = amount_axis("MB", most, str)
    assert axis.ticks[0] == 0
    assert axis.high == axis.ticks[-1] >= most
    assert 3 <= len(axis.ticks) <= 8


def test_every_device_has_a_section(run_summary: Summary) -> None:
    """With its own figures and charts; few devices' are printed, many are not."""
    page = render(replace(run_summary, limits_mb={"pi-000": 55.0}))
    sections = re.findall(r'<details class="device printed">.*?</details>', page, re.DOTALL)
    assert len(sections) == 6
    assert "pi-000" in sections[0]
    assert "limit 55.0" in sections[0]
    assert sections[0].count("<svg") == 2
    assert len([one for one in svgs(page) if "chart" in one.get("class", "")]) == 10
    many = render(replace(run_summary, spent=[replace(run_summary.spent[0], name=f"pi-{n}") for n in range(40)]))
    assert '<details class="device">' in many
    assert '<details class="printed">' in many, "the table of all is"


def test_boards_stand_side_by_side(run_summary: Summary) -> None:
    """What a report says, with hostile words shown and not run."""
    report = measured(bundle_of("mlp"))
    bad = replace(report, profile=HOSTILE, subject=replace(report.subject, network=HOSTILE, runtime=HOSTILE))
    page = render(replace(run_summary, boards=[report, bad]))
    text = words(page)
    assert f"{report.latency.p50_ms:,.2f} {report.latency.p95_ms:,.2f} {report.latency.p99_ms:,.2f}" in text
    assert "time by layer" in text
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 3


def test_the_command_takes_reports_of_boards(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder; one that is no report ends with exit code 11 and its name."""
    boards, page = tmp_path / "boards", tmp_path / "r.html"
    boards.mkdir()
    (boards / "pi.json").write_text(json.dumps(asdict(measured(bundle_of("mlp")))))
    limits = tmp_path / "devices.yaml"
    limits.write_text("budget: {peak_mb: 51}\n")
    command = ["report", str(run_folder), "-o", str(page), "--profile", str(boards), "--config", str(limits)]
    assert main(command) == 0
    assert "Boards profiled by themselves" in page.read_text(encoding="utf-8")
    assert "limit 51 MB" in page.read_text(encoding="utf-8")
    (boards / "other.json").write_text("{}")
    assert main(command) == 11
    assert "other.json" in capsys.readouterr().err


def test_paper_needs_a_browser(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is written."""
    monkeypatch.setattr(paper.shutil, "which", lambda _: None)
    page = tmp_path / "r.html"
    assert main(["report", str(run_folder), "-o", str(page), "--pdf", str(tmp_path / "r.pdf")]) == 23
    assert not page.exists()


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, paper.BROWSERS)), reason="no Chromium is installed")
def test_a_page_is_printed(run_folder: Path, tmp_path: Path) -> None:
    """A real PDF of more than one page, into a new folder."""
    target = tmp_path / "new" / "r.pdf"
    assert main(["report", str(run_folder), "-o", str(tmp_path / "r.html"), "--pdf", str(target)]) == 0
    data = target.read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") + data.count(b"/Type/Page") > 1
