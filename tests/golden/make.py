"""The recipe of every golden file: what `wire` says today, as bytes that must never change.

    python -m tests.golden.make           writes files that are missing, and compares those that are there
    python -m tests.golden.make --force   writes all of them again

A file that changes means that devices in the field no longer understand the coordinator: raise the
version in the module and give the recipe a new name. A file whose version no program reads any more goes.

A golden file is hexadecimal, 32 bytes a line, after comment lines that say what it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from wire import bits, dither, envelope, invite, mask, messages, personal, pkcs10, secure, signing
from wire.bundle import Bundle
from wire.channel import seal
from wire.claim import Claim, Grant, prove, prove_grant
from wire.federation_messages import (
    BundleBytes,
    CatchUp,
    Evaluation,
    Federation,
    Hello,
    MaskUpdate,
    Missed,
    Receipt,
    Refusal,
    Round,
    State,
    Telemetry,
    Welcome,
)
from wire.fields import single
from wire.invite import Invite
from wire.layers import AvgPool, Conv, Flatten, Linear, MaxPool, Relu
from wire.mask import Votes
from wire.messages import Message
from wire.personal import Personal
from wire.plan import Plan
from wire.secure_messages import Deliveries, Invitation, Reveal, Roster, RoundKeys, SealedShares, Survivors
from wire.settings import Training
from wire.telemetry import RoundTelemetry, histogram
from wire.ticket import Keep, Ticket
from wire.update import FilePart, Staged, Update
from wire.worker_messages import Report, Settled, Shift, Tally

FOLDER = Path(__file__).parent
KEPT = 100
INSTANCE = bytes(range(8))
RUN = bytes(range(100, 108))
KEY = bytes(range(32))  # a private key
TOPIC = "hns/har/up/pi-01/mask"
ENDS = np.array([30, KEPT])  # two layers
DITHERED = Training(dither=0.25)

PLAN = Plan(
    name="golden",
    input_shape=(1, 8, 8),
    layers=(
        Conv(out_channels=4, kernel=(3, 3), stride=(1, 1), padding=(1, 1)),
        Relu(),
        MaxPool(kernel=(2, 2), stride=(2, 2)),
        AvgPool(kernel=(2, 2), stride=(1, 1)),
        Flatten(),
        Linear(out_features=2),
    ),
)
EVERY_THIRD = np.arange(2 * 36) % 3 == 0


def seeded_ticket() -> Ticket:
    """Masks drawn from the seed: a number of blocks for each layer."""
    layers = (Keep(block=4, mask=5, scale=0.5), Keep(block=1, mask=20, scale=0.25))
    return Ticket(plan=PLAN, seed=42, magnitudes="constant", layers=layers, made={"method": "erk", "density": 0.3})


def explicit_ticket() -> Ticket:
    """Masks spelt out: one raw, one Rice-coded; magnitudes from the seed."""
    layers = (
        Keep(block=4, mask=bits.encode(np.arange(9) % 2 == 0), scale=0.5),
        Keep(block=1, mask=bits.encode(np.arange(72) % 24 == 7), scale=1.5),
    )
    return Ticket(plan=PLAN, seed=2**64 - 1, magnitudes="normal", layers=layers)


def bundle() -> Bundle:
    """A ticket and two small files."""
    return Bundle(runtime="onnx", ticket=seeded_ticket(), files={"train.onnx": b"\x08\x01", "infer.onnx": b"\x08\x02"})


def reference_signs() -> np.ndarray:
    """The signs both sides hold, bool (100,): +1 at every multiple of 3."""
    return np.arange(KEPT) % 3 == 0


def few_flips() -> np.ndarray:
    """Signs that differ from the reference at 10, 50 and 51."""
    flips = np.zeros(KEPT, dtype=np.bool_)
    flips[[10, 50, 51]] = True
    return reference_signs() ^ flips


def many_flips() -> np.ndarray:
    """Signs that differ from the reference at about every other position, by no rule that a coder could learn."""
    return reference_signs() ^ (np.arange(KEPT) * 2_654_435_761 // 2**20 % 2 == 0)


def votes() -> Votes:
    """Ten voters: unanimous but for seven weights, one of them tied."""
    dissent = np.zeros(KEPT, dtype=np.uint16)
    dissent[[1, 2, 30, 31, 32, 60, 99]] = [1, 2, 3, 4, 5, 1, 1]
    return Votes(signs=reference_signs(), dissent=dissent, voters=10)


def later_votes() -> Votes:
    """Of the same, a round later: what `few_flips` has is agreed on by now."""
    dissent = np.zeros(KEPT, dtype=np.uint16)
    dissent[[1, 10, 50, 51, 99]] = [2, 5, 4, 4, 1]
    return Votes(signs=few_flips(), dissent=dissent, voters=10)


def crowd() -> Votes:
    """A thousand voters: more than the levels tell apart."""
    return Votes(signs=reference_signs(), dissent=(np.arange(KEPT) * 5).astype(np.uint16), voters=1000)


def learned() -> Personal:
    """The golden bundle's network with the signs of `few_flips`, as if its ticket kept 100 weights."""
    prior = np.array([0, -20, 0, -20], dtype=np.float32)
    return Personal(ticket=seeded_ticket().id, run=RUN, number=3, log_prior=prior, signs=few_flips())


