"""The parts of `hidenseek loadtest`: counts, room, accounts, what it takes for a fault, and a scripted device."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator import cli
from coordinator.loadtest import room
from coordinator.loadtest.accounts import read_accounts
from coordinator.loadtest.audience import Audience
from coordinator.loadtest.device import ScriptedDevice
from coordinator.loadtest.link import Place
from coordinator.loadtest.result import Idle, Result, masks_of, rounds_of
from coordinator.loadtest.run import share_out
from coordinator.loadtest.script import Script
from coordinator.loadtest.tally import Latencies, RoundTally, Tally, merged
from coordinator.loadtest.usage import Watched
from coordinator.loadtest.worker import Share
from tests.helpers import TINY_TICKET
from wire import mask, signing
from wire.broker import parse_url
from wire.bundle import Bundle
from wire.channel import seal, unseal
from wire.errors import ConfigError
from wire.federation_messages import (
    INSTANCE_BYTES,
    BundleBytes,
    Evaluation,
    Federation,
    Hello,
    MaskUpdate,
    Receipt,
    Round,
    State,
    Welcome,
)
from wire.fields import RUN_BYTES
from wire.messages import Message
from wire.settings import Training
from wire.topics import Topics

KEY = bytes(range(32))  # the federation's
RUN = b"run00001".ljust(RUN_BYTES)
BUNDLE = Bundle(runtime="sparse", ticket=TINY_TICKET)
TOPICS = Topics("t")


def test_tallies_add_up() -> None:
    """Counts of processes are added; of times the first and the last count."""
    one, two = Tally(devices=2, connected=1), Tally(devices=3, connected=3, fault="broken")
    one.rounds[1] = RoundTally(heard=2, first_s=5.0, last_s=6.0, sent=1, confirmed=1, confirmed_first_s=7.0)
    two.rounds[1] = RoundTally(heard=3, first_s=4.0, last_s=9.0, sent=2, longest_s=3.0)
    two.counts["resent"] = 4
    every = merged([one, two])
    assert (every.devices, every.connected, every.fault, every.counts["resent"]) == (5, 4, "broken", 4)
    seen = every.rounds[1]
    assert (seen.heard, seen.first_s, seen.last_s, seen.longest_s) == (5, 4.0, 9.0, 3.0)
    assert (seen.sent, seen.confirmed, seen.confirmed_first_s) == (3, 1, 7.0)
    assert one.rounds[1].heard == 2, "merging changes none of those that are merged"


def test_percentiles_are_right_to_a_quarter_of_an_octave() -> None:
    """And never above the longest."""
    latencies = Latencies()
    assert latencies.percentile_s(50) is None
    for number in range(1, 1001):
        latencies.add(number / 1000)
    found = latencies.percentile_s(50)
    assert found is not None
    assert 0.5 <= found <= 0.5 * 2**0.25
    assert latencies.percentile_s(100) == 1.0


def test_what_rounds_took_beyond_training() -> None:
    """From announcement to announcement, less the longest training; the final announcement is no round."""
    tally = Tally(federation=("t", "", 2))
    tally.rounds[1] = RoundTally(first_s=10.0, longest_s=3.0)
    tally.rounds[2] = RoundTally(first_s=14.5, longest_s=3.0)
    assert [one.overhead_s for one in rounds_of(tally)] == [1.5, None]
    tally.rounds[3] = RoundTally(first_s=18.0)
    assert [one.overhead_s for one in rounds_of(tally)] == [1.5, 0.5]


def result(tally: Tally, **more: object) -> Result:
    """A result of a test in which everybody came."""
    made = Result(settings={"churn": 0.0}, idle=Idle(60), tally=tally, **more)  # type: ignore[arg-type]
    made.connected_s = made.welcomed_s = 1.0
    return made


def test_faults_are_told() -> None:
    """All is well, or what is not is said; masks that still wait are not lost."""
    well = Tally(devices=5, welcomed=5, federation=("t", "", 1), pending=2)
    well.rounds[1] = RoundTally(sent=5, confirmed=3)
    assert masks_of(well)["lost"] == 0
    assert result(well, stored={1: 3}).faults() == []
    assert "2 kept" in result(well, stored={1: 2}).faults()[0]
    well.pending = 0
    assert "2 masks were sent and never confirmed" in result(well).faults()[0]
    well.rounds[1].dropped = 2
    assert "not counted" in result(well).faults()[0]
    alone = Tally(devices=5, connected=4)
    assert [words.split(":")[0] for words in Result(settings={"churn": 0.0}, idle=Idle(60), tally=alone).faults()] == [
        "1 of 5 devices are not connected",
        "no federation was announced",
    ]
    json.dumps(result(well).to_json())


def test_idle_traffic_counts_only_while_nothing_is_said() -> None:
    """Pings count; what came with a message does not; less than two keepalives tell nothing."""
    idle, tally = Idle(60), Tally(connected=10)
    idle.look(tally, 0.0)
    tally.counts["in publish"], tally.counts["in publish bytes"] = 1, 5_000
    idle.look(tally, 1.0)
    for minute in range(1, 4):
        tally.counts["out ping"] += 10
        tally.counts["out ping bytes"] += 20
        tally.counts["in pong bytes"] += 20
        idle.look(tally, 1.0 + 60.0 * minute)
        assert (idle.bytes_a_day is None) == (minute < 2)
    assert idle.bytes_a_day == pytest.approx(4 * 24 * 60)


@pytest.fixture
def few_files() -> Iterator[int]:
    """A process may open hardly any files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_processes_have_room_for_their_connections(few_files: int) -> None:
    """As many as are needed, or an error that says what to do; the soft limit is raised."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (few_files // 2, few_files))
    room_each = few_files - room.SPARE
    assert room.processes(1, None) == 1
    assert room.processes(100, None) == 2
    assert room.processes(3 * room_each, None) == 3
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == few_files
    with pytest.raises(ConfigError, match=r"--processes.*Take 3 processes"):
        room.processes(3 * room_each, 2)
    with pytest.raises(ConfigError, match=r"--devices.*ulimit"):
        room.check_broker(room_each + 1)


def test_sources_are_spread_over_the_loopback_only() -> None:
    """A broker elsewhere is reached as the system likes."""
    assert room.sources("192.0.2.1", 20_000) == room.sources("::1", 20_000) == []
    found = room.sources("127.0.0.1", 20_000)
    assert found[0] == "127.0.0.1"
    assert len(found) in (1, 4)  # other systems than Linux have one


def test_devices_are_shared_out() -> None:
    """Every device once, with its password, at the rate of all."""
    names = tuple(f"d{number}" for number in range(7))
    share = Share(
        script=Script(topics=TOPICS), broker=parse_url("mqtt://h"), names=(), passwords={"d5": "x"}, per_s=100.0
    )
    parts = share_out(share, names, 3)
    assert [part.names for part in parts] == [names[:3], names[3:6], names[6:]]
    assert [part.first for part in parts] == [0, 3, 6]
    assert [part.passwords for part in parts] == [{}, {"d5": "x"}, {}]
    assert sum(part.per_s for part in parts) == pytest.approx(100)


def test_accounts_are_those_of_devices(tmp_path: Path) -> None:
    """The coordinator's, the workers', the checkers' and the sites' are left out."""
    path = tmp_path / "passwords.json"
    path.write_text(json.dumps({"coordinator": "a", "worker-1": "b", "check-1": "c", "site-north": "d", "pi-1": "e"}))
    assert read_accounts(path) == {"pi-1": "e"}
    for text in ("{", "[]", '{"pi-1": 3}', '{"coordinator": "a"}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="DEVICE"):
            read_accounts(path)


def test_a_process_is_watched() -> None:
    """Our own takes time and memory; one that is gone keeps its last figures."""
    watched = Watched("self", os.getpid())
    watched.look()
    assert watched.peak_kib >= watched.rss_kib > 1000
    before, watched.pid = watched.rss_kib, 1 << 30
    watched.look()
    assert watched.rss_kib == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--self mosquitto"),
        (["--broker", "mqtt://h", "--self", "nats"], "both"),
        (["--broker", "ws://h"], "websockets"),
        (["--self", "nats", "--devices", "0"], "--devices: 0 found"),
        (["--self", "nats", "--train", "5,2"], "--train: '5,2' found"),
        (["--self", "nats", "--churn", "-1"], "--churn"),
        (["--self", "nats", "--devices", "5", "--per-round", "6"], "--per-round: 6 found"),
    ],
)
def test_options_that_make_no_sense(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is refused before anything starts, by its name."""
    assert cli.main(["loadtest", *options]) == ConfigError.exit_code
    assert words in capsys.readouterr().err


