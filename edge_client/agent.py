"""What a device does next: a pure function of what it knows, what happened and the time.

No sockets, files, clocks or networks in here: `handle` takes a state and an event and returns the
next state and the actions for `edge_client.client` to carry out. That makes every order of events,
however unlucky, a unit test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from edge_client.events import (
    Action,
    AskVotes,
    BundleNeeded,
    BundleOpened,
    Download,
    DropPending,
    Evaluate,
    Event,
    KeepBundle,
    Log,
    Online,
    OpenBundle,
    SayHello,
    SendMask,
    Stop,
    StopTraining,
    Subscribe,
    TakeVotes,
    Tick,
    Train,
    TrainingDone,
    VotesTaken,
    VotesUnusable,
)
from wire.errors import DuplicateDevice, HidenseekError, JoinRefused, UnknownName
from wire.federation_messages import (
    EVERYONE,
    BundleBytes,
    CatchUp,
    Federation,
    Hello,
    MaskUpdate,
    Missed,
    Receipt,
    Refusal,
    Round,
    Welcome,
)
from wire.selection import asked

RESEND_AFTER_S = 20.0  # an unconfirmed mask is sent again after this, then after twice as long, ...
ASK_AGAIN_AFTER_S = 20.0  # votes that were asked for
RESEND_AT_MOST_S = 300.0
# Who has not heard of a federation, or not got its bundle, subscribes again, after this, then after twice as long, ...:
# NATS was seen not to deliver a retained message to a client that subscribed while it was published.
JOIN_AGAIN_AFTER_S = 60.0
JOIN_AGAIN_AT_MOST_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Device:
    """All a device knows.

    Attributes:
        name: its device id.
        hello: how it introduces itself.
        stay: wait for another run when one is over.
        federation: what is being trained, once announced.
        ready: the federation's runtime is loaded.
        announced: the newest round heard of.
        votes: (run, number) of the round whose votes this device has.
        asked_s: when it asked for votes that it needs; None if it does not wait for any.
        handled: (run, number) of the newest round acted upon.
        due: a round that is open to all waits to be acted upon, until no more news of newer ones comes.
        training: (run, number) of the round being trained for.
        pending: mask without receipt.
        sent_s: when `pending` was last sent.
        tries: how often it was sent.
        confirmed: (run, number) of the newest round whose mask has a receipt; it is trained for once only.
        welcomed: the coordinator has let this instance in.
        sought_s: when it last asked for all that is said to it; None before the first connection.
        seeks: how often it did since it is connected.
    """

    name: str
    hello: Hello
    stay: bool = True
    federation: Federation | None = None
    ready: bool = False
    announced: Round | None = None
    votes: tuple[bytes, int] | None = None
    asked_s: float | None = None
    handled: tuple[bytes, int] | None = None
    due: bool = False
    training: tuple[bytes, int] | None = None
    pending: MaskUpdate | None = None
    sent_s: float = 0.0
    tries: int = 0
    confirmed: tuple[bytes, int] | None = None
    welcomed: bool = False
    sought_s: float | None = None
    seeks: int = 0


Outcome: TypeAlias = tuple[Device, list[Action]]


def handle(device: Device, event: Event, now_s: float) -> Outcome:
    """Return the next state and what to do, given what happened at `now_s` (any monotonic clock, seconds)."""
    match event:
        case Online():
            actions: list[Action] = [Subscribe()]
            if device.ready:
                actions.append(SayHello())
            return _send_again(replace(device, sought_s=now_s, seeks=1), now_s, actions)
        case Federation():
            return _on_federation(device, event)
        case BundleNeeded():
            return device, [Download(), Log(text=f"downloading bundle {event.digest.hex()[:12]}")]
        case BundleBytes():
            if device.federation is None or device.ready:
                return device, []
            digest = device.federation.bundles[device.hello.runtime]
            return device, [KeepBundle(digest=digest, data=event.data), OpenBundle(federation=device.federation)]
        case BundleOpened():
            if device.federation is None or device.federation.bundles.get(device.hello.runtime) != event.digest:
                return device, []
            # Only now: who is online can be selected, and must be able to train. Said anew for every run,
            # for a coordinator that starts anew knows nobody.
            return _act_on_round(replace(device, ready=True), [SayHello()], now_s)
        case Round():
            return _on_round(device, event, now_s)
        case CatchUp():
            known = event.base == 0 or device.votes == (event.run, event.base)
            wanted = (
                device.asked_s is not None and device.announced is not None and _key(device.announced) == _key(event)
            )
            return device, [TakeVotes(announced=event)] if known and wanted else []
        case VotesTaken():
            return _act_on_round(replace(device, votes=(event.run, event.number), asked_s=None), [], now_s)
        case VotesUnusable():
            if event.base == 0:  # they build on nothing, so asking at once would not help
                return replace(device, votes=None, asked_s=now_s), []
            return _ask_votes(replace(device, votes=None), [], now_s)
        case TrainingDone():
            if device.training != _key(event.update):
                return device, []
            device = replace(device, training=None, pending=event.update, sent_s=now_s, tries=1)
            return _act_on_round(device, [SendMask(update=event.update, new=True)], now_s)
        case Receipt():
            if device.pending is None or _key(device.pending) != _key(event):
                return device, []
            device = replace(device, pending=None, tries=0, confirmed=_key(event))
            actions = [DropPending(confirmed=_key(event)), Log(text=f"round {event.number}: mask confirmed")]
            return _act_on_round(device, actions, now_s)
        case Tick():
            if device.due and device.asked_s is None:
                return _act_on_round(replace(device, due=False), [], now_s, quiet=True)
            if device.asked_s is not None and now_s - device.asked_s >= ASK_AGAIN_AFTER_S:
                return _ask_votes(device, [], now_s)
            join_s = min(JOIN_AGAIN_AFTER_S * 2.0 ** (device.seeks - 1), JOIN_AGAIN_AT_MOST_S)
            if not device.ready and device.sought_s is not None and now_s - device.sought_s >= join_s:
                seeks = min(device.seeks + 1, 16)
                missing: list[Action] = [Subscribe()] if device.federation is None else [Subscribe(), Download()]
                return replace(device, sought_s=now_s, seeks=seeks), missing
            wait_s = min(RESEND_AFTER_S * 2.0 ** max(device.tries - 1, 0), RESEND_AT_MOST_S)
            if device.pending is None or now_s - device.sent_s < wait_s:
                return device, []
            return _send_again(device, now_s, [])
        case Refusal():
            return _on_refusal(device, event, now_s)
        case Welcome():
            if event.instance != device.hello.instance or device.welcomed:
                return device, []
            return replace(device, welcomed=True), [Log(text="joined; waiting for a round")]
        case _:
            return device, []  # what other devices say is none of our business


def _key(message: MaskUpdate | Round | CatchUp | Receipt) -> tuple[bytes, int]:
    return (message.run, message.number)


def _on_federation(device: Device, event: Federation) -> Outcome:
    known = device.federation
    if known == event:
        return device, []
    if device.hello.runtime not in event.bundles:
        offered = ", ".join(sorted(event.bundles))
        error = UnknownName(
            f"federation '{event.name}' offers no bundle for runtime '{device.hello.runtime}'",
            hint=f"Use --runtime {offered}",
        )
        return device, [Stop(error=error)]
    actions: list[Action] = []
    if device.training is not None:
        actions.append(StopTraining())
    if device.pending is not None and device.pending.run != event.run:
        device = replace(device, pending=None)
        actions.append(DropPending())
    device = replace(device, federation=event, ready=False, training=None, handled=None, votes=None, asked_s=None)
    device = replace(device, due=False)
    return device, [
        *actions,
        Log(text=f"federation '{event.name}', run {event.run.hex()}"),
        OpenBundle(federation=event),
    ]


def _on_round(device: Device, event: Round, now_s: float) -> Outcome:
    seen = device.announced
    if seen is not None and seen.run == event.run and event.number < seen.number:
        return device, []  # the network may repeat and reorder
    if seen is not None and device.federation is not None and seen.run == device.federation.run != event.run:
        return device, []  # left over from an earlier run
    return _act_on_round(replace(device, announced=event), [], now_s)


def _act_on_round(device: Device, actions: list[Action], now_s: float, *, quiet: bool = False) -> Outcome:
    """Do what the newest announced round asks of this device, once, as soon as its runtime and its votes are there.

    A device that wakes hears of many rounds at once. Of those that are open to all it would finish the first that it
    began, so it begins when things are `quiet`.
    """
    announced = device.announced
    if announced is None or not device.ready or device.federation is None or announced.run != device.federation.run:
        return device, actions
    key = _key(announced)
    if not _open_to_all(announced):
        if device.training is not None and device.training != key:
            actions.append(StopTraining())
            device = replace(device, training=None)
        if device.pending is not None and _key(device.pending) != key:
            # Its round closed without it: nobody waits for it any more.
            actions.append(DropPending())
            device = replace(device, pending=None)
    if device.votes != key:
        if announced.base and device.votes != (announced.run, announced.base):
            return _ask_votes(device, actions, now_s)
        return device, [*actions, TakeVotes(announced=announced)]
    if device.training is not None and device.training != key:
        return device, actions  # it finishes what it began, on the runtime that an evaluation would need too
    if _open_to_all(announced) and not quiet:
        return replace(device, due=True), actions
    if device.handled != key:
        device = replace(device, handled=key)
        if announced.evaluate:
            actions.append(Evaluate(announced=announced))
    if announced.final:
        if not device.stay:
            actions.append(Stop(error=None))
        return device, actions
    wanted = (_open_to_all(announced) or asked(announced, device.name)) and device.confirmed != key
    if wanted and device.training is None and device.pending is None:
        actions.append(Train(announced=announced))
        device = replace(device, training=key)
    return device, actions


def _open_to_all(announced: Round) -> bool:
    """Whether everyone may train, and masks of earlier rounds are wanted too; how early, the coordinator knows."""
    return EVERYONE in announced.selected and not announced.final


def _ask_votes(device: Device, actions: list[Action], now_s: float) -> Outcome:
    announced = device.announced
    if announced is None:
        return device, actions
    if announced.final and not device.stay and device.asked_s is not None:
        return device, [*actions, Stop(error=None)]  # the coordinator may have left for good
    have = device.votes[1] if device.votes is not None and device.votes[0] == announced.run else 0
    missed = Missed(run=announced.run, number=announced.number, have=have)
    return replace(device, asked_s=now_s), [*actions, AskVotes(missed=missed)]


def _send_again(device: Device, now_s: float, actions: list[Action]) -> Outcome:
    if device.pending is None:
        return device, actions
    actions.append(SendMask(update=device.pending, new=False))
    return replace(device, sent_s=now_s, tries=device.tries + 1), actions


def _on_refusal(device: Device, event: Refusal, now_s: float) -> Outcome:
    if event.instance != device.hello.instance:
        return device, []
    match event.code:
        case "mask" if device.pending is None or device.pending.number != event.number:
            return device, []  # about another one: late, or repeated by somebody
        case "mask":
            refused, newest, device = device.pending, device.announced, replace(device, pending=None)
            late = refused and newest and _open_to_all(newest) and _key(refused) != _key(newest)
            actions: list[Action] = [DropPending(), Log(text=f"mask refused: {event.reason}")]
            # Not for the round of a refused mask: another one of it would be no better.
            return _act_on_round(device, actions, now_s) if late else (replace(device, due=False), actions)
        case "duplicate":
            error: HidenseekError = DuplicateDevice(
                event.reason,
                hint=f"Give every device its own id; stop the other process that joined as '{device.name}'",
            )
        case _:
            error = JoinRefused(f"the coordinator refused '{device.name}': {event.reason}")
    return device, [Stop(error=error)]
