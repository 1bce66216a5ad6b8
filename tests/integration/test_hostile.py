"""Whoever is hostile is refused: nothing of it counts, memory stays bounded, and the honest devices' round goes on."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.limits import Limits
from coordinator.terminal import Board
from tests.integration.stage import HEADER, HONEST, MAX_BYTES, TICKET, Stage, key_of
from wire import mask
from wire.channel import seal
from wire.envelope import MAX_PARTS, split
from wire.federation_messages import (
    BundleBytes,
    CatchUp,
    Evaluation,
    Federation,
    Missed,
    Receipt,
    Refusal,
    Round,
    State,
    Welcome,
)
from wire.messages import Message

MEMORY = 12 << 20  # bytes that all of it together may take; most are the messages themselves, which wait in the bus
EVIL = "evil-1"  # has joined, with a key of its own, and is offline: it is never selected


def join(stage: Stage) -> None:
    """The hostile device joins, and is not there."""
    stage.say(EVIL, "hello", stage.hello(EVIL))
    stage.say(EVIL, "state", State(instance=stage.hello(EVIL).instance, online=False))


def claims(head: int, number: int) -> bytes:
    """A map whose one value is an item that says it has so many bytes or items."""
    return HEADER + b"\xa1\x04" + bytes([head << 5 | 27]) + struct.pack(">Q", number) + b"\0" * 40


def huge(stage: Stage, opened: Round) -> None:
    """Messages that are large, or say that they are."""
    stage.put_signed(EVIL, bytes(MAX_BYTES + 1))
    for number in (1 << 60, 2**64 - 1, 1 << 31, 200_001):
        for major in range(2, 7):
            stage.put_signed(EVIL, claims(major, number))
    stage.put_signed(EVIL, HEADER + b"\x81" * 5000)
    stage.put_signed(EVIL, HEADER + b"\x9b" + struct.pack(">Q", 20_000) + b"\x80" * 20_000)
    stage.put_signed(EVIL, HEADER + b"\xc2\x5a" + struct.pack(">I", 50_000) + b"\xff" * 50_000)  # a number of 120,000
    for count in (MAX_PARTS, MAX_PARTS + 1, 65_535):
        for number in range(20):
            head = struct.pack("<2sB16sHH", b"HP", 1, bytes([number]) * 16, 0, count)
            stage.put(f"hns/t/up/{EVIL}/mask/0", head + bytes(60_000))
    stage.put(f"hns/t/up/{EVIL}/mask/0", b"HP")


def wrong(stage: Stage, opened: Round) -> None:
    """Masks for another round, run, ticket or length, and numbers that cannot be."""
    good, number = stage.mask(EVIL, opened.number), opened.number
    signs, raw = stage.mask("pi-1", opened.number).signs, bytes([mask.RAW]) + bytes(-(-TICKET.kept // 8))
    for other in (
        {"number": number + 1},
        {"number": 0},
        {"number": 2**53},
        {"run": bytes(8)},
        {},
    ):
        stage.say(EVIL, "mask", replace(good, **other))
    stage.say(EVIL, "evaluation", Evaluation(run=stage.run_id, number=number, correct=9, test_samples=8))
    stage.say(EVIL, "evaluation", Evaluation(run=stage.run_id, number=2**53, correct=1, test_samples=8))
    stage.say(EVIL, "missed", Missed(run=bytes(8), number=1, have=0))
    # A selected device's: everything is true but one thing.
    for other in (
        {"number": number + 1},
        {"run": bytes(8)},
        {"signs": b""},
        {"signs": b"\x02" + signs[1:]},
        {"signs": raw[:-1]},
        {"signs": raw + b"\0"},
        {"signs": signs + b"\0"},
        {"correct": 25},
        {"train_samples": 0},
    ):
        stage.say("pi-1", "mask", replace(stage.mask("pi-1", number), **other))


def others(stage: Stage, opened: Round) -> None:
    """What somebody else has said, or says."""
    false = stage.mask("pi-1", opened.number, signs=stage.mask(EVIL, opened.number).signs)
    stage.say("pi-1", "mask", false, key=key_of(EVIL))
    captured = seal(key_of("pi-2"), "hns/t/up/pi-2/mask", stage.mask("pi-2", opened.number))
    stage.put(f"hns/t/up/{EVIL}/mask", captured)
    stage.put("hns/t/up/pi-1/mask", captured)
    stage.put("hns/t/up/pi-1/mask", captured[:-1] + bytes([captured[-1] ^ 1]))
    stage.put("hns/t/up/pi-2/mask", captured[:30] + bytes([captured[30] ^ 1]) + captured[31:])
    elsewhere = "hns/other/up/pi-2/mask"
    stage.put(
        "hns/t/up/pi-2/mask", seal(key_of("pi-2"), elsewhere, stage.mask("pi-2", opened.number, signs=false.signs))
    )
    stage.say("pi-2", "state", State(instance=stage.hello("pi-2").instance, online=False), key=key_of(EVIL))
    stage.say("pi-9", "mask", stage.mask("pi-9", opened.number))


def repeated(stage: Stage, opened: Round) -> None:
    """What was said before: hellos, and in the second round masks of the first."""
    for device in HONEST:
        stage.put(f"hns/t/up/{device}/hello", stage.sent[f"{device} hello"])
        if opened.number > 1:
            stage.put(f"hns/t/up/{device}/mask", stage.sent[f"{device} mask {opened.number - 1}"])
            stage.put(f"hns/t/up/{EVIL}/mask", stage.sent[f"{device} mask {opened.number - 1}"])


def spoofed_coordinator(stage: Stage, opened: Round) -> None:
    """Everything that only a coordinator says."""
    announced = next(message for _, message in stage.told if isinstance(message, Federation))
    spoken: list[Message] = [
        Welcome(instance=bytes(8)),
        Refusal(instance=stage.hello("pi-1").instance, code="mask", reason="no"),
        replace(announced, issued=announced.issued + 1),
        BundleBytes(data=bytes(1000)),
        replace(opened, number=opened.number + 1),
        Receipt(run=stage.run_id, number=opened.number),
        CatchUp(run=stage.run_id, number=opened.number, votes=opened.votes, base=0, digest=opened.digest),
    ]
    for message in spoken:
        stage.say(EVIL, "mask", message)


def strange_topics(stage: Stage, opened: Round) -> None:
    """Topics that nobody speaks on."""
    for rest in (
        "pi-1/masks",
        "pi-1/mask/0/0",
        "pi-1",
        "/mask",
        "pi 1/mask",
        "..",
        "a" * 65 + "/mask",
        "pi-1/mask/" * 9,
    ):
        stage.put(f"hns/t/up/{rest}", seal(key_of("pi-1"), f"hns/t/up/{rest}", stage.mask("pi-1", opened.number)))


ATTACKS: dict[Callable[[Stage, Round], None], tuple[str, ...]] = {
    huge: (
        f"at most {MAX_BYTES} accepted",
        f"expected {2 << 60} bytes",
        f"expected {2**64 - 1} bytes",
        "CBOR tag",
        "CBOR nesting",
        "makes no sense",
        "expected 24 bytes, got 2",
    ),
    wrong: (
        "mask for a round that is not open: expected 1, got 2",
        "another run",
        "'evil-1' was not selected",
        "9 of 8",
        "evaluation: expected round 1..3",
        "were never announced",
        "pi-1/mask: mask for a round that is not open",
        "sign mask: expected 1 bytes, got 0",
        "sign mask of unknown kind 2",
        "packed bits: expected ",
        f"mask of {TICKET.kept} signs: at most ",
        "are more than the code of",
        "25 of 24",
        "right and 0 samples",
    ),
    others: (
        "hns/t/up/pi-1/mask: not signed by",
        "hns/t/up/pi-2/mask: not signed by",
        "hns/t/up/pi-2/state: not signed by",
        f"hns/t/up/{EVIL}/mask: not signed by",
        "'pi-9' has not said hello",
    ),
    repeated: ("'pi-1' has said this hello before", f"hns/t/up/{EVIL}/mask: not signed by"),
    spoofed_coordinator: tuple(
        f"a device does not send {name}"
        for name in ("Welcome", "Refusal", "Federation", "BundleBytes", "Round", "Receipt", "CatchUp")
    ),
    strange_topics: ("is not an uplink topic",),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_the_round_goes_on_as_if_nothing_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: Callable[[Stage, Round], None]
) -> None:
    """Every message is refused with a reason, little memory is taken, and the votes are the honest devices'."""
    for limit in ("burst", "checks_burst", "remarks"):  # what is refused here is not refused for its number
        monkeypatch.setattr(Limits, limit, 10_000)
    stage = Stage(tmp_path, acts={1: attack, 2: attack}, before=join)
    tracemalloc.start()
    try:
        outcome = stage.play()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    for text in ATTACKS[attack]:
        assert any(text in remark for remark in stage.watcher.remarks), (text, stage.watcher.remarks)
    assert [stage.counted(number) for number in (1, 2)] == [sorted(HONEST)] * 2
    assert outcome.digest == stage.expected().digest
    refused = [message for topic, message in stage.told if isinstance(message, Refusal)]
    assert all(refusal.code == "mask" for refusal in refused), "nobody is turned away"
    assert peak < MEMORY, peak


