"""Metrics: what they count, how they are called, and that dashboard, alerts and document name no others."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from coordinator.monitoring.endpoint import exposed
from coordinator.monitoring.figures import Figures
from coordinator.monitoring.metrics import MOST_DEVICES, Metrics
from coordinator.monitoring.watch import FILES
from coordinator.observer import Several
from coordinator.rounds import Schedule
from tests.integration.stage import Stage, key_of
from tests.unit.test_agent import update
from wire.errors import ConfigError
from wire.federation_messages import Round, Telemetry
from wire.telemetry import RoundTelemetry

SCHEDULE = Schedule(rounds=2, per_round=3, quorum=2, deadline_s=60.0, start_devices=3)
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
ALERTS = FILES / "alerts.yaml"
DOCUMENT = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
FOREIGN = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}  # Prometheus's own, and of any process
WORDS = {"by", "on", "and", "or", "time", "sum", "rate", "increase", "histogram_quantile", "topk", "predict_linear"}
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (apt-get install prometheus)")


def values(metrics: Metrics) -> dict[str, float]:
    """Samples as Prometheus reads them: name and labels but the federation, and the value."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "federation")
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def played(tmp_path: Path) -> Metrics:
    """Metrics of two rounds of three devices, with somebody who forges and a device that says too much."""
    figures = Figures()
    metrics = Metrics("t", SCHEDULE, figures)

    def meddle(stage: Stage, opened: Round) -> None:
        stage.say("pi-1", "mask", stage.mask("pi-1", opened.number), key=key_of("somebody"))
        stage.say("pi-2", "mask", stage.mask("pi-2", 1, run=bytes(8)))
        stage.say("stranger", "mask", stage.mask("stranger", opened.number))
        stage.put("hns/t/up/pi-3/mask", b"short")
        stage.put("hns/t/up/pi-3/nonsense", bytes(100))

    stage = Stage(tmp_path, acts={2: meddle}, observer=Several(figures, metrics))
    metrics.attach(stage.coordinator.channel, stage.store)
    figures.know(stage.coordinator.fleet)
    stage.play()
    return metrics