ROOTS = [bytes([i]) * 32 for i in range(3)]  # of three devices' secrets


def round_keys(place: int) -> RoundKeys:
    """What the device at a place of the roster makes of its root; its own key is 32 times its place."""
    return secure.make_keys(secure.secrets(ROOTS[place]), bytes([place]) * 32, RUN, 3, 2)


def roster() -> Roster:
    """Three devices."""
    return secure.make_roster({f"pi-{i}": (signing.public_key(bytes([i]) * 32), round_keys(i)) for i in range(3)})


def sealed(place: int) -> bytes:
    """What one of them seals for the two others."""
    members, context = secure.read_roster(roster()), secure.digest(roster())
    return secure.deal(secure.secrets(ROOTS[place]), members, place, context)


def masked_signs() -> bytes:
    """The signs of `few_flips`, masked by the second of three."""
    members, context = secure.read_roster(roster()), secure.digest(roster())
    return secure.mask_signs(few_flips(), secure.secrets(ROOTS[1]), members, (0, 1, 2), 1, 2, context)


# Of secure aggregation, beside the others, for not every client speaks it.
SECURE: dict[str, Message] = {
    "round-keys": round_keys(1),
    "invitation": Invitation(run=RUN, number=3, attempt=2),
    "roster": roster(),
    "sealed-shares": SealedShares(run=RUN, number=3, attempt=2, shares=sealed(1)),
    "deliveries": Deliveries(
        run=RUN, number=3, attempt=2, members=bytes(range(3)), shares=sealed(0)[:80] + sealed(2)[80:]
    ),
    "survivors": Survivors(run=RUN, number=3, attempt=2, members=bytes(range(3))),
    "reveal": Reveal(run=RUN, number=3, attempt=2, members=b"\0\1\2", shares=bytes(range(96))),
}
HELLO = Hello(
    instance=INSTANCE,
    software="hidenseek-phone 0.1.0",
    runtime="executorch",
    profile="",
    train_samples=300,
    test_samples=64,
    key=signing.public_key(KEY),
    started=12,
    greetings=1,
)
MESSAGES: dict[str, Message] = {
    **SECURE,
    "hello": replace(HELLO, software="hidenseek-edge 0.1.0", runtime="onnx", profile="pi4", test_samples=70_000),
    "hello-draws": replace(HELLO, draws=True),
    "hello-dithers": replace(HELLO, software="hidenseek-edge 0.2.0", runtime="sparse", dithers=True),
    "state": State(instance=INSTANCE, online=True),
    "state-counted": State(instance=INSTANCE, online=False, connection=3),
    "welcome": Welcome(instance=INSTANCE),
    "refusal": Refusal(
        instance=INSTANCE, code="mask", reason="mask for round 3, which is not open – round 5 is", number=3
    ),
    "federation": Federation(
        run=RUN,
        name="har",
        rounds=20,
        ticket=seeded_ticket().id,
        bundles={"onnx": bytes(range(32)), "sparse": bytes(range(32, 64))},
        training=Training(
            optimiser="adam",
            learning_rate=0.01,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            clip=1.0,
            start=0.1,
            epochs=2,
            batch=16,
        ),
        seed=2**53,
        key=signing.public_key(KEY),
        issued=1_790_000_000_000,
    ),
    "federation-dithered": Federation(
        run=RUN,
        name="har",
        rounds=20,
        ticket=seeded_ticket().id,
        bundles={"sparse": bytes(range(32, 64))},
        training=DITHERED,
        seed=11,
        key=signing.public_key(KEY),
        issued=1_790_000_000_000,
    ),
    "bundle-bytes": BundleBytes(data=bundle().encoded),
    "round": Round(
        run=RUN,
        number=3,
        selected=("pi-01", "pi_2"),
        evaluate=True,
        final=False,
        votes=mask.encode_votes(later_votes(), ENDS, votes()),
        base=2,
        digest=later_votes().digest,
    ),
    "round-drawn": Round(
        run=RUN,
        number=3,
        selected=("old-1",),
        evaluate=False,
        final=False,
        votes=mask.encode_votes(later_votes(), ENDS, votes()),
        base=2,
        digest=later_votes().digest,
        draw=bytes(range(16)),
        below=28_147_497_671_066,
    ),
    "mask-update": MaskUpdate(
        run=RUN,
        number=3,
        signs=mask.encode_signs(few_flips(), votes(), ENDS),
        train_samples=300,
        loss=single(0.1),
        correct=60,
        test_samples=64,
        train_s=2.0,
        step_ms=0.75,
        peak_memory_kb=65_536,
    ),
    "evaluation": Evaluation(run=RUN, number=3, correct=60, test_samples=64),
    "receipt": Receipt(run=RUN, number=3),
    "missed": Missed(run=RUN, number=3, have=1),
    "catch-up": CatchUp(
        run=RUN, number=3, votes=mask.encode_votes(later_votes(), ENDS), base=0, digest=later_votes().digest
    ),
}

