"""Whose word a device takes: that of the federation it was told to trust, or of the first it met."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from edge_client.store import KnownFederation, Store
from wire import signing
from wire.errors import WireError
from wire.federation_messages import Federation
from wire.messages import Message

log = logging.getLogger("hidenseek.edge")


@dataclass(frozen=True)
class Trust:
    """Of one device.

    Args:
        store: remembers whom it trusts.
    """

    store: Store

    def key(self, topic: str, message: Message) -> bytes:
        """The public key that must have signed a message.

        Raises:
            WireError: if it is of another federation, of a run that is over, or said before any was met.
        """
        known = self.store.federation()
        if known is None:
            if isinstance(message, Federation):
                return message.key
            raise WireError("said before the federation has introduced itself")
        if isinstance(message, Federation) and message.key != known.key:
            raise WireError(
                f"it is of a federation with the key {signing.fingerprint(message.key)}, this device trusts "
                f"{signing.fingerprint(known.key)} only; to trust the other, join with --trust "
                f"{signing.as_text(message.key)}"
            )
        if isinstance(message, Federation) and message.issued < known.issued:
            raise WireError("it is of a run that is over")
        return known.key

    def introduced(self, federation: Federation) -> bool:
        """Remember whom to trust from now on; whether it is the first that was met."""
        known = self.store.federation()
        if known is None:
            log.info("trusting the federation with the key %s from now on", signing.fingerprint(federation.key))
        if known is None or known.issued < federation.issued:
            self.store.save_federation(KnownFederation(key=federation.key, issued=federation.issued))
        return known is None
