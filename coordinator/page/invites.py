"""Invitations that the page makes, and the page for phones that they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from markupsafe import Markup

from coordinator import invitation
from coordinator.invitation import Host, Invitation
from coordinator.page.snapshot import Source
from wire.errors import ConfigError

JOIN = "/join/"  # where the page for phones is, below the address of this page


def phone_page() -> Path | None:
    """The folder of the page for phones; None if it is not built here (`make web`)."""
    package = find_spec("edge_client")  # not imported: a device's program is no part of a coordinator
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / "web" / "dist"
    return folder if (folder / "index.html").exists() else None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An invitation as the page shows it.

    Attributes:
        invitation: what is shown.
        doubts: why a phone may not get in by it.
    """

    invitation: Invitation
    doubts: list[str]

    @property
    def qr(self) -> Markup:
        """The QR code, an `<svg>` element."""
        svg = self.invitation.code.svg_inline(
            omitsize=True, dark="#000", light="#fff", svgclass="qr", lineclass=None, title="QR code"
        )
        return Markup(svg)  # noqa: S704  # of segno's own


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

    def invite(self, device: str, address: str) -> Shown:
        """Have the broker wait for a phone.

        Args:
            device: the id that it gets.
            address: of this page, as phones reach it.

        Raises:
            ConfigError: as `Host.invite`; also if the address is none, or there is no broker to join at.
            StateError: if something cannot be read or written.
        """
        folder = self.source.deploy
        if folder is None:
            raise ConfigError(
                "there is no broker here that phones could join at",
                hint="Make one with hidenseek broker init, and start hidenseek serve with --deploy DIR",
            )
        page = invitation.read_page(address)
        host = Host(
            federation=self.source.name,
            folder=folder,
            key=self.source.key,
            allowed=self.source.allowed,
            joined=self._joined,
        )
        made = host.invite(device, f"{page.scheme}://{page.netloc}{JOIN}")
        found = invitation.doubts(page)
        if phone_page() is None:
            found.insert(
                0, "The page for phones is not built here: run make web and start again. Until then none answers."
            )
        return Shown(invitation=made, doubts=found)

    def _joined(self, device: str) -> bool:
        with self.source.reading() as store:
            return store.knows(device)
