"""First boot: the card's token for an account at the broker (`wire.claim`). Then the token is gone.

Where the broker knows devices by certificates, the device gets one too, and later, with the password, the next one.
"""

from __future__ import annotations

import logging
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_client.card import AGAIN_HINT
from edge_client.store import Store
from wire import claim, mqtt, pkcs10, signing
from wire.broker import Broker
from wire.channel import Channel, Garbled, Received
from wire.claim import Claim, Grant
from wire.errors import BrokerRefused, BrokerUnreachable, JoinRefused, WireError
from wire.messages import Message
from wire.topics import Topics
from wire.transport import Connected, Disconnected

log = logging.getLogger("hidenseek.edge")
AGAIN_S = 15.0
GIVE_UP_S = 120.0  # then the service manager starts the device again: the clock may be right by then


@dataclass
class Enrolment:
    """One device that claims its account.

    Args:
        device: its id.
        topics: the federation's.
        store: its state, with its key.
        hardware: what it says it is.
        alive: called again and again, for a watchdog.
        certified: ask for a certificate.
    """

    device: str
    topics: Topics
    store: Store
    hardware: str
    alive: Callable[[], None] = lambda: None
    certified: bool = False

    def run(self, broker: Broker, connect_timeout_s: float) -> None:
        """Claim the account; its password is in the state folder afterwards, and the token is not.

        Args:
            broker: where, with the claiming account and the token as its password; or, for the next certificate, with
                the renewing account and its password.
            connect_timeout_s: how long to try to reach it.

        Raises:
            JoinRefused: if the card is not good (any more).
            BrokerUnreachable: if the broker or whoever keeps its accounts does not answer.
            StateError: if the password cannot be kept.
        """
        assert broker.password is not None
        key = self.store.key()
        # For TLS alone, and another each time; it is written down with its certificate, or never.
        tls_key = signing.new_key() if self.certified else None
        transport = mqtt.MqttTransport(broker, client_id=f"hns-{self.topics.federation}-claim-{self.device}")
        said = Claim(
            key=signing.public_key(key),
            proof=bytes(claim.PROOF_BYTES),
            hardware=self.hardware,
            nonce=secrets.token_bytes(claim.NONCE_BYTES),
            request=pkcs10.request(tls_key, self.device) if tls_key else b"",
        )
        said = replace(said, proof=claim.prove(broker.password, self.device, said))
        channel = Channel(transport, key, trust=self._trust(broker.password, said))
        try:
            transport.connect(connect_timeout_s)
            self._claim(channel, said, key, tls_key)
        except BrokerRefused as error:
            raise JoinRefused(
                f"the broker does not know the token of this card (any more): {error.what}", hint=AGAIN_HINT
            ) from error
        finally:
            transport.close()

    def _claim(self, channel: Channel, said: Claim, key: bytes, tls_key: bytes | None) -> None:
        began_s = asked_s = time.monotonic()  # asked at the first `Connected`: a claim made twice has two certificates
        while time.monotonic() - began_s < GIVE_UP_S:
            self.alive()
            if time.monotonic() - asked_s > AGAIN_S:
                asked_s = time.monotonic()
                channel.subscribe(self.topics.claim_answer(self.device))
                channel.send(self.topics.claim(self.device), said)
            match channel.receive(1.0):
                case Received(message=Grant() as grant):
                    if grant.refused:
                        raise JoinRefused(grant.refused, hint=AGAIN_HINT)
                    password = claim.open_password(grant.sealed, key)
                    if tls_key and grant.certificate:
                        pem = pkcs10.pem(tls_key, grant.certificate, grant.renew_s)
                        self.store.keep_certificate(self.device, pem, openssl_takes)
                    self.store.keep_account(password)
                    log.info("enrolled as '%s', with the key %s", self.device, signing.fingerprint(said.key))
                    return
                case Disconnected(refused=True, reason=reason):
                    raise JoinRefused(f"the broker no longer takes the token of this card: {reason}", hint=AGAIN_HINT)
                case Garbled(error=error):
                    log.info("an answer to an earlier claim, or of a stranger: %s", error)
                case Connected():
                    asked_s = float("-inf")
                case _:
                    pass
        raise BrokerUnreachable(
            f"nobody has answered the claim of '{self.device}' for {GIVE_UP_S:.0f} s",
            hint="Is `hidenseek broker up` (or `broker enrol`) running where the broker's accounts are kept?",
        )

    def _trust(self, token: str, said: Claim) -> Callable[[str, Message], bytes]:
        """An answer is believed if it proves to know the token, and to be to this claim."""

        def trust(topic: str, message: Message) -> bytes:
            if not isinstance(message, Grant):
                raise WireError(f"a {type(message).__name__} is no answer to a claim")
            claim.check_proof(claim.prove_grant(token, self.device, said, message), message.proof)
            return message.key

        return trust


def openssl_takes(path: Path) -> None:
    """Whether a file has a key and the certificate for it; raises OSError if not. When it is good is not asked."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path)


def hardware() -> str:
    """Model and serial number of the board, as far as its firmware says.

    Source: the Devicetree Specification, 2.3: properties `model` and `serial-number` of the root node.
    """
    words = []
    for name in ("model", "serial-number"):
        try:
            text = (Path("/proc/device-tree") / name).read_bytes().rstrip(b"\0").decode(errors="replace")
        except OSError:
            continue
        words.append("".join(letter for letter in text if letter.isprintable())[:100])
    return " ".join(words)
