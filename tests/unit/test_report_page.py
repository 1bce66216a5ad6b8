"""The report page: safe with hostile names, honest about what is missing, complete in one small file."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from contextlib import closing
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.brokers import claims, enroller
from coordinator.brokers import deployment as deployments
from coordinator.report import cards
from coordinator.report.axes import count_axis, log_axis, share_axis
from coordinator.report.page import render, write_page
from coordinator.report.summary import DeviceSummary, RoundSummary, Summary
from coordinator.report.words import duration, human_bytes
from coordinator.store import Store
from tests.helpers import random_ticket
from wire.errors import ConfigError
from wire.layers import Conv, Flatten, Linear, Relu
from wire.plan import Plan

HOSTILE = "<script>alert('x')</script>\"&\u202e"
PLAN = Plan(
    name="tiny",
    input_shape=(6, 32),
    layers=(Conv(out_channels=8, kernel=(3,), stride=(1,), padding=(1,)), Relu(), Flatten(), Linear(out_features=6)),
)
TICKET = random_ticket(PLAN, density=0.25, seed=1)
CEILING_BYTES = 100_000  # 77,501 for demo's 20 rounds and 25 devices on 2026-11-22; 200,000 is the promise


def a_round(number: int = 1, **other: object) -> RoundSummary:
    """A round in which everything was measured."""
    figures: dict[str, object] = {
        "number": number,
        "voters": 10,
        "seen": 0.8125,
        "seen_devices": 24,
        "unseen": 0.75,
        "personalised": 0.9375,
        "loss": 0.4321,
        "up_bytes": 1234.4,
        "mask_bytes": 1200.0,
        "down_bytes": 5678.0,
        "seconds": 2.5,
    }
    return RoundSummary(**{**figures, **other})  # type: ignore[arg-type]


def a_device(name: str = "pi-01", **other: object) -> DeviceSummary:
    """A device that trained in three rounds."""
    figures: dict[str, object] = {
        "name": name,
        "profile": "pi4",
        "runtime": "onnx",
        "software": "hidenseek-edge 0.1.0",
        "rounds": 3,
        "train_samples": 4321,
        "personalised": 0.6543,
        "seen": 0.5432,
        "step_ms": 7.654,
        "train_s": 1.357,
        "peak_memory_kb": 100_000,
        "up_bytes": 98_765,
    }
    return DeviceSummary(**{**figures, **other})  # type: ignore[arg-type]


def a_summary(rounds: list[RoundSummary], devices: list[DeviceSummary], name: str = "barn") -> Summary:
    """A run of a tiny network."""
    return Summary(
        name=name,
        run="0123456789abcdef",
        ticket=TICKET,
        finished=bool(rounds),
        started_s=1_790_000_000.0,
        seconds=83.4,
        bundle_bytes=4321,
        rounds=rounds,
        devices=devices,
    )


def words(page: str) -> str:
    """What a reader sees, without tags, in single spaces."""
    body = page.split("<body>", 1)[1]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def svgs(page: str) -> list[ET.Element]:
    """Every chart, parsed as strict XML."""
    return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_hostile_text_is_shown_and_never_run() -> None:
    """Names from the network come out as text, wherever the page puts them."""
    device = a_device(HOSTILE, profile=HOSTILE, runtime=HOSTILE, software=HOSTILE)
    page = render(a_summary([a_round()], [device], name=HOSTILE))
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#34;&amp;") == 4 + 3  # title, heading, footer
    assert f"<bdi>{HOSTILE}</bdi>" in unescape(page)  # and its direction stays its own


def test_shown_numbers_are_those_of_the_summary() -> None:
    """Tiles and tables repeat the summary's figures, and the raw mask's and FedAvg's computed ones."""
    summary = a_summary([a_round(1, seen=0.5), a_round(2, personalised=0.9)], [a_device()])
    text = words(render(summary))
    assert f"{summary.personalised:.1%} measured" in text
    assert f"{summary.seen:.1%} measured" in text
    assert f"{summary.unseen:.1%} measured" in text
    assert f"{summary.up_bytes:,.0f} bytes measured" in text
    assert f"{summary.down_bytes:,.0f} bytes measured" in text
    assert f"{summary.fedavg_bytes:,} bytes computed" in text
    assert f"4 × {PLAN.weights:,} weights" in text
    assert f"{-(-TICKET.kept // 8):,} bytes" in text
    assert "mean of the last 2 rounds" in text
    assert "1 10 93.8% 50.0% (24) 0.432 75.0% 1,200 1,234 5,678 2.5 5.4×" in text
    assert "pi-01 4,321 3 98,765 65.4% 54.3% 7.65 1.36 102.4 onnx hidenseek-edge 0.1.0 pi4" in text
    assert f"{TICKET.density:.2%}" in text
    assert f"{TICKET.mac_density:.2%}" in text
    assert TICKET.id.hex() in text
    assert "0123456789abcdef" in text
    assert "1 min 23 s" in text
    for layer in TICKET.kept_layers:
        shape = layer.shape
        assert (
            f"{shape.name} {' × '.join(map(str, shape.weight_shape))} {shape.weights:,} {layer.kept:,} "
            f"{layer.kept / shape.weights:.2%} {shape.macs:,} {layer.kept_macs:,} {layer.kept_macs / shape.macs:.2%}"
        ) in text


