"""`hidenseek report`: which run, exports that equal the page's figures, diff, and the check's exit codes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchmarks.report import RUN, fill
from coordinator.cli import main
from coordinator.report.page import render
from coordinator.report.summary import Summary, summarise
from coordinator.report.words import number
from coordinator.store import Store
from tests.unit.test_report_page import words
from wire.errors import ConfigError, OverBudget


def report(*arguments: object) -> int:
    """`hidenseek report`."""
    return main(["report", *map(str, arguments)])


def test_what_the_page_says_is_what_the_store_has(run_folder: Path, run_summary: Summary) -> None:
    """Latency, memory and energy of a device, against the rows of the database."""
    store = Store(run_folder / "coordinator.db")
    rows = store.query("SELECT * FROM telemetry WHERE device = 'pi-000' ORDER BY step_p95_us")
    store.close()
    spent = run_summary.spent[0]
    assert spent.step_p95_ms == pytest.approx(rows[1]["step_p95_us"] / 1e3)
    assert spent.step_max_ms == pytest.approx(max(row["step_max_us"] for row in rows) / 1e3)
    assert spent.peak_mb == pytest.approx(max(50_000, *(row["peak_kib"] for row in rows)) * 1024 / 1e6)
    assert spent.round_j == pytest.approx(sum(row["energy_mj"] for row in rows) / 3e3)
    assert not spent.energy_measured
    text = words(render(run_summary))
    shown = [number(value, 2) for value in (spent.step_ms, spent.step_p95_ms, spent.step_p99_ms, spent.step_max_ms)]
    assert " ".join(["pi-000", *shown, number(spent.peak_mb, 1)]) in text
    assert "6 devices of 6 sent telemetry" in text
    assert f"{spent.round_j:.2f} est." in text


def test_exports_hold_the_same_figures(run_folder: Path, run_summary: Summary, tmp_path: Path) -> None:
    """CSV and JSON, read again."""
    assert report(run_folder, "-o", tmp_path / "r.html", "--csv", tmp_path / "csv", "--json", tmp_path / "r.json") == 0
    with (tmp_path / "csv" / "spent.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    told = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert told["run"] == RUN.hex()
    for one, row, device in zip(run_summary.spent, rows, told["spent_by_device"], strict=True):
        assert (row["name"], float(row["step_ms"])) == (one.name, one.step_ms)
        assert tuple(map(float, row["layers_us"].split())) == one.layers_us
        assert (device["peak_mb"], device["throttled"]) == (one.peak_mb, one.throttled)
        assert row["arena_mb"] == ""  # nobody measured it
        counts = dict(tuple(map(int, pair.split(":"))) for pair in row["histogram"].split())
        assert counts == dict(one.histogram)
        assert sum(counts.values()) == 90  # three rounds of thirty steps
    assert [one["voters"] for one in told["by_round"]] == [6, 6, 6]


def test_check_names_device_metric_value_and_limit(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run_summary: Summary
) -> None:
    """0 if all limits are kept, else 27; a device's own limit counts before everyone's."""
    budget = tmp_path / "devices.yaml"
    budget.write_text("budget: {step_ms: 1000, temperature_c: 200}\n")
    assert report("check", run_folder, "--budget", budget) == 0
    assert "all 12 limits are kept by 6 devices" in capsys.readouterr().out
    budget.write_text("budget: {step_ms: 1000}\ndevices: {pi-003: {budget: {step_ms: 1.5}}}\n")
    assert report("check", run_folder, "--budget", budget) == OverBudget.exit_code
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"pi-003: step_ms {run_summary.spent[3].step_ms:,.5g} ms, limit 1.5 ms"]
    assert "1 of 6 limits not kept" in said.err
    budget.write_text("profiles: {pi-5-4gb: {budget: {step_ms: 1}}}\n")  # none is of this profile
    assert report("check", run_folder, "--budget", budget) == OverBudget.exit_code
    assert "no limit applies" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("budget: {step_m: 3}", "Did you mean 'step_ms'"),
        ("budget: {step_ms: fast}", "budget.step_ms: 'fast' found, should be a valid number"),
        ("budget: {step_ms: true}", "should be a valid number"),
        ("budget: {step_ms: -1}", "greater than or equal to 0"),
        ("devices: {pi: {budget: [1]}}", "devices.pi.budget: [1] found, settings expected"),
        ("everyone: {step_ms: 3}", "everyone: no such setting"),
        ("", "empty, or not a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_budgets_are_explained(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    """One line that names the file and what was expected."""
    budget = tmp_path / "devices.yaml"
    budget.write_text(text)
    assert report("check", run_folder, "--budget", budget) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert expected in said
    assert str(budget) in said


def test_runs_are_listed_found_and_compared(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the first digits of an id; a run differs from itself in nothing."""
    assert report(run_folder, "--list") == 0
    assert RUN.hex() in capsys.readouterr().out
    assert report(run_folder, "--run", "0001", "-o", tmp_path / "r.html") == 0
    assert report(run_folder, "--run", "77", "-o", tmp_path / "r.html") == 12
    capsys.readouterr()
    assert report("diff", run_folder, "--run", "0001", "--run", RUN.hex()) == 0
    said = capsys.readouterr().out
    assert "bytes up per device and round" in said
    assert "+0.0%" in said
    assert report("diff", run_folder) == ConfigError.exit_code
    assert report(run_folder, "--budget", "x") == ConfigError.exit_code


def test_predictions_stand_beside_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By profile and runtime, with the error; of an unknown profile only memory is predicted; a file adds profiles."""
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "coordinator.db")
    fill(store, devices=4, rounds=2, profiles=("pi-zero-2w", "ours"))
    known, unknown = summarise(store).predicted
    store.close()
    assert (known.profile, known.runtime, unknown.profile) == ("ours", "onnx", "pi-zero-2w")
    ours, zero = known, unknown
    assert ours.step_ms.estimated is None
    assert ours.step_ms.error is None
    assert ours.peak_mb.estimated is not None
    assert zero.step_ms.estimated is not None
    assert zero.step_ms.measured is not None
    assert zero.step_ms.error == pytest.approx(zero.step_ms.estimated / zero.step_ms.measured - 1)
    assert zero.arena_mb.measured is None
    (tmp_path / "devices.yaml").write_text("profiles: {ours: {extends: pi-400}}\n")
    assert report(tmp_path, "--csv", tmp_path / "csv", "--json", tmp_path / "r.json") == 0
    rows = json.loads((tmp_path / "r.json").read_text())["predicted"]
    assert [row["profile"] for row in rows] == ["ours", "pi-zero-2w"]
    assert rows[0]["step_ms_estimated"] > 0
    with (tmp_path / "csv" / "predicted.csv").open(encoding="utf-8", newline="") as file:
        assert [row["runtime"] for row in csv.DictReader(file)] == ["onnx", "sparse"]
    text = words((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Predicted against measured" in text
    assert f"{rows[1]['peak_mb_error']:+.0%}".replace("-", "−") in text
    capsys.readouterr()
