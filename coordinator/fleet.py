"""Who is in the fleet, who is online, and which of two processes with one id may stay. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from wire.errors import WireError
from wire.federation_messages import Hello, Refusal, State, Welcome
from wire.messages import Message
from wire.signing import fingerprint

UNKNOWN, GREETED, GONE = range(3)  # how far a connection has come; no way back
REMEMBERED = 16  # instances of one device, of each sort: far more than processes with one id and key that live at once


@dataclass
class Member:
    """One device id and the process that speaks for it.

    Attributes:
        hello: as that process introduced itself last.
        known: what is known of its presence: number of the connection, and how far that has come.
        earlier: instances that spoke for the id before, oldest first.
        refused: instances told to stop, oldest first.
    """

    hello: Hello
    known: tuple[int, int] = (0, 0)
    earlier: dict[bytes, Hello] = field(default_factory=dict)
    refused: dict[bytes, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = (self.hello.connection, GREETED)

    @classmethod
    def remembered(cls, hello: Hello) -> Member:
        """One that has introduced itself to an earlier process of this coordinator: it may be there or not."""
        member = cls(hello)
        member.known = (hello.connection, UNKNOWN)
        return member

    def greeted(self, hello: Hello) -> None:
        """It has said hello."""
        self.hello, self.known = hello, (hello.connection, GREETED)

    def knows(self, instance: bytes) -> bool:
        """Whether this instance has spoken for the id."""
        return instance == self.hello.instance or instance in self.earlier or instance in self.refused


@dataclass
class Fleet:
    """The devices of one federation.

    Args:
        allowed: device ids that may join; empty for any.
        runtimes: runtimes a bundle is offered for.
        keys: public keys of devices that are known before they join; others are known by the first they show.
        enrolled: the same of devices that have claimed their accounts, see `enrol`.
        revoked: ids that may take part no more.
        secure_aggregation: only devices that speak it may join.
        dither: the same, of dithered scores.
    """

    allowed: frozenset[str]
    runtimes: frozenset[str]
    keys: Mapping[str, bytes] = field(default_factory=dict)
    enrolled: Mapping[str, bytes] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    secure_aggregation: bool = False
    dither: bool = False
    members: dict[str, Member] = field(default_factory=dict)
    _online: set[str] = field(default_factory=set)

    @property
    def online(self) -> Set[str]:
        """Ids of the devices that are online and may take part: always the same set, which comes and goes with them."""
        return self._online

    def remember(self, device: str, hello: Hello) -> None:
        """Take in a device that was a member before; it is not online until it says so."""
        if not self.allowed or device in self.allowed:
            self.members[device] = Member.remembered(hello)

    def draws(self, device: str) -> bool:
        """Whether a device finds out by itself that it is selected."""
        return device in self.members and self.members[device].hello.draws

    def forget(self, device: str) -> None:
        """Whoever comes next under this id may be it."""
        self.members.pop(device, None)
        self._online.discard(device)

    def revoke(self, devices: Collection[str]) -> list[str]:
        """From now on these, and no others, may take part no more; those that could until now, sorted."""
        revoked, before = frozenset(devices), self.revoked
        self.revoked = revoked
        self._online -= revoked
        return sorted(revoked - before)

    def enrol(self, keys: Mapping[str, bytes]) -> list[str]:
        """From now on these devices are known by these keys, where no others were told before.

        Returns:
            those that are forgotten, for they were known by another; they may have been online.
        """
        if keys is self.enrolled:
            return []
        self.enrolled = keys
        others = [name for name, one in self.members.items() if one.hello.key != self._told(name, one.hello.key)]
        for name in others:
            self.forget(name)
        return others

    def _told(self, device: str, default: bytes) -> bytes:
        """The key that a device is known by before it says any."""
        return self.keys.get(device) or self.enrolled.get(device) or default

    def restore(self, device: str) -> None:
        """It may take part again, before the next `revoke` says so."""
        self.revoked -= {device}

    def key(self, device: str, message: Message) -> bytes:
        """The public key that a device's message must be signed with.

        Raises:
            WireError: if the device is not known, and does not introduce itself.
        """
        if isinstance(message, Hello):
            return message.key  # whether it is the right one, `hello` says, and can tell the device
        if device in self.revoked:
            raise WireError(f"'{device}' takes part no more")
        if device not in self.members:
            raise WireError(f"'{device}' has not said hello")
        return self.members[device].hello.key

    def hello(self, device: str, hello: Hello) -> Welcome | list[Refusal]:
        """Let a device in, or say whom to refuse.

        A restarted device is a new instance that replaces the old one for good. Two living processes with one id
        and one key, of a copied card, throw each other off the broker, so the older one comes back after the newer
        has said hello: then the newer one is refused.

        Returns:
            a welcome for this instance, or refusals; the list may name another instance than this one.

        Raises:
            WireError: if it has been said before, so that somebody is repeating it, or in the name of an instance
                with another key.
        """
        member = self.members.get(device)
        if member is not None and hello.key != member.hello.key and member.knows(hello.instance):
            # Whoever said this has overheard the instance. A refusal would stop the one that it belongs to.
            raise WireError(f"somebody without its key says hello as '{device}'")
        refusal = self._refusal(device, hello)
        if refusal is not None:
            code, reason = refusal
            return [Refusal(instance=hello.instance, code=code, reason=reason)]
        if member is None:
            self.members[device] = Member(hello)
            self._online.add(device)
            return Welcome(instance=hello.instance)
        if hello.instance in member.refused:
            return [_duplicate(device, hello.instance)]
        before = {**member.earlier, member.hello.instance: member.hello}.get(hello.instance)
        if before and before.greetings >= hello.greetings:
            raise WireError(f"'{device}' has said this hello before")
        if not before and hello.started < member.hello.started:  # repeated by somebody, which hurts nobody; or:
            reason = (
                f"'{device}' says it has started {hello.started} times, {member.hello.started} are known; if its card "
                f"was restored from a backup: hidenseek fleet forget {device}"
            )
            return [Refusal(instance=hello.instance, code="restored", reason=reason)]
        newer = member.hello
        if hello.instance in member.earlier:
            del member.earlier[hello.instance]
            member.refused[newer.instance] = None
            _drop_oldest(member.refused)
            member.greeted(hello)
            self._online.add(device)
            return [_duplicate(device, newer.instance)]
        if newer.instance != hello.instance:
            member.earlier[newer.instance] = newer
            _drop_oldest(member.earlier)
        member.greeted(hello)
        self._online.add(device)
        return Welcome(instance=hello.instance)

    def _refusal(self, device: str, hello: Hello) -> tuple[str, str] | None:
        """Why a device may not join: a code and a sentence."""
        if device in self.revoked:
            return "revoked", f"'{device}' takes part no more (hidenseek fleet restore lets it in again)"
        if self.allowed and device not in self.allowed:
            return "unknown-device", (
                f"'{device}' is not among the {len(self.allowed)} devices of this federation (devices.yaml)"
            )
        if hello.runtime not in self.runtimes:
            return "runtime", f"no bundle for runtime '{hello.runtime}', only for {', '.join(sorted(self.runtimes))}"
        if self.secure_aggregation and not hello.secure_aggregation:
            return "insecure", (
                f"this federation adds masks up unseen (secure_aggregation: true), and {hello.software} on '{device}' "
                "cannot; update it, or leave it out"
            )
        if self.dither and not hello.dithers:
            return "undithered", (
                f"this federation sends dithered scores (training: dither), and {hello.software} on '{device}' cannot; "
                "update it, or leave it out"
            )
        member = self.members.get(device)
        known = self._told(device, member.hello.key if member else hello.key)
        if hello.key != known:
            replaced = f"hidenseek fleet forget {device}"
            if device in self.keys:
                replaced = "put its new key into devices.yaml"
            elif device in self.enrolled:
                replaced = f"hidenseek flash {device}, or hidenseek fleet approve {device}"
            return "key", (
                f"'{device}' is known by the key {fingerprint(known)}, not {fingerprint(hello.key)}; if its card was "
                f"replaced: {replaced}"
            )
        return None

    def state(self, device: str, state: State) -> bool | None:
        """Note that a device is on- or offline.

        Returns:
            True or False if its presence changed, None if not, if another instance is meant, or if this is old: of
            a connection before the one that is known, or from before that one's end.
        """
        member = self.members.get(device)
        if member is None or state.instance != member.hello.instance:
            return None
        if member.hello.connection:  # it counts them; who does not cannot be protected from repetitions
            place = (state.connection, GREETED if state.online else GONE)
            if place <= member.known:
                return None
            member.known = place
        if state.online == (device in self._online):
            return None
        if state.online:
            self._online.add(device)
        else:
            self._online.discard(device)
        return state.online


def _drop_oldest(instances: dict[bytes, Any]) -> None:
    """A device may start as often as it likes, and is not remembered for ever each time."""
    while len(instances) > REMEMBERED:
        del instances[next(iter(instances))]


def _duplicate(device: str, instance: bytes) -> Refusal:
    return Refusal(
        instance=instance, code="duplicate", reason=f"another process is already connected as '{device}' and stays"
    )
