"""`hidenseek-edge profile`: what it measures, on the runtimes themselves, and how it says it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from coordinator.models import MODELS, build_plan
from coordinator.prune import prune
from edge_client import bundles, profile_page, readings
from edge_client.breakdown import Breakdown
from edge_client.cli import main
from edge_client.profiler import FEWEST, Profiler, board, random_data
from export.bundle import make_bundle
from wire.bundle import Bundle
from wire.errors import TicketError, UnknownName
from wire.profile_report import FORMAT, VERSION, ProfileReport
from wire.settings import Training
from wire.telemetry import bucket_of

ROOT = Path(__file__).parents[2]
TRAINING = Training(batch=8)


@cache
def bundle_of(name: str, runtime: str = "sparse") -> Bundle:
    """A ticket of the zoo for a runtime."""
    return make_bundle(prune(build_plan(name), density=0.05, seed=0, method="uniform"), runtime, TRAINING)


def measured(bundle: Bundle, *, threads: int = 1, root: Path = readings.ROOT) -> ProfileReport:
    """A short measurement."""
    x, y = random_data(bundle, TRAINING)
    return Profiler(
        bundle=bundle, training=TRAINING, x=x, y=y, data="random", seconds=0.05, threads=threads, root=root
    ).measure()


@pytest.mark.parametrize("name", ["har-cnn", "resnet8", "ds-cnn"])
def test_layers_and_steps_belong_together(name: str) -> None:
    """Layers are named as in the ticket; their work adds up to that of a step, and their time to about one."""
    bundle = bundle_of(name)
    report = measured(bundle)
    assert (report.format, report.version) == (FORMAT, VERSION)
    assert len(report.layers) == len(bundle.ticket.plan.layers)
    names = [layer.name for layer in report.layers if layer.forward_flop]
    assert names == [layer.shape.name for layer in bundle.ticket.kept_layers]
    kept_macs = sum(layer.kept_macs for layer in bundle.ticket.kept_layers)
    assert sum(layer.forward_flop for layer in report.layers) == 2 * kept_macs * TRAINING.batch
    assert sum(layer.forward_flop + layer.backward_flop for layer in report.layers) == report.latency.flop
    first = report.layers[bundle.ticket.kept_layers[0].shape.position]
    assert first.backward_flop == first.forward_flop, "the input needs no gradient"
    total_us = sum(one.forward_us + one.backward_us for one in report.layers)
    assert 0 < total_us <= 20e3 * report.latency.max_ms, "of other steps, which a busy machine may have held up"
    assert not report.operators


def test_steps_are_what_percentiles_and_histogram_say() -> None:
    """Percentiles are in order and in the histogram's buckets, which hold every step."""
    steps = measured(bundle_of("mlp")).latency
    assert steps.steps >= FEWEST
    assert sum(steps.bucket_counts) == steps.steps
    assert 0 < steps.p50_ms <= steps.p95_ms <= steps.p99_ms <= steps.max_ms
    last = steps.first_bucket + len(steps.bucket_counts) - 1
    assert steps.first_bucket <= bucket_of(steps.p50_ms * 1e3) <= last == bucket_of(steps.max_ms * 1e3)
    assert steps.gflop_per_s == pytest.approx(steps.flop / steps.mean_ms * 1e-6, rel=1e-2)


def test_memory_and_the_system_are_read() -> None:
    """Of a real process: peak above resident, the arena all touched, processor time and faults counted."""
    report = measured(bundle_of("har-cnn"))
    memory, system = report.memory, report.system
    assert memory.start_kib is not None
    assert memory.rss_kib is not None
    assert memory.peak_kib is not None
    assert memory.pss_kib is not None
    assert memory.start_kib > 0
    assert memory.pss_kib <= memory.rss_kib <= memory.peak_kib
    assert memory.arena_planned_bytes is not None
    assert memory.arena_used_bytes is not None
    assert memory.arena_planned_bytes / 4 < memory.arena_used_bytes <= memory.arena_planned_bytes
    assert 0 < system.cpu_share < 2
    assert system.seconds >= report.latency.steps * report.latency.mean_ms * 1e-3 * 0.99
    assert report.cold_start.open_ms > 0
    assert report.board == board()
    assert report.board.cores == len(os.sched_getaffinity(0))


