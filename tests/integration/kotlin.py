"""Programs of the phone examples, compiled and at the other end of a pipe; and what is said to them."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import threading
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from edge_client import events
from edge_client.agent import Device
from edge_client.data import DeviceData
from tests.helpers import introduce
from wire import messages
from wire.channel import unseal
from wire.federation_messages import (
    EVERYONE,
    BundleBytes,
    CatchUp,
    Federation,
    Hello,
    MaskUpdate,
    Receipt,
    Refusal,
    Round,
    Welcome,
)
from wire.mask import Votes
from wire.messages import Message
from wire.settings import Training
from wire.transport import Connected, MemoryTransport, Packet

PHONE = Path(__file__).parents[2] / "examples" / "phone"
CORE = PHONE / "android" / "core" / "src"


def compiler() -> Path | None:
    """Kotlin's compiler: on the path, or beside kotlinc-js, which is all that the npm package kotlin-compiler links."""
    found, javascript = shutil.which("kotlinc"), shutil.which("kotlinc-js")
    path = Path(found) if found else Path(javascript).resolve().with_name("kotlinc") if javascript else None
    return path if path is not None and path.exists() else None


needs_kotlin = pytest.mark.skipif(
    compiler() is None or shutil.which("java") is None,
    reason="needs java and Kotlin 2 (npm install --global kotlin-compiler, or another kotlinc on the path)",
)


def build(folder: Path) -> Path:
    """A jar with the Kotlin core and its checks in a folder; made once for all processes, and again for new sources."""
    sources = sorted(CORE.rglob("*.kt"))
    path = folder / f"phone-{sha256(b''.join(source.read_bytes() for source in sources)).hexdigest()[:16]}.jar"
    with (folder / "phone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            partial = path.with_suffix(".part.jar")
            command = ["bash", str(compiler()), "-include-runtime", "-d", str(partial), *map(str, sources)]
            compiled = subprocess.run(command, capture_output=True, text=True, timeout=900)
            assert compiled.returncode == 0, compiled.stderr
            partial.rename(path)
    return path


@dataclass
class Program:
    """A running `main` of the jar that speaks lines."""

    process: subprocess.Popen[str]

    def say(self, line: str) -> None:
        """Write a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """The next line, empty at the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, line: str) -> str:
        """One question, one answer."""
        self.say(line)
        answer = self.hear()
        assert answer or self.process.poll() is None, f"it ended at: {line[:500]}"
        return answer


def start(jar: Path, program: str, *arguments: str) -> Program:
    """Start a `main` of the jar; whoever starts it closes its input."""
    command = ["java", "-cp", str(jar), f"hidenseek.check.{program}Kt", *arguments]
    return Program(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


@dataclass
class Phone:
    """Broker and programs for `Join.kt`: passes packets on to a bus, runs the real .pte files.

    Args:
        program: a started `Join`.
        transport: its connection to the bus.

    Attributes:
        said: what it subscribed to and published, in order: topic, whether retained, payload.
    """

    program: Program
    transport: MemoryTransport
    said: list[tuple[str, bool, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._deliver, self._serve)]
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float) -> int:
        """Exit code of the program once it has ended."""
        code = self.program.process.wait(timeout_s)
        self._over.set()
        for thread in self._threads:
            thread.join(timeout_s)
        return code

    def _deliver(self) -> None:
        while not self._over.is_set():
            match self.transport.receive(0.1):
                case Connected():
                    self.program.say("connected")
                case Packet() as packet:
                    self.program.say(f"packet {packet.topic} {b64encode(packet.payload).decode()}")
                    packet.acknowledge()

    def _serve(self) -> None:
        from edge_client.executorch.library import Program as Pte

        programs: dict[str, Pte] = {}
        while line := self.program.hear():
            match line.split():
                case ["subscribe", pattern]:
                    self.said.append((pattern, False, b""))
                    self.transport.subscribe(pattern)
                case ["publish", topic, retain, payload]:
                    self.said.append((topic, retain == "true", b64decode(payload)))
                    self.transport.publish(topic, b64decode(payload), retain=retain == "true")
                case ["open", *files]:
                    whole = [data + sha256(data).digest() for data in map(b64decode, files)]
                    programs = {name: Pte(data, name) for name, data in zip(("train", "infer"), whole, strict=True)}
                case [("train" | "infer") as name, *arrays]:
                    inputs = [
                        np.frombuffer(b64decode(array), tensor.dtype).reshape(tensor.shape)
                        for array, tensor in zip(arrays, programs[name].inputs, strict=True)
                    ]
                    results = programs[name].run(inputs)
                    self.program.say(" ".join(["answer", *(b64encode(one.tobytes()).decode() for one in results)]))
                case ["close"]:
                    self.transport.close()


