"""What the devices of a load test do in place of training: masks that look trained, after as long as training takes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from coordinator.loadtest.audience import Audience
from coordinator.loadtest.tally import Tally
from wire import __version__, messages, signing
from wire.channel import seal
from wire.federation_messages import INSTANCE_BYTES, Evaluation, Federation, Hello, MaskUpdate, Round
from wire.fields import single
from wire.telemetry import RoundTelemetry
from wire.topics import Topics
from wire.transport import monotonic_s

STEP_MS = 10.0


@dataclass(frozen=True, kw_only=True)
class Script:
    """What all devices do.

    Attributes:
        topics: of their federation.
        runtime: which bundle they ask for.
        train_s: shortest and longest training, seconds.
        train_samples: that a device says it has.
        test_samples: likewise.
        stay: wait for another run when one is over.
        packet_bytes: largest payload sent in one packet.
        seed: of their keys and masks.
    """

    topics: Topics
    runtime: str = "sparse"
    train_s: tuple[float, float] = (0.0, 0.0)
    train_samples: int = 300
    test_samples: int = 100
    stay: bool = False
    packet_bytes: int = messages.MAX_MESSAGE_BYTES
    seed: int = 0

    def hello(self, key: bytes, started: int) -> Hello:
        """How a new process of a device introduces itself.

        Args:
            key: its private key.
            started: how often the device has started.
        """
        return Hello(
            instance=secrets.token_bytes(INSTANCE_BYTES),
            software=f"hidenseek-loadtest {__version__}",
            runtime=self.runtime,
            profile="",
            train_samples=self.train_samples,
            test_samples=self.test_samples,
            key=signing.public_key(key),
            started=started,
            greetings=0,
            draws=True,
            dithers=True,
        )


class Pretence:
    """One device's work: its masks, made without training, sealed once, timed until their receipts come; its figures.

    Args:
        device: its id.
        script: what it does.
        key: its private key.
        audience: what it shares with the others of its process.
        tally: theirs, too.
    """

    __slots__ = ("_audience", "_device", "_key", "_script", "_sealed", "_sent_s", "_tally", "_timer", "topic")

    def __init__(self, device: str, script: Script, key: bytes, audience: Audience, tally: Tally) -> None:
        self._device, self._script, self._key, self._audience, self._tally = device, script, key, audience, tally
        self.topic = script.topics.up(device, "mask")
        self._timer: asyncio.TimerHandle | None = None
        self._sealed: tuple[tuple[bytes, int], bytes] | None = None
        self._sent_s = 0.0

    def train(self, federation: Federation, announced: Round, done: Callable[[MaskUpdate], None]) -> None:
        """Make a round's mask now and hand it over when training would be over."""
        seconds = self._audience.random.uniform(*self._script.train_s)
        tests = self._script.test_samples
        update = MaskUpdate(
            run=announced.run,
            number=announced.number,
            signs=self._audience.train(federation, announced.run, announced.number, self._device),
            train_samples=self._script.train_samples,
            loss=single(self._audience.random.uniform(0.05, 1.0)),
            correct=round(tests * self._audience.random.uniform(0.7, 0.99)),
            test_samples=tests,
            train_s=single(seconds),
            step_ms=single(STEP_MS),
            peak_memory_kb=45_000,
        )
        self._sealed = (update.run, update.number), seal(self._key, self.topic, update)
        seen = self._tally.round(announced.number)
        seen.trained += 1
        seen.longest_s = max(seen.longest_s, seconds)
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, done, update)

    def evaluate(self, announced: Round) -> Evaluation:
        """As if the network of a round were tried."""
        tests = self._script.test_samples
        right = round(tests * self._audience.random.uniform(0.6, 0.95))
        return Evaluation(run=announced.run, number=announced.number, correct=right, test_samples=tests)

    def stop(self) -> None:
        """Train no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send(self, update: MaskUpdate, *, new: bool) -> bytes:
        """A mask's signed message, which is sent now; counted."""
        key = (update.run, update.number)
        if self._sealed is None or self._sealed[0] != key:
            self._sealed = key, seal(self._key, self.topic, update)
        sealed, seen = self._sealed[1], self._tally.round(update.number)
        seen.mask_bytes += len(sealed)
        if new:
            self._sent_s = monotonic_s()
            seen.sent, seen.sent_last_s = seen.sent + 1, self._sent_s
        else:
            self._tally.counts["resent"] += 1
        return sealed

    def confirmed(self, number: int) -> None:
        """The receipt for a round's mask has come."""
        self._sealed = None
        now_s, seen = monotonic_s(), self._tally.round(number)
        seen.confirmed, seen.confirmed_last_s = seen.confirmed + 1, now_s
        seen.confirmed_first_s = seen.confirmed_first_s or now_s
        self._tally.latency.add(now_s - self._sent_s)

    def dropped(self) -> None:
        """Nobody wants the mask any more."""
        if self._sealed is not None:
            self._tally.round(self._sealed[0][1]).dropped += 1
            self._sealed = None

    def spent(self, update: MaskUpdate) -> RoundTelemetry:
        """What a device would say that training has cost."""
        steps = max(round(update.train_s * 1000 / STEP_MS), 1)
        return RoundTelemetry(
            number=update.number,
            steps=steps,
            step_p50_us=round(STEP_MS * 1000),
            step_p95_us=round(STEP_MS * 1100),
            step_p99_us=round(STEP_MS * 1200),
            step_max_us=round(STEP_MS * 1500),
            first_bucket=53,
            bucket_counts=(steps,),
            train_ms=round(update.train_s * 1000),
            rss_kib=40_000,
            peak_kib=update.peak_memory_kb,
            cpu_ms=round(update.train_s * 1000),
            temperature_c=single(self._audience.random.uniform(40.0, 70.0)),
            sent_bytes=len(update.signs),
        )
