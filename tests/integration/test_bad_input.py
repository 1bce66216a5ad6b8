"""Each thing that can be wrong: one clear line, a stable exit code, and the round stays intact."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator import cli as workstation
from coordinator.broker import EmbeddedBroker
from coordinator.federation import Federation, prepare
from coordinator.models import build_plan
from coordinator.prune import prune
from coordinator.rounds import Schedule
from coordinator.store import Store
from edge_client import cli as edge
from tests.helpers import DEVICE_KEY, federation_channel
from tests.integration.fleet import Processes, wait_until, write_person
from tests.integration.test_memory_federation import DEVICES, Watcher, start_device, summary_run
from tests.unit.test_agent import update
from wire import mask
from wire.channel import Channel, Received, seal
from wire.federation_messages import MaskUpdate, Round
from wire.settings import Training
from wire.signing import public_key
from wire.transport import MemoryBus


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """The embedded broker with accounts for pi-1 and pi-2."""
    server = EmbeddedBroker(tmp_path / "broker", "t", ["pi-1", "pi-2"])
    server.start()
    yield server
    server.stop()


def fails(capsys: pytest.CaptureFixture[str], program: object, *arguments: object) -> tuple[int, str]:
    """Run a command line that must fail; its exit code and its last line on standard error."""
    code = program.main([str(argument) for argument in arguments])  # type: ignore[attr-defined]
    lines = capsys.readouterr().err.strip().splitlines()
    assert code != 0
    return code, lines[-1]


def test_unreachable_broker_is_named_with_the_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 15: what, where, why, what to do."""
    data = write_person(tmp_path / "data", 1)
    arguments = ["join", "--broker", "mqtt://127.0.0.1:9", "--connect-timeout", "1", "--device", "pi-1", "--data", data]
    code, line = fails(capsys, edge, *arguments, "--state", tmp_path / "state")
    assert code == 15
    assert "no broker at mqtt://127.0.0.1:9 within 1 s: connection refused" in line


def test_wrong_password_is_told_apart_from_no_broker(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 16, and no password in the message."""
    monkeypatch.setenv("HIDENSEEK_PASSWORD", "wrong-one")
    data = write_person(tmp_path / "data", 1)
    arguments = ["join", "--broker", broker.url("pi-1"), "--device", "pi-1", "--data", data]
    code, line = fails(capsys, edge, *arguments, "--state", tmp_path / "state")
    assert code == 16
    assert "refused the connection" in line
    assert "wrong-one" not in line


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "absent"])
def test_damaged_ticket_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, damage: str) -> None:
    """Exit code 13 with the file's name, whatever happened to it."""
    ticket = tmp_path / "t.hns"
    plan = build_plan("lenet", input_shape=(1, 28, 28), classes=10)
    good = prune(plan, density=0.1, seed=0, method="uniform").encoded
    if damage != "absent":
        flipped = good[:50] + bytes([good[50] ^ 1]) + good[51:]
        ticket.write_bytes({"cut": good[:-5], "flip": flipped, "text": b"hello"}[damage])
    code, line = fails(capsys, workstation, "inspect", ticket)
    assert code == 13
    assert str(ticket) in line


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["prune", "--model", "har-cn", "-o", "x"], 12, "Did you mean 'har-cnn'?"),
        (["prune", "--model", "lenet", "--method", "synflo", "-o", "x"], 12, "Did you mean 'synflow'?"),
        (["prune", "--model", "lenet", "--density", "0.001", "--method", "magnitude", "-o", "x"], 21, "too low"),
        (["prune", "--model", "lenet", "--input-shape", "1,9,9", "-o", "x"], 20, "28"),
        (["data", "get", "hra"], 12, "Did you mean 'har'?"),
        (["serve", "--config", "absent.yaml"], 10, "absent.yaml: cannot be read"),
        (["report", "absent"], 11, "no coordinator.db"),
    ],
)
def test_wrong_names_and_numbers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, text: str,
) -> None:  # fmt: skip
    """Every wrong name has a suggestion, every wrong number says what is possible."""
    monkeypatch.chdir(tmp_path)
    got, line = fails(capsys, workstation, *arguments)
    assert (got, text in line) == (code, True), line


@pytest.mark.parametrize(
    ("yaml", "line", "text"),
    [
        ("federation:\n  rounds: 0\n", 2, "federation.rounds: 0 found"),
        ("federation:\n  name: t\n  roundz: 4\n", 3, "Did you mean 'rounds'?"),
        ("federation:\n  quorum: 20\n", 2, "quorum is 20"),
        ("federation:\n  training:\n    epochs: 2\n    optimiser: adm\n", 4, "optimiser is 'adm'"),
        ("federation: [\n", 2, "not YAML"),
        ("devices:\n  pi-1: {}\n  pi 2: {}\n", 3, "devices.pi 2"),
        ("profiles:\n  pi: {title: x, cores: 4, ram_mb: 1}\ndevices:\n  a: {profile: po}\n", 4, "'po'"),
    ],
)
def test_devices_yaml_is_complained_about_by_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, yaml: str, line: int, text: str
) -> None:
    """Exit code 10 with file, line, what was found and what was expected."""
    path = tmp_path / "devices.yaml"
    path.write_text(yaml)
    code, said = fails(capsys, workstation, "serve", "--check", "--config", path)
    assert code == 10
    assert f"{path}:{line}: " in said
    assert text in said