class Wire:
    """In the place of a device's connection: what it says is kept."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Message]] = []
        self.patterns: list[str] = []
        self.online = True

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        """Must be signed by the device."""
        self.said.append((topic, unseal(topic, payload, lambda topic, message: self.key)))

    def subscribe(self, pattern: str, *, qos: int = 1) -> None:
        """Asked for."""
        self.patterns.append(pattern)

    def forget(self) -> None:
        """Nothing is kept here."""

    def drop(self) -> None:
        """It is lost."""
        self.online = False

    close = drop
    key = b""


class Stage:
    """A scripted device, and a federation that a test speaks for."""

    def __init__(self) -> None:
        self.tally = Tally()
        audience = Audience(None, 0)
        place = Place(nodes=(("127.0.0.1", 1),), keepalive_s=60)
        self.device = ScriptedDevice("d", Script(topics=TOPICS), place, (None, None), audience, self.tally, started=5)
        self.link = Wire()
        self.device.link = self.link  # type: ignore[assignment]
        self.link.key = self.device._agent.hello.key
        self.votes = mask.unanimous(TINY_TICKET.kept)
        self.connect()

    def connect(self) -> None:
        """Make a connection."""
        self.link.online = True
        self.device.will()
        self.device.online()

    def tell(self, topic: str, message: Message) -> None:
        """Say something as the coordinator."""
        self.device.heard(topic, seal(KEY, topic, message))

    def introduce(self) -> None:
        """Announce the federation and hand out its bundle."""
        self.tell(
            TOPICS.announcement,
            Federation(
                run=RUN,
                name="t",
                rounds=2,
                ticket=TINY_TICKET.id,
                bundles={"sparse": BUNDLE.id},
                training=Training(),
                seed=0,
                key=signing.public_key(KEY),
                issued=1,
            ),
        )
        self.tell(TOPICS.bundle("sparse"), BundleBytes(data=BUNDLE.encoded))

    def announce(self, number: int, *, final: bool = False) -> None:
        """Open a round with nothing agreed on yet."""
        coded = mask.encode_votes(self.votes, TINY_TICKET.ends)
        self.tell(
            TOPICS.round,
            Round(
                run=RUN,
                number=number,
                selected=("d",),
                evaluate=True,
                final=final,
                votes=coded,
                base=0,
                digest=self.votes.digest,
            ),
        )

    def heard(self, kind: type[Message]) -> list[Message]:
        """What the device has said of a kind."""
        return [message for _, message in self.link.said if isinstance(message, kind)]


def test_a_scripted_device_takes_part_as_a_device_does() -> None:
    """It downloads, says hello, trains, sends a mask that decodes, sends it again, and leaves when the run is over."""

    async def play() -> None:
        stage = Stage()
        assert stage.link.patterns == ["hns/t/down/d/#", "hns/t/all/federation/#"]
        stage.introduce()
        assert stage.link.patterns[2:] == ["hns/t/all/round/#", "hns/t/all/bundle/sparse/#"]
        (hello,), (state,) = stage.heard(Hello), stage.heard(State)
        assert isinstance(hello, Hello)
        assert hello.started == 5
        assert state == State(instance=hello.instance, online=True, connection=1)
        stage.tell(TOPICS.down("d"), Welcome(instance=hello.instance))
        assert stage.device.welcomed
        stage.announce(1)
        await asyncio.sleep(0.01)
        (update,) = stage.heard(MaskUpdate)
        assert isinstance(update, MaskUpdate)
        signs = mask.decode_signs(update.signs, stage.votes, TINY_TICKET.ends)
        assert 0 < np.count_nonzero(~signs) < TINY_TICKET.kept / 2
        assert len(stage.heard(Evaluation)) == 1
        assert stage.device.pending
        stage.connect()  # it was lost, and what has no receipt is said again
        assert len(stage.heard(MaskUpdate)) == 2
        stage.device.cut_power()
        stage.connect()
        stage.introduce()
        assert [one.started for one in stage.heard(Hello) if isinstance(one, Hello)] == [5, 5, 6]
        assert stage.heard(MaskUpdate) == [update] * 3
        stage.tell(TOPICS.down("d"), Receipt(run=RUN, number=1))
        assert not stage.device.pending
        seen = stage.tally.rounds[1]
        assert (seen.heard, seen.trained, seen.sent, seen.confirmed, seen.dropped) == (1, 1, 1, 1, 0)
        assert stage.tally.counts["resent"] == 2
        stage.announce(3, final=True)
        assert stage.device.stopped
        last = stage.heard(State)[-1]
        assert isinstance(last, State)
        assert not last.online
        assert not stage.link.online

    asyncio.run(play())


def test_a_scripted_device_trusts_whom_a_device_would() -> None:
    """What somebody else has signed is counted and ignored; so is what comes before the federation."""

    async def play() -> None:
        stage = Stage()
        stage.tell(TOPICS.down("d"), Receipt(run=RUN, number=1))
        assert stage.tally.counts["garbled"] == 1
        stage.introduce()
        topic = TOPICS.down("d")
        stage.device.heard(topic, seal(bytes(32), topic, Welcome(instance=bytes(INSTANCE_BYTES))))
        stage.device.heard(topic, b"nonsense")
        assert stage.tally.counts["garbled"] == 3
        assert not stage.device.welcomed

    asyncio.run(play())
