"""A stock image made into one card's: the client in it, the service on, settings in the form that its system takes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from export.image import cloudinit, firmware, firstrun, service, swap
from export.image.client import Client
from export.image.ext4 import Ext4
from export.image.fat import Fat
from export.image.grow import grow
from export.image.service import Service
from export.image.settings import CardSettings
from export.image.system import SEED, System
from export.image.tree import Tree
from wire.errors import ImageError, did_you_mean

LOCALES, BUILT_IN_LOCALES = "/usr/share/i18n/SUPPORTED", ("C.UTF-8", "C", "POSIX")
FOR_CARDS_BYTES = 64 << 20  # for recordings and settings


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that makes one card different from the next.

    Attributes:
        settings: the system's.
        service: the program's.
        secrets: files of the program's state folder, by their names; only root and it can read them.
        data: recordings, by the names that they are to have on the card.
    """

    settings: CardSettings
    service: Service
    secrets: dict[str, bytes] = field(default_factory=dict, repr=False)
    data: dict[str, Path] = field(default_factory=dict)


def install(image: Path, system: System, client: Client) -> None:
    """Put the client into an image: the same for every card made of it. Its root partition is grown if it has to be.

    Raises:
        ImageError: if there is no room, or it cannot be written.
    """
    root = Ext4(image, system.root.start_bytes)
    missing = root.missing_bytes(client.size_bytes + FOR_CARDS_BYTES)
    if missing > 0:
        grow(image, system.root, missing + missing // 8)  # a larger file system has larger tables of its own
    root.put(client.files)


def check(image: Path, system: System, settings: CardSettings) -> None:
    """Whether a system can do what a card is told; personalise takes it for granted.

    Raises:
        ImageError: if it cannot; names the setting.
    """
    if not system.firmware and (names := firmware.needed_by(settings)):
        raise ImageError(
            f"{names[0]} is for config.txt of a Raspberry Pi, and {system.title} has none",
            hint=f"Leave {' and '.join(names)} out, for one device with `{names[0]}: "
            f"{'false' if names[0] == 'power_saving' else 'null'}`",
        )
    root = Ext4(image, system.root.start_bytes)
    swap.check(root, settings)
    known = [line.split()[0] for line in (root.read(LOCALES) or b"").decode(errors="replace").splitlines() if line]
    if known and settings.locale not in (*BUILT_IN_LOCALES, *known):
        raise ImageError(
            f"locale: '{settings.locale}' found, and {system.title} has none of that name",
            hint=did_you_mean(settings.locale, known)[:200],
        )


def personalise(image: Path, system: System, card: Card) -> None:
    """Put one card's settings into an image that has the client, and check its root file system.

    Raises:
        ImageError: if there is no room, or it cannot be written.
    """
    root = Ext4(image, system.root.start_bytes)
    tree = service.files(card.service)
    for name, content in card.secrets.items():
        tree.add(f"{service.STATE}/{name}", content, 0o600)
    for name, path in card.data.items():
        tree.add(f"{service.DATA}/{name}", path)
    tree.merge(_nobodys(root))
    tree.merge(swap.files(root, card.settings))
    if card.settings.power_saving:
        tree.merge(_power_saving(root, system))
    boot: dict[str, bytes] = {}
    if system.mechanism == "systemd":
        tree.merge(firstrun.files(card.settings, network=system.network))
    else:
        instance = f"{card.settings.hostname}-{secrets.token_hex(8)}"
        enable = [["sh", "-c", "systemctl enable --now ssh.service || systemctl enable --now sshd.service"]]
        files = cloudinit.files(card.settings, instance, enable if card.settings.ssh_keys else ())
        if system.mechanism == "nocloud":
            tree.folders[SEED] = 0o700
            for name, content in files.items():
                tree.add(f"{SEED}/{name}", content, 0o600)
        else:
            boot |= files
            if system.mechanism == "cloudinit-rpi":
                boot["cmdline.txt"] = firmware.with_words(
                    _boot_file(image, system, "cmdline.txt"), [f"ds=nocloud;i={instance}"]
                )
    if system.firmware:
        boot |= _firmware(image, system, card, boot.get("cmdline.txt"))
    root.put(tree)
    if boot and system.boot:
        Fat(image, system.boot.start_bytes).write(boot)
    root.fsck()


def _nobodys(root: Ext4) -> Tree:
    """What every machine needs its own of, and an image may have baked in: an identity, made at first boot."""
    tree = Tree()
    if (root.read("/etc/machine-id") or b"").strip() not in (b"", b"uninitialized"):
        # Empty, not "uninitialized": that would also set every unit back to what the system's presets say.
        tree.add("/etc/machine-id", "")
    return tree


def _power_saving(root: Ext4, system: System) -> Tree:
    """What saves power besides what config.txt says."""
    tree = Tree()
    if system.network == "NetworkManager":
        tree.add("/etc/NetworkManager/conf.d/90-hidenseek.conf", "[connection]\nwifi.powersave=3\n")  # on
    if root.kind("/usr/lib/systemd/system/hciuart.service"):  # it waits for Bluetooth, in vain
        tree.links["/etc/systemd/system/hciuart.service"] = "/dev/null"
    return tree


def _firmware(image: Path, system: System, card: Card, command_line: bytes | None) -> dict[str, bytes]:
    """Files that a Raspberry Pi's firmware reads."""
    before = command_line or _boot_file(image, system, "cmdline.txt")
    after = firmware.command_line(before, card.settings)
    if system.mechanism == "systemd" and not system.firstrun_unit:
        after = firstrun.command_line(after)
    said = _boot_file(image, system, "config.txt").decode(errors="surrogateescape")
    config = firmware.config(said, card.settings)
    return {"cmdline.txt": after, "config.txt": config.encode(errors="surrogateescape")}


def _boot_file(image: Path, system: System, name: str) -> bytes:
    assert system.boot is not None
    found = Fat(image, system.boot.start_bytes).read(name)
    if found is None:
        raise ImageError(f"no {name} on the boot partition", where=str(image), hint="Download the image again")
    return found