@dataclass
class Wire:
    """`Join.kt` heard line by line, by a test that plays broker, coordinator and ExecuTorch."""

    program: Program
    federation: str
    device: str
    _key: bytes = b""
    _scores: int = 0

    def say(self, line: str) -> None:
        """Tell it what happened."""
        self.program.say(line)

    def hear(self) -> str:
        """What it does next."""
        return self.program.hear()

    def subscribed(self) -> str:
        """The topic that it subscribes to, without the federation's."""
        what, pattern = self.hear().split()
        assert what == "subscribe"
        return pattern.removeprefix(f"hns/{self.federation}/")

    def published(self) -> Message:
        """What it says; signed by the key of its first hello."""
        what, topic, _, payload = self.hear().split()
        assert what == "publish"
        return unseal(topic, b64decode(payload), self._trust)

    def evaluates(self, votes: Votes, kept: int, samples: DeviceData) -> None:
        """It tries these votes on every test sample."""
        for _ in range(-(-samples.y_test.size // Training().batch)):
            what, multipliers, *_ = self.hear().split()
            assert what == "infer"
            found = np.frombuffer(b64decode(multipliers), "<f4")[:kept]
            assert np.array_equal(found, votes.mean)
            self.say("answer " + b64encode(bytes(4 * Training().batch * 6)).decode())

    def asked_to_train(self, votes: Votes, kept: int) -> None:
        """It makes a step; its scores are still those that these votes say."""
        what, scores, *_ = self.hear().split()
        assert what == "train"
        found = np.frombuffer(b64decode(scores), "<f4")
        assert np.array_equal(found[:kept] >= 0, votes.signs)
        self._scores = found.size

    def answer_step(self) -> None:
        """Loss 0.1 and no gradient."""
        loss, none = np.float32(0.1).tobytes(), bytes(4)
        self.say(" ".join(["answer", *(b64encode(one).decode() for one in (loss, none, none * self._scores))]))

    def _trust(self, topic: str, message: Message) -> bytes:
        self._key = self._key or (message.key if isinstance(message, Hello) else b"")
        return self._key


def write_samples(folder: Path, samples: DeviceData) -> None:
    """What `Join.kt` trains on and tests with."""
    folder.mkdir(parents=True)
    for name, x, y in (("train", samples.x_train, samples.y_train), ("test", samples.x_test, samples.y_test)):
        (folder / f"x-{name}").write_bytes(x.astype("<f4").tobytes())
        (folder / f"y-{name}").write_bytes(y.astype("<i4").tobytes())


RUNS = (b"run-0001", b"run-0002")
HELLO = introduce("instance", "executorch")


def some_event(rng: np.random.Generator, device: Device, open_share: float) -> tuple[str, events.Event]:
    """Anything that can happen to a device, in Kotlin's words and ours; so many of the rounds are open to all."""
    run, number = RUNS[int(rng.random() < 0.15)], int(rng.integers(1, 5))
    if device.federation is not None and rng.random() < 0.9:
        run = device.federation.run
        number = max(1, (device.announced.number if device.announced else 1) + int(rng.integers(-1, 2)))
    if device.pending is not None and rng.random() < 0.4:
        run, number = device.pending.run, device.pending.number
    elif device.training is not None and rng.random() < 0.4:
        run, number = device.training
    base = int(rng.integers(0, number)) if rng.random() < 0.3 else device.votes[1] if device.votes else 0
    instance = [b"instance", b"another_"][int(rng.random() < 0.2)]
    digest = [sha256(run).digest(), bytes(32)][rng.random() < 0.1]
    runtime = "executorch" if rng.random() < 0.95 else "onnx"
    update = MaskUpdate(
        run=run, number=number, signs=b"\0", train_samples=1, loss=1.0, correct=0, test_samples=1,
        train_s=0.5, step_ms=1.0, peak_memory_kb=0,
    )  # fmt: skip
    heard: list[messages.Message] = [
        Federation(
            run=run, name="f", rounds=3, ticket=bytes(32), bundles={runtime: sha256(run).digest()},
            training=Training(), seed=int(rng.integers(2)) // 2, key=bytes(32), issued=1,
        ),
        *[
            Round(
                run=run, number=number,
                selected=(EVERYONE,) if rng.random() < open_share else ("phone", "pi")[int(rng.random() < 0.2) :],
                evaluate=bool(rng.random() < 0.5), final=bool(rng.random() < 0.1), votes=b"", base=base,
                digest=bytes(8),
            )
            for _ in range(4)
        ],
        *[CatchUp(run=run, number=number, votes=b"", base=base, digest=bytes(8))] * 2,
        *[Receipt(run=run, number=number)] * 3,
        Welcome(instance=instance),
        *[
            Refusal(
                instance=instance, code=("mask", "mask", "mask", "duplicate", "runtime")[rng.integers(5)], reason="",
                number=number,
            )
        ] * 3,
        BundleBytes(data=run),
        update,
    ]  # fmt: skip
    match int(rng.integers(10)):
        case 0:
            return "online", events.Online()
        case 1 | 9:
            return "tick", events.Tick()
        case 2:
            return f"opened {digest.hex()}", events.BundleOpened(digest=digest)
        case 3 if rng.random() < 0.3:
            return f"needed {digest.hex()}", events.BundleNeeded(digest=digest)
        case 4 | 8:
            return f"trained {messages.encode(update).hex()}", events.TrainingDone(update=update)
        case 5 if rng.random() < 0.3:
            return votes_event(run, number, base, taken=bool(rng.random() < 0.5))
        case _:
            message = heard[0 if device.federation is None and rng.random() < 0.6 else rng.integers(len(heard))]
            return f"heard {messages.encode(message).hex()}", message


def votes_event(run: bytes, number: int, base: int, *, taken: bool) -> tuple[str, events.Event]:
    """What decoding votes comes to, in Kotlin's words and ours."""
    if taken:
        return f"taken {run.hex()} {number}", events.VotesTaken(run=run, number=number)
    return f"unusable - {base}", events.VotesUnusable(base=base)


def named(action: events.Action) -> str:
    """An action as Echo.kt writes it."""
    name = type(action).__name__
    match action:
        case events.OpenBundle(federation=federation):
            return f"{name}:{federation.run.hex()}"
        case events.KeepBundle():
            return f"{name}:{action.digest.hex()}:{action.data.hex()}"
        case events.TakeVotes(announced=announced):
            return f"{name}:{type(announced).__name__}:{announced.run.hex()}:{announced.number}:{announced.base}"
        case events.AskVotes(missed=missed):
            return f"{name}:{missed.run.hex()}:{missed.number}:{missed.have}"
        case events.Evaluate() | events.Train():
            return f"{name}:{action.announced.run.hex()}:{action.announced.number}"
        case events.SendMask():
            return f"{name}:{action.update.run.hex()}:{action.update.number}:{str(action.new).lower()}"
        case events.DropPending(confirmed=(run, number)):
            return f"{name}:{run.hex()}:{number}"
        case events.Stop():
            return f"{name}:{'over' if action.error is None else 'error'}"
    return name
