"""The phone examples: the Kotlin client runs, against the vectors, our own code and a real coordinator.

The Swift sources are not compiled here: no Swift compiler can be had on our machines. They follow the Kotlin ones.
"""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.federation import Federation, prepare
from coordinator.keys import federation_key
from coordinator.models import MODELS, build_plan
from coordinator.rounds import Schedule
from coordinator.store import Store
from edge_client import agent, events, trainer
from edge_client import data as device_data
from edge_client.agent import Device
from edge_client.privacy import randomise
from edge_client.runtimes import registry
from edge_client.runtimes.base import Runtime
from edge_client.store import KnownFederation
from edge_client.store import Store as DeviceStore
from tests.golden import make, vectors
from tests.helpers import DEVICE_KEY, federation_channel, random_ticket
from tests.integration import kotlin, web
from tests.integration.fleet import write_person
from tests.integration.kotlin import Program, needs_kotlin
from tests.integration.test_memory_federation import Watcher, make_ticket, start_device
from tests.integration.web import needs_web
from wire import bits, dither, mask, messages, signing
from wire.bundle import Bundle
from wire.channel import seal
from wire.errors import WireError
from wire.federation_messages import (
    EVERYONE,
    BundleBytes,
    CatchUp,
    Evaluation,
    Hello,
    MaskUpdate,
    Missed,
    Receipt,
    Refusal,
    Round,
    State,
)
from wire.fields import single
from wire.prng import training_seed
from wire.settings import Training
from wire.state_folder import read_learned
from wire.transport import MemoryBus


@pytest.fixture(scope="session")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Kotlin core and its checks."""
    return kotlin.build(tmp_path_factory.getbasetemp().parent)


@pytest.fixture(params=[pytest.param("kotlin", marks=needs_kotlin), pytest.param("web", marks=needs_web)])
def echo(request: pytest.FixtureRequest) -> Iterator[Program]:
    """The program that answers a line for every line: the Kotlin one, and that of the web client."""
    if request.param == "web":
        with web.started("echo") as program:
            yield program
        return
    program = kotlin.start(request.getfixturevalue("jar"), "Echo")
    yield program
    with program.process:
        pass


def check_vectors(jar: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the check of the vectors."""
    command = ["java", "-cp", str(jar), "hidenseek.check.VectorsKt", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@needs_kotlin
def test_kotlin_agrees_with_the_vectors(jar: Path) -> None:
    """Indices, weights, votes, order, Adam, masks, codes, signatures, messages and parts."""
    found = check_vectors(jar, vectors.PATH)
    assert found.returncode == 0, found.stdout + found.stderr
    passed = re.search(r"^(\d+) passed, 0 failed$", found.stdout, flags=re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) >= 124


CHANGES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "ticket layer 1 indices": (("layers", 1, "indices", 3), 12),
    "explicit_ticket layer 0 initial_weights": (("explicit_ticket", "layers", 0, "initial_weights", 0), 0.3),
    "votes_mean": (("votes_mean", 5), 0.2001),
    "step 2 scores": (("steps", 2, "scores", 7), 0.01),
    "mask": (("mask",), "00ff00ff00ff"),
    "code 4": (("codes", 2, "coded"), "04030000003a8501"),
    "adaptive 5": (("adaptive", 5, "coded"), "00ff"),
    "mask 1": (("masks", 1, "coded"), "01ff"),
    "thresholds": (("dithered", "thresholds", 9), 256),
    "expected levels": (("dithered", "levels", 4), 16),
    "message hello-dithers encoded": (("messages", "hello-dithers", "fields", "started"), 13),
    "message federation-dithered decoded": (
        ("messages", "federation-dithered", "fields", "training", "dither"),
        0.5,
    ),
    "votes code 3": (("votes_codes", 3, "votes", "voters"), 11),
    "votes code 1 digest": (("votes_codes", 1, "digest"), "00ff00ff00ff00ff"),
    "votes_levels": (("votes_levels", 2), 14),
    "later_votes_dissent": (("later_votes_dissent", 3), 1),
    "sealed": (("signing", "private_key"), "ff" * 32),
    "message federation decoded": (("messages", "federation", "fields", "training", "epochs"), 3),
    "message hello encoded": (("messages", "hello", "fields", "train_samples"), 301),
    "parts": (("parts", "packet_bytes"), 101),
}


