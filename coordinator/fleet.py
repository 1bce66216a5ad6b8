"""Who is in the fleet, who is online, and which of two processes with one id may stay. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from wire.messages import Hello, Refusal, State, Welcome


@dataclass
class Member:
    """One device id and the process that speaks for it."""

    hello: Hello
    online: bool = True
    earlier: set[bytes] = field(default_factory=set)  # instances that spoke for the id before
    refused: set[bytes] = field(default_factory=set)  # instances told to stop


@dataclass
class Fleet:
    """The devices of one federation.

    Args:
        allowed: device ids that may join; empty for any.
        runtimes: runtimes a bundle is offered for.
    """

    allowed: frozenset[str]
    runtimes: frozenset[str]
    members: dict[str, Member] = field(default_factory=dict)

    def hello(self, device: str, hello: Hello) -> Welcome | list[Refusal]:
        """Let a device in, or say whom to refuse.

        A restarted device is a new instance that replaces the old one for good. Two living
        processes with one id throw each other off the broker, so the older one comes back after
        the newer has said hello: then the newer one is refused.

        Returns:
            a welcome for this instance, or refusals; the list may name another instance than this one.
        """
        if self.allowed and device not in self.allowed:
            reason = f"'{device}' is not among the {len(self.allowed)} devices of this federation (devices.yaml)"
            return [Refusal(instance=hello.instance, code="unknown-device", reason=reason)]
        if hello.runtime not in self.runtimes:
            reason = f"no bundle for runtime '{hello.runtime}', only for {', '.join(sorted(self.runtimes))}"
            return [Refusal(instance=hello.instance, code="runtime", reason=reason)]
        member = self.members.get(device)
        if member is None:
            self.members[device] = Member(hello)
            return Welcome(instance=hello.instance)
        if hello.instance in member.refused:
            return [_duplicate(device, hello.instance)]
        newer = member.hello.instance
        if hello.instance in member.earlier:
            member.earlier.discard(hello.instance)
            member.refused.add(newer)
            member.hello, member.online = hello, True
            return [_duplicate(device, newer)]
        if newer != hello.instance:
            member.earlier.add(newer)
        member.hello, member.online = hello, True
        return Welcome(instance=hello.instance)

    def state(self, device: str, state: State) -> bool | None:
        """Note that a device is on- or offline.

        Returns:
            True or False if its presence changed, None if not, or if another instance is meant.
        """
        member = self.members.get(device)
        if member is None or state.instance != member.hello.instance or state.online == member.online:
            return None
        member.online = state.online
        return state.online

    @property
    def online(self) -> list[str]:
        """Ids of the devices that are online, sorted."""
        return sorted(device for device, member in self.members.items() if member.online)


def _duplicate(device: str, instance: bytes) -> Refusal:
    return Refusal(
        instance=instance, code="duplicate", reason=f"another process is already connected as '{device}' and stays"
    )