def test_a_flood_drowns_its_sender_alone(tmp_path: Path) -> None:
    """More than a burst is not looked at; a person is told once; the others' masks count."""
    looked_at: list[str] = []

    def flood(stage: Stage, opened: Round) -> None:
        trust = stage.coordinator.channel.trust

        def count(topic: str, message: Message) -> bytes:
            looked_at.append(stage.coordinator.topics.sender(topic))
            return trust(topic, message)

        stage.coordinator.channel.trust = count
        packet = seal(key_of(EVIL), f"hns/t/up/{EVIL}/mask", stage.mask(EVIL, opened.number))
        for _ in range(5000):
            stage.put(f"hns/t/up/{EVIL}/mask", packet)

    stage = Stage(tmp_path, acts={1: flood}, before=join)
    assert stage.play().digest == stage.expected().digest
    assert stage.counted(1) == sorted(HONEST)
    assert looked_at.count(EVIL) < Limits.burst + 30 * Limits.per_s
    assert sum("messages a second; ignoring the rest" in remark for remark in stage.watcher.remarks) == 1


@pytest.mark.parametrize("parts", [False, True], ids=["messages", "parts"])
def test_who_speaks_in_the_name_of_another_does_not_silence_it(tmp_path: Path, parts: bool) -> None:
    """More forged packets than a device may send in a burst, and its own mask counts; a person is told a few times."""
    count = 2 * Limits.burst

    def forge(stage: Stage, opened: Round) -> None:
        topic = "hns/t/up/pi-1/mask"
        forged = seal(key_of(EVIL), topic, stage.mask("pi-1", opened.number))
        for number in range(count):
            head = struct.pack("<2sB16sHH", b"HP", 1, number.to_bytes(16, "big"), 0, 3)
            stage.put(*((f"{topic}/0", head + bytes(100)) if parts else (topic, forged)))

    stage = Stage(tmp_path, acts={1: forge}, before=join)
    assert stage.play().digest == stage.expected().digest
    assert stage.counted(1) == sorted(HONEST)
    assert sum("pi-1" in remark for remark in stage.watcher.remarks) <= Limits.remarks


