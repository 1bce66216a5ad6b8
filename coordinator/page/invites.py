"""A phone's way in: an id, a token that is good for one phone, and both as a link and a QR code."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import segno
from markupsafe import Markup

from coordinator.brokers import deployment as deployments
from coordinator.brokers import enroller
from coordinator.brokers.deployment import Deployment, is_loopback
from coordinator.page.snapshot import Source
from wire import invite
from wire.errors import ConfigError
from wire.invite import Invite
from wire.topics import check_name

JOIN = "/join/"  # where the page for phones is, below the address of this page


def phone_page() -> Path | None:
    """The folder of the page for phones; None if it is not built here (`make web`)."""
    package = find_spec("edge_client")  # not imported: a device's program is no part of a coordinator
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "web" / "dist"
    return folder if (folder / "index.html").exists() else None


@dataclass(frozen=True, kw_only=True)
class Invitation:
    """What a person shows to a phone.

    Attributes:
        device: the id that the phone will have.
        link: what the QR code says.
        qr: the QR code, an `<svg>` element.
        doubts: why a phone may not get in by it.
    """

    device: str
    link: str
    qr: Markup
    doubts: list[str]


@dataclass(frozen=True)
class Inviter:
    """Makes invitations.

    Args:
        source: of the run, its broker's folder and the ids that are taken.
    """

    source: Source

    def suggestion(self) -> str:
        """An id that is not taken; empty if none is known that could be."""
        taken = self.source.take().devices.keys()
        if self.source.allowed:
            return next(iter(sorted(self.source.allowed - taken)), "")
        return next(name for number in count(1) if (name := f"phone-{number}") not in taken)

    def invite(self, device: str, address: str) -> Invitation:
        """Have the broker wait for a phone.

        Args:
            device: the id that it gets.
            address: of this page, as phones reach it.

        Raises:
            ConfigError: if the id is taken or may not join, the address is none, or there is no broker to join at.
            StateError: if something cannot be read or written.
        """
        check_name(device, "device id")
        page = _checked(address)
        folder, deployment = self._deployment(device)
        _, token = enroller.open_card(folder, deployment, device, time.time())
        wanted = Invite(
            federation=self.source.name,
            broker=deployment.broker_nodes()[0].ws_url,
            device=device,
            secret=token,
            claim=True,
            key=self.source.key,
        )
        link = invite.link(f"{page}{JOIN}", wanted)
        code = segno.make(link, error="m", micro=False)
        svg = code.svg_inline(omitsize=True, dark="#000", light="#fff", svgclass="qr", lineclass=None, title="QR code")
        return Invitation(device=device, link=link, qr=Markup(svg), doubts=_doubts(page))  # noqa: S704  # of segno's own

    def _deployment(self, device: str) -> tuple[Path, Deployment]:
        folder = self.source.deploy
        if folder is None:
            raise ConfigError(
                "there is no broker here that phones could join at",
                hint="Make one with hidenseek broker init, and start hidenseek serve with --deploy DIR",
            )
        deployment = deployments.load(folder)
        if deployment.federation != self.source.name:
            raise ConfigError(
                f"the broker there is for the federation '{deployment.federation}', this is '{self.source.name}'",
                where=str(folder),
                hint="Start hidenseek serve with the folder of this one's: --deploy DIR",
            )
        if self.source.allowed and device not in self.source.allowed:
            raise ConfigError(
                f"'{device}' is not among the {len(self.source.allowed)} devices that may join",
                hint="List it in devices.yaml and start hidenseek serve again; or take one that is listed",
            )
        card = self.source.cards().get(device)
        with self.source.reading() as store:
            if store.knows(device) or (card is not None and card.key is not None):
                raise ConfigError(
                    f"'{device}' is taken: a device has joined by this id",
                    hint="Take another id, or let its card claim again",
                )
        deployments.check(deployment.model_copy(update={"devices": {device: None} | deployment.devices}))
        return folder, deployment


def _checked(address: str) -> str:
    """An address without what follows its port; raises ConfigError if it is none."""
    try:
        parts = urlsplit(address.strip())
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and parts.username is None
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"'{address}' is no address of a page", hint="Write it as https://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


def _doubts(page: str) -> list[str]:
    parts = urlsplit(page)
    doubts = []
    if phone_page() is None:
        doubts.append("The page for phones is not built here: run make web and start again. Until then none answers.")
    if is_loopback(parts.hostname or ""):
        doubts.append(f"Nobody but this machine reaches {page}: start hidenseek serve with --page HOST:PORT.")
    elif parts.scheme == "http":
        doubts.append("Browsers let only pages over HTTPS keep keys and read sensors: start with --page-cert FILE.")
    return doubts
