"""Every Python reader of bytes from elsewhere: how one input is given to it, and good bytes to start from."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from coordinator import config, exchange
from coordinator.brokers import device_certificates
from edge_client import secure as secure_device
from edge_client.secure import read_exchange
from edge_client.store import CONFIRMED, FEDERATION, KNOWN, PENDING, ROUND, STARTS, Store
from export import manifest
from tests.golden import make
from tests.secure_stage import Stage
from wire import adaptive_python, bits, mask, messages, personal, pkcs10, secure, signing
from wire.bundle import decode_bundle
from wire.channel import Channel, Garbled, unseal
from wire.envelope import Joiner
from wire.errors import ConfigError, DataError, PlanError, StateError, TicketError, WireError
from wire.federation_messages import Hello, MaskUpdate
from wire.native.library import native
from wire.safecbor import load_cbor
from wire.secure_messages import Deliveries, Invitation, Reveal, Roster, RoundKeys, SealedShares, Survivors
from wire.settings import Training
from wire.ticket import decode_ticket
from wire.transport import MemoryBus

REFUSALS = (WireError, TicketError, PlanError)
VOTES = make.votes()


@dataclass(frozen=True, kw_only=True)
class Target:
    """One reader.

    Attributes:
        read: gives it an input.
        seeds: what it accepts.
        refusals: errors that it may raise.
        slowest_s: of CPU time that one input may take.
        growth_kb: of the process's memory that one input may take.
    """

    read: Callable[[bytes], object]
    seeds: list[bytes] = field(default_factory=list)
    refusals: tuple[type[Exception], ...] = REFUSALS
    slowest_s: float = 2.0
    growth_kb: int = 200_000


@cache
def _folder() -> Path:
    """A folder of this process, gone when it ends."""
    _folders.append(tempfile.TemporaryDirectory(prefix="fuzz-"))
    return Path(_folders[-1].name)


_folders: list[tempfile.TemporaryDirectory[str]] = []


def _bundle(data: bytes) -> object:
    return decode_bundle(data, expected_id=sha256(data).digest())


def _rehashed(data: bytes) -> bytes:
    """With the hash put right, so that what lies behind it is reached."""
    return data[:-32] + sha256(data[:-32]).digest()


def _sealed(data: bytes) -> object:
    return unseal(make.TOPIC, data, lambda topic, message: signing.public_key(make.KEY))


def _signed(data: bytes) -> object:
    """The message, signed by its sender whatever it is, as a channel receives it."""
    bus = MemoryBus()
    key = signing.public_key(make.KEY)
    channel = Channel(bus.connect(), make.KEY, trust=lambda topic, message: key, max_bytes=100_000)
    channel.subscribe("hns/t/up/#")
    channel.receive(0)
    topic = "hns/t/up/a/mask"
    signature = signing.sign(make.KEY, "message", topic.encode() + b"\0" + data)
    bus.deliver(topic, data + signature, False)
    happened = channel.receive(0)
    if isinstance(happened, Garbled):
        raise happened.error
    return happened


def _parts(data: bytes) -> None:
    """Give a joiner parts with right headers around altered bytes, for three messages at once, and the bytes alone."""
    joiner = Joiner(2000, max_pending=3)
    failure: WireError | None = None
    for i in range(0, len(data), 60):
        first, piece = data[i], data[i : i + 60]
        head = b"HP\x01" + bytes([first]) * 16 + bytes([first % 4, 0, 4, 0])
        for topic, payload in ((f"t/{first % 4}", head + piece), ("t/0", piece)):
            try:
                joiner.add(topic, payload)
            except WireError as error:
                failure = error
            held = sum(len(part) for pending in joiner._pending.values() for part in pending.parts.values())
            assert held <= 4000, "more than twice the largest message is held"
            assert len(joiner._pending) <= 3
    if failure is not None:
        raise failure


def _contexts(seed: int, count: int) -> adaptive_python.Symbols:
    """Any contexts; the same for the same seed."""
    return np.frombuffer(sha256(bytes([seed])).digest() * 8, dtype=np.uint8)[:count] & 15


def _coded(width: int) -> bytes:
    """An input for `_coder`."""
    symbols = np.frombuffer(sha256(b"symbols").digest() * 8, dtype=np.uint8)[:200] & (1 << width) - 1
    code = adaptive_python.encode(symbols, _contexts(7, 200), np.array([66, 200]), width, 2000)
    assert code is not None
    return bytes([width - 1, 200, 7]) + code


def _bits(data: bytes) -> object:
    return bits.decode(data[2:], int.from_bytes(data[:2], "little") % 4096)


def _coder(data: bytes) -> None:
    """The coder in C and the one in Python agree on what any bytes mean, and on the bytes of that."""
    library = native()
    if library is None or len(data) < 3:
        raise WireError("nothing to compare")
    width, kept, coded = 1 + data[0] % 4, data[1], data[3:]
    contexts, ends = _contexts(data[2], kept), np.array([kept // 3, kept])
    found = library.decode(coded, contexts, ends, width)
    other = adaptive_python.decode(coded, contexts, ends, width)
    assert (found is None) == (other is None), "one of C and Python refuses it"
    if found is None or other is None:
        raise WireError("bytes are left over")
    assert np.array_equal(found, other), "C and Python read different symbols"
    room = 8 * kept + 8
    again = library.encode(found, contexts, ends, width, room)
    assert again == adaptive_python.encode(found, contexts, ends, width, room), "C and Python write different bytes"


def _kept_file(name: str, read: Callable[[Store], object]) -> Callable[[bytes], object]:
    """Put the bytes where a device keeps a file, and start it."""

    def one(data: bytes) -> object:
        folder = _folder() / name
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        store = Store(folder)
        try:
            return read(store)
        finally:
            store.close()

    return one


def _coordinator_hears(data: bytes) -> object:
    """What a device says in secure aggregation, in every phase."""
    said = messages.decode(data)
    if isinstance(said, RoundKeys | SealedShares | Reveal | MaskUpdate):
        for stage in _stages():
            exchange.hear(stage.exchange, "pi-001", signing.public_key(stage.devices["pi-001"].key), said)
    return said


def _device_hears(data: bytes) -> object:
    """What the coordinator says in secure aggregation, in every phase."""
    said = messages.decode(data)
    if isinstance(said, Invitation | Roster | Deliveries | Survivors):
        for stage in _stages():
            secure_device.hear(stage.devices["pi-001"], said, bytes)
    return said


@cache
def _stages() -> list[Stage]:
    """Three devices with masks as long as the golden ones', after every phase."""
    found = []
    for phases in range(4):
        stage = Stage(np.arange(3 * make.KEPT).reshape(3, -1) % 2 == 0)
        stage.advertise()
        for _ in range(phases):
            stage.go_on()
        found.append(stage)
    return found


