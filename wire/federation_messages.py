"""What devices and the coordinator say to each other of a federation and its rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wire.fields import RUN_BYTES, at, optional
from wire.settings import Training
from wire.signing import KEY_BYTES
from wire.telemetry import RoundTelemetry

INSTANCE_BYTES = 8
VOTES_DIGEST_BYTES = 8
DRAW_BYTES = 16
EVERYONE = "*"  # in the place of device ids in `Round.selected`; none of them can be this


@dataclass(frozen=True, kw_only=True)
class Hello:
    """Device -> coordinator, on every connect: I am here.

    Attributes:
        instance: 8 random bytes made when the process started; tells two processes with one id apart.
        software: name and version of the client.
        runtime: what it will train with.
        profile: kind of hardware, a name from devices.yaml, or "".
        train_samples: samples it can train on.
        test_samples: samples it holds back for evaluation.
        key: public key that all its messages are signed with.
        started: how often this device has started, counted on its disk.
        greetings: how often this process has said hello, this one included; so an old one is known for a repetition.
        secure_aggregation: it speaks secure aggregation (`wire.secure`).
        connection: how often this process has set out to connect to a broker, this time included; 0: not counted.
        draws: it works out by itself whether a round's draw selects it (`wire.selection`).
        dithers: it can send dithered bits of its scores (`wire.dither`).
    """

    instance: bytes = at(1, INSTANCE_BYTES)
    software: str = at(2)
    runtime: str = at(3)
    profile: str = at(4)
    train_samples: int = at(5)
    test_samples: int = at(6)
    key: bytes = at(7, KEY_BYTES)
    started: int = at(8)
    greetings: int = at(9)
    secure_aggregation: bool = optional(10, default=False)
    connection: int = optional(11, default=0)
    draws: bool = optional(12, default=False)
    dithers: bool = optional(13, default=False)


@dataclass(frozen=True, kw_only=True)
class State:
    """Device -> coordinator, retained; also its last will: online or not.

    Attributes:
        instance: which process, as in `Hello`.
        online: false is also the last will.
        connection: on which of its connections, as in `Hello`; so an old state is known for a repetition.
    """

    instance: bytes = at(1, INSTANCE_BYTES)
    online: bool = at(2)
    connection: int = optional(3, default=0)


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """Coordinator -> device: this instance takes part."""

    instance: bytes = at(1, INSTANCE_BYTES)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Coordinator -> device: this instance, or what it sent, is not accepted.

    Attributes:
        instance: who is meant.
        code: "duplicate", "unknown-device", "runtime", "key", "restored", "revoked", "insecure", "undithered", or
            "mask"; the last is about one mask only.
        reason: one sentence for people.
        number: the round whose mask is meant; 0 if none is.
    """

    instance: bytes = at(1, INSTANCE_BYTES)
    code: str = at(2)
    reason: str = at(3)
    number: int = at(4, default=0)


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Coordinator -> all, retained: what is being trained, and how.

    Attributes:
        run: identity of this run.
        name: for people.
        rounds: how many rounds are planned.
        ticket: SHA-256 of the ticket.
        bundles: SHA-256 of the bundle for every runtime offered.
        training: settings of local training.
        seed: fixes the order in which every device sees its samples.
        key: the federation's public key, which signs all that the coordinator says.
        issued: when the run began, milliseconds since 1970; a run older than a device knows is a repetition.
        telemetry: devices may say what training costs them (`Telemetry`).
        secure_aggregation: masks are added up unseen (`wire.secure`).
    """

    run: bytes = at(1, RUN_BYTES)
    name: str = at(2)
    rounds: int = at(3)
    ticket: bytes = at(4, 32)
    bundles: Mapping[str, bytes] = at(5)
    training: Training = at(6)
    seed: int = at(7)
    key: bytes = at(8, KEY_BYTES)
    issued: int = at(9)
    telemetry: bool = optional(10, default=False)
    secure_aggregation: bool = optional(11, default=False)


@dataclass(frozen=True, kw_only=True)
class BundleBytes:
    """Coordinator -> all, retained, one topic per runtime: an encoded `wire.bundle.Bundle`."""

    data: bytes = at(1)


@dataclass(frozen=True, kw_only=True)
class Round:
    """Coordinator -> all, retained: a round opens, or (final) the run is over.

    Attributes:
        run: which run.
        number: 1, 2, ...; the final announcement has the last round's number + 1.
        selected: ids of the devices that train; `EVERYONE` alone: whoever is there, and masks may come rounds later.
        evaluate: every device, selected or not, tries the network that these votes say on its test samples; its
            weights are mean vote x initial weight.
        final: no more rounds; `votes` are the result.
        votes: outcome of the round before, coded by `wire.mask` in the context of those announced with round `base`.
        base: an earlier round of the run, or 0: the votes before the first, which are unanimous.
        digest: of the votes that must come out (`wire.mask.Votes.digest`).
        draw: key of the round's lots: devices that can work them out are selected by theirs (`wire.selection`).
        below: the lots that are drawn; `selected` then names devices that cannot.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    selected: tuple[str, ...] = at(3)
    evaluate: bool = at(4)
    final: bool = at(5)
    votes: bytes = at(6)
    base: int = at(7)
    digest: bytes = at(8, VOTES_DIGEST_BYTES)
    draw: bytes | None = at(9, DRAW_BYTES, default=None, optional=True)
    below: int = optional(10, default=0)


@dataclass(frozen=True, kw_only=True)
class MaskUpdate:
    """Device -> coordinator: its sign mask after local training, and what that cost.

    Attributes:
        run: which run.
        number: which round.
        signs: sign mask coded in the context of the round's votes (`wire.mask`), or masked (`wire.secure`).
        train_samples: samples trained on.
        loss: mean training loss of the last epoch, nats.
        correct: test samples right with the device's own signs (personalised accuracy).
        test_samples: test samples tried.
        train_s: seconds of local training.
        step_ms: median milliseconds of one optimiser step.
        peak_memory_kb: largest resident memory of the process so far, KiB; 0 if unknown.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    signs: bytes = at(3)
    train_samples: int = at(4)
    loss: float = at(5)
    correct: int = at(6)
    test_samples: int = at(7)
    train_s: float = at(8)
    step_ms: float = at(9)
    peak_memory_kb: int = at(10)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Device -> coordinator: accuracy of a round's announced network on its test samples."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    correct: int = at(3)
    test_samples: int = at(4)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Coordinator -> device: the mask of this round is on disk; it will not be asked for again."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)


@dataclass(frozen=True, kw_only=True)
class Missed:
    """Device -> coordinator: I cannot read the votes of the announced round, for I do not have those of its base.

    Attributes:
        run: which run.
        number: the announced round.
        have: the round whose votes the device has, or 0.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    have: int = at(3)


@dataclass(frozen=True, kw_only=True)
class CatchUp:
    """Coordinator -> device: the votes of the newest round in the context of older ones; fields as of `Round`."""

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    votes: bytes = at(3)
    base: int = at(4)
    digest: bytes = at(5, VOTES_DIGEST_BYTES)


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """Device -> coordinator, once at most (QoS 0): what its last rounds of training cost it.

    Attributes:
        run: which run.
        rounds: the newest last.
    """

    run: bytes = at(1, RUN_BYTES)
    rounds: tuple[RoundTelemetry, ...] = at(2)
