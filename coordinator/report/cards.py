"""What a report says of cards that somebody used twice, and of devices that were shut out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coordinator.brokers import claims
from coordinator.brokers import deployment as deployments
from coordinator.brokers.claims import Attempt
from coordinator.report.words import moment
from coordinator.store import Store
from wire import signing


@dataclass(frozen=True, kw_only=True)
class CardNote:
    """One device that a person should look at: what is the matter, and when, with which key, on which board."""

    device: str
    state: str
    detail: str


def notes(store: Store, deploy: Path | None, federation: str) -> list[CardNote]:
    """Everything that is the matter with a federation's cards.

    Args:
        store: the coordinator's database.
        deploy: the broker's deployment, whose devices claim their accounts; None, or no such folder: only the database.
        federation: its name; a deployment of another one says nothing about this.

    Raises:
        StateError: if the deployment's files are damaged.
    """
    found = [
        CardNote(device=name, state="revoked", detail=f"takes part no more since {moment(since_s)}")
        for name, since_s in store.query("SELECT device, since_s FROM revoked ORDER BY device")
    ]
    if deploy is None or not (deploy / deployments.FILE).exists() or deployments.load(deploy).federation != federation:
        return found
    for name, card in sorted(claims.load(deploy).cards.items()):
        found += [CardNote(device=name, state="used twice", detail=text) for text in _attempts(card.refused)]
    return found


def _attempts(refused: list[Attempt]) -> Iterator[str]:
    for one in refused:
        key = signing.fingerprint(signing.from_text(one.key, where=claims.FILE))
        board = f", {one.hardware}" if one.hardware else ""
        yield f"refused at {moment(one.at_s)}: another device came with its card, with the key {key}{board}"