@pytest.mark.slow
def test_data_of_the_wrong_shape_stops_the_device_only(processes: Processes) -> None:
    """Exit code 11 on the device whose data does not fit; the federation goes on without it."""
    config = (
        "federation: {name: t, method: uniform, density: 0.02, seed: 1, rounds: 2, per_round: 1, quorum: 1}\n"
        "devices: {pi-1: {}, pi-2: {}}\n"
    )
    processes.serve(config, "--listen", "127.0.0.1:0")
    address, passwords = processes.embedded_broker()
    wrong = processes.home / "data" / "pi-1"
    wrong.mkdir(parents=True)
    np.savez(wrong / "d.npz", x=np.zeros((20, 3, 50), np.float32), y=np.zeros(20, np.int64))
    processes.edge("pi-1", f"mqtt://pi-1@{address}", password=passwords["pi-1"])
    assert processes.wait("pi-1", 60) == 11
    assert "samples have shape (3, 50), the network 'har-cnn' takes (6, 128)" in processes.log("pi-1")
    processes.edge("pi-2", f"mqtt://pi-2@{address}", password=passwords["pi-2"])
    assert processes.wait("pi-2", 90) == 0, processes.log("pi-2") + processes.log("coordinator")
    assert processes.wait("coordinator", 60) == 0


@pytest.mark.slow
def test_second_process_with_a_device_id_is_turned_away(processes: Processes) -> None:
    """Of a copied card, with the same key: exit code 18 for the later one. With another key 17. The earlier stays."""
    config = (
        "federation: {name: t, method: uniform, density: 0.02, seed: 1, rounds: 2, per_round: 2, quorum: 2,\n"
        "  training: {epochs: 9}}\n"
        "devices: {pi-1: {}, pi-2: {}}\n"
    )
    processes.serve(config, "--listen", "127.0.0.1:0")
    address, passwords = processes.embedded_broker()
    processes.edge("pi-1", f"mqtt://pi-1@{address}", password=passwords["pi-1"])
    wait_until(lambda: "joined" in processes.log("pi-1"), 60, "the first process has joined")
    first = processes.running.pop("pi-1")
    processes.running["first"] = first
    stranger = str(processes.home / "stranger")
    processes.edge("pi-1", f"mqtt://pi-1@{address}", "--state", stranger, password=passwords["pi-1"])
    assert processes.wait("pi-1", 60) == 17, processes.log("pi-1")
    assert "hidenseek fleet forget pi-1" in processes.log("pi-1")
    elsewhere = processes.home / "other"
    elsewhere.mkdir()
    shutil.copy(processes.home / "state" / "pi-1" / "device.key", elsewhere)
    processes.edge("pi-1", f"mqtt://pi-1@{address}", "--state", str(elsewhere), password=passwords["pi-1"])
    assert processes.wait("pi-1", 60) == 18, processes.log("pi-1")
    assert "another process is already connected as 'pi-1'" in processes.log("pi-1")
    processes.edge("pi-2", f"mqtt://pi-2@{address}", password=passwords["pi-2"])
    assert processes.wait("coordinator", 90) == 0, processes.log("coordinator")
    assert processes.wait("first", 30) == 0


def test_bad_masks_leave_the_round_intact(tmp_path: Path) -> None:
    """Wrong length, round, ticket, run and sender: each is named, none is stored, the true masks count."""
    plan = build_plan("har-cnn", input_shape=(6, 128), classes=6)
    federation = Federation(
        name="t",
        ticket=prune(plan, density=0.02, seed=1, method="uniform"),
        training=Training(epochs=1),
        schedule=Schedule(rounds=2, per_round=3, quorum=3, deadline_s=60, start_devices=3),
        runtimes=("onnx",),
    )
    bus, watcher, store = MemoryBus(), Watcher(), Store(tmp_path / "db")
    coordinator = prepare(federation, store=store, channel=federation_channel(bus), observer=watcher)
    run = summary_run(store)
    signs = np.ones(federation.ticket.kept, dtype=np.bool_)
    mixed = np.random.default_rng(0).random(signs.size + 8) < 0.5  # fits no code but the raw one, whose length shows
    ends, votes = federation.ticket.ends, mask.unanimous(signs.size)
    coded = mask.encode_signs(signs, votes, ends)
    long = np.array([signs.size + 8])
    good = replace(update(1, run), signs=coded, correct=24, test_samples=24)
    bad = {
        "pi-1": [
            (replace(good, signs=mask.encode_signs(mixed, mask.unanimous(mixed.size), long)), "at most 759 accepted"),
            (replace(good, number=2), "round that is not open"),
            (replace(good, run=bytes(8)), "another run"),
            (replace(good, correct=25), "25 of 24"),
        ],
        "pi-9": [(good, "'pi-9' has not said hello")],
    }
    threads = [start_device(bus, name, tmp_path, "onnx") for name in DEVICES]
    _Rogue(bus, bad, tmp_path).watch()
    coordinator.serve()
    for thread in threads:
        thread.join(timeout=20)
    for texts in bad.values():
        for _, text in texts:
            assert any(text in remark for remark in watcher.remarks), (text, watcher.remarks)
    assert [len(store.masks(run, number)) for number in (1, 2)] == [3, 3]
    counted = [row["correct"] for row in store.query("SELECT correct FROM mask WHERE test_samples != 24")]
    assert counted == []