def test_a_run_is_counted(played: Metrics) -> None:
    """Rounds, masks, devices, bytes, commits; and what was refused, by what it was and why."""
    found = values(played)
    expected = {
        "hidenseek_rounds_planned": 2,
        "hidenseek_round": 3,
        "hidenseek_rounds_closed_total": 2,
        "hidenseek_round_duration_seconds_count": 2,
        "hidenseek_masks_accepted_total": 6,
        "hidenseek_train_duration_seconds_sum": 6.0,
        "hidenseek_devices_online": 3,
        "hidenseek_devices_known": 3,
        "hidenseek_own_accuracy_ratio": 0.25,
        "hidenseek_broker_connected": 1,
        "hidenseek_broker_reconnects_total": 0,
        "hidenseek_device_round{device=pi-1}": 2,
        "hidenseek_messages_refused_total{kind=mask,reason=forged}": 1,
        "hidenseek_messages_refused_total{kind=mask,reason=mismatch}": 1,
        "hidenseek_messages_refused_total{kind=mask,reason=truncated}": 1,
        "hidenseek_messages_refused_total{kind=mask,reason=invalid}": 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    refused = {name: value for name, value in found.items() if name.startswith("hidenseek_messages_refused_total")}
    assert sum(refused.values()) == 5
    assert sum(value for name, value in refused.items() if "kind=other" in name) == 1
    assert found["hidenseek_store_commit_duration_seconds_count"] > 6
    assert found["hidenseek_received_bytes_total"] > found["hidenseek_mask_bytes_total"] > 0
    assert found["hidenseek_store_bytes"] > 0
    assert found["hidenseek_store_free_bytes"] > 0
    assert "hidenseek_broker_certificate_expiry_timestamp_seconds" not in found, "without TLS there is none"


def test_lost_connections_are_counted_once_each() -> None:
    """However often a connection is tried again meanwhile; the first one is no reconnection."""
    metrics = Metrics("t", SCHEDULE, Figures())
    for connected in (True, False, False, False, True, False, True):
        metrics.broker(connected)
    found = values(metrics)
    assert found["hidenseek_broker_disconnects_total"] == 2
    assert found["hidenseek_broker_reconnects_total"] == 2
    assert found["hidenseek_broker_connected"] == 1


def test_large_fleets_have_no_series_of_their_own() -> None:
    """And a device that is revoked has none either; topics that nobody uses share a label."""
    figures = Figures()
    metrics = Metrics("t", SCHEDULE, figures)
    for number in range(MOST_DEVICES + 1):
        figures.mask(f"pi-{number}", update(1), 100)
    spent = RoundTelemetry(number=1, steps=1, temperature_c=61.5, rss_kib=2048)
    figures.telemetry("pi-0", Telemetry(run=bytes(8), rounds=(spent,)))
    figures.telemetry("pi-0", Telemetry(run=bytes(8), rounds=(RoundTelemetry(number=2, steps=1),)))  # read neither
    for number in range(50):
        metrics.refused(f"some/topic/of/mine/{number}", "invalid")
    assert not [name for name in values(metrics) if "device=" in name]
    figures.revoked("pi-7")
    found = values(metrics)
    assert found["hidenseek_devices_known"] == MOST_DEVICES
    assert found["hidenseek_device_temperature_celsius{device=pi-0}"] == 61.5
    assert found["hidenseek_device_memory_bytes{device=pi-0}"] == 2048 * 1024
    assert "hidenseek_device_round{device=pi-7}" not in found
    assert found["hidenseek_messages_refused_total{kind=other,reason=invalid}"] == 50


def test_the_endpoint_is_there_while_it_is_open() -> None:
    """On its port and no other; a port that is taken is said with what to do."""
    metrics = Metrics("t", SCHEDULE, Figures())
    with exposed(metrics.registry, "127.0.0.1", 0) as address:
        with urllib.request.urlopen(address) as answer:
            assert b'hidenseek_rounds_planned{federation="t"} 2.0' in answer.read()
        port = int(address.split(":")[2].split("/")[0])
        with pytest.raises(ConfigError, match=r"--metrics: 127\.0\.0\.1:\d+ cannot be listened on \(Address already"):
            exposed(metrics.registry, "127.0.0.1", port).__enter__()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def shown_names(metrics: Metrics) -> set[str]:
    """Every metric that there is, even if it has no value yet; histograms by what is asked of them."""
    found = set()
    for family in metrics.registry.collect():
        name = {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)
        found |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if family.type == "histogram" else {name}
    return found


def queries() -> list[str]:
    """PromQL of the dashboard and of the alerts."""
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    variables = [one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    rules = YAML(typ="safe").load(ALERTS)["groups"][0]["rules"]
    return [*panels, *variables, *(rule["expr"] for rule in rules)]


def names_in(query: str) -> set[str]:
    """Metrics that a query names: words outside of braces, brackets and strings that are no part of the language."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\b(?:by|on)\s*\([^)]*\)', " ", query)
    bare = re.sub(r"label_values\(([^,]+),[^)]*\)", r"\1", bare)
    return {word for word in re.findall(r"[a-z_][a-z0-9_]*", bare) if word not in WORDS and not re.match(r"e\d", word)}


def test_dashboard_and_alerts_name_metrics_that_exist(played: Metrics) -> None:
    """And every family of ours but a few can be seen on the dashboard or raises an alarm."""
    known = shown_names(played)
    asked = {name for query in queries() for name in names_in(query)}
    assert asked - FOREIGN <= known, asked - FOREIGN - known
    assert FOREIGN - {"up"} <= known
    assert len(asked) > 30


def test_the_document_lists_every_metric(played: Metrics) -> None:
    """With its labels, and none that there is not."""
    families = {
        name.removesuffix("_bucket"): family
        for family in played.registry.collect()
        for name in [{"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)]
        if name.startswith("hidenseek_")
    }
    listed = dict(re.findall(r"^\| `(hidenseek_\w+)` \| (\w+) \|", DOCUMENT, re.MULTILINE))
    assert listed == {name: "gauge" if one.type == "info" else one.type for name, one in families.items()}
    for one in played.registry.collect():
        assert one.documentation.endswith("."), one.name


def test_panels_lie_beside_each_other() -> None:
    """No two cover the same place, all fit into Grafana's 24 columns, and no number is given twice."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


@needs_promtool
def test_prometheus_takes_metrics_queries_and_alerts(played: Metrics, tmp_path: Path) -> None:
    """Promtool finds nothing to say about names, syntax and rules, and alerts are raised when they should be."""
    text = generate_latest(played.registry)
    assert promtool("check", "metrics", text=text) == ""
    promtool("check", "rules", str(ALERTS))
    rules = [
        {"record": f"one:{number}", "expr": query.replace("$__rate_interval", "5m").replace("$federation", "t")}
        for number, query in enumerate(queries())
        if "label_values" not in query
    ]
    asked = tmp_path / "queries.yaml"
    asked.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(asked))
    trial = (Path(__file__).parent / "alerts_test.yaml").read_text().replace("RULES", str(ALERTS))
    (tmp_path / "trial.yaml").write_text(trial)
    promtool("test", "rules", str(tmp_path / "trial.yaml"))


def promtool(*arguments: str, text: bytes | None = None) -> str:
    """What it complains of; a failure fails the test."""
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stderr.decode()
