"""Answers devices that claim the account their card is for: where a broker's accounts are kept, beside the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from coordinator.brokers import accounts, certificates, change, claims
from coordinator.brokers import deployment as deployments
from coordinator.brokers.access import ENROLLER
from coordinator.brokers.deployment import Deployment
from wire import claim, signing
from wire.channel import Channel, Garbled, Received
from wire.claim import Claim, Grant
from wire.errors import BrokerRefused, ConfigError, HidenseekError, WireError
from wire.messages import Message
from wire.mqtt import Broker, MqttTransport
from wire.topics import Topics
from wire.transport import Connected, Disconnected

CONNECT_S = 10.0
LOOK_S = 1.0


def open_card(folder: Path, deployment: Deployment, device: str, now_s: float) -> tuple[Deployment, str]:
    """Have a device's new card waited for: its account's password and any earlier token are worth nothing from now on.

    Args:
        folder: the deployment's.
        deployment: its settings.
        device: whose card.
        now_s: seconds since 1970.

    Returns:
        the settings with the card in them, and its token.

    Raises:
        StateError: if something cannot be read or written.
    """
    with claims.changing(folder) as known:
        known.cards[device] = claims.Card(made_s=now_s)
        changed = deployment.model_copy(
            update={
                "devices": {device: None} | deployment.devices,
                "cards": sorted({*deployment.cards, device}),
            }
        )
        user = claim.USER + device
        change.write(folder, changed, users=[user, device])
        change.reload(folder, changed)
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
        known.cards[device] = claims.Card(made_s=now_s)
        change.write(folder, deployment, users=[device])
        change.reload(folder, deployment)
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
        }
    )
    deployments.check(changed)
    with claims.changing(folder) as known:
        accounts.rename(folder, {old: new, claim.USER + old: claim.USER + new})
        known.rename(old, new)
        change.write(folder, changed)
        change.reload(folder, changed)
        card = known.cards.get(new)
    return card is not None and card.key is None


def own_broker(folder: Path, deployment: Deployment) -> Broker:
    """The broker that runs on this machine, for the account that answers claims."""
    node = deployment.broker_nodes()[0]
    password = accounts.load(folder).get(ENROLLER)
    # Its certificate is for the loopback too, whatever it is known by.
    return Broker(
        scheme="mqtts",
        host="127.0.0.1",
        port=node.port,
        user=ENROLLER,
        password=password,
        ca=folder / certificates.CERTIFICATES,
    )


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
        transport = MqttTransport(own_broker(self.folder, deployment), client_id=f"hns-{topics.federation}-enroller")
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
        """Answer one claim; the password is another only when a card is claimed for the first time."""
        token = accounts.load(self.folder).get(claim.USER + device)
        if token is None:
            raise WireError(f"no card was flashed for '{device}'")
        claim.check_proof(claim.prove(token, device, said), said.proof)
        with claims.changing(self.folder) as known:
            before = known.cards.get(device)
            refused = known.decide(device, said.key, said.hardware, time.time())
        sealed = b""
        if not refused:
            sealed = claim.seal_password(accounts.load(self.folder)[device], said.key)
        grant = Grant(
            key=signing.public_key(channel.key), proof=bytes(claim.PROOF_BYTES), sealed=sealed, refused=refused
        )
        grant = replace(grant, proof=claim.prove_grant(token, device, said, grant))
        channel.send(topics.claim_answer(device), grant)
        who = f"{signing.fingerprint(said.key)}{f', {said.hardware}' if said.hardware else ''}"
        if refused:
            self.say(f"refused {who}: {refused}")
        elif before is None or before.key is None:
            self.say(f"'{device}' has enrolled: {who}")


def _own_key(topic: str, message: Message) -> bytes:
    """A claim is signed with the key that it names; that this is the right one its proof says."""
    if isinstance(message, Claim | Grant):
        return message.key
    raise WireError(f"a {type(message).__name__} is no claim")