def test_threads_have_their_share_of_the_work_in_the_layers() -> None:
    """The clock is the first thread's, which has one of two micro-batches."""
    bundle, training = bundle_of("har-cnn"), Training(batch=16)
    x, y = random_data(bundle, training)
    report = Profiler(bundle=bundle, training=training, x=x, y=y, data="random", seconds=0.05, threads=2).measure()
    in_layers = sum(one.forward_flop + one.backward_flop for one in report.layers)
    assert in_layers == report.latency.flop / 2


def test_onnxruntime_times_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node by node, together no more than the steps; its own file of them is gone afterwards."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    report = measured(bundle_of("har-cnn", "onnx"))
    kinds = {one.kind for one in report.operators}
    assert {"Conv", "ConvTranspose", "ScatterElements"} <= kinds
    assert all(one.us >= 0 and one.calls == 1 for one in report.operators)
    assert report.memory.arena_planned_bytes is None
    assert not list(tmp_path.glob("hidenseek-*"))


def test_a_board_that_says_nothing_leaves_figures_out(tmp_path: Path) -> None:
    """Nothing is guessed, and the text has dashes."""
    report = measured(bundle_of("mlp"), root=tmp_path)
    assert report.board.model == ""
    assert report.board.ram_kib is None
    assert report.memory.rss_kib is report.memory.pss_kib is None
    assert report.system.written_bytes is report.system.throttled is report.system.energy_j is None
    assert report.cold_start.import_ms is None
    text = "\n".join(profile_page.lines(report))
    assert "no sensor" in text
    assert "- ms to import" in text


def test_a_raspberry_pi_says_what_it_has(tmp_path: Path) -> None:
    """Its name, its throttling and its INA sensor are in the report and its text."""
    for name, text in {
        "proc/device-tree/model": "Raspberry Pi Zero 2 W Rev 1.0\0",
        "proc/meminfo": "MemTotal:         436380 kB\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "71500\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1000000\n",
        "sys/class/hwmon/hwmon0/name": "ina226\n",
        "sys/class/hwmon/hwmon0/power1_input": "2000000\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    began_s = time.perf_counter()
    report = measured(bundle_of("mlp"), root=tmp_path)
    took_s = time.perf_counter() - began_s
    assert report.board.model == "Raspberry Pi Zero 2 W Rev 1.0"
    assert report.board.ram_kib == 436_380
    assert (report.system.throttled, report.system.temperature_c, report.system.frequency_mhz) == (0x50000, 71.5, 1000)
    assert report.system.energy_source == "ina"
    assert report.system.energy_j is not None
    assert 2 * report.system.seconds - 0.01 <= report.system.energy_j <= 2 * took_s, "the sensor says 2 W"
    text = "\n".join(profile_page.lines(report))
    assert "Raspberry Pi Zero 2 W Rev 1.0" in text
    assert "under-voltage has occurred, has been throttled" in text


def exported(folder: Path) -> Path:
    """An exported folder with what a device reads of it."""
    bundle = bundle_of("har-cnn", "onnx")
    (folder / "onnx").mkdir(parents=True)
    (folder / "ticket.hns").write_bytes(bundle.ticket.encoded)
    (folder / "manifest.json").write_text(json.dumps({"settings": {"batch": 4, "optimiser": "sgd"}}))
    for name, data in bundle.files.items():
        (folder / "onnx" / name).write_bytes(data)
    return folder


def test_bundles_are_found_wherever_they_are(tmp_path: Path) -> None:
    """In a ticket, a bundle's file, an exported folder and a state folder; for the runtime wanted, or the best."""
    bundle = bundle_of("har-cnn", "onnx")
    ticket, file, both = tmp_path / "t.hns", tmp_path / "state" / "b.hnsb", ["sparse", "onnx"]
    ticket.write_bytes(bundle.ticket.encoded)
    file.parent.mkdir()
    file.write_bytes(bundle.encoded)
    folder = exported(tmp_path / "export")
    assert bundles.find(ticket, runtime=None, installed=both).runtime == "sparse"
    assert bundles.find(file, runtime=None, installed=both).id == bundle.id
    assert bundles.find(file.parent, runtime="onnx", installed=both).id == bundle.id
    assert bundles.find(folder, runtime=None, installed=both).runtime == "sparse"
    assert bundles.find(folder, runtime="onnx", installed=both).id == bundle.id
    assert (bundles.settings_of(folder).batch, bundles.settings_of(folder).optimiser) == (4, "sgd")
    assert bundles.settings_of(ticket) == Training()


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    """Naming the path, and what may be named."""
    for name, data in {"empty.hnsb": b"", "cut.hnsb": bundle_of("mlp").encoded[:-3], "text.hns": b"hello"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TicketError, match=name):
            bundles.find(tmp_path / name, runtime=None, installed=["sparse"])
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "folder"):
        with pytest.raises(TicketError, match=r"Name a ticket \(\.hns\)"):
            bundles.find(path, runtime=None, installed=["sparse"])
    ticket = tmp_path / "t.hns"
    ticket.write_bytes(bundle_of("mlp").ticket.encoded)
    with pytest.raises(UnknownName, match="nothing in it for onnx, only for sparse"):
        bundles.find(ticket, runtime="onnx", installed=["sparse"])