def test_unfinished_messages_do_not_crowd_out_those_of_others(tmp_path: Path) -> None:
    """A mask in parts comes through while somebody begins messages without end."""

    def crowd(stage: Stage, opened: Round) -> None:
        topic = "hns/t/up/pi-1/mask"
        packet = seal(key_of("pi-1"), topic, stage.mask("pi-1", opened.number))
        (first, *rest) = split(topic, packet, 100)
        stage.put(*first)
        for number in range(150):
            head = struct.pack("<2sB16sHH", b"HP", 1, number.to_bytes(16, "big"), 0, 3)
            stage.put(f"hns/t/up/{EVIL}/mask/0", head + bytes(2000))
        for part in rest:
            stage.put(*part)

    stage = Stage(tmp_path, acts={1: crowd}, rounds=1, before=join)
    stage.play()
    told = [topic for topic, message in stage.told if isinstance(message, Receipt)]
    assert told.count("hns/t/down/pi-1") == 2, "for the mask in parts, and for the same one in one piece"


def test_nobody_can_have_another_device_sent_away(tmp_path: Path) -> None:
    """A hello with an overheard instance and another key is answered with nothing; with a new one, to that alone."""

    def impersonate(stage: Stage, opened: Round) -> None:
        overheard = stage.hello("pi-1", greetings=9)
        for runtime in ("sparse", "no such runtime"):
            forged = replace(overheard, key=stage.hello(EVIL).key, runtime=runtime)
            stage.say("pi-1", "hello", forged, key=key_of(EVIL))
        stage.say("pi-1", "hello", replace(forged, instance=b"new-one-", runtime="sparse"), key=key_of(EVIL))

    stage = Stage(tmp_path, acts={1: impersonate}, before=join)
    assert stage.play().digest == stage.expected().digest
    refusals = [message for _, message in stage.told if isinstance(message, Refusal)]
    assert [(one.instance, one.code) for one in refusals] == [(b"new-one-", "key")]
    assert sum("somebody without its key" in remark for remark in stage.watcher.remarks) == 2


def test_what_a_device_says_of_itself_does_not_command_the_terminal(tmp_path: Path) -> None:
    """Neither rich's markup nor escape sequences, in the lines of a run or in the list of devices."""
    written = io.StringIO()
    board = Board(Console(file=written, width=200), title="t", rounds=2, fedavg_bytes=1)

    def boast(stage: Stage) -> None:
        for number, text in enumerate(("[/nothing]", "[link=http://evil]", "\x1b]0;owned\x07", "a\nb", "\x9b2J")):
            stage.say(f"pi-8{number}", "hello", replace(stage.hello(f"pi-8{number}"), runtime=text))
            stage.say(f"pi-9{number}", "hello", replace(stage.hello(f"pi-9{number}"), profile=text))
            stage.say(f"pi-9{number}", "state", State(instance=stage.hello(f"pi-9{number}").instance, online=False))

    stage = Stage(tmp_path, observer=board, before=boast)
    assert stage.play().digest == stage.expected().digest
    assert "[/nothing]" in written.getvalue()
    assert not any(code in written.getvalue() for code in ("\x1b", "\x07", "\x9b", "a\nb"))


def test_one_device_is_not_remembered_without_end(tmp_path: Path) -> None:
    """However often it says that it has started."""
    starts = 50

    def restart(stage: Stage, opened: Round) -> None:
        for number in range(starts):
            hello = stage.hello(EVIL, started=number + 2)
            stage.say(EVIL, "hello", replace(hello, instance=number.to_bytes(8, "big"), software="x" * 512))
        stage.say(EVIL, "state", State(instance=(starts - 1).to_bytes(8, "big"), online=False))

    stage = Stage(tmp_path, acts={1: restart}, before=join)
    assert stage.play().digest == stage.expected().digest
    assert len(stage.coordinator.fleet.members[EVIL].earlier) <= 16
