"""A phone's way in: an id, a token that is good for one phone, and both as a link and a QR code."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import segno

from coordinator.brokers import claims, enroller
from coordinator.brokers import deployment as deployments
from coordinator.brokers.deployment import Deployment, is_loopback
from wire import invite
from wire.errors import ConfigError
from wire.invite import Invite
from wire.topics import check_name

PIXELS = 8  # of a picture, for every dark or light square


@dataclass(frozen=True)
class Invitation:
    """What a person shows to a phone.

    Args:
        device: the id that the phone will have.
        link: what the QR code says.
    """

    device: str
    link: str

    @cached_property
    def code(self) -> segno.QRCode:
        """The QR code; as pictures dark on light, whatever is around them."""
        return segno.make(self.link, error="m", micro=False)

    def drawn(self) -> str:
        """The code for a terminal, two squares a character; light ones are drawn, for most terminals are dark."""
        text = io.StringIO()
        self.code.terminal(out=text, compact=True)
        return text.getvalue()

    def picture(self, kind: str) -> bytes:
        """The code as a file: "png" or "svg"."""
        data = io.BytesIO()
        self.code.save(data, kind=kind, scale=PIXELS, dark="#000", light="#fff")
        return data.getvalue()


@dataclass(frozen=True, kw_only=True)
class Host:
    """Whoever invites.

    Attributes:
        federation: its name.
        folder: that `hidenseek broker init` wrote.
        key: the federation's public key, if it is known.
        allowed: ids that may join; empty: any.
        joined: whether a device has joined by an id.
    """

    federation: str
    folder: Path
    key: bytes | None
    allowed: frozenset[str]
    joined: Callable[[str], bool]

    def invite(self, device: str, page: str) -> Invitation:
        """Have the broker wait for a phone.

        Args:
            device: the id that it gets.
            page: address of the page for phones.

        Raises:
            ConfigError: if the id is taken or may not join, or the broker is for another federation.
            StateError: if something cannot be read or written.
        """
        check_name(device, "device id")
        deployment = self._deployment(device)
        _, token = enroller.open_card(self.folder, deployment, device, time.time())
        wanted = Invite(
            federation=self.federation,
            broker=deployment.broker_nodes()[0].ws_url,
            device=device,
            secret=token,
            claim=True,
            key=self.key,
        )
        return Invitation(device, invite.link(page, wanted))

    def _deployment(self, device: str) -> Deployment:
        deployment = deployments.load(self.folder)
        if deployment.federation != self.federation:
            raise ConfigError(
                f"the broker there is for the federation '{deployment.federation}', this is '{self.federation}'",
                where=str(self.folder),
                hint="Name the folder of this one's: --deploy DIR",
            )
        if self.allowed and device not in self.allowed:
            raise ConfigError(
                f"'{device}' is not among the {len(self.allowed)} devices that may join",
                hint="List it in devices.yaml and start hidenseek serve again; or take one that is listed",
            )
        card = claims.load(self.folder).cards.get(device)
        if self.joined(device) or (card is not None and card.key is not None):
            raise ConfigError(
                f"'{device}' is taken: a device has joined by this id",
                hint="Take another id, or let its card claim again: hidenseek fleet approve",
            )
        deployments.check(deployment.model_copy(update={"devices": {device: None} | deployment.devices}))
        return deployment


def read_page(address: str) -> SplitResult:
    """The parts of an address of a page; raises ConfigError if it is none."""
    try:
        parts = urlsplit(address.strip())
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) and parts.username is None
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"'{address}' is no address of a page", hint="Write it as https://HOST:PORT")
    return parts


def doubts(page: SplitResult) -> list[str]:
    """Why a phone may not get in by a page at this address."""
    if is_loopback(page.hostname or ""):
        serving = "hidenseek serve --page HOST:PORT, or hidenseek-edge web --bind ADDRESS"
        return [f"Nobody but this machine reaches {page.scheme}://{page.netloc}: {serving}."]
    if page.scheme == "http":
        options = "hidenseek serve --page-cert FILE, or hidenseek-edge web --cert FILE"
        return [f"Browsers let only pages over HTTPS keep keys and read sensors: {options}."]
    return []
