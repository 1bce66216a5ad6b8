"""Answers devices that claim the account their card is for: where a broker's accounts are kept, beside the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from coordinator.brokers import accounts, change, claims, device_certificates
from coordinator.brokers import deployment as deployments
from coordinator.brokers.access import ENROLLER
from coordinator.brokers.claims import Card
from coordinator.brokers.deployment import Deployment
from coordinator.brokers.device_certificates import Issued
from coordinator.brokers.shut_out import throw_out
from wire import claim, signing
from wire.channel import Channel, Garbled, Received
from wire.claim import Claim, Grant
from wire.errors import BrokerRefused, ConfigError, HidenseekError, WireError
from wire.messages import Message
from wire.mqtt import MqttTransport
from wire.topics import Topics
from wire.transport import Connected, Disconnected

CONNECT_S = 10.0
LOOK_S = 1.0


def open_card(
    folder: Path, deployment: Deployment, device: str, now_s: float, *, certificate: bool = False
) -> tuple[Deployment, str]:
    """Have a device's new card waited for: password, certificates and token of an earlier one are worth nothing.

    Args:
        folder: the deployment's.
        deployment: its settings.
        device: whose card.
        now_s: seconds since 1970.
        certificate: the device shall get a certificate for the token, and be let in by no password.

    Returns:
        the settings with the card in them, and its token.

    Raises:
        StateError: if something cannot be read or written.
    """
    with claims.changing(folder) as known:
        known.await_card(device, now_s)
        others = {name for name in deployment.certified if name != device}
        changed = deployment.model_copy(
            update={
                "devices": {device: None} | deployment.devices,
                "cards": sorted({*deployment.cards, device}),
                "certified": sorted(others | {device} if certificate else others),
            }
        )
        user = claim.USER + device
        change.write(folder, changed, users=[user, changed.account_of(device)], known=known)
        change.reload(folder, changed)
    if device in deployment.certified:
        throw_out(folder, changed, device)
    return changed, accounts.load(folder)[user]


def approve(folder: Path, deployment: Deployment, device: str, now_s: float) -> bool:
    """Have a card's token be good once more, for whoever claims with it next; what it was bound to is out.

    Args:
        folder: the deployment's.
        deployment: its settings.
        device: whose card.
        now_s: seconds since 1970.

    Returns:
        whether it was bound to a device.

    Raises:
        ConfigError: if no card was flashed for it.
        StateError: if something cannot be read or written.
    """
    with claims.changing(folder) as known:
        card = known.cards.get(device)
        if card is None or device not in deployment.cards:
            raise ConfigError(
                f"no card was flashed for '{device}'", where=str(folder), hint="hidenseek flash makes one"
            )
        known.await_card(device, now_s)
        change.write(folder, deployment, users=[deployment.account_of(device)], known=known)
        change.reload(folder, deployment)
    if device in deployment.certified:
        throw_out(folder, deployment, device)
    return card.key is not None


def rename(folder: Path, deployment: Deployment, old: str, new: str) -> bool:
    """Call a device's account otherwise, with the password that it has, and its card.

    Args:
        folder: the deployment's.
        deployment: its settings.
        old: the device's id until now.
        new: its id from now on.

    Returns:
        whether its card still waits to be claimed: it is good for nothing from now on.

    Raises:
        ConfigError: if the new id is one of the broker's own accounts.
        StateError: if something cannot be read or written.
    """
    changed = deployment.model_copy(
        update={
            "devices": {new if name == old else name: site for name, site in deployment.devices.items()},
            "cards": sorted(new if name == old else name for name in deployment.cards),
            "certified": sorted(new if name == old else name for name in deployment.certified),
        }
    )
    deployments.check(changed)
    with claims.changing(folder) as known:
        accounts.rename(folder, {prefix + old: prefix + new for prefix in ("", claim.USER, claim.RENEWAL)})
        known.rename(old, new)
        known.end_certificates(new, time.time())  # they are for the old name
        change.write(folder, changed, known=known)
        change.reload(folder, changed)
        card = known.cards.get(new)
    if old in deployment.certified:
        throw_out(folder, changed, old)
    return card is not None and card.key is None


@dataclass
class Enroller:
    """Waits until there are cards, and answers those who claim.

    Args:
        folder: the deployment's.
        say: told what happens, one line each.
        stopping: set by whoever wants it to end.
    """

    folder: Path
    say: Callable[[str], None]
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Until `stopping`."""
        while not self.stopping.wait(LOOK_S):
            try:
                deployment = deployments.load(self.folder)
                if deployment.cards:
                    self._serve(deployment)
            except HidenseekError as error:
                self.say(f"claims cannot be answered: {error}")
                self.stopping.wait(CONNECT_S)

    def _serve(self, deployment: Deployment) -> None:
        topics = Topics(deployment.federation)
        there = change.own_broker(self.folder, deployment, ENROLLER)
        transport = MqttTransport(there, client_id=f"hns-{topics.federation}-enroller")
        channel = Channel(transport, signing.new_key(), trust=_own_key, max_bytes=4096, max_values=16)
        try:
            transport.connect(CONNECT_S)
            while not self.stopping.is_set():
                match channel.receive(LOOK_S):
                    case Connected():
                        channel.subscribe(topics.all_claims)
                    case Received(message=Claim() as message, topic=topic, acknowledge=acknowledge):
                        try:
                            self._answer(channel, topics, topics.claimant(topic), message)
                        except WireError as error:
                            self.say(f"ignored a claim on {topic}: {error}")
                        acknowledge()
                    case Received(acknowledge=acknowledge):
                        acknowledge()  # our own answers
                    case Garbled(error=error, topic=topic):
                        self.say(f"ignored a claim on {topic}: {error}")
                    case Disconnected(refused=True, reason=reason):
                        raise BrokerRefused(f"the broker does not let '{ENROLLER}' in: {reason}")
                    case _:
                        pass
        finally:
            transport.close()

    def _answer(self, channel: Channel, topics: Topics, device: str, said: Claim) -> None:
        """Answer one claim, of a card's token or for the next certificate."""
        deployment, passwords = deployments.load(self.folder), accounts.load(self.folder)
        account = deployment.account_of(device)
        secret = _proven(device, said, [passwords.get(claim.USER + device), passwords.get(account)])
        certified, issued = account != device, None
        if certified and not said.request:
            refused = f"the client of '{device}' knows no certificates; write its card again: hidenseek flash {device}"
        else:
            before, refused, issued = self._decide(device, said, certified=certified)
        grant = Grant(
            key=signing.public_key(channel.key),
            proof=bytes(claim.PROOF_BYTES),
            sealed=b"" if refused else claim.seal_password(passwords[account], said.key),
            refused=refused,
            certificate=issued.certificate if issued else b"",
            renew_s=int(issued.renew_s) if issued else 0,
        )
        grant = replace(grant, proof=claim.prove_grant(secret, device, said, grant))
        channel.send(topics.claim_answer(device), grant)
        who = f"{signing.fingerprint(said.key)}{f', {said.hardware}' if said.hardware else ''}"
        until = f", certificate until {_day(issued.ends_s)}" if issued else ""
        if refused:
            self.say(f"refused {who}: {refused}")
        elif before is None or before.key is None:
            self.say(f"'{device}' has enrolled: {who}{until}")
        elif issued:
            self.say(f"'{device}' has its next certificate: {who}{until}")

    def _decide(self, device: str, said: Claim, *, certified: bool) -> tuple[Card | None, str, Issued | None]:
        """The card as it was, why the claim is refused ("" if it is not), and the certificate that was signed."""
        with claims.changing(self.folder) as known:
            before, now_s = known.cards.get(device), time.time()
            refused = known.decide(device, said.key, said.hardware, now_s)
            if refused or not certified:
                return before, refused, None
            issued = device_certificates.issue(self.folder, device, said.request)
            certificate = claims.Certificate(serial=issued.serial, ends_s=issued.ends_s)
            refused = known.certify(device, certificate, now_s)
            return before, refused, None if refused else issued


def _proven(device: str, said: Claim, secrets: list[str | None]) -> str:
    """The one of some secrets that a claim was proven with.

    Raises:
        WireError: if there is none.
    """
    known = [one for one in secrets if one is not None]
    if not known:
        raise WireError(f"no card was flashed for '{device}'")
    for one in known:
        with suppress(WireError):
            claim.check_proof(claim.prove(one, device, said), said.proof)
            return one
    raise WireError("not from somebody with the card's token")


def _day(moment_s: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment_s))


def _own_key(topic: str, message: Message) -> bytes:
    """A claim is signed with the key that it names; that this is the right one its proof says."""
    if isinstance(message, Claim | Grant):
        return message.key
    raise WireError(f"a {type(message).__name__} is no claim")