STEPS_US = [*[11_800.0] * 5, *[12_300.0] * 30, *[13_100.0] * 4, 48_000.0]
_FIRST, _COUNTS = histogram(STEPS_US)
TOKEN, CARD, TLS_KEY = "token-of-a-card", "pi-01", bytes(range(32, 64))
_HARDWARE = "Raspberry Pi 4 Model B Rev 1.4 10000000abcdef01"
_CLAIM = Claim(key=signing.public_key(KEY), proof=bytes(32), hardware=_HARDWARE, nonce=bytes(range(16)))
MESSAGES["claim"] = replace(_CLAIM, proof=prove(TOKEN, CARD, _CLAIM))
MESSAGES["claim-certified"] = replace(_CLAIM, proof=prove(TOKEN, CARD, _CLAIM), request=pkcs10.request(TLS_KEY, CARD))
_GRANT = Grant(key=bytes(range(32)), proof=bytes(32), sealed=bytes(range(72)), refused="")
MESSAGES["grant"] = replace(_GRANT, proof=prove_grant(TOKEN, CARD, _CLAIM, _GRANT))
MESSAGES["grant-certified"] = replace(
    _GRANT,
    proof=prove_grant(TOKEN, CARD, _CLAIM, _GRANT),
    certificate=bytes(range(48)),
    renew_s=1_790_000_000,
)
_BODY = messages.encode(replace(MESSAGES["mask-update"], signs=b""))
WORKERS: dict[str, Message] = {
    "report": Report(instance=INSTANCE, shift=1_790_000_000_000),
    "shift": Shift(
        run=RUN,
        number=3,
        shift=1_790_000_000_000,
        sums=True,
        votes=mask.encode_votes(votes(), ENDS),
        ticket=b"",
        devices=("pi-01", "pi_2"),
        keys=bytes(range(64)),
        instances=bytes(range(16)),
    ),
    "tally": Tally(
        run=RUN,
        number=3,
        batch=bytes(range(8)),
        votes=mask.encode_votes(mask.count_votes([few_flips(), few_flips()], votes().signs), ENDS, votes()),
        devices=("pi-01", "pi_2"),
        updates=(_BODY, _BODY),
        sizes=(188, 190),
        receipt_bytes=81,
    ),
    "settled": Settled(batch=bytes(range(8)), refused=("pi-01",)),
}
MESSAGES |= WORKERS
MESSAGES["update"] = Update(
    version="0.2.0",
    issued=1_700_000_000_000,
    wheels={"aarch64": bytes(range(32)), "x86_64": bytes(range(32, 64))},
    sizes=(1_029_920, 1_100_000),
    share=1_000,
    seed=bytes(range(16)),
)
MESSAGES["wheel-part"] = FilePart(file=bytes(range(32)), number=15, data=b"PK\x05\x06")
MESSAGES["staged"] = Staged(
    issued=1_700_000_000_000,
    bundles={"onnx": bytes(range(32)), "sparse": bytes(range(32, 64))},
    sizes=(160_000, 4_142),
    share=1_000,
    seed=bytes(range(16)),
    training=Training(),
    ticket=bytes(range(64, 96)),
)
MESSAGES["telemetry"] = Telemetry(
    run=RUN,
    rounds=(
        RoundTelemetry(number=2, steps=38),
        RoundTelemetry(
            number=3,
            steps=40,
            step_p50_us=12_300,
            step_p95_us=13_100,
            step_p99_us=48_000,
            step_max_us=48_000,
            first_bucket=_FIRST,
            bucket_counts=_COUNTS,
            train_ms=528,
            evaluate_ms=77,
            cold_start_ms=1_204,
            rss_kib=41_320,
            pss_kib=38_004,
            peak_kib=42_776,
            arena_planned_bytes=1_048_576,
            arena_used_bytes=1_032_192,
            minor_faults=12,
            major_faults=0,
            voluntary_switches=7,
            involuntary_switches=3,
            cpu_ms=530,
            frequency_mhz=1_800,
            temperature_c=61.25,
            throttled=0x50000,
            energy_mj=2_112,
            energy_source=0,
            sent_bytes=986,
            received_bytes=3_105,
            written_bytes=8_192,
            forward_us=(1_900, 80, 0, 700),
            backward_us=(5_200, 110, 0, 1_500),
        ),
    ),
)