class _Rogue:
    """Sends bad masks in others' names the moment round 1 opens."""

    def __init__(self, bus: MemoryBus, bad: dict[str, list[tuple[MaskUpdate, str]]], folder: Path) -> None:
        self._bus, self._bad, self._folder, self._sent = bus, bad, folder, False

    def _key(self, device: str) -> bytes:
        """The device's own private key: whoever has it can say nonsense in its name."""
        path = self._folder / "state" / device / "device.key"
        return path.read_bytes() if path.exists() else DEVICE_KEY

    def watch(self) -> None:
        """Publish from inside the bus, right after the announcement and before any device can answer it."""
        deliver = self._bus.deliver

        def spy(topic: str, payload: bytes, retain: bool) -> None:
            deliver(topic, payload, retain)
            if topic.endswith("/round") and not self._sent:
                self._sent = True
                for device, cases in self._bad.items():
                    for message, _ in cases:
                        topic = f"hns/t/up/{device}/mask"
                        deliver(topic, seal(self._key(device), topic, message), False)

        self._bus.deliver = spy  # type: ignore[method-assign]


def test_embedded_broker_keeps_devices_to_their_own_topics(broker: EmbeddedBroker) -> None:
    """pi-1 cannot publish as pi-2; the coordinator hears only what pi-1 says as itself."""
    from wire.broker import parse_url
    from wire.federation_messages import Welcome
    from wire.mqtt import MqttTransport

    def connect(user: str) -> Channel:
        transport = MqttTransport(parse_url(broker.url(user), password=broker.passwords[user]), client_id=user)
        transport.connect(10)
        return Channel(transport, DEVICE_KEY, trust=lambda topic, message: public_key(DEVICE_KEY))

    coordinator, device = connect("coordinator"), connect("pi-1")
    coordinator.subscribe("hns/t/up/#")
    coordinator.send("hns/t/up/pi-1/state", Welcome(instance=b"ourselves"[:8]))
    wait_until(lambda: isinstance(coordinator.receive(0.1), Received), 5, "the subscription stands")
    device.send("hns/t/up/pi-2/hello", Welcome(instance=b"forged--"))
    device.send("hns/t/up/pi-1/hello", Welcome(instance=b"honest--"))
    heard: list[Received] = []

    def listen() -> bool:
        happened = coordinator.receive(0.2)
        if isinstance(happened, Received):
            heard.append(happened)
            happened.acknowledge()
        return bool(heard)

    wait_until(listen, 10, "a message arrives")
    for _ in range(5):
        listen()
    assert {one.topic for one in heard} == {"hns/t/up/pi-1/hello"}
    device.transport.close()
    coordinator.transport.close()


def test_retained_round_survives_a_broker_restart(broker: EmbeddedBroker) -> None:
    """Kill -9 of the broker loses no announcement."""
    import os
    import signal

    from wire.broker import parse_url
    from wire.mqtt import MqttTransport

    def connect(user: str) -> Channel:
        transport = MqttTransport(parse_url(broker.url(user), password=broker.passwords[user]), client_id=user)
        transport.connect(10)
        return Channel(transport, DEVICE_KEY, trust=lambda topic, message: public_key(DEVICE_KEY))

    coordinator = connect("coordinator")
    sent = Round(
        run=bytes(8), number=3, selected=("pi-1",), evaluate=True, final=False, votes=b"votes", base=0, digest=bytes(8)
    )
    coordinator.send("hns/t/all/round", sent, retain=True)
    coordinator.transport.close()
    pid = int((broker.folder / "nats.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    broker.stop()
    broker.start()
    device = connect("pi-1")
    device.subscribe("hns/t/all/round")
    got: list[object] = []

    def listen() -> bool:
        happened = device.receive(0.2)
        if isinstance(happened, Received):
            got.append(happened.message)
        return bool(got)

    wait_until(listen, 10, "the retained round arrives")
    assert got == [sent]
    device.transport.close()