def test_a_card_that_was_used_twice_is_on_the_page(tmp_path: Path) -> None:
    """As is who was shut out; what the other board calls itself is shown and never run. Other federations' are not."""
    deploy = tmp_path / "deploy"
    made = ["broker", "init", "--kind", "mosquitto", "--hosts", "localhost", "-o", str(deploy)]
    (tmp_path / "devices.yaml").write_text("federation: {name: barn}\ndevices: {pi-01: {}, pi-02: {}}\n")
    assert cli.main([*made, "--devices", str(tmp_path / "devices.yaml")]) == 0
    with closing(Store(tmp_path / "db")) as store:
        store.revoke("pi-07")
        assert [one.device for one in cards.notes(store, None, "barn")] == ["pi-07"]
        enroller.open_card(deploy, deployments.load(deploy), "pi-01", 1e9)
        with claims.changing(deploy) as known:
            assert known.decide("pi-01", bytes([1] * 32), "a board", 1e9) == ""
            assert "was used before" in known.decide("pi-01", bytes([2] * 32), "<script>alert(1)</script>", 1e9)
        found = cards.notes(store, deploy, "barn")
        assert [(one.device, one.state) for one in found] == [("pi-07", "revoked"), ("pi-01", "used twice")]
        assert len(cards.notes(store, deploy, "shed")) == 1
    page = render(replace(a_summary([a_round()], [a_device()]), cards=found))
    assert "Cards and devices to look at" in page
    assert "<script>" not in page
    assert "another device came with its card, with the key" in words(page)
    assert "to look at" not in render(a_summary([a_round()], [a_device()]))


def test_what_nobody_measured_is_a_dash() -> None:
    """No held-out set, no evaluation, a device that never trained: an en dash, no zero and no None."""
    device = a_device(
        rounds=0, personalised=None, seen=None, step_ms=None, train_s=None, peak_memory_kb=0, up_bytes=23, profile=""
    )
    nothing = a_round(2, voters=0, personalised=None, seen=None, seen_devices=0, unseen=None, loss=0.0, up_bytes=0.0)
    page = render(a_summary([a_round(unseen=None), nothing], [device]))
    text = words(page)
    assert "None" not in text
    assert "nan" not in text.casefold().split()
    assert "Unseen accuracy – not measured no held-out samples at the coordinator" in text
    assert "2 0 – – (0) – – – – 5,678 2.5 –" in text
    assert "pi-01 4,321 0 23 – – – – – onnx hidenseek-edge 0.1.0 –" in text
    lines = [element.text for element in svgs(page)[0].iter("text")]
    assert "unseen" not in lines
    assert "seen" in lines


@pytest.mark.parametrize("devices", [[], [a_device(rounds=0)]], ids=["nobody", "one-device"])
def test_run_without_a_finished_round_has_a_page(devices: list[DeviceSummary]) -> None:
    """Before the first round closes the page says so, and still shows the ticket."""
    page = render(a_summary([], devices))
    text = words(page)
    assert "No round finished yet" in text
    assert "Personalised accuracy – not measured" in text
    assert "– measured" not in text
    assert "Duration –" in text
    assert "conv0" in text
    assert "<svg" not in page