def _said() -> list[bytes]:
    """What the second device said and was told there."""
    stage = _stages()[-1]
    told = [message for name, message in stage.told if name == "pi-001"]
    return [messages.encode(one) for one in [*(answer for name, answer in stage.sent if name == "pi-001"), *told]]


@cache
def _exported() -> Path:
    folder = _folder() / "exported"
    bundle = make.bundle()
    # The artifacts here are no graphs, which only `describe` would look into.
    bare = manifest.describe([type(bundle)(runtime="sparse", ticket=bundle.ticket)], Training(), {}, [])
    files = {f"onnx/{name}": manifest._file(data) for name, data in bundle.files.items()}
    target = manifest.Target(files=files, made_with={"onnx": "1.17"})
    whole = bare.model_copy(update={"targets": {"onnx": target, "sparse": bare.targets["sparse"]}})
    manifest.write(folder, whole, [bundle], key=make.KEY)
    return folder


def _manifest(data: bytes) -> object:
    """A manifest signed whatever it is, beside files that do not change."""
    folder = _exported()
    (folder / manifest.MANIFEST).write_bytes(data)
    (folder / manifest.SIGNATURE).write_text(manifest._signature(make.KEY, data).model_dump_json())
    return manifest.read(folder)


def _manifest_seed() -> bytes:
    return (_exported() / manifest.MANIFEST).read_bytes()


def _renewed(data: bytes) -> int:
    """When a device asks for its next certificate."""
    renew_s = pkcs10.renew_after_s(data)
    if renew_s is None:
        raise WireError("it does not say")
    return renew_s


def _signature(data: bytes) -> object:
    path = _folder() / manifest.SIGNATURE
    path.write_bytes(data)
    return manifest._signer(path, b"a manifest")


def _devices_yaml(data: bytes) -> object:
    path = _folder() / "devices.yaml"
    path.write_bytes(data)
    return config.load(path)


YAML = b"""federation: {name: t, method: uniform, density: 0.02, seed: 1, per_round: 3, quorum: 2, runtimes: [onnx]}
profiles:
  pi: {title: 'a, b', cores: 4, ram_mb: 512, clock_ghz: 1.5, sources: {s: [cores]}}
  own: {extends: [pi, pi-400], budget: {step_ms: 3.5}}
budget: {peak_mb: 90}
devices:
  pi-1: {profile: pi, note: "x"} # the first
  pi-2:
    key: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
"""


def _golden(prefix: str) -> list[bytes]:
    return [make.load(recipe) for recipe in make.RECIPES if recipe.startswith(prefix)]