@pytest.mark.slow
@needs_kotlin
@pytest.mark.parametrize("name", CHANGES)
def test_the_check_notices_a_difference(jar: Path, tmp_path: Path, name: str) -> None:
    """Vectors in which one value is another one do not pass."""
    every = json.loads(vectors.PATH.read_text())
    (*way, last), value = CHANGES[name]
    place = every
    for step in way:
        place = place[step]
    assert place[last] != value
    place[last] = value
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps(every))
    found = check_vectors(jar, path)
    assert found.returncode == 1
    assert f"differs: {name}\n" in found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_phones_unpack_every_models_tickets(echo: Program, model: str) -> None:
    """Kept places and initial weights, bit by bit; seeds of 63 bits and more, blocks, both kinds of magnitudes."""
    plan = build_plan(model)
    for seed, block, magnitudes in ((1, 4, "constant"), (2**64 - 3, 1, "normal")):
        ticket = random_ticket(plan, 0.05, seed=seed, block=block, magnitudes=magnitudes)
        kept, indices, weights = echo.ask(f"ticket {ticket.encoded.hex()}").split()
        layers = ticket.kept_layers
        assert int(kept) == ticket.kept
        assert indices == sha256(b"".join(layer.indices.astype("<i4").tobytes() for layer in layers)).hexdigest()
        if magnitudes == "constant":  # others are logarithms and cosines, which differ in their last bit
            assert weights == sha256(b"".join(layer.weights.astype("<f4").tobytes() for layer in layers)).hexdigest()


@pytest.mark.slow
def test_phones_code_bits_as_python_does(echo: Program) -> None:
    """The same bytes for arrays of every density, and the same verdict on damaged ones."""
    rng = np.random.default_rng(5)
    for n in (1, 7, 8, 64, 333, 4000):
        for share in (0.0, 0.003, 0.02, 0.1, 0.3, 0.5, 0.8, 0.99, 1.0):
            array = rng.random(n) < share
            coded = bits.encode(array)
            assert echo.ask(f"code {_text(array)}") == coded.hex()
            for _ in range(3):
                damaged = bytearray(coded)
                damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
                assert echo.ask(f"bits {n} {damaged.hex()}") == _decoded(bytes(damaged), n)
            assert echo.ask(f"bits {n} {coded.hex()}") == _decoded(coded, n)