INVITE = Invite(
    federation="demo",
    broker="wss://broker.example:8084/mqtt",
    device="phone-01",
    secret="a-token-that-is-good-for-one",
    claim=True,
    key=bytes(range(32)),
)


def parts() -> list[tuple[str, bytes]]:
    """The bundle message, signed, in packets of 100 bytes."""
    topic = "hns/f/all/bundle/onnx"
    return envelope.split(topic, seal(KEY, topic, MESSAGES["bundle-bytes"]), 100)


def dithered_bits() -> bytes:
    """Bits of scores that training has moved a little, in the context of what both sides expect."""
    announced = dither.first_votes(KEPT, DITHERED)
    scores = dither.start_scores(announced, DITHERED) - np.arange(KEPT, dtype=np.float32) % 7 / 64
    sent = dither.signs_of(scores, DITHERED, 11)
    return mask.encode_signs(sent, dither.context(announced, DITHERED, 11), ENDS)


def _join(packets: list[tuple[str, bytes]]) -> bytes:
    """Packets as one byte string: each with its length before it, u32 little-endian."""
    return b"".join(len(payload).to_bytes(4, "little") + payload for _, payload in packets)


RECIPES: dict[str, Callable[[], bytes]] = {
    "ticket-v1-seeded": lambda: seeded_ticket().encoded,
    "ticket-v1-explicit": lambda: explicit_ticket().encoded,
    "bundle-v1": lambda: bundle().encoded,
    "signs-v2-flips": lambda: mask.encode_signs(few_flips(), votes(), ENDS),
    "signs-v2-dithered": dithered_bits,
    "signs-v2-raw": lambda: mask.encode_signs(many_flips(), votes(), ENDS),
    "votes-v2-first": lambda: mask.encode_votes(votes(), ENDS),
    "votes-v2-later": lambda: mask.encode_votes(later_votes(), ENDS, votes()),
    "votes-v2-crowd": lambda: mask.encode_votes(crowd(), ENDS),
    "personal-v2": lambda: personal.encode(learned()),
    "envelope-v1": lambda: _join(parts()),
    "invite-v1": lambda: invite.encode(INVITE).encode(),
    "signs-v2-masked": masked_signs,
    "signs-v2-ballot": lambda: mask.ballot(few_flips()),
    "sealed-v2": lambda: seal(KEY, TOPIC, MESSAGES["mask-update"]),
    **{f"message-v2-{name}": lambda message=message: messages.encode(message) for name, message in MESSAGES.items()},
}


def load(name: str) -> bytes:
    """The bytes of a golden file."""
    lines = (FOLDER / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))


def write(name: str) -> None:
    """Make a golden file from its recipe."""
    data = RECIPES[name]()
    lines = [f"# {name}: {len(data)} bytes, made by: python -m tests.golden.make"]
    lines += [data[i : i + 32].hex() for i in range(0, len(data), 32)]
    (FOLDER / f"{name}.hex").write_text("\n".join(lines) + "\n")


def main() -> int:
    """Write what is missing (or everything with --force); tell what differs."""
    differ = 0
    for name, recipe in RECIPES.items():
        if "--force" in sys.argv or not (FOLDER / f"{name}.hex").exists():
            write(name)
        elif load(name) != recipe():
            print(f"{name}: today's bytes differ from the golden file", file=sys.stderr)  # noqa: T201
            differ = 1
    return differ


if __name__ == "__main__":
    sys.exit(main())