def test_the_command_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table on standard output and the file beside it; with `-` only JSON."""
    ticket, file = tmp_path / "t.hns", tmp_path / "pi.json"
    ticket.write_bytes(bundle_of("mlp").ticket.encoded)
    samples = tmp_path / "data.npz"
    plan = bundle_of("mlp").ticket.plan
    np.savez(samples, x=np.ones((40, *plan.input_shape), np.float32), y=np.zeros(40, np.int64))
    words = ["profile", str(ticket), "--seconds", "0.05", "--batch", "4", "--data", str(samples)]
    assert main([*words, "--profile", "pi-4-4gb", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "Training step" in shown
    assert f"wrote {file}" in shown
    written = json.loads(file.read_text())
    assert (written["subject"]["batch"], written["subject"]["data"], written["profile"]) == (4, "data.npz", "pi-4-4gb")
    assert main([*words, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == written.keys() == asdict(measured(bundle_of("mlp"))).keys()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--seconds", "0"], 10),
        (["--threads", "0"], 10),
        (["--batch", "0"], 10),
        (["--optimiser", "adamw"], 10),
        (["--runtime", "sparce"], 12),
        (["--runtime", "onnx"], 12),
    ],
)
def test_bad_options_have_their_exit_code(tmp_path: Path, words: list[str], code: int) -> None:
    """As docs/errors.md says."""
    ticket = tmp_path / "t.hns"
    ticket.write_bytes(bundle_of("mlp").ticket.encoded)
    assert main(["profile", str(ticket), "--seconds", "0.05", *words]) == code


def test_an_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    """Ctrl-C while steps run: exit code 130, one line, no file, and nothing of torch was imported."""
    ticket, file = tmp_path / "t.hns", tmp_path / "out.json"
    ticket.write_bytes(bundle_of("mlp").ticket.encoded)
    code = (
        "import sys\nfrom edge_client.cli import main\nstatus = main(sys.argv[1:])\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'executorch', 'paho'} & set(sys.modules)\nsys.exit(status)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "profile", ticket, "--seconds", "600", "--json", file],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "training steps" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=20)
    assert process.returncode == 130
    assert rest.splitlines() == ["hidenseek-edge: stopped"]
    assert not file.exists()


@pytest.mark.slow
def test_models_can_all_be_measured() -> None:
    """No network of the zoo has a layer whose name or work is not known."""
    for name in MODELS:
        bundle = bundle_of(name)
        layers = Breakdown(bundle=bundle, training=TRAINING, threads=1, tell=print).times(None, 1)
        assert len(layers) == len(bundle.ticket.plan.layers)
        assert all(layer.name for layer in layers)