@pytest.mark.parametrize("rounds", [1, 2, 20, 300])
def test_charts_are_well_formed_and_stay_inside(rounds: int) -> None:
    """Three charts of rounds, each for wide and narrow screens, in strict XML, with every point inside the picture."""
    page = render(a_summary([a_round(n, up_bytes=5000.0 / n) for n in range(1, rounds + 1)], [a_device()]))
    charts = svgs(page)
    assert len(charts) == 6
    for chart in charts:
        _, _, width, height = map(float, chart.attrib["viewBox"].split())
        circles = list(chart.iter("circle"))
        assert len(circles) == rounds + 1  # and the legend's
        assert all(0 <= float(c.attrib["cx"]) <= width and 0 <= float(c.attrib["cy"]) <= height for c in circles)
        assert chart.attrib["aria-label"].startswith("Line chart of ")
        columns = [group for group in chart.iter("g") if group.get("class") == "point"]
        assert len(columns) == rounds
        assert all(group.findtext("title") for group in columns)
    assert "personalised 93.8%" in [element.text for element in charts[0].iter("text")]


def test_rounds_without_any_mask_do_not_break_a_chart() -> None:
    """Zero bytes have no place on a logarithmic axis."""
    empty = a_round(voters=0, up_bytes=0.0, mask_bytes=0.0, personalised=None, seen=None, unseen=None)
    page = render(a_summary([empty], []))
    assert len(svgs(page)) == 6
    assert "closed without a single mask" in words(page)


def test_page_needs_nothing_else() -> None:
    """No address, script, import or outside picture; the browser is told to load nothing either."""
    page = render(a_summary([a_round()], [a_device()]))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link(?! rel=\"icon\" href=\"data:,\")|\ssrc=", page)
    assert "default-src 'none'" in page


def test_page_of_the_demo_stays_small() -> None:
    """Twenty rounds and twenty-five devices."""
    rounds = [a_round(n, up_bytes=3000.0 / n, seen=0.5 + n / 47) for n in range(1, 21)]
    page = render(a_summary(rounds, [a_device(f"person-{n:02}") for n in range(25)]))
    assert len(page.encode()) < CEILING_BYTES


def test_page_is_written_whole_into_new_folders(tmp_path: Path) -> None:
    """Folders are made, an older page is replaced, and no temporary file stays."""
    path = tmp_path / "a" / "b" / "report.html"
    write_page(a_summary([], []), path)
    write_page(a_summary([a_round()], []), path)
    assert "<svg" in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_unwritable_page_is_one_clear_error(tmp_path: Path) -> None:
    """A file where a folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="report cannot be written"):
        write_page(a_summary([], []), tmp_path / "file" / "report.html")


def test_axes_have_round_ends_and_readable_ticks() -> None:
    """Shares end at 100 %, logarithms at 1, 2 or 5, rounds get at most thirteen ticks."""
    shares = share_axis("accuracy", [0.34, 0.93])
    assert [shares.text(tick) for tick in shares.ticks] == ["20%", "40%", "60%", "80%", "100%"]
    assert [f"{tick:.2f}" for tick in share_axis("accuracy", [0.97]).ticks] == ["0.96", "0.98", "1.00"]
    sizes = log_axis("bytes", [900.0, 1_212_928.0], human_bytes)
    assert (sizes.low, sizes.high) == (500.0, 2_000_000.0)
    assert [sizes.text(tick) for tick in sizes.ticks] == ["1 kB", "10 kB", "100 kB", "1 MB"]
    assert log_axis("bytes", [210.0, 400.0], human_bytes).ticks == [200.0, 500.0]
    assert count_axis("round", 20).ticks == [1, 5, 10, 15, 20]
    assert all(len(count_axis("round", last).ticks) <= 13 for last in range(1, 2000))


def test_sizes_and_times_read_well() -> None:
    """Three digits, decimal units; seconds, minutes, hours."""
    assert [human_bytes(n) for n in (0, 999, 999.7, 1076, 99_960, 1_212_928, None)] == [
        "0 B", "999 B", "1 kB", "1.08 kB", "100 kB", "1.21 MB", "–",
    ]  # fmt: skip
    assert [duration(s) for s in (8.44, 59.96, 60, 3600 * 2 + 59)] == ["8.4 s", "60.0 s", "1 min 0 s", "2 h 0 min"]