@pytest.mark.slow
def test_phones_code_masks_and_votes_as_python_does(echo: Program) -> None:
    """The same bytes for masks of every share of flips, and the same votes of one and of many voters."""
    rng = np.random.default_rng(8)
    for n in (1, 7, 64, 1000):
        ends = np.array([n // 3, n])
        for voters in (1, 2, 10, 15, 16, 17, 300, 65_535):
            signs = rng.random(n) < 0.7
            before, votes = (
                mask.Votes(signs=one, dissent=rng.integers(0, voters // 2 + 1, n, dtype=np.uint16), voters=voters)
                for one in (signs, signs ^ (rng.random(n) < 0.05))
            )
            known = mask.encode_votes(before, ends)
            coded = mask.encode_votes(votes, ends, before)
            where = ",".join(map(str, ends))
            assert echo.ask(f"votes {where} {known.hex()}") == _shown(before)
            assert echo.ask(f"votes {where} {coded.hex()} {known.hex()}") == _shown(votes)
            for share in (0.0, 0.01, 0.3, 1.0):
                own = votes.signs ^ (rng.random(n) < share)
                expected = mask.encode_signs(own, before, ends).hex()
                assert echo.ask(f"mask {where} {known.hex()} {_text(own)}") == expected


@pytest.mark.slow
def test_phones_dither_as_python_does(echo: Program) -> None:
    """The same start, and the same bytes for scores that lie anywhere, also within a rounding of their thresholds."""
    rng = np.random.default_rng(10)
    announced = make.MESSAGES["federation-dithered"]
    for n, largest in ((1, 1e-12), (7, 0.1), (64, 0.3), (1000, 0.25), (4000, 1 / 3), (4000, 0.7), (9, 0.0)):
        training, seed, ends = Training(dither=largest), training_seed(3, n, "phone-1"), np.array([n // 3, n])
        federation = messages.encode(replace(announced, training=training)).hex()
        votes = dither.announce(rng.integers(0, 16, n, dtype=np.uint8))
        known = f"{','.join(map(str, ends))} {mask.encode_votes(votes, ends).hex()} {federation}"
        start = dither.start_scores(votes, training)
        assert echo.ask(f"start {known}") == start.astype("<f4").tobytes().hex()
        edges = ((dither.thresholds(seed, n) + 0.5) * 2 / 255 - 1) * (largest or 1.0)
        near = np.nextafter(edges.astype(np.float32), np.float32(1) - 2 * rng.integers(2, size=n), dtype=np.float32)
        for scores in (start, start + rng.normal(0, largest / 5, n).astype(np.float32), edges.astype(np.float32), near):
            sent, expected = dither.signs_of(scores, training, seed), dither.context(votes, training, seed)
            coded = mask.encode_signs(sent, expected, ends).hex()
            assert echo.ask(f"send {known} {seed} {scores.astype('<f4').tobytes().hex()}") == coded
    quarter, whole = "f93400", messages.encode(announced).hex()
    assert whole.count(quarter) == 1
    for number in ("f9b400", "f94000", "fb3d30000000000001"):  # -0.25, 2, 2**-44: below 0, above clip, and too little
        assert echo.ask(f"message {whole.replace(quarter, number)}") == "refused"
    assert echo.ask(f"message {whole}") == "read"


@pytest.mark.slow
def test_phones_randomise_as_python_does(echo: Program) -> None:
    """The same signs turned by the same random bytes."""
    rng = np.random.default_rng(9)
    signs = rng.random(500) < 0.5
    for epsilon in (0.0, 0.1, 1.0, 3.3, 20.0):
        drawn = rng.bytes(2000)
        expected = randomise(signs, Training(privacy_epsilon=epsilon), lambda count, drawn=drawn: drawn[:count])
        assert echo.ask(f"randomise {epsilon} {_text(signs)} {drawn.hex()}") == _text(expected)
        assert (expected != signs).any() == (0 < epsilon < 20)


def _text(array: np.ndarray) -> str:
    return "".join("01"[int(bit)] for bit in array)


def _shown(votes: mask.Votes) -> str:
    return f"{_text(votes.signs)} {','.join(map(str, votes.dissent))} {votes.digest.hex()}"


def _decoded(data: bytes, n: int) -> str:
    try:
        return _text(bits.decode(data, n))
    except WireError:
        return "refused"


@pytest.mark.slow
def test_phones_outlive_damaged_bytes(echo: Program) -> None:
    """Messages, votes and tickets with a wrong byte are read or refused, as Python does where a phone is addressed."""
    rng = np.random.default_rng(6)
    verdicts = set()
    for name in ("welcome", "refusal", "federation", "round", "receipt", "bundle-bytes", "catch-up"):
        whole = make.load(f"message-v2-{name}")
        for at in range(4, len(whole)):
            damaged = whole[:at] + bytes([rng.integers(256)]) + whole[at + 1 :]
            verdicts.add(echo.ask(f"message {damaged.hex()}"))
    assert verdicts == {"read", "refused"}
    for name in ("votes-v2-first", "votes-v2-crowd"):
        votes = make.load(name)
        for at in range(len(votes)):
            damaged = votes[:at] + bytes([votes[at] ^ 1 << int(rng.integers(8))]) + votes[at + 1 :]
            try:
                expected = _shown(mask.decode_votes(damaged, make.ENDS))
            except WireError:
                expected = "refused"
            assert echo.ask(f"votes {','.join(map(str, make.ENDS))} {damaged.hex()}") == expected
    sealed, public = make.load("sealed-v2"), signing.public_key(make.KEY).hex()
    assert echo.ask(f"unseal {make.TOPIC} {public} {sealed.hex()}") == "read"
    for at in range(len(sealed)):
        damaged = sealed[:at] + bytes([sealed[at] ^ 1 << int(rng.integers(8))]) + sealed[at + 1 :]
        assert echo.ask(f"unseal {make.TOPIC} {public} {damaged.hex()}") == "refused"
    head = make.load("ticket-v1-explicit")[:-32]
    for at in range(5, len(head)):
        damaged = head[:at] + bytes([rng.integers(256)]) + head[at + 1 :]
        echo.ask(f"ticket {(damaged + sha256(damaged).digest()).hex()}")


@pytest.mark.slow
@pytest.mark.parametrize("stay", [True, False])
def test_phones_do_what_our_agent_does(echo: Program, stay: bool) -> None:
    """Whatever happens in whatever order, the same actions in the same order."""
    rng = np.random.default_rng(7 + stay)
    seen: dict[str, int] = {}
    for open_share in OPEN_SHARES:
        confirmed = (kotlin.RUNS[0], int(rng.integers(1, 5)))
        device, now_s = Device(name="phone", hello=kotlin.HELLO, stay=stay, confirmed=confirmed), 0.0
        known = f"{confirmed[0].hex()} {confirmed[1]}"
        echo.ask(f"device phone {kotlin.HELLO.instance.hex()} executorch {str(stay).lower()} {known}")
        history = []
        due: list[tuple[str, events.Event]] = []  # answers of the client
        for _ in range(60):
            now_s += float(rng.integers(0, 60))
            words, event = due.pop(0) if due else kotlin.some_event(rng, device, open_share)
            before = device
            device, actions = agent.handle(device, event, now_s)
            expected = " ".join(kotlin.named(action) for action in actions if not isinstance(action, events.Log))
            history.append(words)
            assert echo.ask(f"event {now_s} {words}") == expected, history[-20:]
            for action in actions:
                if isinstance(action, events.TakeVotes) and rng.random() < 0.9:
                    one, taken = action.announced, bool(rng.random() < 0.8)
                    due.append(kotlin.votes_event(one.run, one.number, one.base, taken=taken))
                if isinstance(action, events.OpenBundle) and rng.random() < 0.7:
                    digest = action.federation.bundles["executorch"]
                    due.append((f"opened {digest.hex()}", events.BundleOpened(digest=digest)))
            for kind in [type(action).__name__ for action in actions] + sleepy(before, event, device):
                seen[kind] = seen.get(kind, 0) + 1
    unusual = {"Stop"} if stay else set()  # a device that stays stops at a refusal only
    expected_kinds = {kind.__name__ for kind in events.Action.__args__} | SLEEPY
    assert min(seen.get(kind, 0) for kind in expected_kinds - unusual) >= 8, seen
    assert set(seen) <= expected_kinds


OPEN_SHARES = [0.0, 0.5, 1.0, 1.0, 1.0] * 100  # for every history: how many of its rounds are open to all
SLEEPY = {
    "waits until things are quiet",
    "trains for an older step",
    "late mask",
    "late mask refused",
    "not about this mask",
}


def sleepy(before: Device, event: events.Event, after: Device) -> list[str]:
    """Which of the things happened that happen only where rounds are open to all, or may come late."""
    newest = after.announced
    if newest is None or EVERYONE not in newest.selected or newest.final:
        return []
    late = before.pending is not None and before.pending.number < newest.number
    aimed = isinstance(event, Refusal) and event.code == "mask" and event.instance == before.hello.instance
    found = {
        "waits until things are quiet": after.due and not before.due,
        "trains for an older step": after.training is not None and after.training != (newest.run, newest.number),
        "late mask": isinstance(event, events.TrainingDone) and after.pending is not None
        and after.pending != before.pending and after.pending.number < newest.number,
        "late mask refused": aimed and late and after.pending is None,
        "not about this mask": aimed and before.pending is not None and after.pending is not None,
    }  # fmt: skip
    return [name for name, happened in found.items() if happened]


ROUNDS = 3


@pytest.fixture
def federation() -> Federation:
    """A phone and two boards, all of them in every round."""
    return Federation(
        name="t",
        ticket=make_ticket(),
        training=Training(epochs=3, learning_rate=0.05),
        schedule=Schedule(rounds=ROUNDS, per_round=3, quorum=3, deadline_s=120, start_devices=3, seed=3),
        runtimes=("onnx", "executorch"),
    )


@pytest.mark.slow
@needs_kotlin
@pytest.mark.skipif("executorch" not in registry.available(), reason="needs executorch (make executorch)")
@pytest.mark.parametrize("largest", [0.0, 0.3], ids=["signs", "dithered"])
def test_the_kotlin_client_takes_part_in_a_federation(
    jar: Path, tmp_path: Path, federation: Federation, largest: float
) -> None:
    """A real coordinator counts its mask in every round, and they are the masks our own client makes of its data."""
    federation = replace(federation, training=replace(federation.training, dither=largest))
    samples = device_data.load(write_person(tmp_path / "person", seed=4))
    kotlin.write_samples(tmp_path / "phone", samples)
    bus, watcher, store = MemoryBus(), Watcher(), Store(tmp_path / "db")
    coordinator = prepare(federation, store=store, channel=federation_channel(bus, packet_bytes=4096), observer=watcher)
    boards = [start_device(bus, name, tmp_path, "onnx") for name in ("pi-1", "pi-2")]
    program = kotlin.start(jar, "Join", "t", "phone-1", str(tmp_path / "phone"), str(samples.x_train[0].size))
    phone = kotlin.Phone(program, bus.connect())
    with program.process:
        coordinator.serve()
        assert phone.wait(60) == 0
    for board in boards:
        board.join(timeout=20)
    assert watcher.remarks == []
    run = store.newest_run()
    assert run is not None
    rounds = store.rounds(run.id)
    runtime = registry.open_runtime(coordinator.bundles["executorch"], federation.training)
    twins, trained = zip(
        *(own_mask(federation, runtime, samples, number, rounds[number - 1].votes) for number in range(1, ROUNDS + 1)),
        strict=True,
    )
    assert [store.masks(run.id, number)["phone-1"] for number in range(1, ROUNDS + 1)] == list(twins)
    assert min(map(len, twins)) > 20, "some signs have flipped, others in every round"
    said = [(topic.removeprefix("hns/t/"), retained) for topic, retained, _ in phone.said]
    assert said == [
        ("down/phone-1/#", False),
        ("all/federation/#", False),
        ("all/round/#", False),
        ("all/bundle/executorch/#", False),
        ("up/phone-1/hello", False),
        ("up/phone-1/state", True),
        *[("up/phone-1/evaluation", False), ("up/phone-1/mask", False)] * ROUNDS,
        ("up/phone-1/evaluation", False),
        ("up/phone-1/state", True),
    ]
    state = tmp_path / "phone" / "state"
    learned = read_learned(state)
    assert np.array_equal(learned.personal.signs, trained[-1])
    assert not (state / "pending.mask").exists(), "its last mask has a receipt"
    issued = round(run.started_s * 1000)
    with closing(DeviceStore(state)) as kept:
        assert kept.federation() == KnownFederation(key=signing.public_key(federation_key()), issued=issued)
        assert signing.public_key(kept.key()) == (state / "device.pub").read_bytes()
        assert kept.count_start() == 2


def own_mask(
    federation: Federation, runtime: Runtime, samples: device_data.DeviceData, number: int, votes: bytes
) -> tuple[bytes, mask.Signs]:
    """The mask that our client would send, and its own signs."""
    ticket, training = federation.ticket, federation.training
    announced = mask.decode_votes(votes, ticket.ends)
    seed = training_seed(federation.schedule.seed, number, "phone-1")
    *_, trained = trainer.train(
        runtime,
        samples.x_train,
        samples.y_train,
        prior=trainer.log_prior(samples.y_train, ticket.plan.classes),
        training=training,
        start=dither.start_scores(announced, training),
        seed=seed,
    )
    assert trained is not None
    sent, known = dither.signs_of(trained.scores, training, seed), dither.context(announced, training, seed)
    return mask.encode_signs(sent, known, ticket.ends), trained.signs


FEDERATION_KEY = bytes(range(1, 33))  # a private key


@pytest.mark.slow
@needs_kotlin
@pytest.mark.parametrize("told", [True, False])
def test_the_kotlin_client_believes_one_federation_and_asks_for_votes_it_missed(
    jar: Path, tmp_path: Path, told: bool
) -> None:
    """It trusts the key that it was told, or the first; what others sign is nothing; rounds it lacks it asks for."""
    samples = device_data.load(write_person(tmp_path / "person", seed=4))
    kotlin.write_samples(tmp_path / "phone", samples)
    ticket = make_ticket()
    files = dict.fromkeys(("train.pte", "infer.pte"), sha256().digest())  # nothing, and its SHA-256
    bundle = Bundle(runtime="executorch", ticket=ticket, files=files)
    announced = replace(
        make.MESSAGES["federation"], bundles={"executorch": bundle.id}, key=signing.public_key(FEDERATION_KEY)
    )
    stranger = replace(announced, key=signing.public_key(DEVICE_KEY), issued=2**50)
    arguments = ["t", "phone-1", str(tmp_path / "phone"), str(samples.x_train[0].size)]
    if told:
        arguments.append(signing.as_text(signing.public_key(FEDERATION_KEY)))
    votes = [_random_votes(ticket.kept, seed) for seed in range(4)]  # announced with rounds 1, 2, 3 and 4

    def round_of(number: int, base: int) -> Round:
        return _round_of(votes, ticket.ends, number, base)

    with kotlin.start(jar, "Join", *arguments).process as process:
        phone = kotlin.Wire(Program(process), "t", "phone-1")

        def say(topic: str, message: messages.Message, key: bytes = FEDERATION_KEY, signed_for: str = "") -> None:
            sealed = seal(key, f"hns/t/{signed_for or topic}", message)
            phone.say(f"packet hns/t/{topic} {b64encode(sealed).decode()}")

        phone.say("connected")
        expected = ["down/phone-1/#", "all/federation/#"] + ["all/round/#"] * told
        assert [phone.subscribed() for _ in expected] == expected
        if told:
            say("all/federation", stranger, DEVICE_KEY)
            say("all/federation", stranger)  # not what its key says
        else:
            say("all/round", round_of(1, 0))  # before anybody is known
            say("all/federation", announced, DEVICE_KEY)
        say("all/federation", announced)
        if not told:
            assert phone.subscribed() == "all/round/#"
        assert phone.subscribed() == "all/bundle/executorch/#"
        say("all/bundle/executorch", BundleBytes(data=bundle.encoded))
        assert phone.hear().startswith("open ")
        hello, state = phone.published(), phone.published()
        assert isinstance(hello, Hello)
        assert (hello.started, hello.greetings) == (1, 1)
        assert state == State(instance=hello.instance, online=True)
        say("all/federation", replace(announced, run=bytes(8), issued=announced.issued - 1))  # an earlier run
        say("all/round", round_of(2, 1), DEVICE_KEY)
        say("all/round", round_of(3, 2))
        assert phone.published() == Missed(run=make.RUN, number=3, have=0)
        caught = round_of(3, 0)
        say("down/phone-1", _catch_up(caught), signed_for="down/phone-2")
        say("down/phone-1", replace(_catch_up(caught), digest=bytes(8)))
        say("down/phone-1", _catch_up(caught))
        phone.evaluates(votes[2], ticket.kept, samples)
        assert isinstance(phone.published(), Evaluation)
        say("all/round", round_of(4, 3))
        phone.evaluates(votes[3], ticket.kept, samples)
        assert isinstance(phone.published(), Evaluation)
        say("all/round", replace(round_of(4, 3), number=5, base=4))  # votes that do not come out
        assert phone.published() == Missed(run=make.RUN, number=5, have=0)
        phone.say("connected")
        assert [phone.subscribed() for _ in range(3)] == ["down/phone-1/#", "all/federation/#", "all/round/#"]
        assert phone.published() == replace(hello, greetings=2)
        assert phone.published() == state
        assert process.stdin is not None
        process.stdin.close()
        assert phone.published() == replace(state, online=False)
        assert phone.hear() == "close"


@pytest.mark.slow
@needs_kotlin
def test_the_kotlin_client_finishes_its_step_when_a_newer_one_is_announced(jar: Path, tmp_path: Path) -> None:
    """Its mask is coded in the context of the votes it began with; no step is trained for twice, not after restarts."""
    samples = device_data.load(write_person(tmp_path / "person", seed=4))
    kotlin.write_samples(tmp_path / "phone", samples)
    ticket = make_ticket()
    files = dict.fromkeys(("train.pte", "infer.pte"), sha256().digest())  # nothing, and its SHA-256
    bundle = Bundle(runtime="executorch", ticket=ticket, files=files)
    public, training = signing.public_key(FEDERATION_KEY), Training(epochs=2, dither=0.0)
    announced = replace(make.MESSAGES["federation"], bundles={"executorch": bundle.id}, key=public, training=training)
    steps = 2 * -(-samples.y_train.size // training.batch)
    arguments = ["t", "phone-1", str(tmp_path / "phone"), str(samples.x_train[0].size), signing.as_text(public)]
    votes = [_random_votes(ticket.kept, seed) for seed in range(3)]

    def step_of(number: int, base: int, **changes: Any) -> Round:
        found = _round_of(votes, ticket.ends, number, base)
        return replace(found, **{"selected": (EVERYONE,), "evaluate": False, **changes})

    def say(phone: kotlin.Wire, topic: str, message: messages.Message) -> None:
        sealed = seal(FEDERATION_KEY, f"hns/t/{topic}", message)
        phone.say(f"packet hns/t/{topic} {b64encode(sealed).decode()}")

    def joined(phone: kotlin.Wire) -> None:
        phone.say("connected")
        assert [phone.subscribed() for _ in range(3)] == ["down/phone-1/#", "all/federation/#", "all/round/#"]
        say(phone, "all/federation", announced)

    def left(phone: kotlin.Wire) -> None:
        say(phone, "all/round", step_of(3, 0, final=True, selected=()))
        phone.answer_step()
        state = phone.published()
        assert isinstance(state, State)
        assert not state.online
        assert phone.hear() == "close"

    with kotlin.start(jar, "Join", *arguments).process as process:
        phone = kotlin.Wire(Program(process), "t", "phone-1")
        joined(phone)
        assert phone.subscribed() == "all/bundle/executorch/#"
        say(phone, "all/bundle/executorch", BundleBytes(data=bundle.encoded))
        assert phone.hear().startswith("open ")
        assert isinstance(phone.published(), Hello)
        assert isinstance(phone.published(), State)
        say(phone, "all/round", step_of(1, 0))
        for i in range(steps):
            phone.asked_to_train(votes[0], ticket.kept)
            if i == 0:
                say(phone, "all/round", step_of(2, 1))
            phone.answer_step()
        phone.evaluates(replace(votes[0], dissent=votes[0].dissent * 0), ticket.kept, samples)
        update = phone.published()
        assert isinstance(update, MaskUpdate)
        assert update.number == 1
        assert np.array_equal(mask.decode_signs(update.signs, votes[0], ticket.ends), votes[0].signs)
        figures = (update.loss, update.train_s, update.step_ms)
        assert figures == tuple(map(single, figures))
        say(phone, "down/phone-1", Refusal(instance=bytes(8), code="mask", reason="", number=1))
        say(phone, "down/phone-1", Receipt(run=make.RUN, number=1))
        phone.asked_to_train(votes[1], ticket.kept)
        left(phone)
    with closing(DeviceStore(tmp_path / "phone" / "state")) as kept:
        assert kept.load_confirmed() == (make.RUN, 1)
        assert kept.load_pending() is None
    with kotlin.start(jar, "Join", *arguments).process as process:
        phone = kotlin.Wire(Program(process), "t", "phone-1")
        joined(phone)
        assert phone.hear().startswith("open ")
        assert isinstance(phone.published(), Hello)
        assert isinstance(phone.published(), State)
        say(phone, "all/round", step_of(1, 0, evaluate=True))
        phone.evaluates(votes[0], ticket.kept, samples)
        assert isinstance(phone.published(), Evaluation)
        say(phone, "all/round", step_of(2, 1))
        phone.asked_to_train(votes[1], ticket.kept)
        left(phone)


def _round_of(votes: list[mask.Votes], ends: mask.Ends, number: int, base: int) -> Round:
    known = votes[base - 1] if base else None
    coded = mask.encode_votes(votes[number - 1], ends, known)
    digest = votes[number - 1].digest
    return Round(
        run=make.RUN, number=number, selected=(), evaluate=True, final=False, votes=coded, base=base, digest=digest
    )


def _catch_up(announced: Round) -> CatchUp:
    return CatchUp(
        run=announced.run, number=announced.number, votes=announced.votes, base=announced.base, digest=announced.digest
    )


def _random_votes(kept: int, seed: int) -> mask.Votes:
    rng = np.random.default_rng(seed)
    return mask.Votes(signs=rng.random(kept) < 0.8, dissent=rng.integers(0, 5, kept, dtype=np.uint16), voters=9)