@cache
def targets() -> dict[str, Target]:
    """Every target by name."""
    kept = (*REFUSALS, StateError)
    return {
        "cbor": Target(read=load_cbor, seeds=[data[4:] for data in _golden("message")]),
        "message": Target(read=messages.decode, seeds=_golden("message")),
        "signed": Target(read=_signed, seeds=_golden("message")),
        "sealed": Target(read=_sealed, seeds=_golden("sealed")),
        "parts": Target(read=_parts, seeds=_golden("envelope")),
        "signs": Target(read=lambda data: mask.decode_signs(data, VOTES, make.ENDS), seeds=_golden("signs")),
        "votes": Target(read=lambda data: mask.decode_votes(data, make.ENDS), seeds=_golden("votes")),
        "later-votes": Target(read=lambda data: mask.decode_votes(data, make.ENDS, VOTES), seeds=_golden("votes")),
        "ballot": Target(read=mask.read_ballot, seeds=_golden("signs-v2-ballot")),
        "masked": Target(read=lambda data: secure.read_masked(data, make.KEPT, 3), seeds=_golden("signs-v2-masked")),
        "exchange": Target(
            read=read_exchange,
            seeds=[stage.devices["pi-001"].exchange.encoded for stage in _stages() if stage.devices["pi-001"].exchange],
        ),
        "exchange-up": Target(read=_coordinator_hears, seeds=_said()),
        "exchange-down": Target(read=_device_hears, seeds=_said()),
        "bits": Target(
            read=_bits, seeds=[b"\xc8\0" + bits.encode(np.arange(200) % step == step // 2) for step in (1, 2, 3, 5, 40)]
        ),
        "coder": Target(read=_coder, seeds=list(map(_coded, range(1, 5)))),
        "certificate-request": Target(
            read=lambda data: device_certificates.key_of(data, make.CARD),
            seeds=[pkcs10.request(make.TLS_KEY, make.CARD)],
        ),
        "certificate-file": Target(read=_renewed, seeds=[pkcs10.pem(make.TLS_KEY, b"", 1_790_000_000)]),
        # A ticket of 79 bytes may say that all of a network's 16,777,216 weights are kept: 14 s and 1.2 GB, measured.
        "ticket": Target(
            read=lambda data: decode_ticket(_rehashed(data)),
            seeds=_golden("ticket"),
            slowest_s=60.0,
            growth_kb=2_000_000,
        ),
        "bundle": Target(read=_bundle, seeds=_golden("bundle"), slowest_s=60.0, growth_kb=2_000_000),
        "personal": Target(read=lambda data: personal.decode(_rehashed(data), make.KEPT, 4), seeds=_golden("personal")),
        "manifest": Target(read=_manifest, seeds=[_manifest_seed()], refusals=(DataError, *REFUSALS)),
        "signature": Target(
            read=_signature,
            seeds=[manifest._signature(make.KEY, b"a manifest").model_dump_json().encode()],
            refusals=(DataError, WireError),
        ),
        "pending": Target(
            read=_kept_file(PENDING, Store.load_pending), seeds=[make.load("message-v2-mask-update")], refusals=kept
        ),
        "federation": Target(
            read=_kept_file(FEDERATION, Store.federation),
            seeds=[KNOWN.pack(signing.public_key(make.KEY), 1_790_000_000_000)],
            refusals=kept,
        ),
        "confirmed": Target(
            read=_kept_file(CONFIRMED, Store.load_confirmed), seeds=[ROUND.pack(make.RUN, 3)], refusals=kept
        ),
        "starts": Target(read=_kept_file(STARTS, _hello), seeds=[b"12"], refusals=(StateError,)),
        # ruamel.yaml takes 13 s to give up on 5,000 opening brackets; the file is its reader's own.
        "devices-yaml": Target(read=_devices_yaml, seeds=[YAML], refusals=(ConfigError,), slowest_s=60.0),
    }


def _hello(store: Store) -> object:
    """The count is of use only if it fits a hello."""
    started = store.count_start()
    return messages.decode(messages.encode(Hello(**{**vars(make.MESSAGES["hello"]), "started": started})))


# What a number of things may be said to be, and where things start and end: put into inputs here and there.
TOKENS = [
    *(bytes([major << 5 | 27]) + struct.pack(">Q", number) for major in range(6) for number in (1 << 60, 2**64 - 1)),
    *(bytes([major << 5 | 26]) + struct.pack(">I", number) for major in range(2, 6) for number in (200_001, 2**32 - 1)),
    *(bytes([byte]) * size for byte in (0, 255) for size in (2, 4, 8, 16)),
    *(bytes([0x81]) * depth for depth in (16, 17, 200)),
    *(b"[" * 200, b"{", b"}", b'"', b"\\u0000", b"../", b"/", b": ", b"\n- ", b"1e999", b"-1", b"9" * 5000, b"null"),
    *(b"&a *a", b"!!python/object:os.system ", b"2001-99-99", b"\xff\xfe", b"\0", b".nan", b"<<: "),
]
